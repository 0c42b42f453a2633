"""The pictures of what was scored: large ones, the contact sheet, and those on the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from anogan.data.image_set import thin
from anogan.evaluation.best import Picture
from anogan.report import page
from anogan.report.names import picture_name
from anogan.report.pictures import View, detection_panel, view
from anogan.report.scored import Scored
from anogan.report.sheet import SIDE, Cell, contact_sheet
from utils import ImageError, save_image

LARGE = 480  # pixels, the longer side of an original in a large picture
ON_PAGE = 320  # and on the page, where some hundred are
SHEET = 200  # images on the contact sheet
# Not the threads that decode images, for which these wait
PAINTERS = ThreadPoolExecutor(os.cpu_count(), "paint")


def view_of(scored: Scored, index: int, picture: Picture, longest: int) -> View:
    """An image's pictures, no larger than that many pixels a side."""
    original, mask = picture.query, None
    try:
        original = scored.images.original(index, longest)
        mask = scored.masks.read(index) if scored.masks else None
    except ImageError:  # it has just been changed or removed: as it was scored, then
        pass
    drawn = picture.reconstruction, picture.anomaly_map
    return view(original, *drawn, scored.pixel_threshold, mask)


def panels(
    folder: Path, scored: Scored, groups: dict[str, list[int]], pictures: dict[int, Picture]
) -> None:
    """A large picture of each image in the groups, by rank."""
    legend = "white: over the pixel threshold" + ("; cyan: true mask" if scored.masks else "")

    def draw(place: tuple[str, int, int]) -> None:
        name, rank, index = place
        picture = pictures[index]
        detection_panel(
            folder / picture_name(name, rank, scored.images.names[index]),
            scored.title(index),
            view_of(scored, index, picture, LARGE),
            picture.anomaly_map,
            scored.pixel_threshold,
            legend,
        )

    places = [(n, rank, i) for n, group in groups.items() for rank, i in enumerate(group, 1)]
    list(PAINTERS.map(draw, places))


def sheet(path: Path, scored: Scored) -> None:
    """The most anomalous first, and evenly spaced ranks where there are too many images."""
    order = scored.order
    if not len(order):
        return
    shown = thin(order.tolist(), SHEET)
    cells = [cell for cell in PAINTERS.map(lambda place: _cell(scored, place), shown) if cell]
    if cells:
        save_image(path, contact_sheet(cells, scored.threshold))


def _cell(scored: Scored, place: int) -> Cell | None:
    """Of an image on the contact sheet; None if it cannot be read any more."""
    index = int(scored.indices[place])
    name, label, kind = scored.known(index)
    told = f"{label} ({kind})" if kind and kind != label else label
    try:
        picture = scored.images.original(index, SIDE)
    except ImageError:
        return None
    return Cell(picture, name, float(scored.columns["score"][place]), told)


def report(
    path: Path,
    scored: Scored,
    shown: Sequence[int],
    pictures: dict[int, Picture],
    title: str,
    told: dict[str, str],
    plots: Future[dict[str, Path]],
) -> None:
    """The page; shown: indices of the images in its gallery, told: what is said of the run.

    plots: {title: PNG file}, in the making.
    """
    columns, order = scored.columns, scored.order
    rank = np.empty(len(order), int)
    rank[order] = np.arange(len(order))
    known = [scored.known(i) for i in scored.indices[order]]
    rows: dict[str, Any] = {
        "file": [file for file, _, _ in known],
        "label": None if scored.images.labels is None else [label for _, label, _ in known],
        "kind": None if scored.images.kinds is None else [kind for _, _, kind in known],
        **{name: columns[name][order] for name in ("score", "residual", "discrimination")},
        "as_high": scored.normal and scored.normal.as_high(columns["score"][order]),
    }

    def card(index: int) -> page.Card:
        place = int(np.searchsorted(scored.indices, index))
        original, overlay, drawn = map(page.webp, view_of(scored, index, pictures[index], ON_PAGE))
        return page.Card(int(rank[place]), original, overlay, drawn, scored.decided_by(place))

    decision = {} if scored.threshold is None else {"threshold": scored.threshold}
    if scored.normal is not None:
        decision["held_out"] = len(scored.normal.scores)
    gallery = sorted(PAINTERS.map(card, shown))
    has_masks = scored.masks is not None
    page.write(path, title, told, rows, gallery, plots.result(), decision, has_masks)
