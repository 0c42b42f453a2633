"""Scoring with two workers, a core each, against one worker on one core and one on both.

python benchmarks/workers.py [--data_dir data] [--images 20000] [--search encoder]

Trains shortly on MNIST's 8s and scores a folder of so many of its training images as PNG files by
main.py --anomaly_test. Gross is the whole command, net what is left when the time for a tenth of
the images, mostly start and end, is taken off. Prints both as
ratios and writes results/workers.json.
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

from PIL import Image

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process would compile TensorFlow anew
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from anogan.data.mnist import mnist  # noqa: E402

TEAMS = {
    "one worker on one core": [{0}],
    "one worker on both cores": [{0, 1}],
    "two workers": [{0}, {1}],
}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def run(folder, team: list[set[int]], *flags) -> float:
    """Seconds that main.py takes with these flags; worker i has the cores team[i] for itself."""
    addresses = [f"localhost:{free_port()}" for _ in team]
    command = [sys.executable, str(HERE.parent / "main.py"), "--dataset", "mnist"]
    command += ["--normal_class", "8", *map(str, flags)]
    command += ["--strategy", "multiworker"] if len(team) > 1 else []
    started, running = time.monotonic(), []
    for i, cores in enumerate(team):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": i}}
        running.append(
            subprocess.Popen(
                command,
                cwd=folder,
                env={
                    **os.environ,
                    "TF_NUM_INTRAOP_THREADS": str(len(cores)),
                    **({"TF_CONFIG": json.dumps(task)} if len(team) > 1 else {}),
                },
                stdout=subprocess.DEVNULL,
                preexec_fn=lambda cores=cores: os.sched_setaffinity(0, cores),
            )
        )
    if any([p.wait() for p in running]):
        raise SystemExit("a worker failed")
    return time.monotonic() - started


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data_dir", type=Path, default=Path("data"))
    p.add_argument("--images", type=int, default=20_000)
    p.add_argument("--search", default="encoder")
    args = p.parse_args()
    data = "--data_dir", args.data_dir.resolve()
    few, seconds = args.images // 10, {}
    with tempfile.TemporaryDirectory() as folder:
        digits = mnist(args.data_dir, "train", limit=args.images)
        images, _ = digits.read(range(len(digits)))
        for i, image in enumerate(images):
            for part in ("all", "few")[: 1 + (i < few)]:
                path = Path(folder, part, f"{i:05d}.png")
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(image.squeeze()).save(path)
        run(folder, [{0, 1}], *data, "--train", "--epoch", 2, "--train_size", 1000)
        score = *data, "--anomaly_test", "--search", args.search, "--test_dir"
        run(folder, [{0, 1}], *score, "few")  # what normal images score is kept from here on
        for name, team in TEAMS.items():
            both = [run(folder, team, *score, part) for part in ("few", "all")]
            seconds[name] = {"few": both[0], "all": both[1]}
            print(
                f"{name}: {few} images {both[0]:.0f} s, {len(images)} {both[1]:.0f} s", flush=True
            )
    gross = {name: s["all"] for name, s in seconds.items()}
    net = {name: s["all"] - s["few"] for name, s in seconds.items()}
    found = {"images": len(images), "search": args.search, "seconds": seconds}
    for kind, times in (("gross", gross), ("net", net)):
        found[kind] = {n: times[n] / times["two workers"] for n in TEAMS if n != "two workers"}
        told = ", ".join(f"{ratio:.2f} times {name}" for name, ratio in found[kind].items())
        print(f"two workers, {kind}: {told}")
    (HERE / "results" / "workers.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
