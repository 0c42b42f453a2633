"""Peak memory of training on many files against few, as a ratio.

python benchmarks/memory.py FOLDER_OF_JPEGS [--counts 2000 200000] [--steps 20]

Makes folders of hard links to the images, runs main.py --train --crop on each, and prints the peak
resident memory of each run.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MAIN = Path(__file__).resolve().parent.parent / "main.py"
BATCH = 64


def peak(folder: Path, name: str, count: int, steps: int) -> int:
    """MiB at most resident while training on folder/name."""
    words = ["--dataset", name, "--data_dir", ".", "--input_height", "108", "--crop", "--train"]
    words += ["--epoch", str(steps * BATCH / count), "--batch_size", str(BATCH)]
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(
            [sys.executable, str(MAIN), *words], cwd=folder, stdout=nowhere, stderr=nowhere
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"training on {count} files failed")
    return usage.ru_maxrss // 1024


def main(args) -> None:
    faces = sorted(Path(args.folder).rglob("*.jpg"))
    peaks = []
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        for count in args.counts:
            folder = Path(temporary) / f"files{count}"
            folder.mkdir()
            for i, face in zip(range(count), itertools.cycle(faces), strict=False):
                os.link(face, folder / f"{i:06d}.jpg")
            peaks.append(peak(Path(temporary), folder.name, count, args.steps))
            print(f"{count:,} files: {peaks[-1]} MiB", flush=True)
    print(f"ratio {peaks[-1] / peaks[0]:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--counts", type=int, nargs="*", default=[2_000, 200_000])
    parser.add_argument("--steps", type=int, default=20)
    main(parser.parse_args())
