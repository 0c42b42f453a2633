"""Peak memory of training and of scoring on many files against few, as ratios.

python benchmarks/memory.py FOLDER_OF_JPEGS [--counts 2000 200000] [--steps 20]

Makes folders of hard links to the images, runs main.py --train --crop on each, then main.py
--anomaly_test with the first run's model, and prints the peak resident memory of each. Writes
results/memory.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAIN = HERE.parent / "main.py"
BATCH = 64  # the default


def peak(folder: Path, *words) -> int:
    """MiB at most resident while main.py does this in this folder."""
    command = [sys.executable, str(MAIN), "--data_dir", ".", *map(str, words)]
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, cwd=folder, stdout=nowhere, stderr=nowhere)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss // 1024


def main(args) -> None:
    faces = sorted(Path(args.folder).rglob("*.jpg"))
    found = {"training": {}, "scoring": {}}
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        root = Path(temporary)
        for count in args.counts:
            name = f"files{count}"
            (root / name).mkdir()
            for i, face in zip(range(count), itertools.cycle(faces), strict=False):
                os.link(face, root / name / f"{i:06d}.jpg")
            epochs = args.steps * BATCH / count
            train = "--train", "--input_height", 108, "--crop", "--epoch", epochs
            found["training"][count] = peak(root, "--dataset", name, *train)
            model = "--dataset", f"files{args.counts[0]}", "--anomaly_test"
            score = "--test_dir", name, "--test_result_dir", f"result{count}"
            found["scoring"][count] = peak(root, *model, *score)
            for job, peaks in found.items():
                print(f"{job}, {count:,} files: {peaks[count]} MiB", flush=True)
    (HERE / "results" / "memory.json").write_text(json.dumps(found, indent=1) + "\n")
    for job, peaks in found.items():
        values = list(peaks.values())
        print(f"{job}: ratio {values[-1] / values[0]:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder")
    parser.add_argument("--counts", type=int, nargs="*", default=[2_000, 200_000])
    parser.add_argument("--steps", type=int, default=20)
    main(parser.parse_args())
