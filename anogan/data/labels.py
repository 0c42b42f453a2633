"""Labels of images from a CSV file, as people and spreadsheets write it."""

from __future__ import annotations

import csv
import difflib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

from anogan.data.image_set import ImageSet
from anogan.data.table import from_cell
from anogan.data.text import finder, read_text
from anogan.errors import UserError

NORMAL = ("normal", "good", "ok", "0")
ANOMALOUS = ("anomalous", "anomaly", "abnormal", "defect", "defective", "bad", "1")
WORDS = dict.fromkeys(NORMAL, 0) | dict.fromkeys(ANOMALOUS, 1)


def labelled(images: ImageSet, path: str | Path, folder: str | Path) -> ImageSet:
    """The same images with labels and kinds from a CSV file.

    Its columns, named in the first line: file (as in images.names; the path of the images' folder,
    or the end of it, may stand before that), label (one of WORDS, in any case), and kind if known.
    Commas, semicolons or tabs between them; UTF-8, UTF-16 with a byte order mark, or else
    Windows-1252. Warns of lines that name no image. UserError where a column or an image is
    missing, a label is another word, or two lines contradict each other.
    """
    find = finder(images.names, folder)
    known: dict[str, tuple[int, str]] = {}
    lines: dict[str, int] = {}
    strangers: dict[int, str] = {}
    count = 0
    for line, file, word, kind in _rows(path):
        count += 1
        label = WORDS.get(word.lower())
        if label is None:
            raise UserError(f"{path}, line {line}: label must be normal or anomalous, not {word!r}")
        name = find(from_cell(file)) or find(file)
        if name is None:
            strangers[line] = file
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
        raise UserError(
            f"{path} has no label for {missing[0]} ({len(missing)} of {len(images)} images are "
            f"missing{_closest(missing[0], strangers)}): add a line for each"
        )
    if strangers:
        line, file = next(iter(strangers.items()))
        logging.getLogger(__name__).warning(
            "%s: %d of %d lines name no image in %s; the first: line %d, %r",
            *(path, len(strangers), count, folder, line, file),
        )
    labels, kinds = zip(*(known[name] for name in images.names), strict=True)
    return images.relabelled(labels, kinds)


def _rows(path: str | Path) -> Iterator[tuple[int, str, str, str]]:
    """Yields (line number, file, label, kind or "") of a CSV file of labels."""
    text = read_text(path)
    try:
        for delimiter in ",;\t":
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
            rows = ((reader.line_num, row) for row in reader if any(map(str.strip, row)))
            _, header = next(rows, (0, []))
            header = [cell.strip().lower() for cell in header]
            if header.count("file") == header.count("label") == 1:
                break
        else:
            first = next((line for line in text.splitlines() if line.strip()), "")
            raise UserError(
                f"{path} needs the columns file and label in its first line, not {first[:80]!r}"
            )
        for line, row in rows:
            cells = dict(zip(header, row, strict=False))
            file, label, kind = (cells.get(name, "") for name in ("file", "label", "kind"))
            yield line, file, label.strip(), from_cell(kind.strip())
    except csv.Error as error:
        raise UserError(f"{path} cannot be read ({error})") from None


def _closest(name: str, strangers: dict[int, str]) -> str:
    """What the list has instead of the name: the line most like it, else the first stranger."""
    if not strangers:
        return ""
    lines = {file.lower(): line for line, file in strangers.items()}
    found = difflib.get_close_matches(name.lower(), lines, 1)
    line = lines[found[0]] if found else next(iter(strangers))
    return f"; line {line} has {strangers[line]!r}"
