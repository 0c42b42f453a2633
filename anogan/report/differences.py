"""differences.png: the images on which two results differ most."""

from __future__ import annotations

import os
from pathlib import Path

from anogan.evaluation.compare import Moved, Result, moved_most
from anogan.report.sheet import SIDE, Cell, contact_sheet
from anogan.runs.files import unused_path
from utils import ImageError, image_size, load_image, save_image

SHEET = "differences.png"


def write(a: str | Path, b: str | Path) -> str:
    """Draw the images whose rank differs most into the second result's folder; return a line."""
    first, second = Result.read(a), Result.read(b)
    moved = moved_most(first, second)
    if not moved:
        return "all images have the same rank in both"
    named = [result.metrics.get("images_in") for result in (second, first)]
    folders = [folder for folder in named if isinstance(folder, str)]
    cells = [cell for one in moved if (cell := _cell(one, folders))]
    if not cells:
        return f"no picture of the {len(moved)} images that differ most: they are no longer there"
    try:
        path = unused_path(second.folder, SHEET)
        save_image(path, contact_sheet(cells, None))
    except OSError as error:
        return f"no picture of the {len(moved)} images that differ most: {error}"
    return (
        f"the {len(cells)} images whose rank differs most are in {path}: name, score in B, rank "
        "in A and in B (1 is the most anomalous)"
    )


def _cell(moved: Moved, folders: list[str]) -> Cell | None:
    """Return an image for the sheet; None where it is in none of the folders."""
    for folder in folders:
        path = os.path.join(folder, moved.file)
        try:
            height, width = image_size(path)
            scale = min(1.0, SIDE / max(height, width))
            size = max(1, round(height * scale)), max(1, round(width * scale))
            picture = load_image(path, *size, 3)
        except ImageError:
            continue
        return Cell(picture, moved.file, moved.score, "rank {} → {}".format(*moved.ranks))
    return None
