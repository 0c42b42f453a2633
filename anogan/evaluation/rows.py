"""What scoring has found so far, on disk as it comes: an interrupted one goes on with it.

rows0.jsonl holds the key, all that scores depend on but the images; then a Row a line, added as
images are scored. Each worker writes its own file, with its number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from anogan.evaluation.metrics import PixelMeasures
from anogan.evaluation.result_folder import PARTIAL
from anogan.runs.files import atomic_file, writing


class Row(NamedTuple):
    """What is known of one image; JSON-ready. Of a broken file: no values, the reason a warning."""

    file: str
    state: list[Any]  # of its file and its mask before they were read
    values: list[float]
    warnings: list[str]
    losses: list[float] | None  # of the latent search, as far as they are plotted
    pixels: list[Any] | None  # see PixelMeasures.packed


class Rows(NamedTuple):
    """What is known of a set when all its images are scored."""

    indices: np.ndarray  # (n,) of the images that could be read, rising
    columns: dict[str, np.ndarray]  # (n,) each: the score, its terms and what each contributes
    losses: dict[int, list[float]]  # of the latent search, by the index of some images
    pixels: PixelMeasures | None  # None without masks


class RowFiles:
    """The files of rows, below a folder of results; this worker adds to its own."""

    def __init__(self, folder: Path, worker: int, key: dict[str, Any]):
        """Take the key, JSON-ready."""
        self.folder, self.worker = Path(folder) / PARTIAL, worker
        self.key = json.loads(json.dumps(key))
        self._file: TextIO | None = None

    def path(self, worker: int) -> Path:
        return self.folder / f"rows{worker}.jsonl"

    def read(self, worker: int) -> Iterator[Row]:
        """Yield the rows that a worker wrote with this key, up to where they end or are damaged."""
        try:
            with open(self.path(worker), encoding="utf-8") as lines:
                if json.loads(next(lines, "null")) == self.key:
                    for line in lines:
                        yield Row(*json.loads(line))
        except (OSError, ValueError, TypeError):
            return

    def read_all(self) -> Iterator[Row]:
        """Yield the rows of all workers, also of more than there are now."""
        worker = 0
        while self.path(worker).exists():
            yield from self.read(worker)
            worker += 1

    def begin(self, rows: Iterable[Row]) -> None:
        """Keep these rows as worker 0's, and nobody else's."""
        with atomic_file(self.path(0)) as file:
            file.writelines(json.dumps(line) + "\n" for line in (self.key, *rows))
        with writing(self.folder):
            for path in self.folder.glob("rows*"):
                if path != self.path(0):
                    path.unlink()

    def open(self) -> None:
        """Go on with this worker's rows, or begin them."""
        with writing(self.path(self.worker)):
            self._file = open(self.path(self.worker), "a", encoding="utf-8")  # noqa: SIM115
            if not self._file.tell():
                self._file.write(json.dumps(self.key) + "\n")

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows to the end; UserError where there is no room."""
        assert self._file
        with writing(self.path(self.worker)):
            self._file.writelines(json.dumps(row) + "\n" for row in rows)
            self._file.flush()

    def close(self) -> None:
        if self._file:
            file, self._file = self._file, None
            with writing(self.path(self.worker)):
                file.close()
