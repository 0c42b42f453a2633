"""Lines that the user reads."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from anogan.runs.files import printable

if TYPE_CHECKING:  # NumPy, which --help and mistyped flags need not wait for
    from anogan.data.image_set import ImageSet
    from anogan.evaluation.outcome import Decision, Outcome
    from anogan.method.scoring import Calibration, Search
    from anogan.runs.distributed import Workers

CAVEATS = "shift", "outliers"  # in metrics.json, lines on whether the threshold suits
PRINTED = 20  # images whose score is printed


class OneLine(logging.Formatter):
    """A line for each record, whatever names of files it holds."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def set_up_console() -> None:
    """Make warnings one line each; a console may lack the letters of a file's name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    console = logging.StreamHandler()
    console.setFormatter(OneLine("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[console])


def print_line(text: str, workers: Workers | None = None) -> None:
    """Print a line; of several workers the chief alone does."""
    if workers is None or workers.chief:
        print(printable(text), flush=True)


def print_skipped(images: ImageSet) -> None:
    """Print how many files could not be read."""
    if images.skipped:
        count, first = len(images.skipped), images.skipped[0][0]
        print_line(f"skipped {count} unreadable files, the first: {first}")


def print_warnings(images: ImageSet) -> None:
    """Print what is to be known of files that could be read."""
    for text, names in images.warnings.items():
        first = next(iter(names))
        print_line(f"{text}: in {len(names)} of {len(images)} files, the first: {first}")


def print_search(search: Search, held_out: int, workers: Workers) -> None:
    """Print that a calibration is to be found, which may take long."""
    steps = f", {search.steps} steps each" if search.steps else ""
    print_line(
        f"measuring {held_out} held-out normal images, and some with planted anomalies, to scale "
        f"the scores (--search {search.kind}{steps})",
        workers,
    )


def print_outliers(calibration: Calibration, workers: Workers) -> None:
    """Warn of held-out images that should be normal and look as if they were not."""
    from statistics import median  # slow to import

    normal = calibration.normal_scores
    if workers.chief and normal and (outliers := normal.outliers()):
        logging.getLogger(__name__).warning(
            "%d of %d held-out normal images score far above all others (%.3g; half of all are "
            "below %.3g) and raise the threshold: if they are not normal (suspicious.txt in the "
            "samples may name them), train without them (--drop), or leave them out of the "
            "threshold (--threshold_from inliers)",
            *(outliers, len(normal.scores), normal.scores[-1], median(normal.scores)),
        )


def write_json(out: TextIO, outcome: Outcome, folder: Path) -> None:
    """Write a line for each image, and one for all."""
    skipped = [{"file": name, "reason": reason} for name, reason in outcome.images.skipped]
    summary = {**outcome.metrics, "skipped_files": skipped, "results": str(folder)}
    for line in (*(decision._asdict() for decision in outcome.decisions), {"summary": summary}):
        print(json.dumps(line), file=out)
    out.flush()


def print_decisions(decisions: list[Decision]) -> None:
    """Print a line for each of the first images."""
    for file, score, threshold, is_anomaly, *_ in decisions[:PRINTED]:
        if threshold is None:
            print_line(f"{file}: score {score:.4g}")
        else:
            called = "anomalous" if is_anomaly else "normal"
            print_line(f"{file}: score {score:.4g}, threshold {threshold:.4g}: {called}")
    if len(decisions) > PRINTED:
        print_line(f"and {len(decisions) - PRINTED} more in scores.csv")


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print the measures in a few lines."""
    if "auroc" in metrics:
        low, high = metrics["auroc_interval"]
        print_line(
            f"AUROC {metrics['auroc']:.4f} (95 % interval {low:.4f} to {high:.4f}), average "
            f"precision {metrics['average_precision']:.4f} "
            f"({metrics['normal']} normal, {metrics['anomalous']} anomalous images)"
        )
    if "pixel_auroc" in metrics:
        print_line(f"pixel AUROC {metrics['pixel_auroc']:.4f}, AU-PRO {metrics['au_pro']:.4f}")
    if metrics["threshold"] is None:
        print_line(f"no threshold ({metrics['threshold_is']}): give --threshold")
        return
    line = f"threshold {metrics['threshold']:.4g} ({metrics['threshold_is']}): "
    line += f"{metrics['called_anomalous']} of {metrics['images']} images are called anomalous"
    at = metrics.get("at_threshold", {})
    parts = [
        f"{name.replace('_', ' ')} {at[name]:.3f}"
        for name in ("recall", "precision", "f1", "false_positive_rate")
        if name in at
    ]
    print_line("; ".join([line, *parts]))
    for name in CAVEATS:
        if name in metrics:
            print_line(metrics[name])
