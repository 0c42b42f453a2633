"""Scoring with two workers on two cores against one worker on one core: how much faster.

python benchmarks/workers.py [--data_dir data] [--images 10000]

Trains shortly on MNIST's 8s, then runs main.py --anomaly_test by z search, each worker tied to
one core. Prints the whole commands' times, and the throughput that is left when the time for a
tenth of the images, mostly start and end, is taken off. Writes results/workers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def run(folder, workers: int, *flags) -> float:
    """Seconds that main.py takes with these flags; worker i has core i for itself."""
    ports, started, team = [free_port() for _ in range(workers)], time.monotonic(), []
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    for i in range(workers):
        task = {"type": "worker", "index": i}
        extra = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}
        one = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        command = [sys.executable, str(HERE.parent / "main.py"), "--dataset", "mnist"]
        command += ["--normal_class", "8", *map(str, flags)]
        command += ["--strategy", "multiworker"] if workers > 1 else []
        team.append(
            subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **one, **(extra if workers > 1 else {})},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=lambda core=i: os.sched_setaffinity(0, {core}),
            )
        )
    if any([p.wait() for p in team]):
        raise SystemExit("a worker failed")
    return time.monotonic() - started


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data_dir", type=Path, default=Path("data"))
    p.add_argument("--images", type=int, default=10_000)
    args = p.parse_args()
    data = "--data_dir", args.data_dir.resolve()
    with tempfile.TemporaryDirectory() as folder:
        run(folder, 1, *data, "--train", "--epoch", 2, "--train_size", 1000)
        score = *data, "--anomaly_test", "--search", "gradient", "--test_size"
        run(folder, 1, *score, 10)  # what normal images score is kept from here on
        few, seconds = args.images // 10, {}
        for workers in (1, 2):
            for count in (few, args.images):
                seconds[workers, count] = run(folder, workers, *score, count)
                print(
                    f"{workers} workers, {count} images: {seconds[workers, count]:.0f} s",
                    flush=True,
                )
    found = {"images": args.images, "seconds": {f"{w} x {n}": s for (w, n), s in seconds.items()}}
    rates = [(args.images - few) / (seconds[w, args.images] - seconds[w, few]) for w in (1, 2)]
    found["images_per_second"] = rates
    found["throughput_ratio"] = rates[1] / rates[0]
    found["whole_command_ratio"] = seconds[1, args.images] / seconds[2, args.images]
    for name in ("throughput_ratio", "whole_command_ratio"):
        print(f"{name.replace('_', ' ')}: {found[name]:.2f}")
    (HERE / "results" / "workers.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
