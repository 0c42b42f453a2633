"""Scoring a set: a row an image, on disk as it comes, resumed, by several workers."""

from __future__ import annotations

import contextlib
import logging
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from zlib import crc32

import numpy as np

from anogan.data.image_set import COPIED, ImageSet
from anogan.data.masks import Masks
from anogan.errors import UserError
from anogan.evaluation.best import Best, saved
from anogan.evaluation.metrics import PixelMeasures
from anogan.evaluation.names import MAP_ENDINGS, map_stems
from anogan.evaluation.result_folder import FILES, FOLDERS, ResultFolder
from anogan.evaluation.rows import Row, RowFiles, Rows
from anogan.method.scoring import TERMS, Detection
from anogan.runs.distributed import Workers
from anogan.runs.files import atomic_file
from utils import ImageError

CONTRIBUTIONS = tuple(f"{name}_contribution" for name in TERMS)
COLUMNS = ("score", *TERMS, *CONTRIBUTIONS)
KEPT = 500  # images of each label whose search losses are plotted
SPARE = 20  # pictures are saved so seldom that it takes a twentieth of the time


class Scoring:
    """Takes scored batches as they come; memory holds the scores and some hundred pictures.

    resume, then add within a context, then gather. What was added is on disk at once: on an
    error, Ctrl-C or a kill it stays there, and the same call goes on with it.
    """

    def __init__(
        self,
        folder: str | Path,
        images: ImageSet,
        workers: Workers,
        identity: dict[str, int],
        batch_size: int,
        *,
        pixel_threshold: float = 1.0,
        masks: Masks | None = None,
        save_map: Callable[[Path, np.ndarray, np.ndarray], None] | None = None,
        best: Best | None = None,
    ):
        """Take what is to be scored, and the folder for the results.

        identity: checksums of all that scores depend on but the images, by name. batch_size: of
        the batches that will be added, see resume. save_map: writes the files of an image's map,
        given their common stem, the image and the map. best: keeps pictures.
        """
        self.images, self.workers, self.identity = images, workers, identity
        self.batch_size, self.masks, self.save_map, self.best = batch_size, masks, save_map, best
        self._stems = map_stems(images.names) if save_map else []
        places = {str(PurePosixPath(stem).parent) for stem in self._stems}
        self.folder = ResultFolder(folder, FILES, {*FOLDERS, *places})
        written = {"masks": masks is not None, "maps": save_map is not None}
        key = {**identity, **written, "pixels": pixel_threshold if any(written.values()) else None}
        self.files = RowFiles(self.folder.path, workers.index, key, len(COLUMNS))
        self._indices = array("q")
        self._columns = {name: array("d") for name in COLUMNS}
        self._losses: dict[int, list[float]] = {}
        self._unit = pixel_threshold
        self._pixels = PixelMeasures(self._unit) if masks else None
        self._broken = 0  # so many of images.skipped are on disk
        self._places = {name: i for i, name in enumerate(images.names)}
        self._states = self._find_states()
        self._plotted = self._some_of_each_label()
        self._staged: set[str] = set()  # maps that an interrupted run left
        self._saved, self._pause = time.monotonic(), 0.0

    def _find_states(self) -> list[list[Any]]:
        """Return by index what shows whether an image, and its mask, is still the same.

        Other machines may have copies of the files: several workers see what copies have, too.
        """
        images, masks, alone = self.images, self.masks, self.workers.count == 1
        states: list[list[Any]] = list((images.states() if alone else images.dated()).values())
        if masks is None:
            return states
        seen = slice(None if alone else COPIED)
        return [[s, masks.state(i)[seen]] if s else [] for i, s in enumerate(states)]

    def _some_of_each_label(self) -> np.ndarray:
        """Return of which images (n,) the losses are kept: the first KEPT of each label."""
        chosen = np.zeros(len(self.images), bool)
        labels = chosen if self.images.labels is None else self.images.labels
        for label in np.unique(labels):
            chosen[np.flatnonzero(labels == label)[:KEPT]] = True
        return chosen

    def __enter__(self) -> Scoring:
        self.files.open()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.files.close()
            return
        with contextlib.suppress(UserError):  # the first error is the one to report
            self._save_pictures(now=True)
            self.files.close()

    # one batch after the other

    def add(self, indices: np.ndarray, detection: Detection) -> None:
        """Add a batch: indices into the ImageSet, and their Detection."""
        rows = self._broken_rows()
        for i, index in enumerate(map(int, indices)):
            if self.save_map:
                stem = self.folder.staging / self._stems[index]
                self.save_map(stem, detection.image[i], detection.anomaly_map[i])
            rows.append(self._row(index, i, detection))
            self._take(index, rows[-1])
        self.files.add(rows)
        if self.best:
            self.best.offer(indices.tolist(), detection)
        self._save_pictures()

    def _broken_rows(self) -> list[Row]:
        """Return rows of files that could not be read, as far as they have none yet."""
        new = self.images.skipped[self._broken :]
        self._broken += len(new)
        return [
            Row(name, self._states[self._places[name]], [], [reason], None, None)
            for name, reason in new
            if name in self._places
        ]

    def _row(self, index: int, i: int, detection: Detection) -> Row:
        """Return the row of image `index`, which is the i-th of the batch."""
        name, losses = self.images.names[index], detection.losses
        values = detection.score[i], *(detection.terms[term][i] for term in TERMS)
        return Row(
            name,
            self._states[index],
            [float(value) for value in (*values, *detection.contributions[i])],
            [text for text, names in list(self.images.warnings.items()) if name in names],
            None
            if losses is None or not self._plotted[index]
            else losses[i].astype(float).tolist(),
            self._measured(index, detection.anomaly_map[i]),
        )

    def _measured(self, index: int, anomaly_map: np.ndarray) -> list[Any] | None:
        """Return what an image adds to the pixel measures; None for nothing."""
        if not self.masks or index in self.masks.left_out:
            return None
        one = PixelMeasures(self._unit)
        try:
            one.add(anomaly_map, self.masks.read(index))
        except ImageError as error:  # all could be read before: it has just been changed
            logging.getLogger(__name__).warning("left out of the pixel measures: %s", error)
            return None
        return one.packed()

    def _take(self, index: int, row: Row) -> None:
        """Take over a row, of a file that could be read or of one that could not."""
        if not row.values:
            self.images.leave_out(index, row.warnings[0])
            return
        self._indices.append(index)
        for column, value in zip(self._columns.values(), row.values, strict=True):
            column.append(value)
        for text in row.warnings:
            self.images.warnings.setdefault(text, {})[row.file] = None
        if row.losses is not None:
            self._losses[index] = row.losses
        if self._pixels and row.pixels:
            self._pixels += PixelMeasures.unpacked(self._unit, row.pixels)

    def _save_pictures(self, now: bool = False) -> None:
        """Keep the pictures, unless that was done too short a time ago; warn if it fails."""
        start = time.monotonic()
        if not self.best or (not now and start - self._saved < self._pause):
            return
        try:
            path = self.files.pictures_of(self.workers.index)
            self.best.save(path, self.files.key, self.images.names)
        except UserError as error:
            logging.getLogger(__name__).warning("pictures are not kept so far: %s", error)
            self._pause = float("inf")
            return
        self._saved = time.monotonic()
        self._pause = SPARE * (self._saved - start)

    def _take_pictures(self, worker: int) -> None:
        """Take over pictures that a worker saved, as far as they belong to rows that are known."""
        if not self.best:
            return
        scores = dict(zip(self._indices, self._columns["score"], strict=True))
        path, most = self.files.pictures_of(worker), sum(self.best.counts.values())
        for name, picture in saved(path, self.files.key, self.images.shape, most):
            index = self._places.get(name)
            if index is not None and scores.get(index) == picture.score:
                self.best.pictures[index] = picture

    # from run to run, and several workers

    def resume(self) -> np.ndarray:
        """Take over what an interrupted run left; return what is to be scored, as indices.

        Whole batches are to be scored, in the order in which batches must be taken from them: an
        image's place in its batch decides the last digit of its score. UserError unless all workers
        have the same images and model, and see this folder.
        """
        names, labels = "\n".join(self.images.names), self.images.labels
        kept = [self.files.key[name] for name in ("masks", "maps", "pixels")]
        self.workers.agree(
            {
                "images": crc32(names.encode()),
                "labels": crc32(b"" if labels is None else labels.tobytes()),
                **self.identity,
                "masks and maps": crc32(repr(kept).encode()),
            }
        )
        if self.workers.chief:
            self.files.drop_foreign()
            known = self._known_images()
            self._take_over(known)
        self.workers.wait()
        if not self.workers.chief:
            known = self._known_images()
        seen = crc32(known.tobytes()) if self.files.rows_of(0).exists() else -1
        place = f"what they see of {self.files.folder} (--test_result_dir is where all see it)"
        self.workers.agree({place: seen})
        return np.flatnonzero(~known)

    def _known_images(self) -> np.ndarray:
        """Return which images (n,) have rows of an interrupted run, as has all of their batch."""
        self._staged = self.folder.staged() if self.save_map else set()
        known = np.zeros(len(self.images), bool)
        for index, _ in self._usable_rows():
            known[index] = True
        starts = np.arange(0, len(known), self.batch_size)
        whole = np.logical_and.reduceat(known, starts)
        return np.repeat(whole, self.batch_size)[: len(known)]

    def _take_over(self, known: np.ndarray) -> None:
        """Keep the rows, pictures and maps of these images (n,), and no others."""
        with atomic_file(self.files.rows_of(0)) as file:
            file.write(self.files.header())
            wanted = known.copy()
            for index, row in self._usable_rows():
                if wanted[index]:
                    wanted[index] = False
                    self._take(index, row)
                    file.write(row.line())
        self._broken = len(self.images.skipped)
        for worker in self.files.workers():
            self._take_pictures(worker)
        self.files.clear()
        maps = map(self._map_files, np.flatnonzero(known).tolist())
        self.folder.begin(set().union(*maps) if self.save_map else ())

    def _usable_rows(self) -> Iterator[tuple[int, Row]]:
        """Yield (index, Row) of each image that is as it was when it was read."""
        for worker in self.files.workers():
            for row in self.files.read(worker):
                index = self._places.get(row.file)
                if index is None or not row.state or row.state != self._states[index]:
                    continue
                if not row.values or not self.save_map or self._map_files(index) <= self._staged:
                    yield index, row

    def _map_files(self, index: int) -> set[str]:
        return {f"{self._stems[index]}{ending}" for ending in MAP_ENDINGS}

    def gather(self) -> Rows:
        """Return all rows; of several workers the chief alone has those of the others."""
        self.files.add(self._broken_rows())
        self.files.close()
        if not self.workers.chief:
            self._save_pictures(now=True)
        self.workers.wait()
        if self.workers.chief:
            for worker in range(1, self.workers.count):
                for row in self.files.read(worker):
                    self._take(self._places[row.file], row)
                self._take_pictures(worker)
        order = np.argsort(self._indices, kind="stable")
        columns = {name: np.asarray(column)[order] for name, column in self._columns.items()}
        return Rows(np.asarray(self._indices)[order], columns, self._losses, self._pixels)
