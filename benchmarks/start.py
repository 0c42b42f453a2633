"""How long a question takes from the command on, beside TensorFlow's import alone.

python benchmarks/start.py [--rounds 5]

Trains for a few steps on 300 pictures of 64 x 64 that it draws, then runs in turn, each in a
process of its own: `import tensorflow`; main.py that scores one image, and 129 of them without and
with the report; and the exported model that scores one by the lines in docs/export-and-page.md
(ONNX Runtime without TensorFlow; needs requirements-export.txt). Of each the least time of all
rounds counts, by the clock and of the processors: other work on the machine only adds to it. A
further process of each kind says where the time goes. Prints a table of ratios to the import and
writes results/start.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process would compile TensorFlow anew
HERE = Path(__file__).resolve().parent
MANUAL = "docs/export-and-page.md"
MAIN = [sys.executable, str(HERE.parent / "main.py"), "--dataset", "parts"]
SCORE = ["--anomaly_test", "--precision", "float32"]
KINDS = {
    "one image": ["--test_dir", "one.png", "--no-report"],
    "129 images": ["--test_dir", "many", "--no-report"],
    "129 images, report": ["--test_dir", "many"],
}
EXPORTED = "one image, exported"
GOALS = {"one image": 1.25, "129 images, report": 2.0, EXPORTED: 0.2}
PHASES = ("import", "load", "calibration", "scoring", "pictures")


def draw(path: Path, seed: int) -> None:
    """A disc of a place and size of its own on a grain, as a file."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64]
    disc = np.hypot(y - rng.normal(32, 3), x - rng.normal(32, 3)) < rng.normal(18, 2)
    image = Image.fromarray(
        (60 + 120 * disc + rng.normal(0, 12, disc.shape)).clip(0, 255).astype("u1")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    image.filter(ImageFilter.GaussianBlur(1)).save(path)


def consumer() -> str:
    """The manual's program that scores images by parts.onnx."""
    blocks = re.findall(r"```python\n(.*?)```", (HERE.parent / MANUAL).read_text(), re.DOTALL)
    return next(block for block in blocks if "onnxruntime" in block)


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds by the clock, and of user and system."""
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    seconds, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system
    return seconds, used - before.children_user - before.children_system


def split(arguments: list[str]) -> dict[str, float]:
    """Processor seconds of the phases of main.py with these arguments, in this process."""
    sys.path.insert(0, str(HERE.parent))
    seconds = dict.fromkeys(PHASES, 0.0)

    def timed(phase: str, function: Callable) -> Callable:
        def call(*values: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return function(*values, **named)
            finally:
                seconds[phase] += time.process_time() - started

        return call

    import main
    from anogan.cli import load, score
    from anogan.cli.parser import parse
    from anogan.runs.start_up import UNUSED, import_tensorflow

    import_tensorflow(*UNUSED)
    from model import DCGAN

    seconds["import"] = time.process_time()
    load.LoadPlan.execute = timed("load", load.LoadPlan.execute)
    DCGAN.keep_calibration = timed("calibration", DCGAN.keep_calibration)
    score.draw_report = timed("pictures", score.draw_report)
    with contextlib.redirect_stdout(io.StringIO()):
        main.run(parse(arguments))
    seconds["scoring"] = time.process_time() - sum(seconds.values())
    return seconds


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--split", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.split:
        print(json.dumps(split(args.split)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(300):
            draw(folder / "data" / "parts" / f"{i:03d}.png", i)
        for i in range(129):
            draw(folder / "many" / f"{i:03d}.png", 1000 + i)
        draw(folder / "one.png", 2000)
        train = ["--train", "--epoch", "0.5", "--window", "0", "--output_height", "64"]
        run([*MAIN, *train, "--precision", "float32"], folder)
        run([*MAIN, "--export", "onnx", "--export_dir", ".", "--precision", "float32"], folder)
        commands = {"import tensorflow": [sys.executable, "-c", "import tensorflow"]}
        commands |= {name: [*MAIN, *SCORE, *flags] for name, flags in KINDS.items()}
        commands[EXPORTED] = [sys.executable, "-c", consumer(), "one.png"]
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for number in range(1, args.rounds + 1):
            print(f"round {number} of {args.rounds}", flush=True)
            for kind, command in commands.items():
                times[kind].append(run(command, folder))
        phases = {}
        for kind, flags in KINDS.items():
            inner = [sys.executable, __file__, "--split", *MAIN[2:], *SCORE, *flags]
            told = subprocess.run(inner, cwd=folder, check=True, capture_output=True, text=True)
            phases[kind] = json.loads(told.stdout.splitlines()[-1])
    best = {
        kind: [min(column) for column in zip(*rows, strict=True)] for kind, rows in times.items()
    }
    base = best.pop("import tensorflow")
    print(f"import tensorflow: {base[0]:.2f} s by the clock, {base[1]:.2f} s of processors")
    heads = ("clock", "processors", "goal", *PHASES)
    print(f"{'times that':20}" + "".join(f"{head:>12}" for head in heads))
    found: dict[str, Any] = {"rounds": args.rounds, "import_seconds": base}
    for kind, (wall, cpu) in best.items():
        ratios = [wall / base[0], cpu / base[1]]
        parts = {name: seconds / base[1] for name, seconds in phases.get(kind, {}).items()}
        row = [f"{v:.2f}" for v in ratios] + [str(GOALS.get(kind, ""))]
        row += [f"{parts[name]:.2f}" for name in PHASES if name in parts]
        print(f"{kind:20}" + "".join(f"{value:>12}" for value in row))
        found[kind] = {"clock": ratios[0], "processors": ratios[1], "phases": parts}
    (HERE / "results" / "start.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
