"""How well the tool detects, beside what takes seconds: on digits, cells, faces, parts, boards.

python benchmarks/detection.py all [--seeds 0 1 2]
python benchmarks/detection.py mnist|elpv|kolektor|pcb|celebA|mvtec|visa [--classes 8]
    [--part validation] [--data_dir data]

Trains with the tool's defaults, as `python main.py --train` would, scores the test images once,
and writes a line of JSON a run to results/detection.jsonl. What is there already is not run
again: start the same command anew after an interruption. --table prints what is there.
Peers: reconstruction error of PCA, and the mean distance to the five nearest training images by
HOG (scikit-image; requirements.txt beside this file).

Of elpv, kolektor and pcb, --part validation takes the even-numbered half of the test files, by
which settings were chosen; the default, test, takes the others, which decided nothing. The last
tenth of celebA's faces is the test, half of it with one planted patch each (localisation.py). mvtec
and visa are those of their categories that are there; mvtec's figures stand beside published.py's.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
from lines import append, load_lines  # noqa: E402
from localisation import KINDS, plant  # noqa: E402
from published import mvtec_table  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402
from sklearn.neighbors import NearestNeighbors  # noqa: E402

from anogan.cli import score  # noqa: E402
from anogan.cli.options import Options  # noqa: E402
from anogan.cli.train import prepare  # noqa: E402
from anogan.config import Config  # noqa: E402
from anogan.data import mnist  # noqa: E402
from anogan.data.image_set import ImageSet  # noqa: E402
from anogan.data.layouts import layout  # noqa: E402
from anogan.evaluation import metrics  # noqa: E402
from anogan.method.scoring import (  # noqa: E402
    TERMS,
    base_weights,
    fit_weights,
)

RESULTS = HERE / "results" / "detection.jsonl"
COMPONENTS, NEIGHBOURS = 32, 5  # of the peers
PEER_SIDE = 64  # pixels at which they see images
TARGET_FPR = 0.05
MEASURES = ("auroc", "pixel_auroc", "au_pro")  # of a search
MASKED = 1000  # images at most by which pixels are measured, evenly spaced
# The score without some of its terms: what each lead is worth, its weights fitted anew
WITHOUT = {
    "without U-Net's pixels": {"pixels"},
    "without memory": {"memory"},
    "without G and E": {"residual", "discrimination", "peak", "reconstruction_realism"},
    "memory alone": set(TERMS) - {"memory"},
    "without features": {"features"},
    "features alone": set(TERMS) - {"features"},
}


@dataclass
class Data:
    """One normal class: how the tool would train on it, and what it is tested on."""

    config: Config
    train: ImageSet
    images: np.ndarray  # (n, h, w, c) uint8
    labels: np.ndarray  # (n,) 0 normal, 1 anomalous
    masks: Callable[[int], np.ndarray] | None = None  # of image i, bool


def folder(data_dir: str, name: str, part: str, seed: int, **settings) -> Data:
    """A data set in a folder, as main.py takes it."""
    options = Options(dataset=name, data_dir=data_dir, seed=seed, train=True, **settings)
    training = prepare(options)
    results = {"anomaly_test": True, "test_result_dir": str(HERE / "results")}
    test = score.prepare(dataclasses.replace(options, **results), training, sys.stdout)
    chosen = _half(test.images, part)
    images = test.images.subset(chosen)
    masks = test.masks
    return Data(
        training.config,
        training.images,
        read_all(images),
        images.labels,
        (lambda i: masks.read(chosen[i])) if masks else None,
    )


def _half(images: ImageSet, part: str) -> np.ndarray:
    """Places of a folder's even-numbered files (validation), of the odd ones (test), or of all."""
    if part == "all":
        return np.arange(len(images))
    number: dict[str, int] = {}
    chosen = []
    for i in np.argsort(images.names):
        where = str(Path(images.names[i]).parent)
        number[where] = number.get(where, -1) + 1
        if number[where] % 2 == (part == "test"):
            chosen.append(i)
    return np.sort(chosen)


