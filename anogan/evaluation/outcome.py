"""Measures and decisions, from the rows of a set."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anogan.data.image_set import ImageSet
from anogan.data.table import cell
from anogan.evaluation.metrics import LABELS, measures
from anogan.evaluation.result_folder import METRICS, SCORES
from anogan.evaluation.rows import Rows
from anogan.evaluation.shift import of_outliers, shift
from anogan.method.scoring import TERMS, Calibration
from anogan.method.threshold import NormalScores, Threshold, normalise, rarity
from anogan.runs.files import atomic_file, write_atomic


class Decision(NamedTuple):
    """What is decided on one image; None where there is no threshold, or no p-value."""

    file: str
    score: float
    threshold: float | None
    is_anomaly: bool | None
    p_value: float | None
    path: str | None  # of its file, as it was named


@dataclass(frozen=True)
class Outcome:
    """What a scored set comes to. Places count its rows, indices its images."""

    images: ImageSet
    rows: Rows
    normal: NormalScores | None  # of held-out images
    threshold: float | None
    pixel_threshold: float
    metrics: dict[str, Any]  # JSON-ready

    @property
    def scores(self) -> np.ndarray:
        """Return (n,)."""
        return self.rows.columns["score"]

    @property
    def labels(self) -> np.ndarray | None:
        """Return (n,), 0 normal and 1 anomalous; None where unknown."""
        known = self.images.labels
        return None if known is None else known[self.rows.indices]

    @cached_property
    def order(self) -> np.ndarray:
        """Return places (n,), the most anomalous image first."""
        return np.argsort(-self.scores, kind="stable")

    def place(self, index: int) -> int:
        return int(np.searchsorted(self.rows.indices, index))

    def known(self, index: int) -> tuple[str, str, str]:
        """Return file, label and kind of an image, the latter two empty where unknown."""
        images = self.images
        label = "" if images.labels is None else LABELS[images.labels[index]]
        return images.names[index], label, "" if images.kinds is None else images.kinds[index]

    def contributions(self, place: int) -> dict[str, float]:
        """Return {term: what it adds to the score}."""
        return {name: float(self.rows.columns[f"{name}_contribution"][place]) for name in TERMS}

    def rarity(self, place: int) -> str | None:
        """Return how rare the score at a place is among held-out images, if there are any."""
        if self.normal is None:
            return None
        return rarity(int(self.normal.as_high(self.scores[place])), len(self.normal.scores))

    @property
    def heaviest(self) -> list[str]:
        """Return the two terms that make most of the scores' differences, the heavier one first."""
        columns = self.rows.columns
        spreads = {name: float(np.std(columns[f"{name}_contribution"])) for name in TERMS}
        return sorted(TERMS, key=lambda name: -spreads[name])[:2]

    @cached_property
    def decisions(self) -> list[Decision]:
        """Decide on each image that could be read."""
        scores, value = self.scores, self.threshold
        p_values = [None] * len(scores) if self.normal is None else self.normal.p_value(scores)
        return [
            Decision(
                self.images.names[index],
                float(score),
                value,
                None if value is None else bool(score > value),
                None if p is None else float(p),
                self.images.path(index),
            )
            for index, score, p in zip(self.rows.indices, scores, p_values, strict=True)
        ]

    def write(self, folder: Path) -> None:
        """Write metrics.json, and scores.csv: what each score is made of, and the decision."""
        write_atomic(folder / METRICS, json.dumps(self.metrics, indent=2) + "\n")
        columns = self.rows.columns
        with atomic_file(folder / SCORES) as target:
            table = csv.writer(target)
            header = ["file", "label", "kind", *columns]
            if self.threshold is not None:
                header += ["is_anomaly", "normalised_score"]
                normalised = normalise(self.scores, self.threshold, self._unit(self.threshold))
            table.writerow([*header, *(["p_value"] if self.normal else [])])
            for place, decision in enumerate(self.decisions):
                row = [cell(text) for text in self.known(self.rows.indices[place])]
                row += [f"{column[place]:.6g}" for column in columns.values()]
                if decision.is_anomaly is not None:
                    row += [f"{decision.is_anomaly:d}", f"{normalised[place]:.4f}"]
                if decision.p_value is not None:
                    row.append(f"{decision.p_value:.4g}")
                table.writerow(row)

    def _unit(self, threshold: float) -> float:
        """Return the unit of the normalised score."""
        if self.normal is not None:
            return self.normal.unit(threshold)
        return max(float(np.std(self.scores)), 1e-12) / 3


def decide(
    images: ImageSet,
    rows: Rows,
    rule: Threshold,
    calibration: Calibration,
    origin: dict[str, Any],
) -> Outcome:
    """Find threshold and measures; origin: what the figures are of, JSON-ready."""
    scores, seen, everyone = rows.columns["score"], rows.indices, calibration.normal_scores
    calibration = calibration.suiting(rule)
    normal = calibration.normal_scores
    labels = None if images.labels is None else images.labels[seen]
    value, how = rule.choose(normal, labels, scores)
    metrics = {
        **origin,
        "images": len(scores),
        "images_in": _folder(images),
        "skipped": len(images.skipped),
        "score": calibration.formula(),
        "warnings": {text: len(names) for text, names in images.warnings.items()},
        "threshold": value,
        "threshold_is": how,
        "uses_labels": rule.uses_labels,
    }
    if rule.by_rate:
        metrics["target_fpr"] = rule.target_fpr
        if line := shift(normal, labels, scores, value, rule.target_fpr):
            metrics["shift"] = line
        if everyone and (line := of_outliers(everyone, scores, rule)):
            metrics["outliers"] = line
    if value is not None:
        metrics["called_anomalous"] = int((scores > value).sum())
    if labels is not None and len(scores):
        kinds = None if images.kinds is None else [images.kinds[i] for i in seen]
        metrics |= measures(labels, scores, kinds, value)
    if rows.pixels:
        metrics |= rows.pixels.measures()
    pixel_threshold = calibration.pixel_threshold(rule.target_fpr)
    return Outcome(images, rows, normal, value, pixel_threshold, metrics)


def _folder(images: ImageSet) -> str | None:
    """Return the folder that the images' names are within; None for an array's."""
    path = images.path(0) if len(images) else None
    return path and os.path.abspath(path).removesuffix(images.names[0])
