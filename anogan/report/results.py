"""What scoring leaves behind: scores, decisions, measures, pictures, maps, plots, the report."""

from __future__ import annotations

import csv
import json
from array import array
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from anogan import metrics as measured
from anogan.dataset import ImageSet
from anogan.errors import UserError
from anogan.files import Output, atomic_file, record, write_atomic
from anogan.masks import Masks
from anogan.metrics import LABELS, PixelMeasures
from anogan.report import page, plots
from anogan.report.best import Best
from anogan.report.facts import facts
from anogan.report.parts import pack, unpack
from anogan.report.pictures import detection_panel, save_map, shown_map
from anogan.scoring import TERMS, Calibration, Detection
from anogan.threshold import Threshold, normalise, told
from utils import save_image, tile, to_uint8

if TYPE_CHECKING:
    from model import DCGAN

PARTIAL = "scores.partial{}.csv"  # with several workers, and a part of the results, of each
PART = "worker{}.part"
SCORES = "scores.csv"
FILES = (SCORES, "scores.partial.csv", "metrics.json", "report.html", "contact_sheet.png")
CONTRIBUTIONS = tuple(f"{name}_contribution" for name in TERMS)
SHEET = 100  # images on the contact sheet
GALLERY = 100  # of the most anomalous in the report; half as many of the least and the nearest
KEPT = 500  # images of each label whose features and search losses are plotted


