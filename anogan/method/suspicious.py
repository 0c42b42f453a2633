"""Is the training folder clean? Its images ranked by outlier score, and the list of the highest."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anogan.data.drop_list import as_line
from anogan.data.image_set import ImageSet, permutation, thin
from anogan.method.scoring import TERMS, Calibration, Search
from anogan.recipe import BankRecipe
from anogan.runs.files import read_own, unused_path, write_atomic
from utils import save_image, tile, to_float

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from anogan.features.feature_bank import FeatureBank
    from anogan.method.detector import Detector

LIST, SHEET = "suspicious.txt", "suspicious.png"
RANKED = 1000  # training images, evenly spaced: the banks' part grows with their square
SEARCHED = 200  # where z is searched for each
FOLDS = 3
SHARE, MOST_LISTED = 0.1, 100  # of the ranked images are listed, at most so many
BATCH = 64


def bank_alone(images: np.ndarray, recipe: BankRecipe, seed: int = 0) -> np.ndarray:
    """How far each image is from the others: (n, h, w, c) uint8 -> (n,), see MemoryBank.

    Each is measured by a bank of the other folds, which has not seen it.
    """
    from anogan.method.memory_bank import MemoryBank

    found = np.zeros(len(images))
    folds = np.array_split(permutation(len(images), seed), min(FOLDS, len(images) // 2))
    for fold in folds:
        bank = MemoryBank(images[np.setdiff1d(np.arange(len(images)), fold)], recipe)
        for i in range(0, len(fold), BATCH):
            part = fold[i : i + BATCH]
            found[part] = bank.compare(to_float(images[part]))[0]
    return found


def features_alone(bank: FeatureBank, images: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """How far images are from the others in the bank's features: (n, H, W, c) uint8 -> (n,).

    seen (n,): whether the bank is of an image, too.
    """
    found = np.zeros(len(images))
    for known in (False, True):
        places = np.flatnonzero(seen == known)
        for i in range(0, len(places), BATCH):
            part = places[i : i + BATCH]
            found[part] = bank.compare(to_float(images[part]), seen=known)[0]
    return found


def outlier_scores(
    detector: Detector,
    search: Search,
    calibration: Calibration,
    images: np.ndarray,
    seen: np.ndarray,
) -> np.ndarray:
    """Outlier scores of training images (n, H, W, c), uint8: (n,).

    How far they are from the others by banks that have not seen them, and how abnormal D's most
    abnormal pixel is, each in spreads of these images; seen (n,): those in the feature bank. D's
    part is biased: it was trained on most of them, so outliers among them may score a little lower.
    The weights of the score are not for this: they come from what is planted, which a memory bank
    finds far more easily than what lies among images as one of them.
    """
    if detector.memory is None or len(images) < 4:
        found = detector.terms(images, search, calibration.search_weights, only=TERMS)
        return calibration.scores_of(found)
    found = detector.terms(images, search, calibration.search_weights, only=["pixels"])
    small = detector.inference.scaled(images)
    alone = [bank_alone(small, detector.config.recipe.bank, detector.config.seed)]
    if detector.feature_bank:
        alone.append(features_alone(detector.feature_bank, images, seen))
    return np.sum([_in_spreads(v) for v in (*alone, found["pixels"].max(axis=1))], axis=0)


def _in_spreads(values: np.ndarray) -> np.ndarray:
    """(n,) -> (n,), whatever a few of them are: 0 in the middle, 80 % between -1.28 and 1.28."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return 2.56 * (values - middle) / max(high - low, 1e-6)


def most(search: Search) -> int:
    """So many training images are ranked at most."""
    return SEARCHED if search.steps else RANKED


def rank(
    detector: Detector,
    search: Search,
    calibration: Calibration,
    images: ImageSet,
    in_bank: Collection[str],
) -> tuple[np.ndarray, np.ndarray]:
    """(indices of training images, the likeliest outlier first; their scores), of `most` alone.

    in_bank: names of those that the feature bank is of.
    """
    wanted = np.array(thin(list(range(len(images))), most(search)))
    pixels, indices = images.read(wanted)
    seen = np.isin([images.names[i] for i in indices], list(in_bank))
    scores = outlier_scores(detector, search, calibration, pixels, seen)
    order = np.argsort(-scores, kind="stable")
    return indices[order], scores[order]


def write(
    folder: Path, images: ImageSet, indices: np.ndarray, scores: np.ndarray
) -> tuple[Path, Path, int]:
    """The list and the sheet of the highest of ranked images, and how many they are."""
    count = min(MOST_LISTED, max(1, round(SHARE * len(indices))))
    highest = zip(indices[:count], scores[:count], strict=True)
    text = "".join(f"{as_line(images.names[i])}\t{score:.4f}\n" for i, score in highest)
    path, sheet = unused_path(folder, LIST, _is_as_written), unused_path(folder, SHEET)
    for place in (path, _as_written(path)):
        write_atomic(place, text)
    save_image(sheet, tile(images.read(indices[:count])[0]))
    return path, sheet, count


def _as_written(path: Path) -> Path:
    """A copy of a list, for it is meant to be edited, and what a user has edited stays."""
    return path.with_name(f".{path.name}")


def _is_as_written(path: Path) -> bool:
    try:
        return read_own(path) == read_own(_as_written(path))
    except OSError:
        return False
