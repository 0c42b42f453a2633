"""How far a pretrained network sees on a folder: AUROC of a Gaussian at each place of its features.

python benchmarks/features.py data/kolektor [--side 224] [--half validation]

EfficientNet-Lite0, its maps at strides of 8 and 16, each of length 1 at each place and averaged
over 3 x 3; less the image's own mean, so that light and print count less; at each place a Gaussian
(PaDiM, Defard et al. 2021, section 3) whose covariance is shrunk towards that of all places; the
mean of the highest 1 % of Mahalanobis distances. FOLDER has the layout of MVTec AD. The halves are
those of detection.py. The bank is kept in int8, as a run would keep it. Not part of the score yet.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from anogan.data.scale import typical_size  # noqa: E402
from anogan.features.backbone import Backbone  # noqa: E402
from utils import load_image  # noqa: E402

MOST = 400  # training images
STEP = 32  # pixels: sides are multiples of it
FINE = 192  # pixels: below this shorter side the places are those of the finer map
SHRINKAGE = 30.0  # the pooled covariance counts as much as so many images
RIDGE = 0.01  # of the features' variance, added to each
LEVELS = 127  # of int8
HIGHEST = 0.01  # of the places
BATCH = 8


def describe(backbone: Backbone, images: tf.Tensor, fine: bool) -> tf.Tensor:
    """Return what is at each place of images, less its mean: (b, H, W, 3) -> (b, y, x, d)."""
    first, second = (
        tf.math.l2_normalize(tf.nn.avg_pool2d(features, 3, 1, "SAME"), axis=-1, epsilon=1e-12)
        for features in backbone(images)
    )
    if fine:
        second = tf.image.resize(second, first.shape[1:3])
    else:
        first = tf.nn.avg_pool2d(first, 2, 2, "SAME")
    found = tf.concat([first, second], -1)
    return found - tf.reduce_mean(found, axis=(1, 2), keepdims=True)


def fit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return means (p, d), whitenings (p, d, d) and the bytes they take, of (n, p, d)."""
    n, places, d = x.shape
    mean, lower, packed = x.mean(axis=0), np.empty((places, d, d), np.float32), 0
    for p in range(places):
        lower[p] = np.cov(x[:, p], rowvar=False, bias=True)
    pooled = lower.mean(axis=0, dtype=np.float64)
    ridge = RIDGE * np.trace(pooled) / d * np.eye(d)
    for p in range(places):
        shrunk = (n * lower[p] + SHRINKAGE * pooled) / (n + SHRINKAGE) + ridge
        exact = np.linalg.cholesky(np.linalg.inv(shrunk))
        scale = np.abs(exact).max(axis=0, keepdims=True) / LEVELS
        lower[p] = np.rint(exact / scale) * scale
        packed += d * (d + 1) // 2 + 8 * d
    return mean, lower, packed


def values(x: np.ndarray, mean: np.ndarray, lower: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return each image's mean of the highest distances: (n, p, d) -> (n,)."""
    far = np.stack([((x[:, p] - mean[p]) @ lower[p]) ** 2 for p in range(len(mean))], axis=1)
    maps = np.sqrt(far.sum(axis=-1)).reshape(len(x), *size, 1).astype(np.float32)
    flat = tf.nn.avg_pool2d(maps, 3, 1, "SAME").numpy().reshape(len(x), -1)
    count = max(1, int(HIGHEST * flat.shape[1]))
    return np.sort(flat, axis=1)[:, -count:].mean(axis=1)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("folder", type=Path)
    p.add_argument("--side", type=int, default=224, help="The shorter side, pixels.")
    p.add_argument("--half", choices=("test", "validation", "all"), default="validation")
    args = p.parse_args()
    train = sorted(path for path in (args.folder / "train").rglob("*") if path.is_file())
    train = [train[i] for i in np.linspace(0, len(train) - 1, min(len(train), MOST)).astype(int)]
    test = sorted(path for path in (args.folder / "test").rglob("*") if path.is_file())
    test = {"all": test, "validation": test[::2], "test": test[1::2]}[args.half]
    labels = [path.parent.name not in ("good", "normal") for path in test]
    usual = typical_size(train[:30])
    height, width = (
        max(STEP, round(side * args.side / min(usual) / STEP) * STEP) for side in usual
    )
    backbone, fine = Backbone("lite0"), min(height, width) < FINE
    graph = tf.function(lambda images: describe(backbone, images, fine))
    size = (0, 0)

    def described(paths: list[Path]) -> np.ndarray:
        nonlocal size
        found = []
        for i in range(0, len(paths), BATCH):
            images = np.stack([load_image(path, height, width, 3) for path in paths[i : i + BATCH]])
            found.append(graph(tf.constant(images)).numpy())
        size = found[0].shape[1:3]
        return np.concatenate(found).reshape(len(paths), -1, found[0].shape[-1])

    started = time.monotonic()
    known = described(train)
    mean, lower, packed = fit(known)
    fitted = time.monotonic()
    scores = values(described(test), mean, lower, size)
    each = (time.monotonic() - fitted) / len(test)
    print(
        f"{args.folder.name}, {args.half}: AUROC {roc_auc_score(labels, scores):.3f} of "
        f"{len(test)} images; {len(train)} training images of {height} x {width} pixels, "
        f"{size[0]} x {size[1]} places; fitted in {fitted - started:.0f} s, {1000 * each:.0f} ms "
        f"an image, {packed / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
