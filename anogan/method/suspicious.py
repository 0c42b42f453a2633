"""Is the training folder clean? Its images ranked by outlier score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from anogan.data.choosing import thin
from anogan.data.image_set import ImageSet
from anogan.method.scoring import TERMS, Calibration, Search
from utils import to_float

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from anogan.features.feature_bank import FeatureBank
    from anogan.method.detector import Detector

RANKED = 1000  # training images, evenly spaced: the banks' part grows with their square
SEARCHED = 200  # where z is searched for each
BATCH = 64


def features_alone(bank: FeatureBank, images: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """How far images are from the others in the bank's features: (n, H, W, c) uint8 -> (n,).

    fitted (n,): as found with the bank for those that it is of, NaN for others.
    """
    found = fitted.copy()
    unseen = np.flatnonzero(np.isnan(fitted))
    for i in range(0, len(unseen), BATCH):
        part = unseen[i : i + BATCH]
        found[part] = bank.compare(to_float(images[part]))[0]
    return found


def outlier_scores(
    detector: Detector,
    search: Search,
    calibration: Calibration,
    images: np.ndarray,
    fitted: np.ndarray,
) -> np.ndarray:
    """Outlier scores of training images (n, H, W, c), uint8: (n,).

    How far they are from the others by banks that have not seen them, and how abnormal D's most
    abnormal pixel is, each in spreads of these images; fitted (n,): see features_alone. D's
    part is biased: it was trained on most of them, so outliers among them may score a little lower.
    The weights of the score are not for this: they come from what is planted, which a memory bank
    finds far more easily than what lies among images as one of them.
    """
    if detector.memory is None or len(images) < 4:
        found = detector.terms(images, search, calibration.search_weights, only=TERMS)
        return calibration.scores_of(found)
    from anogan.method.memory_bank import bank_alone

    recipe, small = detector.config.recipe, detector.inference.scaled(images)
    parts = [bank_alone(small, recipe.bank, detector.config.seed)]
    if detector.feature_bank:
        parts.append(features_alone(detector.feature_bank, images, fitted))
    if recipe.synthetic_anomalies:
        parts.append(detector.inference.abnormal_pixels(small))
    return np.sum([_in_spreads(values) for values in parts], axis=0)


def _in_spreads(values: np.ndarray) -> np.ndarray:
    """(n,) -> (n,), whatever a few of them are: 0 in the middle, 80 % between -1.28 and 1.28."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return 2.56 * (values - middle) / max(high - low, 1e-6)


def most(detector: Detector, search: Search) -> int:
    """So many training images are ranked at most: of long strips few, whose banks are large."""
    from anogan.method.memory_bank import most_images

    kept = most_images(detector.config.shape[:2], detector.config.recipe.bank)
    return min(SEARCHED if search.steps else RANKED, kept)


def rank(
    detector: Detector,
    search: Search,
    calibration: Calibration,
    images: ImageSet,
    fitted: Mapping[str, float],
) -> tuple[np.ndarray, np.ndarray]:
    """(indices of training images, the likeliest outlier first; their scores), of `most` alone.

    fitted: see RunImages.
    """
    wanted = np.array(thin(list(range(len(images))), most(detector, search)))
    pixels, indices = images.read(wanted)
    far = np.array([fitted.get(images.names[i], np.nan) for i in indices])
    scores = outlier_scores(detector, search, calibration, pixels, far)
    order = np.argsort(-scores, kind="stable")
    return indices[order], scores[order]
