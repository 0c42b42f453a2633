"""Texts from outside (file names, kinds, what servers say) on a terminal, a page, in a table."""

from __future__ import annotations

import re

# What a spreadsheet takes for a formula, at the start of a cell; also after what separates cells
# elsewhere, for it may be told to split lines there. Wide forms count in East Asian versions.
FORMULA = r"[=+\-@\t\r\n＝＋－＠]"
BEGINS = r"(?:^|(?<=[;\t\r\n]))"
HARMFUL = re.compile(rf"{BEGINS}(?='*{FORMULA})")
HARMLESS = re.compile(rf"{BEGINS}'(?='*{FORMULA})")


def escaped(text: str) -> str:
    """The text in one line: control characters, and marks that turn or hide others, as \\x1b.

    So a terminal obeys none of it, and it cannot look like several lines of this tool.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cell(text: str) -> str:
    """The text as a cell of a table that no spreadsheet runs: with ' before what it would."""
    return HARMFUL.sub("'", text)


def from_cell(text: str) -> str:
    """The text that `cell` was given."""
    return HARMLESS.sub("", text)
