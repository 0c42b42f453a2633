"""How well the tool detects, beside PCA: one-class MNIST, or ELPV solar cells.

python benchmarks/detection.py mnist [--digits 0 1 …] [--seeds 0 1 2] [--searches encoder …]
python benchmarks/detection.py elpv

Trains with the tool's defaults on each normal class, scores all test images once, and writes a
line of JSON a run to benchmarks/results/NAME.jsonl. What is there already is not run again:
start the same command anew after an interruption. --table prints the table of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from anogan.folders import image_folder  # noqa: E402
from anogan.mnist import mnist  # noqa: E402

COMPONENTS = 32  # of the PCA to beat
TARGET_FPR = 0.05
ELPV_SIDE = 64


def mnist_sets(data_dir, digit):
    """The digit's training images, and all 10,000 test images with labels."""
    return [mnist(data_dir, split, normal_class=int(digit)) for split in ("train", "test")]


def elpv_sets(data_dir, kind):
    """Normal training cells of a kind, mono or poly; test cells, normal and defect."""
    folder = Path(data_dir) / "elpv" / kind
    size = ELPV_SIDE, ELPV_SIDE, 1
    return (
        image_folder(folder / "train", None, *size),
        image_folder(folder / "test", None, *size, labelled=True),
    )


BENCHMARKS = {
    "mnist": (mnist_sets, [str(d) for d in range(10)]),
    "elpv": (elpv_sets, ["mono", "poly"]),
}


def read_all(images) -> np.ndarray:
    return images.read(np.arange(len(images)))[0]


def pca_auroc(train, test) -> float:
    """Reconstruction error of PCA fitted to the training images."""
    x, queries = (read_all(s).reshape(len(s), -1) / 255.0 for s in (train, test))
    pca = PCA(COMPONENTS, random_state=0).fit(x)
    error = ((queries - pca.inverse_transform(pca.transform(queries))) ** 2).sum(axis=1)
    return float(roc_auc_score(test.labels, error))


def one_run(train, test, seed: int, searches, settings: dict) -> dict:
    """Trains once and scores the test images in each way; times in seconds."""
    from anogan.config import preset
    from anogan.distributed import resolve_precision
    from model import DCGAN

    height, width, channels = train.shape
    config = preset("default", height=height, width=width, channels=channels, seed=seed, **settings)
    started, precision = time.monotonic(), resolve_precision("auto")
    model = DCGAN(config, precision).train(train, progress=False)
    seconds = time.monotonic() - started
    found = {"precision": precision, "train_seconds": seconds, "searches": {}}
    images = read_all(test)
    for search in searches:
        started = time.monotonic()
        calibration = model.calibrate(search)
        detection = model.anomaly_detector(images, search, batch_size=256, calibration=calibration)
        seconds = time.monotonic() - started
        normal = calibration.normal_scores
        scores = detection.score
        kinds = np.asarray(test.kinds)
        found["searches"][search] = {
            "auroc": float(roc_auc_score(test.labels, scores)),
            "residual": float(roc_auc_score(test.labels, detection.residual)),
            "discrimination": float(roc_auc_score(test.labels, detection.discrimination)),
            "realism": float(roc_auc_score(test.labels, -detection.realism)),
            "seconds": seconds,
            "observed_fpr": float(np.mean(scores[test.labels == 0] > normal.threshold(TARGET_FPR))),
            "auroc_by_kind": {
                str(kind): float(roc_auc_score(test.labels[chosen], scores[chosen]))
                for kind in sorted(set(kinds[test.labels == 1]))
                for chosen in [(test.labels == 0) | (kinds == kind)]
            },
        }
    return found


def run(args, name, classes, seeds, results: Path) -> None:
    """Every run that is asked for and not in the results yet."""
    sets = BENCHMARKS[name][0]
    done = load(results)
    for seed in seeds:
        for normal in classes:
            there = {
                s for r in done if (r["normal"], r["seed"]) == (normal, seed) for s in r["searches"]
            }
            missing = [s for s in args.searches if s not in there]
            if not missing:
                continue
            train, test = sets(args.data_dir, normal)
            try:
                found = one_run(train, test, seed, missing, args.settings)
            except Exception as error:  # a failed run is a result, too
                found = {"failed": f"{type(error).__name__}: {error}", "searches": {}}
            line = {"normal": normal, "seed": seed, "pca": pca_auroc(train, test), **found}
            results.parent.mkdir(parents=True, exist_ok=True)
            with open(results, "a") as file:
                file.write(json.dumps(line) + "\n")
            said = {s: round(v["auroc"], 4) for s, v in line["searches"].items()}
            print(
                f"{normal} seed {seed}: {said or line['failed']}, PCA {line['pca']:.4f}", flush=True
            )


def load(results: Path) -> list[dict]:
    return (
        [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    )


def table(results: Path) -> str:
    """Markdown: AUROC of each class, mean and standard deviation over seeds, and of the mean."""
    lines = load(results)
    classes = sorted({line["normal"] for line in lines})
    rows = [["", *classes, "mean", "worst"], ["-"] * (len(classes) + 3)]
    pca = {line["normal"]: line["pca"] for line in lines}
    values = [pca[c] for c in classes]
    rows.append([f"PCA, {COMPONENTS} components", *(f"{v:.3f}" for v in values), *_ends(values)])
    for search in ("encoder", "hybrid", "gradient"):
        found = {
            (line["normal"], line["seed"]): line["searches"][search]["auroc"]
            for line in lines
            if search in line["searches"]
        }
        if not found:
            continue
        cells, means = [], []
        for c in classes:
            over = [v for (normal, _), v in found.items() if normal == c]
            means.append(statistics.mean(over) if over else float("nan"))
            cells.append(f"{means[-1]:.3f} ± {statistics.pstdev(over):.3f}" if over else "")
        seeds = len({seed for _, seed in found})
        rows.append([f"{search}, {seeds} seeds", *cells, *_ends(means)])
    failed = [f"{line['normal']} seed {line['seed']}" for line in lines if "failed" in line]
    text = "\n".join("|" + "|".join(row) + "|" for row in rows)
    good = [line for line in lines if "failed" not in line]
    seconds = [line["train_seconds"] for line in good]
    if seconds:
        text += (
            f"\n\nTraining took {statistics.median(seconds):.0f} s (at most {max(seconds):.0f} s)."
        )
    rates = [
        v["observed_fpr"] for line in good for s, v in line["searches"].items() if s == "encoder"
    ]
    if rates:
        text += (
            f" Observed false positive rate at the {TARGET_FPR:.0%} threshold: mean "
            f"{statistics.mean(rates):.3f}, from {min(rates):.3f} to {max(rates):.3f}."
        )
    return text + (f"\n\nFailed: {', '.join(failed)}" if failed else "\n\nNo run failed.")


def _ends(values):
    return f"**{statistics.mean(values):.4f}**", f"{min(values):.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=tuple(BENCHMARKS))
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--digits", "--classes", nargs="*", dest="classes")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--searches", nargs="*", default=["encoder"])
    parser.add_argument("--results", type=Path, help="results/NAME.jsonl beside this file")
    parser.add_argument("--settings", type=json.loads, default={}, help='JSON: {"steps": 500}')
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    path = arguments.results or HERE / "results" / f"{arguments.name}.jsonl"
    if not arguments.table:
        chosen = arguments.classes or BENCHMARKS[arguments.name][1]
        run(arguments, arguments.name, chosen, arguments.seeds, path)
    print(table(path))
