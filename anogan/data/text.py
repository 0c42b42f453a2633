"""Lists and tables as people and spreadsheets write them: their text, and which image is meant."""

from __future__ import annotations

import codecs
import os
import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from unicodedata import normalize

from anogan.errors import UserError

SPACE = " \t\r\n\xa0\u3000"  # about a name; what else Python strips is part of it


def read_text(path: str | Path) -> str:
    """A text file in UTF-8, UTF-16 with a byte order mark, or else Windows-1252.

    Raises UserError.
    """
    try:
        return decoded(Path(path).read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def decoded(content: bytes) -> str:
    """The text of a file in the encodings of `read_text`; UnicodeDecodeError where it is none."""
    return content.decode(_encoding(content))


def _encoding(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        content.decode()
        return "utf-8-sig"
    except UnicodeDecodeError:
        return "cp1252"  # what Excel writes in the West; in another one no name will match


def finder(names: Sequence[str], folder: str | Path) -> Callable[[str], str | None]:
    """A function that says which of the names a text means, or None.

    It may have backslashes, another Unicode form, ./ or the end of the folder's path in front.
    """

    def plain(text: str) -> str:
        return normalize("NFC", posixpath.normpath(text.strip(SPACE).replace("\\", "/")))

    known = {plain(name): name for name in names} | {name: name for name in names}
    path = plain(os.path.abspath(folder)) + "/"
    ends = [path[i:] for i in range(len(path) - 1) if i == 0 or path[i - 1] == "/"]

    def find(text: str) -> str | None:
        if text in known:
            return known[text]
        form = plain(text)
        shorter = (form.removeprefix(end) for end in ends)
        return next((known[f] for f in (form, *shorter) if f in known), None)

    return find
