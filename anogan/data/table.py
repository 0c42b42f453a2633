"""Texts from outside, such as names of files, in tables that spreadsheets open."""

from __future__ import annotations

import re

# What a spreadsheet takes for a formula, at the start of a cell; also after what separates cells
# elsewhere, for it may be told to split lines there. Wide forms count in East Asian versions.
FORMULA = r"[=+\-@\t\r\n＝＋－＠]"
BEGINS = r"(?:^|(?<=[;\t\r\n]))"
HARMFUL = re.compile(rf"{BEGINS}(?='*{FORMULA})")
HARMLESS = re.compile(rf"{BEGINS}'(?='*{FORMULA})")


def cell(text: str) -> str:
    """The text as a cell of a table that no spreadsheet runs: with ' before what it would."""
    return HARMFUL.sub("'", text)


def from_cell(text: str) -> str:
    """The text that `cell` was given."""
    return HARMLESS.sub("", text)