def digits(data_dir: str, digit: str, part: str, seed: int) -> Data:
    options = Options(
        dataset="mnist", data_dir=data_dir, normal_class=int(digit), seed=seed, train=True
    )
    training = prepare(options)
    test = mnist.mnist(data_dir, "test", normal_class=int(digit))
    return Data(training.config, training.images, read_all(test), test.labels)


def faces(data_dir: str, name: str, part: str, seed: int) -> Data:
    """Half of the unseen faces have a patch that is pasted, blurred, erased, or a scratch.

    They are planted, and seen by all, at 64 pixels, as in localisation.py.
    """
    settings = {"crop": True, "input_height": 108}
    options = Options(dataset=name, data_dir=data_dir, seed=seed, train=True, **settings)
    training = prepare(options)
    config = dataclasses.replace(training.config, view_height=0, view_width=0)
    everything = training.images.at(config.shape)
    cut = len(everything) * 9 // 10
    train = everything.subset(np.arange(cut))
    unseen = read_all(everything.subset(np.arange(cut, len(everything))))
    images, masks = unseen.copy(), np.zeros(unseen.shape[:3], bool)
    for i, kind in enumerate(KINDS):
        some = np.arange(len(unseen))[1::2][i :: len(KINDS)]
        images[some], masks[some] = plant(unseen[some], kind)
    return Data(config, train, images, masks.any(axis=(1, 2)).astype(int), lambda i: masks[i])


def categories(data_dir: str, name: str) -> list[str]:
    """Those of mvtec or visa that are there."""
    return sorted(path.name for path in Path(data_dir, name).glob("*") if layout(path))


# Name: (what loads a class, its classes or None for the folders that are there, which part)
SETS: dict[str, tuple[Callable[..., Data], list[str] | None, str]] = {
    "mnist": (digits, [str(d) for d in range(10)], "all"),
    "elpv": (lambda d, name, *rest: folder(d, f"elpv/{name}", *rest), ["mono", "poly"], "test"),
    "kolektor": (folder, ["kolektor"], "test"),
    "pcb": (folder, ["pcb"], "test"),
    "celebA": (faces, ["celebA"], "all"),
    "mvtec": (lambda d, name, *rest: folder(d, f"mvtec/{name}", *rest), None, "all"),
    "visa": (lambda d, name, *rest: folder(d, f"visa/{name}", *rest), None, "all"),
}


def read_all(images: ImageSet) -> np.ndarray:
    return images.read(np.arange(len(images)))[0]


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    return float(roc_auc_score(labels, scores))


def peers(data: Data) -> dict[str, float]:
    """AUROC of PCA's reconstruction error, and of the nearest neighbours by HOG."""
    from PIL import Image
    from skimage.feature import hog

    def small(images: np.ndarray) -> np.ndarray:
        side = min(PEER_SIDE, *images.shape[1:3])
        grey = np.round(images.mean(axis=-1)).astype(np.uint8)
        resized = [Image.fromarray(g).resize((side, side), Image.Resampling.BICUBIC) for g in grey]
        return np.stack([np.asarray(image) for image in resized]) / 255.0

    x, queries = small(read_all(data.train)), small(data.images)
    cell = 8 if x.shape[1] >= PEER_SIDE else 4
    flat, q = x.reshape(len(x), -1), queries.reshape(len(queries), -1)
    pca = PCA(COMPONENTS, random_state=0).fit(flat)
    error = ((q - pca.inverse_transform(pca.transform(q))) ** 2).sum(axis=1)
    found, asked = (
        np.stack([hog(i, 9, (cell, cell), (2, 2), feature_vector=True) for i in images])
        for images in (x, queries)
    )
    far = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(found).kneighbors(asked)[0].mean(axis=1)
    return {"PCA-32": auroc(data.labels, error), "5-NN on HOG": auroc(data.labels, far)}


