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
from anogan.runs.files import read_own

SHOWN = 50  # images that changed sides
LARGEST_TABLE = 2**30  # bytes of a table, some millions of images
MOST_MEASURES = 2**24  # bytes of metrics.json
NEEDED = "file", "label", "score"
FACTS = {  # of metrics.json: {name: title}
    **{
        "dataset": "data set",
        "run": "run",
        "step": "step",
        "size": "size",
        "window": "window",
        "search": "search",
    },
    **{"precision": "precision", "versions": "versions", "date": "date"},
    **{"images": "images", "auroc": "AUROC", "average_precision": "average precision"},
    **{
        "pixel_auroc": "pixel AUROC",
        "au_pro": "AU-PRO",
        "threshold": "threshold",
        "called_anomalous": "called anomalous",
    },
}
AT_THRESHOLD = ("recall", "precision", "f1", "false_positive_rate")


class Scored(NamedTuple):
    """One image in scores.csv."""

    score: float
    label: str  # of LABELS, or ""
    is_anomaly: bool | None  # None without a threshold


class Result(NamedTuple):
    """What a test left in its folder."""

    folder: Path
    metrics: dict[str, Any]
    images: dict[str, Scored]  # by file

    @classmethod
    def read(cls, folder: str | Path) -> Result:
        """UserError where the folder holds no result, or a damaged one."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder: name two folders with results of a test")
        path = folder / "metrics.json"
        try:
            metrics = json.loads(read_own(path, MOST_MEASURES))
            if type(metrics) is not dict:
                raise ValueError("it holds no measures")
            path = folder / "scores.csv"
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


def _images(text: str) -> dict[str, Scored]:
    """{file: Scored} of scores.csv, also as a spreadsheet saves it."""
    for delimiter in ",;\t":
        file = io.StringIO(text, newline="")
        rows = csv.DictReader(file, restval="", delimiter=delimiter, strict=True)
        if set(NEEDED) <= set(rows.fieldnames or ()):
            point = "." if delimiter == "," else ","  # where lists have semicolons
            return {from_cell(row["file"]): _scored(row, point) for row in rows}
    raise ValueError(f"its first line lacks one of the columns {', '.join(NEEDED)}")


def _scored(row: dict[str, str], point: str) -> Scored:
    """point: the decimal one may be this, too."""
    score, label = float(row["score"].replace(point, ".")), row["label"]
    called = row.get("is_anomaly")
    if not math.isfinite(score) or label not in ("", *LABELS) or called not in ("0", "1", None):
        raise ValueError(f"no score, label or decision in the line of {row['file']}")
    return Scored(score, label, None if called is None else called == "1")


def compared(a: str | Path, b: str | Path) -> list[str]:
    """Lines for the user on the results in two folders; UserError where there is none."""
    first, second = Result.read(a), Result.read(b)
    both = [name for name in first.images if name in second.images]
    if not both:
        raise UserError(f"{a} and {b} have no image in common: compare tests of the same images")
    lines = [*_side_by_side(first, second), ""]
    missing = [len(result.images) - len(both) for result in (first, second)]
    told = f"; {missing[0]} are in A alone, {missing[1]} in B alone" if any(missing) else ""
    lines.append(f"{len(both)} images are in both{told}")
    lines += _difference(first, second, both)
    return [*lines, *_changed(first, second, both)]


def _side_by_side(a: Result, b: Result) -> list[str]:
    rows = [("", "A", "B"), ("folder", str(a.folder), str(b.folder))]
    columns = [_told(result.metrics) for result in (a, b)]
    for name in dict.fromkeys([*columns[0], *columns[1]]):
        rows.append((name, columns[0].get(name, "unknown"), columns[1].get(name, "unknown")))
    wide = [max(len(row[i]) for row in rows) for i in range(2)]
    return [f"{n:{wide[0]}}  {x:{wide[1]}}  {y}".rstrip() for n, x, y in rows]


def _told(metrics: dict[str, Any]) -> dict[str, str]:
    """{title: text} of what is known, in FACTS' order."""
    found = {}
    for name, title in FACTS.items():
        value = metrics.get(name)
        if name == "step" and metrics.get("total_steps"):
            value = f"{value} of {metrics['total_steps']}"
        if name == "versions" and isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        if value is not None:
            found[title] = f"{value:.4f}" if isinstance(value, float) else str(value)
    at = metrics.get("at_threshold")
    for name in AT_THRESHOLD:
        if isinstance(at, dict) and isinstance(at.get(name), float):
            found[f"{name.replace('_', ' ')} at it"] = f"{at[name]:.4f}"
    return found


def _difference(a: Result, b: Result, both: list[str]) -> list[str]:
    """The AUROC of B less that of A, on images of the same label in both."""
    labels = [a.images[name].label for name in both]
    lines = []
    differ = sum(label != b.images[name].label for name, label in zip(both, labels, strict=True))
    if differ:
        lines.append(f"{differ} of them have another label, or none, in B: left out of the AUROC")
    known = [n for n in both if a.images[n].label and a.images[n].label == b.images[n].label]
    numbers = np.array([LABELS.index(a.images[name].label) for name in known])
    if len(set(numbers.tolist())) < 2:
        return [*lines, "no AUROC: labels of both sorts are needed"]
    one, other = (np.array([result.images[name].score for name in known]) for result in (a, b))
    found = auroc_difference(numbers, one, other)
    return [
        *lines,
        f"AUROC on {len(known)} of them: A {found.first:.4f}, B {found.second:.4f}; B - A "
        f"{found.second - found.first:+.4f} (95 % interval {found.low:+.4f} to {found.high:+.4f}, "
        "paired bootstrap)",
    ]


def _changed(a: Result, b: Result, both: list[str]) -> list[str]:
    """Which images one calls anomalous and the other does not."""
    decided = [n for n in both if None not in (a.images[n].is_anomaly, b.images[n].is_anomaly)]
    if not decided:
        return ["no decisions to compare: one of them has no threshold"]
    names = [n for n in decided if a.images[n].is_anomaly != b.images[n].is_anomaly]
    lines = [f"{len(names)} of {len(decided)} images changed sides" + (":" if names else "")]
    for name in names[:SHOWN]:
        one, other = a.images[name], b.images[name]
        known = f", which is {one.label}" if one.label and one.label == other.label else ""
        lines.append(
            f"  {name}{known}: {_called(one)} in A (score {one.score:.4g}), "
            f"{_called(other)} in B ({other.score:.4g})"
        )
    if len(names) > SHOWN:
        lines.append(f"  and {len(names) - SHOWN} more")
    return lines


def _called(image: Scored) -> str:
    return LABELS[bool(image.is_anomaly)]
