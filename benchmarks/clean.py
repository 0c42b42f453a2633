"""Does the ranking of training images find anomalies among them?

python benchmarks/clean.py [--data_dir data] [--sets elpv pcb] [--seeds 0 1 2] [--train]

Adds defective test images to normal training images until they are 5 %, and counts how many of
these are in the tenth with the highest outlier scores: by the memory alone, by the features alone,
and with --train as the tool ranks them after a training with its defaults on that mixture. Appends
a line of JSON a run to results/clean.jsonl; what is there already is not run again.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np  # noqa: E402
from detection import SETS, read_all  # noqa: E402
from lines import run_once  # noqa: E402

from anogan.config import Config  # noqa: E402
from anogan.data.image_set import ImageSet  # noqa: E402
from anogan.features.feature_bank import FeatureBank  # noqa: E402
from anogan.method import kept_images, memory_bank, suspicious  # noqa: E402

RESULTS = HERE / "results" / "clean.jsonl"
CLASSES = {"elpv": "mono", "pcb": "pcb"}
PLANTED, SHARE = 0.05, 0.1


def mixture(data_dir: str, name: str, seed: int) -> tuple[Config, np.ndarray, np.ndarray]:
    """(settings, images (n, h, w, c), which are anomalous (n,)), at most as many as are ranked."""
    data = SETS[name][0](data_dir, CLASSES[name], "all", seed)
    rng = np.random.default_rng(seed)
    most = round(suspicious.RANKED * (1 - PLANTED))
    normal = read_all(data.train)
    normal = normal[np.sort(rng.permutation(len(normal))[:most])]
    count = round(len(normal) * PLANTED / (1 - PLANTED))
    anomalous = data.images[rng.permutation(np.flatnonzero(data.labels))[:count]]
    order = rng.permutation(len(normal) + len(anomalous))
    images = np.concatenate([normal, anomalous])[order]
    return data.config, images, order >= len(normal)


def found(scores: np.ndarray, planted: np.ndarray) -> float:
    """Of the planted images, the fraction in the tenth with the highest scores."""
    top = np.argsort(-scores, kind="stable")[: round(SHARE * len(scores))]
    return float(planted[top].sum() / planted.sum())


def one_run(data_dir: str, name: str, seed: int, train: bool) -> dict:
    config, images, planted = mixture(data_dir, name, seed)
    from model import DCGAN

    model, mixed = DCGAN(config), ImageSet.from_array(images)
    small = model.inference.scaled(images)
    alone = memory_bank.bank_alone(small, config.recipe.bank, config.seed)
    known, fitted = kept_images.fit_features(mixed, model.pretrained, config)
    bank = FeatureBank(model.pretrained, known, config.shape[:2])
    far = suspicious.features_alone(
        bank, images, np.array([fitted.get(n, np.nan) for n in mixed.names])
    )
    result = {
        "images": len(images),
        "planted": int(planted.sum()),
        "memory_alone": found(alone, planted),
        "features_alone": found(far, planted),
    }
    if train:
        model.train(mixed, progress=False)
        ranked, _ = suspicious.rank(
            model.detector, model.search(), model.calibrate(), mixed, model.images.fitted
        )
        result["ranked"] = found(-np.argsort(ranked).astype(float), planted)
    return result


def main(args: argparse.Namespace) -> None:
    for name in args.sets:
        for seed in args.seeds:
            key = {"set": name, "class": CLASSES[name], "seed": seed, "trained": args.train}
            run_once(RESULTS, key, partial(one_run, args.data_dir, name, seed, args.train))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--sets", nargs="*", choices=tuple(CLASSES), default=list(CLASSES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--train", action="store_true")
    main(parser.parse_args())
