"""Labels of images from a CSV file, as people, spreadsheets and programs write it."""

from __future__ import annotations

import csv
import difflib
import io
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from anogan.data.image_set import ImageSet
from anogan.data.lexicon import meaning
from anogan.data.table import from_cell
from anogan.data.text import decoded, finder, fitting_encoding, read_bytes
from anogan.errors import UserError

# What columns are called; of several the first of these counts
FILE = "file filename image path filepath imagepath imagefile imagename img name imageid id"
LABEL = "label labels isanomaly isanomalous anomaly anomalous isdefective defective target class y"
LABEL += " gt groundtruth result status verdict decision ok isok normal isnormal good isgood passed"
KIND = "kind kinds defecttype anomalytype defect type category class"
TRUE, FALSE = ("true", "yes", "y", "t"), ("false", "no", "n", "f")
BOTH_SENSES = (
    "-1 and 1 are used in opposite senses (scikit-learn's outliers are -1, others' are 1): "
    "write normal and anomalous"
)
Find = Callable[[str], str | None]


class Columns(NamedTuple):
    """Where a table has what; its header has said so, or its first line."""

    file: int
    label: int
    kind: int = -1  # none
    label_name: str = "label"


def labelled(images: ImageSet, path: str | Path, folder: str | Path) -> ImageSet:
    """The same images with labels and kinds from a CSV file.

    Its columns, named in the first line as FILE, LABEL and KIND have it: file (as in images.names,
    or without the ending where that is unique; the path of the images' folder, or the end of it,
    may stand before that), label (see label_of), and kind if known. Without such a line, the
    columns that hold names of images and labels. Commas, semicolons or tabs between them, which
    `sep=;` may name; encodings as in text.decoded. Warns of lines that name no image. UserError
    where a column or an image is missing, a label is another word, or two lines contradict each
    other.
    """
    content = read_bytes(path)
    find = finder(images.names, folder, without_ending=True)
    known: dict[str, tuple[int, str]] = {}
    lines: dict[str, int] = {}
    unmatched: dict[int, str] = {}
    count = 0
    for line, file, label, kind in _rows(content, path, find):
        count += 1
        name = find(from_cell(file)) or find(file)
        if name is None:
            unmatched[line] = file
            continue
        entry = label, kind or ("normal", "anomalous")[label]
        if known.setdefault(name, entry) != entry:
            raise UserError(
                f"{path}, lines {lines[name]} and {line} contradict each other about {name}: "
                "remove one"
            )
        lines.setdefault(name, line)
    missing = [name for name in images.names if name not in known]
    if missing:
        if encoding := fitting_encoding(content, missing):
            raise UserError(
                f"{path} is not UTF-8: as {encoding} it has the names of the images; save it as "
                f"UTF-8 (iconv -f {encoding} -t UTF-8)"
            )
        raise UserError(
            f"{path} has no label for {missing[0]} ({len(missing)} of {len(images)} images are "
            f"missing{_closest(missing[0], unmatched)}): add a line for each"
        )
    if unmatched:
        line, file = next(iter(unmatched.items()))
        logging.getLogger(__name__).warning(
            "%s: %d of %d lines name no image in %s; the first: line %d, %r",
            *(path, len(unmatched), count, folder, line, file),
        )
    labels, kinds = zip(*(known[name] for name in images.names), strict=True)
    return images.relabelled(labels, kinds)


def label_of(word: str, column: str = "label") -> int | None:
    """0 normal or 1 anomalous, as a word or number says it; None for what says neither.

    column: its name, in which 1, True and the like are normal where it is "ok", "is_normal" …, and
    `yes` and `no` mean something where it asks for one of them.
    """
    asked = meaning(column)
    text = word.strip().lower().replace(",", ".")
    if text in TRUE[:1] + FALSE[:1] or (asked is not None and text in TRUE + FALSE):
        is_true = text in TRUE
        return int(is_true) if asked != 0 else int(not is_true)
    try:
        number = float(text)
    except ValueError:
        return meaning(word)
    if number not in (0, 1):
        return None
    return int(number) if asked != 0 else 1 - int(number)


def _rows(content: bytes, path: str | Path, find: Find) -> Iterator[tuple[int, str, int, str]]:
    """Yields (line number, file, label, kind or "") of a CSV file of labels."""
    text = decoded(content)
    named = re.match(r'\s*"?sep=(\t|[^"\s\0])', text, re.IGNORECASE)
    try:
        for delimiter in named[1] if named else ",;\t":
            rows = _lines(text, delimiter)
            if named:
                next(rows, None)
            line, header = next(rows, (0, []))
            columns = _columns_of_header(header)
            if columns:
                break
            columns = _columns_of_row(header, find)
            if columns:
                rows = iter([(line, header), *rows])
                break
        else:
            lines = [line for line in text.splitlines() if line.strip()]
            shown = next(iter(lines[bool(named) :]), "")
            raise UserError(
                f"{path} needs the columns file and label in its first line, not {shown[:80]!r}"
            )
        for line, row in rows:
            cells = [*row, *[""] * max(0, 1 + max(columns[:2]) - len(row))]
            has_kind = 0 <= columns.kind < len(cells)
            kind = cells[columns.kind] if has_kind else ""
            word = cells[columns.label].strip()
            label = label_of(word, columns.label_name)
            if label is None:
                why = BOTH_SENSES if word in ("-1", "-1.0") else f"not {word!r}"
                raise UserError(f"{path}, line {line}: label must be normal or anomalous, {why}")
            yield line, cells[columns.file], label, from_cell(kind.strip())
    except csv.Error as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def _lines(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yields the rows of a table that are not blank, with their line numbers."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return ((reader.line_num, row) for row in reader if any(map(str.strip, row)))


def _columns_of_header(header: list[str]) -> Columns | None:
    """The columns that a header names; None where it names none, or one twice."""
    plain = ["".join(filter(str.isalnum, cell.lower())) for cell in header]
    places = list[int]()
    for names in (FILE, LABEL, KIND):
        name = next((name for name in names.split() if name in plain), None)
        if name and plain.count(name) > 1:
            return None
        places.append(plain.index(name) if name else -1)
    file, label, kind = places
    if min(file, label) < 0 or file == label:
        return None
    return Columns(file, label, kind, header[label])


def _columns_of_row(row: list[str], find: Find) -> Columns | None:
    """The columns of a table without a header: of an image's name, and of a label."""
    files = [i for i, cell in enumerate(row) if find(from_cell(cell)) or find(cell)][:1]
    labels = [i for i, cell in enumerate(row) if i not in files and label_of(cell) is not None][:1]
    if not (files and labels):
        return None
    others = [i for i in range(len(row)) if i not in files + labels]
    return Columns(files[0], labels[0], others[0] if len(others) == 1 else -1)


def _closest(name: str, unmatched: dict[int, str]) -> str:
    """What the list has instead of the name: the line most like it, else the first unmatched."""
    if not unmatched:
        return ""
    lines = {file.lower(): line for line, file in unmatched.items()}
    close = difflib.get_close_matches(name.lower(), lines, 1)
    line = lines[close[0]] if close else next(iter(unmatched))
    return f"; line {line} has {unmatched[line]!r}"
