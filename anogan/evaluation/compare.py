"""Two results side by side: their settings, their measures, and which images changed sides.

It reads scores.csv and metrics.json of both and needs no TensorFlow.
"""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anogan.data.table import from_cell
from anogan.data.text import decoded
from anogan.errors import UserError, first_line
from anogan.evaluation.metrics import LABELS, auroc_difference
from anogan.evaluation.result_folder import METRICS, SCORES
from anogan.runs.files import read_own

SHOWN = 50  # images that changed sides
DRAWN = 20  # images whose rank differs most
LARGEST_METRICS, LARGEST_TABLE = 2**24, 2**30  # bytes; the latter are some millions of images
NEEDED = "file", "label", "score"
FACTS = (  # of metrics.json, in the order in which they are shown
    *("dataset", "run", "step", "size", "window", "search", "precision", "versions", "date"),
    *("images", "auroc", "average_precision", "pixel_auroc", "au_pro", "threshold"),
    "called_anomalous",
)
TITLES = {"dataset": "data set", "auroc": "AUROC", "pixel_auroc": "pixel AUROC", "au_pro": "AU-PRO"}
AT_THRESHOLD = ("recall", "precision", "f1", "false_positive_rate")


class Line(NamedTuple):
    """One image in scores.csv."""

    score: float
    label: str  # of LABELS, or ""
    is_anomaly: bool | None  # None without a threshold

    @property
    def called(self) -> str:
        return LABELS[bool(self.is_anomaly)]


class Result(NamedTuple):
    """What a test left in its folder."""

    folder: Path
    metrics: dict[str, Any]
    images: dict[str, Line]  # by file

    @classmethod
    def read(cls, folder: str | Path) -> Result:
        """Read a result; UserError where the folder holds none, or a damaged one."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: name two folders with results of a test")
        path = folder / METRICS
        try:
            metrics = json.loads(read_own(path, LARGEST_METRICS))
            if type(metrics) is not dict:
                raise ValueError("it holds no measures")
            path = folder / SCORES
            images = _images(decoded(read_own(path, LARGEST_TABLE)))
        except FileNotFoundError:
            raise UserError(
                f"{folder} holds no result (no {path.name}): make one with --anomaly_test"
            ) from None
        except (OSError, ValueError, LookupError, TypeError, RecursionError, csv.Error) as error:
            raise UserError(
                f"{path} cannot be read ({first_line(error)}): score the images again"
            ) from None
        return cls(folder, metrics, images)


def _images(text: str) -> dict[str, Line]:
    """{file: Line} of scores.csv, also as a spreadsheet saves it."""
    for delimiter in ",;\t":
        file = io.StringIO(text, newline="")
        rows = csv.DictReader(file, restval="", delimiter=delimiter, strict=True)
        if set(NEEDED) <= set(rows.fieldnames or ()):
            point = "." if delimiter == "," else ","  # where lists have semicolons
            return {from_cell(row["file"]): _line(row, point) for row in rows}
    raise ValueError(f"its first line lacks one of the columns {', '.join(NEEDED)}")


def _line(row: dict[str, str], point: str) -> Line:
    """point: the decimal one may be this, too."""
    score, label = float(row["score"].replace(point, ".")), row["label"]
    called = row.get("is_anomaly")
    if not math.isfinite(score) or label not in ("", *LABELS) or called not in ("0", "1", None):
        raise ValueError(f"no score, label or decision in the line of {row['file']}")
    return Line(score, label, None if called is None else called == "1")


def compared(a: str | Path, b: str | Path) -> list[str]:
    """Return lines on the results in two folders; UserError where there is none."""
    first, second = Result.read(a), Result.read(b)
    both = {n: (one, second.images[n]) for n, one in first.images.items() if n in second.images}
    if not both:
        raise UserError(f"{a} and {b} have no image in common: compare tests of the same images")
    alone = [len(result.images) - len(both) for result in (first, second)]
    others = f"; {alone[0]} are in A alone, {alone[1]} in B alone" if any(alone) else ""
    table = [*_side_by_side(first, second), "", f"{len(both)} images are in both{others}"]
    return [*table, *_difference(list(both.values())), *_changed(both)]


class Moved(NamedTuple):
    """An image with its ranks among those that both hold; 1: the most anomalous."""

    file: str
    score: float  # in the second result
    ranks: tuple[int, int]


def moved_most(first: Result, second: Result) -> list[Moved]:
    """Return the images whose rank differs most, the first of them first; none where all agree."""
    names = [name for name in first.images if name in second.images]
    scores = np.array([(first.images[n].score, second.images[n].score) for n in names])
    ranks = np.argsort(np.argsort(-scores, axis=0, kind="stable"), axis=0) + 1
    apart = np.abs(ranks[:, 0] - ranks[:, 1])
    order = [i for i in np.argsort(-apart, kind="stable")[:DRAWN] if apart[i]]
    return [Moved(names[i], scores[i, 1], (ranks[i, 0], ranks[i, 1])) for i in order]


def _side_by_side(a: Result, b: Result) -> list[str]:
    rows = [("", "A", "B"), ("folder", str(a.folder), str(b.folder))]
    one, other = _facts(a.metrics), _facts(b.metrics)
    rows += [(n, one.get(n, "unknown"), other.get(n, "unknown")) for n in (one | other)]
    wide = [max(len(row[i]) for row in rows) for i in range(2)]
    return [f"{n:{wide[0]}}  {x:{wide[1]}}  {y}".rstrip() for n, x, y in rows]


def _facts(metrics: dict[str, Any]) -> dict[str, str]:
    """{title: text} of what is known, in FACTS' order."""
    facts = {}
    for name in FACTS:
        value = metrics.get(name)
        if name == "step" and metrics.get("total_steps"):
            value = f"{value} of {metrics['total_steps']}"
        if name == "versions" and isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        if value is not None:
            text = f"{value:.4f}" if isinstance(value, float) else str(value)
            facts[TITLES.get(name, name.replace("_", " "))] = text
    at = metrics.get("at_threshold")
    for name in AT_THRESHOLD:
        if isinstance(at, dict) and isinstance(at.get(name), float):
            facts[f"{name.replace('_', ' ')} at it"] = f"{at[name]:.4f}"
    return facts


