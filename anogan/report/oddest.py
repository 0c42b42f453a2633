"""suspicious.txt and suspicious.png: the training images that are likeliest not normal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from anogan.data.drop_list import as_line
from anogan.data.image_set import ImageSet
from anogan.report.sheet import SIDE, Cell, contact_sheet
from anogan.runs.files import read_own, unused_path, write_atomic
from utils import save_image

LIST, SHEET = "suspicious.txt", "suspicious.png"
SHARE, MOST_LISTED = 0.1, 100  # of the ranked images are listed, at most so many


def write(
    folder: Path, images: ImageSet, indices: np.ndarray, scores: np.ndarray
) -> tuple[Path, Path, int]:
    """Write the highest of ranked images; return the list, the sheet, and how many they are."""
    count = min(MOST_LISTED, max(1, round(SHARE * len(indices))))
    highest = zip(indices[:count], scores[:count], strict=True)
    text = "".join(f"{as_line(images.names[i])}\t{score:.4f}\n" for i, score in highest)
    path, sheet = unused_path(folder, LIST, _is_as_written), unused_path(folder, SHEET)
    for place in (path, _as_written(path)):
        write_atomic(place, text)
    cells = [
        Cell(images.original(i, SIDE), images.names[i], float(score), "")
        for i, score in zip(indices[:count], scores[:count], strict=True)
    ]
    save_image(sheet, contact_sheet(cells, None))
    return path, sheet, count


def _as_written(path: Path) -> Path:
    """Return where a list's copy is: it is meant to be edited, and what a user edits stays."""
    return path.with_name(f".{path.name}")


def _is_as_written(path: Path) -> bool:
    try:
        return read_own(path) == read_own(_as_written(path))
    except OSError:
        return False
