"""Lines that the user reads."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING, Any

from anogan.runs.files import printable

if TYPE_CHECKING:  # NumPy, which --help and mistyped flags need not wait for
    from anogan.data.image_set import ImageSet
    from anogan.method.scoring import Calibration
    from anogan.runs.distributed import Workers


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


def print_search(search: Any, held_out: int, workers: Workers) -> None:
    """Print that a calibration is to be found, which may take long."""
    steps = f", {search.steps} steps each" if search.steps else ""
    print_line(
        f"measuring {held_out} held-out normal images, and some with planted anomalies, to scale "
        f"the scores (--search {search.search}{steps})",
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
            "samples may name them), train without them (--drop), or give --threshold",
            *(outliers, len(normal.scores), normal.scores[-1], median(normal.scores)),
        )
