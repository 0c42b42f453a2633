"""What scoring leaves behind: scores.csv, metrics.json, pictures and a ranked contact sheet."""

from __future__ import annotations

import csv
import heapq
import itertools
import json
import os
import shutil
from pathlib import Path

import numpy as np

from pictures import detection_panel
from utils import save_image, tile, write_atomic

PARTIAL = "scores.partial.csv"
SCORES = "scores.csv"
COLUMNS = ("file", "label", "kind", "score", "residual", "discrimination", "realism")
SHEET = 100  # images on the contact sheet
LABELS = ("normal", "anomalous")


class Results:
    """Takes scored batches as they come; memory holds the scores and a few images.

    Use as a context: on an error or Ctrl-C the rows written so far stay in scores.partial.csv.
    """

    def __init__(self, folder: Path, images, pictures: int = 10):
        """images: the ImageSet that is scored; pictures: so many of the most and the least."""
        self.folder, self.images, self.pictures = Path(folder), images, pictures
        self.folder.mkdir(parents=True, exist_ok=True)
        self.indices: list[int] = []
        self.scores: list[float] = []
        self._most, self._least = [], []
        self._ticket = itertools.count()  # heap ties never compare images

    def __enter__(self):
        self._file = open(self.folder / PARTIAL, "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._rows = csv.writer(self._file)
        self._rows.writerow(COLUMNS)
        return self

    def __exit__(self, *_):
        self._file.close()

    def add(self, indices, queries, found) -> None:
        """One batch: indices into the ImageSet, its images in [-1, 1], their Detection."""
        for i, index in enumerate(indices):
            score = float(found.score[i])
            self.indices.append(int(index))
            self.scores.append(score)
            self._rows.writerow(
                [
                    self.images.names[index],
                    "" if self.images.labels is None else LABELS[self.images.labels[index]],
                    "" if self.images.kinds is None else self.images.kinds[index],
                    *(f"{float(v[i]):.6g}" for v in (found.score, *found[1:4])),
                ]
            )
            picture = (index, queries[i], found.reconstruction[i], found.residual_map[i])
            for heap, key in ((self._most, score), (self._least, -score)):
                entry = (key, next(self._ticket), picture)
                if len(heap) < self.pictures:
                    heapq.heappush(heap, entry)
                else:
                    heapq.heappushpop(heap, entry)
        self._file.flush()

    def finish(self) -> dict:
        """Writes all that needs every score; the metrics (empty without labels)."""
        self._file.close()
        os.replace(self.folder / PARTIAL, self.folder / SCORES)
        self._pictures()
        self._contact_sheet()
        return self._metrics()

    def _pictures(self) -> None:
        folder = self.folder / "pictures"
        shutil.rmtree(folder, ignore_errors=True)
        groups = {
            "most": sorted(self._most, reverse=True),
            "least": sorted(self._least, reverse=True),
        }
        maps = [entry[2][3] for group in groups.values() for entry in group]
        top = max((float(np.quantile(m, 0.995)) for m in maps), default=1.0)
        for name, group in groups.items():
            for rank, (key, _, (index, query, reconstruction, residual)) in enumerate(group, 1):
                score = key if name == "most" else -key
                stem = Path(self.images.names[index]).with_suffix("").as_posix().replace("/", "_")
                known = "" if self.images.kinds is None else f" ({self.images.kinds[index]})"
                title = f"{self.images.names[index]}{known}   anomaly score {score:.4g}"
                path = folder / f"{name}_{rank:02d}_{stem[-80:]}.png"
                detection_panel(path, title, query, reconstruction, residual, top)

    def _contact_sheet(self) -> None:
        """The most anomalous first, and evenly spaced ranks where there are too many images."""
        if not self.scores:
            return
        order = np.argsort(-np.asarray(self.scores), kind="stable")
        shown = order[np.unique(np.linspace(0, len(order) - 1, min(SHEET, len(order)), dtype=int))]
        images, _ = self.images.read([self.indices[i] for i in shown])
        save_image(self.folder / "contact_sheet.png", tile(images))

    def _metrics(self) -> dict:
        from sklearn.metrics import average_precision_score, roc_auc_score

        if self.images.labels is None or not self.scores:
            return {}
        labels, scores = self.images.labels[self.indices], np.asarray(self.scores)
        metrics = {
            "images": len(scores),
            "normal": int((labels == 0).sum()),
            "anomalous": int((labels == 1).sum()),
            "skipped": len(self.images.skipped),
        }
        if metrics["normal"] and metrics["anomalous"]:
            metrics["auroc"] = float(roc_auc_score(labels, scores))
            metrics["average_precision"] = float(average_precision_score(labels, scores))
            kinds = np.asarray(self.images.kinds)[self.indices]
            metrics["auroc_by_kind"] = {
                str(kind): float(roc_auc_score(labels[chosen], scores[chosen]))
                for kind in sorted(set(kinds[labels == 1]))
                for chosen in [(labels == 0) | (kinds == kind)]
            }
        write_atomic(self.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        return metrics