def one_run(data: Data, searches: list[str]) -> dict:
    """Trains once and scores the test images in each way; times in seconds."""
    from anogan.runs.distributed import resolve_precision
    from model import DCGAN

    precision, started = resolve_precision("auto"), time.monotonic()
    model = DCGAN(data.config, precision).train(data.train, progress=False)
    found = {
        "precision": precision,
        "size": [*data.config.shape, data.config.window],
        "train_images": len(data.train),
        "train_seconds": time.monotonic() - started,
        "searches": {},
    }
    for search in searches:
        started = time.monotonic()
        calibration = model.calibrate(search)
        calibrated = time.monotonic() - started
        model.anomaly_detector(data.images[:64], search, batch_size=256, calibration=calibration)
        scores, pixels = [], metrics.PixelMeasures(calibration.pixel_threshold(TARGET_FPR))
        step = max(1, 256 // len(model.inference.windows)) * 4
        every = max(1, len(data.images) // MASKED)
        seconds = 0.0
        for i in range(0, len(data.images), step):
            started = time.monotonic()
            detection = model.anomaly_detector(
                data.images[i : i + step], search, batch_size=256, calibration=calibration
            )
            seconds += time.monotonic() - started
            scores.append(detection.score)
            for k, anomaly_map in enumerate(detection.anomaly_map, i):
                if data.masks and (k % every == 0 or data.labels[k]):
                    pixels.add(anomaly_map, data.masks(k))
        score = np.concatenate(scores)
        normal = calibration.normal_scores
        found["searches"][search] = {
            "auroc": auroc(data.labels, score),
            **pixels.measures(),
            "expected": calibration.expected,
            "weights": calibration.weights,
            "calibration_seconds": calibrated,
            "ms_per_image": 1e3 * seconds / len(data.images),
            "observed_fpr": float(np.mean(score[data.labels == 0] > normal.threshold(TARGET_FPR))),
        }
    found["without"] = without(model, data)
    return found


def without(model, data: Data) -> dict[str, float]:
    """AUROC of the encoder's score without some terms, whose weights are fitted anew."""
    detector, calibration = model.detector, model.calibrate("encoder")
    search = model.search("encoder")
    held_out = model.images.held_out
    normal, test, *planted = (
        calibration.worst(detector.terms(images, search, calibration.search_weights, 256, TERMS))
        for images in (held_out, data.images, *detector.planted(held_out))
    )
    base = base_weights(data.config)
    found = {"usual weights": auroc(data.labels, test @ np.array([base[t] for t in TERMS]))}
    for name, left_out in WITHOUT.items():
        some = {t: 0.0 if t in left_out else base[t] for t in TERMS}
        weights, _ = fit_weights(some, normal, planted, data.config.recipe.merit_power)
        found[name] = auroc(data.labels, test @ np.array([weights[t] for t in TERMS]))
    return found


def run(args, sets: list[str]) -> None:
    """Every run that is asked for and not in the results yet."""
    for seed in args.seeds:
        for name in sets:
            load, classes, part = SETS[name]
            part = args.part or part
            for which in args.classes or classes or categories(args.data_dir, name):
                key = {"set": name, "class": which, "part": part, "seed": seed}
                done = [r for r in load_lines(args.results) if key.items() <= r.items()]
                searches = [s for s in args.searches if not any(s in r["searches"] for r in done)]
                if not searches:
                    continue
                try:
                    data = load(args.data_dir, which, part, seed)
                    line = {**key, "peers": peers(data), **one_run(data, searches)}
                except Exception as error:  # a failed run is a result, too
                    line = {**key, "failed": f"{type(error).__name__}: {error}", "searches": {}}
                append(args.results, line)
                said = {s: round(v["auroc"], 4) for s, v in line["searches"].items()}
                print(key, said or line["failed"], line.get("peers"), flush=True)


def told(values: list[float], digits: int = 3) -> str:
    """Mean and standard deviation over seeds."""
    if not values:
        return ""
    spread = f" ± {statistics.pstdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def tables(lines: list[dict]) -> str:
    """Markdown: all sets; what each part of the score is worth; MVTec AD beside other GANs."""
    lines = [x for x in lines if "failed" not in x]
    rows = [
        "| set | PCA-32 | 5-NN on HOG | search | image AUROC | pixel AUROC | AU-PRO | seeds "
        "| training, s | ms an image |",
        "|-" * 10 + "|",
    ]
    parts = [
        "| set | all | usual weights |" + "|".join(WITHOUT) + "|",
        "|-" * (3 + len(WITHOUT)) + "|",
    ]
    mvtec: dict[str, list[str]] = {}
    for name, of_class, of_runs in grouped(lines):
        for search in ("encoder", "hybrid", "gradient"):
            runs = [r for r in of_runs if search in r["searches"]]
            if not runs:
                continue
            found = [r["searches"][search] for r in runs]
            peer = [told([r["peers"][p] for r in runs[:1]]) for p in ("PCA-32", "5-NN on HOG")]
            measured = [told([f[k] for f in found if k in f]) for k in MEASURES]
            timed = [r["train_seconds"] for r in runs if r["train_seconds"]]  # not if it was paused
            seconds = f"{statistics.median(timed):.0f}" if timed else ""
            ms = f"{statistics.median(f['ms_per_image'] for f in found):.1f}"
            cells = [
                f"{name} {of_class}".strip(),
                *peer,
                search,
                *measured,
                str(len(runs)),
                seconds,
                ms,
            ]
            rows.append("|" + "|".join(cells) + "|")
            if search == "encoder":
                if name == "mvtec":
                    mvtec[of_class] = measured
                names = ("usual weights", *WITHOUT)
                less = [told([r["without"][k] for r in runs if k in r["without"]]) for k in names]
                parts.append("|" + "|".join([cells[0], measured[0], *less]) + "|")
    beside = [mvtec_table(mvtec)] if mvtec else []
    return "\n\n".join(["\n".join(rows), "\n".join(parts), *beside])


def grouped(lines: list[dict]) -> Iterator[tuple[str, str, list[dict]]]:
    """Yields (set, class, its runs); of mnist also the mean of all digits of each seed."""
    keys = dict.fromkeys((r["set"], r["class"], r["part"]) for r in lines)
    for name, which, part in keys:
        runs = [r for r in lines if (r["set"], r["class"], r["part"]) == (name, which, part)]
        told_part = " (validation)" if part == "validation" else ""
        yield name, ("" if which == name else which) + told_part, runs
    for name, least in (("mnist", 10), ("mvtec", 2), ("visa", 2)):
        count, means = mean_of_classes(lines, name)
        if count >= least:
            yield name, "mean of ten" if name == "mnist" else f"mean of {count}", means


def mean_of_classes(lines: list[dict], name: str) -> tuple[int, list[dict]]:
    """How many classes of a set there are, and their mean for each seed that has them all."""
    chosen = [r for r in lines if r["set"] == name and r["part"] == SETS[name][2]]
    of_seed: dict[int, dict[str, dict]] = {}
    for r in chosen:
        of_seed.setdefault(r["seed"], {}).setdefault(r["class"], r)
    count = len({r["class"] for r in chosen})
    return count, [mean_of(list(x.values())) for x in of_seed.values() if len(x) == count]


def mean_of(runs: list[dict]) -> dict:
    """One run whose figures are the means of several."""
    searches = set.intersection(*(set(r["searches"]) for r in runs))

    def mean(values: list) -> float:
        return statistics.mean(values)

    return {
        "peers": {p: mean([r["peers"][p] for r in runs]) for p in runs[0]["peers"]},
        "train_seconds": mean([r["train_seconds"] for r in runs]),
        "without": {k: mean([r["without"][k] for r in runs]) for k in runs[0]["without"]},
        "searches": {
            s: {
                k: mean([r["searches"][s][k] for r in runs])
                for k in (*MEASURES, "ms_per_image")
                if all(k in r["searches"][s] for r in runs)
            }
            for s in searches
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=("all", *SETS))
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--classes", nargs="*")
    parser.add_argument("--part", choices=("validation", "test", "all"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--searches", nargs="*", default=["encoder"])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    by_folder = arguments.name in ("mvtec", "visa") and not (arguments.classes or arguments.table)
    if by_folder and not categories(arguments.data_dir, arguments.name):
        parser.error(f"no {arguments.name} in {arguments.data_dir}: download.py fetches it")
    if not arguments.table:
        run(arguments, list(SETS) if arguments.name == "all" else [arguments.name])
    print(tables(load_lines(arguments.results)))