class Results:
    """Takes scored batches as they come; memory holds the scores and some hundred images.

    Use as a context: on an error or Ctrl-C the rows written so far stay in scores.partial.csv.
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
    ):
        """images: the ImageSet that is scored, by the DCGAN model and with its calibration.

        save_maps: also as files, one of each image; pictures: so many of the most and the least
        anomalous are drawn large.
        """
        self.folder, self.images, self.model = Path(folder), images, model
        self.normal, self.threshold = calibration.normal_scores, threshold or Threshold()
        self.pixel_threshold = calibration.pixel_threshold(self.threshold.target_fpr)
        self.masks, self.save_maps = masks, save_maps
        self.pictures = pictures
        self.formula = calibration.formula()
        known = images.labels is not None
        by_labels = self.threshold.uses_labels  # known only when all scores are
        self.near = None if by_labels else self.threshold.choose(self.normal, None, None)[0]
        self.output = Output(self.folder, FILES)
        self.new = self.output.staging  # where files wait until all are there
        self.workers = model.workers
        worker = self.workers.index
        self._partial = self.folder / PARTIAL.format(f"{worker}" if worker else "")
        self.indices = array("q")
        self.columns = {name: array("d") for name in ("score", *TERMS, *CONTRIBUTIONS)}
        self._most = Best(max(pictures, GALLERY))
        self._least = Best(max(pictures, GALLERY // 2))
        self._nearest = Best(GALLERY // 2)
        stems = Counter(name.rpartition(".")[0] for name in images.names) if save_maps else {}
        self._shared_stems = {stem for stem, count in stems.items() if count > 1}
        self._features: dict[str, list[np.ndarray]] = {
            name: [] for name in (LABELS if known else ("images",))
        }
        self._losses: dict[str, list[np.ndarray]] = {name: [] for name in self._features}
        self._pixels = PixelMeasures(self.pixel_threshold) if masks else None

    def __enter__(self) -> Results:
        record(self.folder, self._partial.name)
        self._file = open(self._partial, "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._rows = csv.writer(self._file)
        self._rows.writerow(("file", "label", "kind", *self.columns))
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, indices: np.ndarray, queries: np.ndarray, found: Detection) -> None:
        """One batch: indices into the ImageSet, its images in [-1, 1], their Detection."""
        for i, index in enumerate(indices):
            score = float(found.score[i])
            self.indices.append(int(index))
            values = [score, *(getattr(found, name)[i] for name in TERMS), *found.contributions[i]]
            for column, value in zip(self.columns.values(), values, strict=True):
                column.append(float(value))
            self._rows.writerow([*self._known(index), *(f"{v:.6g}" for v in values)])
            place = len(self.indices) - 1
            picture = (place, queries[i], found.reconstruction[i], found.anomaly_map[i])
            self._most.offer(score, picture)
            self._least.offer(-score, picture)
            if self.near is not None:
                self._nearest.offer(-abs(score - self.near), picture)
            if self.masks and self._pixels:
                self._pixels.add(found.anomaly_map[i], self.masks.read(index))
            if self.save_maps:
                stem = self.new / "maps" / self._stem(index)
                save_map(stem, queries[i], found.anomaly_map[i], self.pixel_threshold)
        self._file.flush()
        self._keep_for_plots(indices, queries, found)

    def _known(self, index: int) -> tuple[str, str, str]:
        """File, label and kind of an image, the latter empty where unknown."""
        images = self.images
        label = "" if images.labels is None else LABELS[images.labels[index]]
        kind = "" if images.kinds is None else images.kinds[index]
        return images.names[index], label, kind

    def _stem(self, index: int) -> str:
        """The image's name without its ending, unless another image has the same."""
        name = self.images.names[index]
        stem = name.rpartition(".")[0] or name
        return name if stem in self._shared_stems else stem

    def _keep_for_plots(self, indices: np.ndarray, queries: np.ndarray, found: Detection) -> None:
        labels = self._labels(indices)
        for i, name in enumerate(self._features):
            chosen = np.flatnonzero(labels == i)[: self._room(name)]
            if len(chosen):
                losses = None if found.losses is None else found.losses[chosen]
                self._keep(name, self.model.features(queries[chosen]), losses)

    def _room(self, name: str) -> int:
        return KEPT - sum(len(f) for f in self._features[name])

    def _keep(self, name: str, features: np.ndarray, losses: np.ndarray | None) -> None:
        room = self._room(name)
        self._features[name].append(features[:room])
        if losses is not None:
            self._losses[name].append(losses[:room])

    # several workers

    def settle(self) -> None:
        """Before scoring: all workers have the same images and model, and see this folder."""
        if self.workers.chief:
            self.output.begin()
        if self.workers.count == 1:
            return
        images, model = self.images, self.model
        self.workers.agree(
            {
                "images": crc32("\n".join(images.names).encode()),
                "labels": crc32(b"" if images.labels is None else images.labels.tobytes()),
                "model": model.checksum(),
                "precision": crc32(model.precision.encode()),
            }
        )
        for old in self.folder.glob(PART.format("*")):
            old.unlink(missing_ok=True)
        self.workers.wait()
        if self.workers.chief:
            write_atomic(self.folder / PART.format(0), "")
        self.workers.wait()
        seen = np.zeros(self.workers.count, np.int64)
        seen[self.workers.index] = (self.folder / PART.format(0)).exists()
        missing = np.flatnonzero(self.workers.total(seen) == 0)
        if len(missing):
            raise UserError(
                f"worker {missing[0]} does not see {self.folder} of worker 0: "
                "put --test_result_dir where all machines see it"
            )

    def gather(self) -> None:
        """After scoring: the chief takes over what the other workers have found."""
        if self.workers.count == 1:
            return
        if not self.workers.chief:
            part = {
                "indices": self.indices,
                "columns": self.columns,
                "best": [best.in_order() for best in self._best()],
                "features": self._features,
                "losses": self._losses,
                "pixels": vars(self._pixels) if self._pixels else None,
                "skipped": self.images.skipped,
                "remarks": self.images.remarks,
            }
            write_atomic(self.folder / PART.format(self.workers.index), pack(part))
        self.workers.wait()
        if not self.workers.chief:
            self._partial.unlink()
            return
        for worker in range(1, self.workers.count):
            path = self.folder / PART.format(worker)
            self._absorb(unpack(path.read_bytes()))
            path.unlink()
        (self.folder / PART.format(0)).unlink()

    def _best(self) -> tuple[Best, ...]:
        return self._most, self._least, self._nearest

    def _absorb(self, part: dict[str, Any]) -> None:
        """Another worker's part, see gather, whose images come after all that are here."""
        before = len(self.indices)
        self.indices.extend(part["indices"].tolist())
        for name, column in self.columns.items():
            column.extend(part["columns"][name].tolist())
        for mine, theirs in zip(self._best(), part["best"], strict=True):
            for key, (place, *picture) in theirs:
                mine.offer(key, (place + before, *picture))
        for name, parts in part["features"].items():
            losses = part["losses"][name]
            for i, some in enumerate(parts):
                self._keep(name, some, losses[i] if losses else None)
        if part["pixels"] and self._pixels:
            pixels = PixelMeasures(self.pixel_threshold)
            vars(pixels).update(part["pixels"])
            self._pixels += pixels
        known = {name for name, _ in self.images.skipped}
        self.images.skipped.extend(
            (name, why) for name, why in part["skipped"] if name not in known
        )
        for text, names in part["remarks"].items():
            self.images.remarks.setdefault(text, {}).update(names)

    def _labels(self, indices: np.ndarray) -> np.ndarray:
        labels = self.images.labels
        return np.zeros(len(indices), int) if labels is None else labels[indices]

    def finish(self) -> dict:
        """Writes all that needs every score; the metrics."""
        self._file.close()
        scores = np.asarray(self.columns["score"])
        labels = None if self.images.labels is None else self.images.labels[self.indices]
        kinds = None if self.images.kinds is None else [self.images.kinds[i] for i in self.indices]
        value, how = self.threshold.choose(self.normal, labels, scores)
        self._scores(scores, value)
        metrics = {
            "images": len(scores),
            "skipped": len(self.images.skipped),
            "score": self.formula,
            "remarks": {text: len(names) for text, names in self.images.remarks.items()},
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
        self._pictures(value)
        self._contact_sheet(scores)
        drawn = self._plots(scores, labels, value, metrics) if len(scores) else {}
        self._report(scores, labels, kinds, value, metrics, drawn)
        self.output.publish()  # and removes the partial file, which is recorded as this tool's
        return metrics

    def _unit(self, value: float) -> float:
        if self.normal is not None:
            return self.normal.unit(value)
        return max(float(np.std(self.columns["score"])), 1e-12) / 3

    def _scores(self, scores: np.ndarray, value: float | None) -> None:
        """scores.csv: the partial file's rows with the decisions beside them."""
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
                row: list[Any] = [*self._known(index)]
                row += [f"{column[place]:.6g}" for column in self.columns.values()]
                if value is not None:
                    row += [int(scores[place] > value), f"{normalised[place]:.4f}"]
                if p_values is not None:
                    row.append(f"{p_values[place]:.4g}")
                rows.writerow(row)

    def _pictures(self, value: float | None) -> None:
        folder = self.new / "pictures"
        least = self._least.ranked()[: self.pictures]
        groups = {"most": self._most.ranked()[: self.pictures], "least": least[::-1]}
        for name, group in groups.items():
            for rank, (place, query, reconstruction, anomaly_map) in enumerate(group, 1):
                file, _, kind = self._known(self.indices[place])
                score = self.columns["score"][place]
                title = f"{file}{f' ({kind})' if kind else ''}\nanomaly score {score:.4g}"
                if value is not None:
                    title += f", {'anomalous' if score > value else 'normal'}"
                if self.normal is not None:
                    title += (
                        f"; {told(int(self.normal.as_high([score])[0]), len(self.normal.scores))}"
                    )
                title += f"\n{self._decided_by(place)}"
                stem = Path(file).with_suffix("").as_posix().replace("/", "_")
                path = folder / f"{name}_{rank:02d}_{stem[-80:]}.png"
                shown = {"query": query, "reconstruction G(z)": reconstruction}
                detection_panel(path, title, shown, anomaly_map, self.pixel_threshold)

    def _decided_by(self, place: int) -> str:
        """The terms that made the score of an image high, the greatest first."""
        parts = {name: self.columns[f"{name}_contribution"][place] for name in TERMS}
        high = sorted((name for name in TERMS if parts[name] > 0), key=lambda n: -parts[n])
        told = ", ".join(f"{name.replace('_', ' ')} {parts[name]:+.3g}" for name in high[:3])
        return f"above the mean: {told}" if told else "no term is above the mean of normal images"

    def _contact_sheet(self, scores: np.ndarray) -> None:
        """The most anomalous first, and evenly spaced ranks where there are too many images."""
        if not len(scores):
            return
        order = np.argsort(-scores, kind="stable")
        shown = order[np.unique(np.linspace(0, len(order) - 1, min(SHEET, len(order)), dtype=int))]
        images, _ = self.images.read([self.indices[i] for i in shown])
        save_image(self.new / "contact_sheet.png", tile(images))

    def _plots(
        self,
        scores: np.ndarray,
        labels: np.ndarray | None,
        value: float | None,
        metrics: dict[str, Any],
    ) -> dict:
        folder = self.new / "plots"
        features = {name: np.concatenate(f) for name, f in self._features.items() if f}
        losses = list(self._losses.values())
        if len(self.model.images.seen):
            features["normal, trained on"] = self.model.features(self.model.images.seen[:KEPT])
        test = {
            "scores": scores,
            "labels": labels,
            "residual": np.asarray(self.columns["residual"]),
            "discrimination": np.asarray(self.columns["discrimination"]),
            "threshold": value,
            "normal": None if self.normal is None else self.normal.scores,
            "features": features,
            "losses": np.concatenate(sum(losses, [])).T if any(losses) else None,
            "loss_labels": (
                np.repeat([0, 1], [sum(map(len, part)) for part in losses])
                if any(losses) and labels is not None
                else None
            ),
            "metrics": metrics,
        }
        return plots.write(folder, test)

    def _report(
        self,
        scores: np.ndarray,
        labels: np.ndarray | None,
        kinds: list[str] | None,
        value: float | None,
        metrics: dict[str, Any],
        drawn: dict[str, Path],
    ) -> None:
        order = np.argsort(-scores, kind="stable")
        rank = np.empty(len(order), int)
        rank[order] = np.arange(len(order))
        rows = {
            "file": [self._known(self.indices[i])[0] for i in order],
            "label": None if labels is None else [LABELS[i] for i in labels[order]],
            "kind": None if kinds is None else [kinds[i] for i in order],
            "score": scores[order],
            "residual": np.asarray(self.columns["residual"])[order],
            "discrimination": np.asarray(self.columns["discrimination"])[order],
            "as_high": None if self.normal is None else self.normal.as_high(scores[order]),
        }
        best = {p[0]: p for b in (self._most, self._nearest, self._least) for p in b.ranked()}
        gallery = [
            (
                rank[place],
                page.thumbnail(to_uint8(query)),
                page.thumbnail(to_uint8(reconstruction)),
                page.thumbnail(shown_map(query, anomaly_map, self.pixel_threshold)),
            )
            for place, query, reconstruction, anomaly_map in best.values()
        ]
        decided = {} if value is None else {"threshold": value}
        if self.normal is not None:
            decided["held_out"] = len(self.normal.scores)
        title = f"Anomaly test of {self.model.config.dataset}"
        told = facts(metrics, self.model.config, self.model.steps_done)
        page.write(self.new / "report.html", title, told, rows, gallery, drawn, decided)
