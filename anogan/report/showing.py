"""The pictures and the page of what was scored: from its outcome, and the pictures kept of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anogan.data.choosing import thin
from anogan.evaluation.best import Picture
from anogan.evaluation.names import picture_name
from anogan.evaluation.outcome import Outcome
from anogan.evaluation.result_folder import REPORT, SHEET
from anogan.report import page, plots
from anogan.report.facts import decided_by
from anogan.report.pictures import View, detection_panel, view
from anogan.report.sheet import SIDE, Cell, contact_sheet
from anogan.report.text import fitting
from utils import ImageError, save_image

LARGE = 480  # pixels, the longer side of an original in a large picture
LARGE_PICTURES = 10  # of the most and of the least anomalous
ON_PAGE = 320  # pixels, likewise on the page, where some hundred are
ON_SHEET = 200  # images on the contact sheet
# Not the threads that decode images, for which these wait
PAINTERS = ThreadPoolExecutor(os.cpu_count(), "paint")


@dataclass(frozen=True)
class Shown:
    """The outcome of a set, and what there is to show of it."""

    outcome: Outcome
    pictures: dict[int, Picture]  # by the image's index
    read_mask: Callable[[int], np.ndarray] | None = None  # of image i, bool (h, w)

    def view(self, index: int, longest: int) -> View:
        """Return an image's pictures, no larger than that many pixels a side."""
        picture, mask = self.pictures[index], None
        original = picture.query
        try:
            original = self.outcome.images.original(index, longest)
            mask = self.read_mask(index) if self.read_mask else None
        except ImageError:  # it has just been changed or removed: as it was scored, then
            pass
        drawn = picture.reconstruction, picture.anomaly_map
        return view(original, *drawn, self.outcome.pixel_threshold, mask)

    def title(self, index: int) -> str:
        """Return what stands above an image's picture."""
        outcome = self.outcome
        file, label, kind = map(fitting, outcome.known(index))
        place = outcome.place(index)
        score, threshold = outcome.scores[place], outcome.threshold
        title = f"{file}{f' ({kind or label})' if kind or label else ''}\nanomaly score {score:.4g}"
        if threshold is not None:
            called = "anomalous" if score > threshold else "normal"
            title += f", {called} (threshold {threshold:.4g})"
        if rarity := outcome.rarity(place):
            title += f"; {rarity}"
        return f"{title}\n{decided_by(outcome.contributions(place))}"


def write(
    folder: Path, shown: Shown, groups: dict[str, list[int]], features: dict[str, np.ndarray]
) -> None:
    """Write all pictures and the page; groups: see Best.groups, features: see plots.write."""
    with ThreadPoolExecutor(1, "plots") as aside:  # the t-SNE takes as long as all pictures
        drawn = aside.submit(plots.write, folder / "plots", shown.outcome, features)
        most, least = (groups[name][:LARGE_PICTURES] for name in ("most", "least"))
        panels(folder / "pictures", shown, {"most": most, "least": least[::-1]})
        sheet(folder / SHEET, shown.outcome)
        gallery = dict.fromkeys(groups["most"] + groups["nearest"] + groups["least"])
        report(folder / REPORT, shown, gallery, drawn.result)


def panels(folder: Path, shown: Shown, groups: dict[str, list[int]]) -> None:
    """Write a large picture of each image in the groups, by rank."""
    threshold = shown.outcome.pixel_threshold
    legend = "white: over the pixel threshold" + ("; cyan: true mask" if shown.read_mask else "")

    def draw(group: str, rank: int, index: int) -> None:
        path = folder / picture_name(group, rank, shown.outcome.images.names[index])
        parts = shown.view(index, LARGE), shown.pictures[index].anomaly_map
        detection_panel(path, shown.title(index), *parts, threshold, legend)

    places = [(name, rank, i) for name, some in groups.items() for rank, i in enumerate(some, 1)]
    list(PAINTERS.map(lambda place: draw(*place), places))


def sheet(path: Path, outcome: Outcome) -> None:
    """Write the most anomalous first, and evenly spaced ranks where there are too many images."""
    places = thin(outcome.order.tolist(), ON_SHEET)
    cells = [cell for cell in PAINTERS.map(lambda place: _cell(outcome, place), places) if cell]
    if cells:
        save_image(path, contact_sheet(cells, outcome.threshold))


def _cell(outcome: Outcome, place: int) -> Cell | None:
    """Return an image for the contact sheet; None if it cannot be read any more."""
    index = int(outcome.rows.indices[place])
    name, label, kind = outcome.known(index)
    both = f"{label} ({kind})" if kind and kind != label else label
    try:
        picture = outcome.images.original(index, SIDE)
    except ImageError:
        return None
    return Cell(picture, name, float(outcome.scores[place]), both)


def report(
    path: Path, shown: Shown, gallery: Iterable[int], drawn: Callable[[], dict[str, Path]]
) -> None:
    """Write the page; gallery: indices of its images; drawn: waits for {title: PNG of a plot}."""

    def pictures(index: int) -> tuple[int, Sequence[bytes]]:
        return shown.outcome.place(index), [page.webp(part) for part in shown.view(index, ON_PAGE)]

    cards = dict(PAINTERS.map(pictures, gallery))
    page.write(path, shown.outcome, cards, drawn(), shown.read_mask is not None)
