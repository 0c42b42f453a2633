"""Lists and tables as people and spreadsheets write them: their text, and which image is meant."""

from __future__ import annotations

import codecs
import functools
import glob
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from unicodedata import normalize

from anogan.errors import UserError

SPACE = " \t\r\n\xa0\u3000"  # about a name; what else Python strips is part of it
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # of .xlsx and .ods, and of .xls
# Of spreadsheets and consoles elsewhere, those with many unused bytes first
CODE_PAGES = (
    *("cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "big5", "cp949"),
    *("cp850", "cp866", "cp437", "mac-roman"),
)


def read_bytes(path: str | Path) -> bytes:
    """A file that should be text; UserError where it cannot be read or is a spreadsheet's own."""
    try:
        content = Path(path).read_bytes() if os.path.isfile(path) else _piped(path)
    except OSError as error:
        if glob.has_magic(str(path)):
            raise UserError(f"{path} does not exist: name one file, not a pattern") from None
        raise UserError(f"{path} cannot be read ({error})") from None
    if content.startswith(SPREADSHEETS):
        raise UserError(
            f"{path} is a workbook, not a text: in the spreadsheet choose Save As, CSV UTF-8 (or "
            "Text CSV), and name that file"
        )
    return content


@functools.cache
def _piped(path: str | Path) -> bytes:
    """What comes through a pipe, as <(command) or /dev/stdin is, also when it is read again."""
    return Path(path).read_bytes()


def read_text(path: str | Path) -> str:
    """A text file in the encodings of `decoded`; UserError where it cannot be read."""
    return decoded(read_bytes(path))


def decoded(content: bytes) -> str:
    """The text of a file in UTF-8, UTF-16, or else Windows-1252, as far as that has a meaning."""
    return content.decode(_encoding(content), "replace")


def _encoding(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    zeros = content[:200:2].count(0), content[1:200:2].count(0)
    if max(zeros) > 3 * min(zeros) + 1:  # of UTF-16 without a byte order mark
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    try:
        content.decode()
        return "utf-8-sig"
    except UnicodeDecodeError:
        return "cp1252"  # what Excel writes in the West


def fitting_encoding(content: bytes, names: Sequence[str]) -> str | None:
    """The code page in which a text has all of the names; None where there is none."""
    names = [name for name in names if not name.isascii()]
    if not names or _encoding(content) != "cp1252":
        return None
    for encoding in CODE_PAGES:
        text = normalize("NFC", content.decode(encoding, "ignore"))
        if all(normalize("NFC", os.path.splitext(posixpath.basename(n))[0]) in text for n in names):
            return encoding
    return None


def finder(
    names: Sequence[str], folder: str | Path, without_ending: bool = False
) -> Callable[[str], str | None]:
    """A function that says which of the names a text means, or None.

    It may have backslashes, another Unicode form, ./ or the end of the folder's path in front, and
    may lack the name's ending where that is allowed and leaves one name.
    """

    def plain(text: str) -> str:
        return normalize("NFC", posixpath.normpath(text.strip(SPACE).replace("\\", "/")))

    known = {plain(name): name for name in names} | {name: name for name in names}
    if without_ending:
        stems = Counter(os.path.splitext(plain(name))[0] for name in names)
        unique = {os.path.splitext(plain(name))[0]: name for name in names}
        known = {stem: name for stem, name in unique.items() if stems[stem] == 1} | known
    path = plain(os.path.abspath(folder)) + "/"
    ends = [path[i:] for i in range(len(path) - 1) if i == 0 or path[i - 1] == "/"]

    def find(text: str) -> str | None:
        if text in known:
            return known[text]
        form = plain(text)
        shorter = (form.removeprefix(end) for end in ends)
        return next((known[f] for f in (form, *shorter) if f in known), None)

    return find
