"""What scoring leaves behind: scores, decisions, measures, pictures, maps, plots, the report."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

from anogan.data.image_set import COPIED, ImageSet
from anogan.data.masks import Masks
from anogan.data.table import cell
from anogan.errors import UserError
from anogan.evaluation import metrics as measured
from anogan.evaluation.best import Best, saved
from anogan.evaluation.metrics import LABELS, PixelMeasures
from anogan.evaluation.output import FOLDERS, Output
from anogan.evaluation.partial import Partial, Row
from anogan.method.scoring import TERMS, Calibration, Detection, Search
from anogan.method.threshold import Threshold, normalise
from anogan.report.facts import facts
from anogan.report.names import MAP_ENDINGS, map_stems
from anogan.report.scored import Scored
from anogan.runs import provenance
from anogan.runs.files import atomic_file, write_atomic
from utils import ImageError, to_float

if TYPE_CHECKING:
    from model import DCGAN

SCORES = "scores.csv"
FILES = (SCORES, "metrics.json", "report.html", "contact_sheet.png")
CONTRIBUTIONS = tuple(f"{name}_contribution" for name in TERMS)
COLUMNS = ("score", *TERMS, *CONTRIBUTIONS)
GALLERY = 100  # of the most anomalous in the report; half as many of the least and the nearest
KEPT = 500  # images of each label whose features and search losses are plotted
TOGETHER = 32  # images that are scored again at a time, where their pictures were lost


class Decision(NamedTuple):
    """What is said of one image; None where there is no threshold, or no p-value."""

    file: str
    score: float
    threshold: float | None
    is_anomaly: bool | None
    p_value: float | None
    path: str | None  # of its file, as it was named


class Results:
    """Takes scored batches as they come; memory holds the scores and some hundred images.

    settle, then add within a context, gather, finish. What was added is on disk at once: on an
    error, Ctrl-C or a kill it stays there, and the same call goes on with it.
    """

    def __init__(
        self,
        folder: Path,
        images: ImageSet,
        model: DCGAN,
        calibration: Calibration,
        threshold: Threshold | None = None,
        masks: Masks | None = None,
        save_maps: bool = False,
        pictures: int = 10,
        search: Search | None = None,
        batch_size: int = 1,
        detect: Callable[[np.ndarray], Detection] | None = None,
        report: bool = True,
    ):
        """images: the ImageSet that is scored, by the DCGAN model and with its calibration.

        save_maps: also as files, one of each image; pictures: so many of the most and the least
        anomalous are drawn large. search: how z is found; batch_size: of the
        batches that will be added, see settle; detect: scores images (n, h, w, c) in the same
        manner once more. report: whether pictures, plots and the page are made.
        """
        self.folder, self.images, self.model = Path(folder), images, model
        self.normal, self.threshold = calibration.normal_scores, threshold or Threshold()
        self.pixel_threshold = calibration.pixel_threshold(self.threshold.target_fpr)
        self.search = model.search(search)
        self.masks, self.save_maps, self.pictures = masks, save_maps, pictures
        self.report = report
        self.formula, self.batch_size = calibration.formula(), batch_size
        self.detect = detect or (lambda x: model.anomaly_detector(x, calibration=calibration))
        by_labels = self.threshold.uses_labels  # known only when all scores are
        near = None if by_labels else self.threshold.choose(self.normal, None, None)[0]
        self.best = Best(max(pictures, GALLERY), max(pictures, GALLERY // 2), GALLERY // 2, near)
        self._stems = map_stems(images.names, MAP_ENDINGS) if save_maps else ()
        of_maps = {str(PurePosixPath(stem).parent) for stem in self._stems}
        self.output = Output(self.folder, FILES, {*FOLDERS, *of_maps})
        self.new = self.output.staging  # where files wait until all are there
        self.workers = model.workers
        self.partial = Partial(
            self.folder, self.workers.index, self._key(calibration), len(COLUMNS)
        )
        self.indices: Any = array("q")
        self.columns: dict[str, Any] = {name: array("d") for name in COLUMNS}
        self.losses: dict[int, list[float]] = {}
        self._broken = 0  # so many of images.skipped are on disk
        self._places = {name: i for i, name in enumerate(images.names)}
        self._states = self._find_states()
        self._staged: set[str] = set()  # maps that an interrupted run left
        self._plotted = self._some_of_each_label()
        self._pixels = PixelMeasures(self.pixel_threshold) if masks else None

    def _key(self, calibration: Calibration) -> dict[str, Any]:
        """All that a Row depends on, but for the image and its mask."""
        model = self.model
        measured = self.masks is not None or self.save_maps
        parts = model.config, model.precision, calibration, self.search, self.batch_size
        return {
            "version": 1,
            "model": model.checksum(),
            "settings": crc32(repr(parts).encode()),
            "pixels": self.pixel_threshold if measured else None,
            "masks": self.masks is not None,
            "maps": self.save_maps,
        }

    def _find_states(self) -> list[list[Any]]:
        """What tells whether an image, and its mask, is still the same; by index.

        Other machines may have copies of the files: several workers see what copies have, too.
        """
        images, masks, alone = self.images, self.masks, self.workers.count == 1
        states: list[list[Any]] = list((images.states() if alone else images.dated()).values())
        if masks is None:
            return states
        seen = slice(None if alone else COPIED)
        return [[s, masks.state(i)[seen]] if s else [] for i, s in enumerate(states)]

    def _some_of_each_label(self) -> np.ndarray:
        """Which images (n,) are plotted: the first KEPT of each label."""
        chosen, labels = np.zeros(len(self.images), bool), self._labels()
        for label in np.unique(labels):
            chosen[np.flatnonzero(labels == label)[:KEPT]] = True
        return chosen

    def __enter__(self) -> Results:
        self.partial.open()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.partial.close()
            return
        with contextlib.suppress(UserError):  # the first error is the one to tell
            self._save_pictures(now=True)
            self.partial.close()

    def add(self, indices: np.ndarray, queries: np.ndarray, found: Detection) -> None:
        """One batch: indices into the ImageSet, its images in [-1, 1], their Detection."""
        if self.save_maps:
            from anogan.report.pictures import save_map  # Matplotlib is slow to load

        rows = self._broken_rows()
        for i, index in enumerate(map(int, indices)):
            if self.save_maps:
                stem = self.new / self._stems[index]
                save_map(stem, queries[i], found.anomaly_map[i], self.pixel_threshold)
            row = self._row(index, i, found)
            self._take(index, row)
            rows.append(row)
        self.partial.add(rows)
        if self.report:
            self.best.offer(indices.tolist(), queries, found)
        self._save_pictures()

    def _broken_rows(self) -> list[Row]:
        """Of files that could not be read, as far as they have none yet."""
        new = self.images.skipped[self._broken :]
        self._broken += len(new)
        known = ((name, reason) for name, reason in new if name in self._places)
        return [
            Row(name, self._states[self._places[name]], [], [reason], None, None)
            for name, reason in known
        ]

    def _row(self, index: int, i: int, found: Detection) -> Row:
        """Of image `index`, which is the i-th of the batch."""
        name = self.images.names[index]
        values = [found.score[i], *(found.terms[name][i] for name in TERMS)]
        losses = found.losses if self._plotted[index] else None
        return Row(
            name,
            self._states[index],
            [float(value) for value in (*values, *found.contributions[i])],
            [text for text, names in list(self.images.warnings.items()) if name in names],
            None if losses is None else [float(loss) for loss in losses[i]],
            self._measured(index, found.anomaly_map[i]),
        )

    def _measured(self, index: int, anomaly_map: np.ndarray) -> list[Any] | None:
        """What an image adds to the pixel measures."""
        if not self.masks:
            return None
        one = PixelMeasures(self.pixel_threshold)
        try:
            one.add(anomaly_map, self.masks.read(index))
        except ImageError as error:  # all could be read before: it has just been changed
            logging.getLogger(__name__).warning("left out of the pixel measures: %s", error)
            return None
        return one.packed()

    def _take(self, index: int, row: Row) -> None:
        """Takes over what a row says, of a file that could be read or of one that could not."""
        if not row.values:
            self.images.leave_out(index, row.warnings[0])
            return
        self.indices.append(index)
        for column, value in zip(self.columns.values(), row.values, strict=True):
            column.append(value)
        for text in row.warnings:
            self.images.warnings.setdefault(text, {})[row.file] = None
        if row.losses is not None:
            self.losses[index] = row.losses
        if self._pixels and row.pixels:
            self._pixels += PixelMeasures.unpacked(self.pixel_threshold, row.pixels)

    def _take_pictures(self, worker: int) -> None:
        """Those that a worker has saved, as far as they belong to the rows that are known."""
        scores = dict(zip(self.indices, self.columns["score"], strict=True))
        path = self.partial.pictures_of(worker)
        most = sum(self.best.counts.values())
        for name, picture in saved(path, self.partial.key, self.images.shape, most):
            index = self._places.get(name)
            if index is not None and scores.get(index) == picture.score:
                self.best.pictures[index] = picture

    def _save_pictures(self, now: bool = False) -> None:
        if not self.report:
            return
        key, names = self.partial.key, self.images.names
        self.partial.save_pictures(lambda path: self.best.save(path, key, names), now)

    # from run to run, and several workers

    def settle(self) -> np.ndarray:
        """Before scoring: takes over what an interrupted run found; what is left, as indices.

        Whole batches are left, in the order in which batches must be taken from them: an image's
        place in its batch decides the last digit of its score. All workers must have the same
        images and model, and see this folder.
        """
        partial, chief = self.partial, self.workers.chief
        if chief:
            partial.drop_foreign()
        self._staged = self.output.staged() if self.save_maps else set()
        known = self._known_images()
        target = atomic_file(partial.rows_of(0)) if chief else contextlib.nullcontext()
        with target as file:
            if file:
                file.write(partial.header())
                wanted = known.copy()
                for index, row in self._usable_rows():
                    if wanted[index]:
                        wanted[index] = False
                        self._take(index, row)
                        file.write(row.line())
                self._broken = len(self.images.skipped)
            self._agree(known)  # which waits until all have read
        if chief:
            for worker in partial.workers():
                self._take_pictures(worker)
            partial.clear()
            maps = (self._stems[i] for i in np.flatnonzero(known)) if self.save_maps else ()
            self.output.begin({f"{stem}{ending}" for stem in maps for ending in MAP_ENDINGS})
        self.workers.wait()
        self._require_shared()
        return np.flatnonzero(~known)

    def _known_images(self) -> np.ndarray:
        """Which images (n,) an interrupted run has left rows of, and of all in their batch."""
        known = np.zeros(len(self.images), bool)
        for index, _ in self._usable_rows():
            known[index] = True
        starts = np.arange(0, len(known), self.batch_size)
        whole = np.logical_and.reduceat(known, starts)
        return np.repeat(whole, self.batch_size)[: len(known)]

    def _usable_rows(self) -> Iterator[tuple[int, Row]]:
        """(index, Row) of each image that is as it was when it was read."""
        for worker in self.partial.workers():
            for row in self.partial.read(worker):
                index = self._places.get(row.file)
                if index is None or not row.state or row.state != self._states[index]:
                    continue
                if not row.values or self._has_maps(index):
                    yield index, row

    def _has_maps(self, index: int) -> bool:
        if not self.save_maps:
            return True
        return all(f"{self._stems[index]}{end}" in self._staged for end in MAP_ENDINGS)

    def _agree(self, known: np.ndarray) -> None:
        """UserError where workers differ; waits for all."""
        if self.workers.count == 1:
            return
        images, model = self.images, self.model
        self.workers.agree(
            {
                "images": crc32("\n".join(images.names).encode()),
                "labels": crc32(b"" if images.labels is None else images.labels.tobytes()),
                "model": model.checksum(),
                "precision": crc32(model.precision.encode()),
                f"what they see of {self.partial.folder}": crc32(known.tobytes()),
            }
        )

    def _require_shared(self) -> None:
        seen = np.zeros(self.workers.count, np.int64)
        seen[self.workers.index] = self.partial.rows_of(0).exists()
        missing = np.flatnonzero(self.workers.total(seen) == 0)
        if len(missing):
            raise UserError(
                f"worker {missing[0]} does not see {self.folder} of worker 0: "
                "put --test_result_dir where all machines see it"
            )

    def gather(self) -> None:
        """After scoring: the chief takes over what the other workers have found."""
        self.partial.add(self._broken_rows())
        self.partial.close()
        if self.workers.count == 1:
            return
        if not self.workers.chief:
            self._save_pictures(now=True)
        self.workers.wait()
        if not self.workers.chief:
            return
        for worker in range(1, self.workers.count):
            for row in self.partial.read(worker):
                self._take(self._places[row.file], row)
            self._take_pictures(worker)

    # when all are scored

    def _labels(self) -> np.ndarray:
        labels = self.images.labels
        return np.zeros(len(self.images), int) if labels is None else labels

    def finish(self) -> dict:
        """Writes all that needs every score; the metrics."""
        self.partial.close()
        order = np.argsort(self.indices, kind="stable")
        self.indices = np.asarray(self.indices)[order]
        self.columns = {name: np.asarray(column)[order] for name, column in self.columns.items()}
        scores = self.columns["score"]
        labels = None if self.images.labels is None else self.images.labels[self.indices]
        kinds = None if self.images.kinds is None else [self.images.kinds[i] for i in self.indices]
        value, how = self.threshold.choose(self.normal, labels, scores)
        scored = Scored(
            self.images,
            self.masks,
            self.indices,
            self.columns,
            value,
            self.pixel_threshold,
            self.normal,
        )
        self._scores(scored)
        metrics = {
            **self._origin(),
            "images": len(scores),
            "skipped": len(self.images.skipped),
            "score": self.formula,
            "warnings": {text: len(names) for text, names in self.images.warnings.items()},
            "threshold": value,
            "threshold_is": how,
            "uses_labels": self.threshold.uses_labels,
        }
        if self.threshold.by_rate:
            metrics["target_fpr"] = self.threshold.target_fpr
        if value is not None:
            metrics["called_anomalous"] = int((scores > value).sum())
        if labels is not None and len(scores):
            metrics |= measured.measures(labels, scores, kinds, value)
        if self._pixels:
            metrics |= self._pixels.measures()
        write_atomic(self.new / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        if self.report:
            from anogan.report import showing

            groups = self._draw_again()
            test = self._to_plot(scores, labels, value, metrics)
            with ThreadPoolExecutor(1, "plots") as aside:  # the t-SNE takes as long as all pictures
                drawn = aside.submit(self._plots, test)
                self._pictures(scored, groups)
                showing.sheet(self.new / "contact_sheet.png", scored)
                self._report(scored, groups, metrics, drawn)
        self.output.publish()
        return metrics

    def _origin(self) -> dict[str, Any]:
        """What the figures are of."""
        model = self.model
        return {
            "dataset": model.config.dataset,
            "run": None if model.folder is None else str(model.folder),
            "step": model.steps_done,
            "total_steps": model.total_steps,
            "size": " x ".join(map(str, model.config.shape)),
            "window": model.config.window,
            "search": str(self.search),
            "precision": model.precision,
            "versions": provenance.versions(),
            "date": provenance.now(),
        }

    def decisions(self, threshold: float | None) -> list[Decision]:
        """Of each image that could be read; after finish."""
        scores = self.columns["score"]
        p_values = [None] * len(scores) if self.normal is None else self.normal.p_value(scores)
        return [
            Decision(
                self.images.names[index],
                float(score),
                threshold,
                None if threshold is None else bool(score > threshold),
                None if p is None else float(p),
                self.images.path(index),
            )
            for index, score, p in zip(self.indices, scores, p_values, strict=True)
        ]

    def _draw_again(self) -> dict[str, list[int]]:
        """The indices to show, by group; pictures that no run kept are made anew."""
        groups = self.best.groups(self.indices, self.columns["score"])
        wanted = np.unique(np.concatenate(list(groups.values())))
        missing = [i for i in wanted.tolist() if i not in self.best.pictures]
        for start in range(0, len(missing), TOGETHER):
            images, indices = self.images.read(missing[start : start + TOGETHER])
            if len(images):
                self.best.draw(indices.tolist(), to_float(images), self.detect(images))
        there = self.best.pictures
        return {name: [i for i in some.tolist() if i in there] for name, some in groups.items()}

    def _unit(self, value: float) -> float:
        if self.normal is not None:
            return self.normal.unit(value)
        return max(float(np.std(self.columns["score"])), 1e-12) / 3

    def _scores(self, scored: Scored) -> None:
        """scores.csv: each image's score and what it is made of, and the decision."""
        scores, value = self.columns["score"], scored.threshold
        p_values = None if self.normal is None else self.normal.p_value(scores)
        with atomic_file(self.new / SCORES) as target:
            rows = csv.writer(target)
            header = ["file", "label", "kind", *self.columns]
            header += ["is_anomaly", "normalised_score"] if value is not None else []
            header += ["p_value"] if p_values is not None else []
            rows.writerow(header)
            if value is not None:
                normalised = normalise(scores, value, self._unit(value))
            for place, index in enumerate(self.indices):
                row: list[Any] = [cell(text) for text in scored.known(index)]
                row += [f"{column[place]:.6g}" for column in self.columns.values()]
                if value is not None:
                    row += [int(scores[place] > value), f"{normalised[place]:.4f}"]
                if p_values is not None:
                    row.append(f"{p_values[place]:.4g}")
                rows.writerow(row)

    def _pictures(self, scored: Scored, groups: dict[str, list[int]]) -> None:
        from anogan.report import showing

        least = groups["least"][: self.pictures]
        large = {"most": groups["most"][: self.pictures], "least": least[::-1]}
        showing.panels(self.new / "pictures", scored, large, self.best.pictures)

    def _plots(self, test: dict[str, Any]) -> dict[str, Path]:
        from anogan.report import plots

        return plots.write(self.new / "plots", test) if len(test["scores"]) else {}

    def _to_plot(
        self,
        scores: np.ndarray,
        labels: np.ndarray | None,
        value: float | None,
        metrics: dict[str, Any],
    ) -> dict[str, Any]:
        """What plots.write takes."""
        known = self._labels()
        names = ("images",) if self.images.labels is None else LABELS
        plotted = self.indices[self._plotted[self.indices]]
        features = {}
        for label, name in enumerate(names):
            images, _ = self.images.read(plotted[known[plotted] == label])
            if len(images):
                features[name] = self.model.features(images)
        searched = sorted(self.losses, key=lambda i: (known[i], i))
        if len(self.model.images.seen):
            features["normal, trained on"] = self.model.features(self.model.images.seen[:KEPT])
        return {
            "scores": scores,
            "labels": labels,
            "terms": {name: self.columns[name] for name in self._heaviest()},
            "threshold": value,
            "normal": None if self.normal is None else self.normal.scores,
            "features": features,
            "losses": np.array([self.losses[i] for i in searched]).T if searched else None,
            "loss_labels": None if labels is None else known[searched],
            "metrics": metrics,
        }

    def _heaviest(self) -> list[str]:
        """The two terms that make most of the scores' differences, those with most first."""
        spreads = {name: float(np.std(self.columns[f"{name}_contribution"])) for name in TERMS}
        return sorted(TERMS, key=lambda name: -spreads[name])[:2]

    def _report(
        self,
        scored: Scored,
        groups: dict[str, list[int]],
        metrics: dict[str, Any],
        drawn: Future[dict[str, Path]],
    ) -> None:
        from anogan.report import showing

        shown = list(dict.fromkeys(sum((groups[n] for n in ("most", "nearest", "least")), [])))
        title = f"Anomaly test of {self.model.config.dataset}"
        told = facts(metrics, self.model.config, self.model.progress)
        path = self.new / "report.html"
        showing.report(path, scored, shown, self.best.pictures, title, told, drawn)
