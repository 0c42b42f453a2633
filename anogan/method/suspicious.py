"""Is the training folder clean? Its images by how odd they are, and training without some.

A list of names, a line each: the name, and if it is this tool's, a tab and the score. A name that
would not be read back as it is, for line breaks and the like, is a JSON string.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anogan.claim import claim
from anogan.dataset import ImageSet, permutation, thin
from anogan.errors import UserError, first_line
from anogan.files import read_own, write_atomic
from anogan.labels import finder, read_text
from utils import save_image, tile, to_float

if TYPE_CHECKING:
    from model import DCGAN

LIST, SHEET = "suspicious.txt", "suspicious.png"
DROPPED = "dropped.json"  # in a run's folder
RANKED = 1000  # training images, evenly spaced: the memory's part grows with their square
SEARCHED = 200  # where z is searched for each
FOLDS = 3
SHARE, MOST = 0.1, 100  # of the ranked images are listed, at most so many
BATCH = 64


def memory_alone(images: np.ndarray, seed: int = 0) -> np.ndarray:
    """How far each image is from the others: (n, h, w, c) uint8 -> (n,), see Memory.

    Each is measured by a memory of the other folds, which has not seen it.
    """
    from anogan.memory import Memory

    found = np.zeros(len(images))
    folds = np.array_split(permutation(len(images), seed), min(FOLDS, len(images) // 2))
    for fold in folds:
        memory = Memory(images[np.setdiff1d(np.arange(len(images)), fold)])
        for i in range(0, len(fold), BATCH):
            part = fold[i : i + BATCH]
            found[part] = memory.maps(to_float(images[part]))[0]
    return found


def oddness(model: DCGAN, images: np.ndarray) -> np.ndarray:
    """Scores of training images (n, h, w, c), uint8: (n,), higher is odder.

    How far they are from the others by memories that have not seen them, and how abnormal D's most
    abnormal pixel is, both in spreads of these images. D's part is biased: it was trained on most
    of them, so what is odd among them may look a little less so. The weights of the score are not
    for this: they come from what is planted, which a memory finds far more easily than what
    lies among images as one of them.
    """
    calibration = model.keep_calibration()
    found = model.terms(images, calibration)
    if model.config.is_classic or len(images) < 4:  # there is no memory
        return calibration.scores_of(found)
    alone = memory_alone(images, model.config.seed)
    return _in_spreads(alone) + _in_spreads(found["pixels"].max(axis=1))


def _in_spreads(values: np.ndarray) -> np.ndarray:
    """(n,) -> (n,), whatever a few of them are: 0 in the middle, 80 % between -1.28 and 1.28."""
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return 2.56 * (values - middle) / max(high - low, 1e-6)


def most(model: DCGAN) -> int:
    """So many training images are ranked at most."""
    return SEARCHED if model.way().steps else RANKED


def rank(model: DCGAN, images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the training images, the oddest first; their scores); of many `most` alone."""
    wanted = np.array(thin(list(range(len(images))), most(model)))
    pixels, indices = images.read(wanted)
    scores = oddness(model, pixels)
    order = np.argsort(-scores, kind="stable")
    return indices[order], scores[order]


def write(
    folder: Path, images: ImageSet, indices: np.ndarray, scores: np.ndarray
) -> tuple[Path, Path, int]:
    """The list and the sheet of the oddest of ranked images, and how many they are."""
    count = min(MOST, max(1, round(SHARE * len(indices))))
    told = zip(indices[:count], scores[:count], strict=True)
    text = "".join(f"{_as_line(images.names[i])}\t{score:.4f}\n" for i, score in told)
    path, sheet = claim(folder, LIST, _is_as_written), claim(folder, SHEET)
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


def _as_line(name: str) -> str:
    plain = name.isprintable() and name == name.strip() and not name.startswith('"')
    return name if plain else json.dumps(name)


def listed(
    path: str | Path, names: Sequence[str], folder: str | Path
) -> tuple[set[str], list[str]]:
    """(those of the names of images in a folder that a list has, its lines that name none)."""
    known, find = set(names), finder(names, folder)
    found, strangers = set(), []
    for line in filter(str.strip, re.split(r"\r?\n", read_text(path))):
        name = _meant(line, known, find)
        if name is None:
            strangers.append(line)
        else:
            found.add(name)
    return found, strangers


def _meant(line: str, names: set[str], find: Callable[[str], str | None]) -> str | None:
    """The name that a line of a list has, before a tab or alone."""
    name, _, score = line.rpartition("\t")
    for text in (name, line) if _is_number(score) else (line, name):
        if text and (found := _unquoted(text, names) or find(text)):
            return found
    return None


def _unquoted(text: str, names: set[str]) -> str | None:
    """The name that a JSON string is; None for other texts."""
    try:
        name = json.loads(text) if text.startswith('"') else None
    except ValueError:
        return None
    return name if name in names else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def dropped(run: Path) -> tuple[str, ...]:
    """Names of the images that the run in a folder is trained without; UserError for damage."""
    path = run / DROPPED
    if not os.path.lexists(path):
        return ()
    try:
        names = json.loads(read_own(path))
        if type(names) is not list or not all(type(name) is str for name in names):
            raise ValueError("it is no list of names")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({first_line(error)}): put it back from a copy, or train again "
            "under another --checkpoint_dir"
        ) from None
    return tuple(names)


def keep_dropped(run: Path, names: Collection[str]) -> None:
    """Notes in a run's folder that it is trained without these images, and no others."""
    if not names:
        (run / DROPPED).unlink(missing_ok=True)
    else:
        write_atomic(run / DROPPED, json.dumps(sorted(names)) + "\n")


def require_unseen(path: str | Path, known: Sequence[str], images: Path, run: Path) -> None:
    """UserError where a run was already trained on some that a list names; known: those it was."""
    seen, _ = listed(path, known, images)
    if seen:
        raise UserError(
            f"the run in {run} was already trained on {len(seen)} of the images that {path} "
            "names: train another run without them, under another --checkpoint_dir"
        )
