"""Lines that the user reads."""

from __future__ import annotations

from anogan.data.image_set import ImageSet
from anogan.runs import distributed
from anogan.runs.files import printable


def print_line(text: str, team: distributed.Workers | None = None) -> None:
    """A line for the user; of a team only the chief says it."""
    if team is None or team.chief:
        print(printable(text), flush=True)


def print_skipped(images: ImageSet) -> None:
    if images.skipped:
        print_line(
            f"skipped {len(images.skipped)} unreadable files, the first: {images.skipped[0][0]}"
        )


def print_warnings(images: ImageSet) -> None:
    """What is to be said of files that could be read."""
    for text, names in images.warnings.items():
        print_line(
            f"{text}: in {len(names)} of {len(images)} files, the first: {next(iter(names))}"
        )
