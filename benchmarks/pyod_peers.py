"""PyOD's AnoGAN and DeepSVDD, with their defaults, on one-class MNIST.

python benchmarks/pyod_peers.py [--classes 8] [--data_dir data]

Needs requirements-pyod.txt beside this file. PyOD's AnoGAN searches z for each training image once
more after its training, one image at a time, so both see 1,000 training and 1,000 test images,
evenly spaced, as vectors in [0, 1]. Writes results/pyod.jsonl; what is there is not run again.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from lines import run_once
from sklearn.metrics import roc_auc_score

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from anogan.data.choosing import thin  # noqa: E402
from anogan.data.image_set import ImageSet  # noqa: E402
from anogan.data.mnist import mnist  # noqa: E402

IMAGES = 1000
RESULTS = HERE / "results" / "pyod.jsonl"


def detectors(features: int, seed: int) -> dict:
    """As PyOD makes them; their seeds are torch's."""
    import torch
    from pyod.models.anogan import AnoGAN
    from pyod.models.deep_svdd import DeepSVDD

    torch.manual_seed(seed)
    return {
        "PyOD AnoGAN": AnoGAN(),
        "PyOD DeepSVDD": DeepSVDD(n_features=features, random_state=seed, verbose=0),
    }


def some(images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """(vectors (n, h w) in [0, 1], places) of evenly spaced images."""
    places = thin(np.arange(len(images)), IMAGES)
    pixels = images.read(places)[0]
    return pixels.reshape(len(pixels), -1) / 255.0, places


def one_run(detector, train: np.ndarray, queries: np.ndarray, labels: np.ndarray) -> dict:
    started = time.monotonic()
    scores = detector.fit(train).decision_function(queries)
    seconds = time.monotonic() - started
    return {"auroc": float(roc_auc_score(labels, scores)), "seconds": seconds}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data_dir", default="data")
    p.add_argument("--classes", type=int, nargs="*", default=[8])
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    for digit in args.classes:
        test = mnist(args.data_dir, "test", normal_class=digit)
        train, _ = some(mnist(args.data_dir, "train", normal_class=digit))
        queries, places = some(test)
        for method, detector in detectors(train.shape[1], args.seed).items():
            key = {"class": digit, "seed": args.seed, "method": method}
            run_once(RESULTS, key, partial(one_run, detector, train, queries, test.labels[places]))


if __name__ == "__main__":
    main()
