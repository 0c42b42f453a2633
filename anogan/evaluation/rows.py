"""What scoring has found so far, on disk as it comes: an interrupted one goes on with it.

    rows0.jsonl     the key, all that scores depend on but the images; then a Row a line, added as
                    images are scored
    pictures0.npz   pictures to show of them: a cache, for those images can be scored again

Each worker writes its own files, with its number. They are data: nothing in them is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from anogan.evaluation.metrics import PixelMeasures
from anogan.evaluation.result_folder import PARTIAL
from anogan.runs.files import append_own, discard, is_folder, is_own, own_lines, writing

# What reading a line or file that is damaged raises
UNREADABLE = OSError, ValueError, TypeError, LookupError, OverflowError, RecursionError


class Row(NamedTuple):
    """What is known of one image; JSON-ready. Of a broken file: no values, the reason a warning."""

    file: str
    state: list[Any]  # of its file and its mask before they were read
    values: list[float]
    warnings: list[str]
    losses: list[float] | None  # of the latent search, as far as they are plotted
    pixels: list[Any] | None  # see PixelMeasures.packed

    @classmethod
    def parsed(cls, line: bytes, values: int) -> Row:
        """Read a line; one of UNREADABLE for what is none. values: how many there must be."""
        row = cls(*json.loads(line))
        numbers = [float(v) for v in row.values]
        losses = None if row.losses is None else [float(v) for v in row.losses]
        finite = np.isfinite([*numbers, *(losses or ())]).all()
        complete = len(numbers) == values or (not numbers and len(row.warnings) == 1)
        texts = all(isinstance(text, str) for text in (row.file, *row.warnings))
        if not (complete and finite and texts):
            raise ValueError("this is no row")
        if row.pixels is not None:
            PixelMeasures.unpacked(1.0, row.pixels)
        return row._replace(values=numbers, losses=losses)

    def line(self) -> str:
        return json.dumps(self) + "\n"


class Rows(NamedTuple):
    """What is known of a set when all its images are scored."""

    indices: np.ndarray  # (n,) of the images that could be read, rising
    columns: dict[str, np.ndarray]  # (n,) each: the score, its terms and what each contributes
    losses: dict[int, list[float]]  # of the latent search, by the index of some images
    pixels: PixelMeasures | None  # None without masks


class RowFiles:
    """The files of one worker, below a folder of results."""

    def __init__(self, folder: Path, worker: int, key: dict[str, Any], values: int):
        """Take the key, JSON-ready, and how many values a Row has."""
        self.folder, self.worker, self.values = Path(folder) / PARTIAL, worker, values
        self.key = json.loads(json.dumps(key))
        self._file: BinaryIO | None = None

    def rows_of(self, worker: int) -> Path:
        return self.folder / f"rows{worker}.jsonl"

    def pictures_of(self, worker: int) -> Path:
        return self.folder / f"pictures{worker}.npz"

    def workers(self) -> list[int]:
        """Return those that have left rows here."""
        if not is_folder(self.folder):
            return []
        names = (path.name for path in self.folder.glob("rows*.jsonl"))
        numbers = (name.removeprefix("rows").removesuffix(".jsonl") for name in names)
        return sorted(int(n) for n in numbers if n.isdecimal() and n.isascii())

    def read(self, worker: int) -> Iterator[Row]:
        """Yield the rows that a worker wrote with this key, up to where they end or are damaged."""
        try:
            lines = own_lines(self.rows_of(worker))
            if json.loads(next(lines, b"null")) != self.key:
                return
            for line in lines:
                yield Row.parsed(line, self.values)
        except UNREADABLE:
            return

    def drop_foreign(self) -> None:
        """Drop what is no file or folder of this tool's; where a link leads is not touched."""
        with writing(self.folder):
            if not is_folder(self.folder):
                discard(self.folder)
                return
            for path in self.folder.iterdir():
                if not is_own(path):
                    discard(path)

    def header(self) -> str:
        return json.dumps(self.key) + "\n"

    def open(self) -> None:
        """Go on with this worker's rows, or begin them."""
        path = self.rows_of(self.worker)
        with writing(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = append_own(path)
            if not self._file.tell():
                self._file.write(self.header().encode())

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows to the end; UserError where there is no room."""
        assert self._file
        with writing(self.rows_of(self.worker)):
            self._file.writelines(row.line().encode() for row in rows)
            self._file.flush()

    def close(self) -> None:
        if self._file:
            file, self._file = self._file, None
            with writing(self.rows_of(self.worker)):
                file.close()

    def clear(self) -> None:
        """Remove all files but the rows and pictures of worker 0."""
        kept = self.rows_of(0), self.pictures_of(0)
        with writing(self.folder):
            for path in self.folder.iterdir():
                if path not in kept:
                    path.unlink()