def _difference(both: list[tuple[Line, Line]]) -> list[str]:
    """Return the AUROC of B less that of A, on images of the same label in both."""
    alike = [(a, b) for a, b in both if a.label == b.label]
    lines = []
    if differ := len(both) - len(alike):
        lines.append(f"{differ} of them have another label, or none, in B: left out of the AUROC")
    known = [(a, b) for a, b in alike if a.label]
    labels = np.array([LABELS.index(a.label) for a, _ in known])
    if len(set(labels.tolist())) < 2:
        return [*lines, "no AUROC: labels of both sorts are needed"]
    one, other = np.array([(a.score, b.score) for a, b in known]).T
    first, second, low, high = auroc_difference(labels, one, other)
    return [
        *lines,
        f"AUROC on {len(known)} of them: A {first:.4f}, B {second:.4f}; B - A "
        f"{second - first:+.4f} (95 % interval {low:+.4f} to {high:+.4f}, paired bootstrap)",
    ]


def _changed(both: dict[str, tuple[Line, Line]]) -> list[str]:
    """Return which images one calls anomalous and the other does not."""
    decided = {n: p for n, p in both.items() if None not in (p[0].is_anomaly, p[1].is_anomaly)}
    if not decided:
        return ["no decisions to compare: one of them has no threshold"]
    changed = {n: (a, b) for n, (a, b) in decided.items() if a.is_anomaly != b.is_anomaly}
    lines = [f"{len(changed)} of {len(decided)} images changed sides" + (":" if changed else "")]
    for name, (a, b) in list(changed.items())[:SHOWN]:
        known = f", which is {a.label}" if a.label and a.label == b.label else ""
        lines.append(
            f"  {name}{known}: {a.called} in A (score {a.score:.4g}), {b.called} in B "
            f"({b.score:.4g})"
        )
    if len(changed) > SHOWN:
        lines.append(f"  and {len(changed) - SHOWN} more")
    return lines
