"""Texts in pictures: the font, and names from outside in letters that it has."""

from __future__ import annotations

import functools
import unicodedata
from pathlib import Path

from anogan.runs.files import printable

LONGEST = 100  # characters of a name in the heading of a picture


def font_file() -> Path:
    """Return the file of the font that pictures are written in."""
    import matplotlib  # slow, and not needed where there are no pictures

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@functools.cache
def _letters() -> frozenset[int]:
    """Return what that font has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file())).get_charmap())


def drawable(text: str) -> str:
    """Return a text for a picture in one line, with letters that its font lacks, or that run to
    the left, as \\u4e2d. On the page the browser shows them all.
    """
    return "".join(
        c
        if ord(c) in _letters() and unicodedata.bidirectional(c) not in ("R", "AL")
        else c.encode("unicode_escape").decode()
        for c in printable(text)
    )


def fitting(text: str) -> str:
    """Return what fits into a picture's heading, in one line."""
    text = drawable(text)
    return text if len(text) <= LONGEST else f"…{text[-LONGEST:]}"
