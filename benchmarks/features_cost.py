"""What the pretrained network costs: training and memory with it against without, and an image.

python benchmarks/features_cost.py [--data_dir data] [--rounds 2]

Trains with `main.py --train` on 200 of ELPV's cells of 300 pixels, with --features lite0 and none
in turn, each in a process of its own: the least time of all rounds counts. Then scores one of
them. Then the features and their Gaussians alone, of one image of 224 x 224 pixels and of eight at
once. Prints a table and writes results/features_cost.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from memory import peak  # noqa: E402

KINDS = "lite0", "none"
IMAGES = 200
SIDE = 224
ROUNDS = 30  # of an image


def command(folder: Path, *flags: str) -> tuple[float, float]:
    """Seconds and peak MiB of main.py with these flags in a folder."""
    started = time.perf_counter()
    mib = peak(folder, "--dataset", "some", *flags)
    return time.perf_counter() - started, mib


def commands(files: list[Path], rounds: int) -> dict[str, dict[str, float]]:
    """What training and scoring one image take with each kind of features."""
    found: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "some").mkdir()
        for path in files[:IMAGES]:
            (folder / "some" / path.name).symlink_to(path)
        (folder / "test_data").mkdir()
        (folder / "test_data" / files[IMAGES].name).symlink_to(files[IMAGES])
        for number in range(rounds):
            for kind in KINDS:
                run = f"{kind}_{number}"
                train = command(folder, "--train", "--features", kind, "--checkpoint_dir", run)
                score = command(folder, "--anomaly_test", "--no-report", "--checkpoint_dir", run)
                now = dict(
                    zip(
                        ("training, s", "training, MiB", "an image, s", "an image, MiB"),
                        (*train, *score),
                        strict=True,
                    )
                )
                size = sum(f.stat().st_size for f in (folder / run).rglob("*"))
                now["run, MiB"] = size / 2**20
                found[kind] = {k: min(v, found[kind].get(k, v)) for k, v in now.items()}
                print(run, {k: round(v, 1) for k, v in now.items()}, flush=True)
    return found


def an_image(count: int) -> float:
    """Median ms an image of 224 x 224 pixels, so many at once: maps and Gaussians."""
    from anogan.runs.start_up import import_tensorflow

    import_tensorflow()
    import numpy as np

    from anogan.features.feature_bank import FeatureBank, Features, fit
    from anogan.recipe import FeatureRecipe

    rng = np.random.default_rng(0)
    features = Features("lite0", (SIDE, SIDE), FeatureRecipe())
    normal = rng.uniform(-1, 1, (16, SIDE, SIDE, 1)).astype(np.float32)
    known, _ = fit(features, [normal[:8], normal[8:]])
    bank, some = FeatureBank(features, known, (64, 64)), normal[:count]
    bank.compare(some)
    taken = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        bank.compare(some)[1].numpy()
        taken.append((time.perf_counter() - started) / count * 1000)
    return statistics.median(taken)


def main() -> None:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--data_dir", type=Path, default=HERE.parent / "data")
    p.add_argument("--rounds", type=int, default=2)
    args = p.parse_args()
    files = sorted((args.data_dir.resolve() / "elpv" / "mono" / "train").rglob("*.png"))
    # first: to a process that is started, the peak memory of this one counts
    found = commands(files, args.rounds)
    alone = {f"{n} of {SIDE} x {SIDE} at once, ms an image": an_image(n) for n in (1, 8)}
    print(f"\n{'':16}{'with':>9}{'without':>9}{'ratio':>7}")
    for name, value in found["lite0"].items():
        other = found["none"][name]
        print(f"{name:16}{value:9.1f}{other:9.1f}{value / other:7.2f}")
    for name, value in alone.items():
        print(f"{name}: {value:.1f}")
    results = HERE / "results" / "features_cost.json"
    results.write_text(json.dumps({**found, "alone": alone}, indent=1) + "\n")


if __name__ == "__main__":
    main()
