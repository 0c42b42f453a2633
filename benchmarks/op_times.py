"""What takes the time in a training step and in the latent search: a profile by operation.

python benchmarks/op_times.py [--size 64x64x3]

"before" is the straightforward TensorFlow version (TensorFlow's and Keras' own layers in the same
precision), "after" what the tool does on this machine. --preset classic for both.
Writes results/op_times.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

from throughput import HERE, SIZES, Ours, Plain, tf

from anogan.runs.distributed import resolve_precision

ROUNDS = 3


def operation_seconds(work) -> Counter:
    """Seconds by kind of operation in one call of `work`, over all threads."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    work()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(ROUNDS):
            work()
        tf.profiler.experimental.stop()
        [path] = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    found = Counter()
    for plane in space.planes:
        if plane.name != "/host:CPU":
            continue
        for line in plane.lines:
            for event in line.events:
                name, _, kind = plane.event_metadata[event.metadata_id].name.partition(":")
                if kind and "::" not in name + ":" + kind and not kind.startswith(" __"):
                    found[kind.split("#")[0].replace("_MklNative", "oneDNN ")] += (
                        event.duration_ps / 1e12 / ROUNDS
                    )
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--size", choices=SIZES, default="64x64x3")
    size = p.parse_args().size
    precision = resolve_precision("auto")
    ours, plain = Ours(size, precision), Plain(size, precision)
    jobs = {
        "search, before": plain.search,
        "search, after": ours.search,
        "training, before": plain.train,
        "training, after": ours.train,
    }
    found = {name: operation_seconds(work) for name, work in jobs.items()}
    for name, seconds in found.items():
        whole = sum(seconds.values())
        print(f"{name}: {whole:.2f} s of operations")
        for kind, value in seconds.most_common(12):
            print(f"  {value / whole:6.1%}  {kind}")
    text = json.dumps({"size": size, **{k: v.most_common(12) for k, v in found.items()}}, indent=1)
    (HERE / "results" / "op_times.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
