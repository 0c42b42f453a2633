"""Names of the files that show an image: safe and short, whatever the image is called."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from anogan.runs.files import printable

LONGEST = 200  # bytes of a map's name with its folders; file systems end a name at 255
SHOWN = 40  # characters of an image's name in a picture's
IN_TITLE = 100  # and in the heading of one
MAP_ENDINGS = (".npy", ".png", "_overlay.png")  # of the files that save_map writes


def picture_name(group: str, rank: int, name: str) -> str:
    """most_01_NAME.png, with what is plain of the end of the image's name."""
    return f"{group}_{rank:02d}_{_plain(name)}.png"


def font_file() -> Path:
    """The file of the font that pictures are written in."""
    import matplotlib  # slow, and not needed where there are no pictures

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@functools.cache
def _letters() -> frozenset[int]:
    """What that font has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file())).get_charmap())


def drawable(text: str) -> str:
    """A text for a picture in one line: letters that its font lacks, or that run to the left, as
    \\u4e2d. On the page the browser shows them all.
    """
    return "".join(
        c
        if ord(c) in _letters() and unicodedata.bidirectional(c) not in ("R", "AL")
        else c.encode("unicode_escape").decode()
        for c in printable(text)
    )


def fitting(text: str) -> str:
    """What fits into a picture's heading, in one line."""
    text = drawable(text)
    return text if len(text) <= IN_TITLE else f"…{text[-IN_TITLE:]}"


def map_stems(names: Sequence[str], endings: Sequence[str]) -> list[str]:
    """For each image maps/NAME, to which the endings are added: no two files are the same.

    NAME is the image's without its ending; where files of another image are called the same, with
    it; where that does not help or is too long, its plain part with a checksum.
    """
    stems: dict[int, str] = {}
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    taken, left = folders, list(range(len(names)))
    ways: list[Callable[[str], str]] = [lambda name: os.path.splitext(name)[0], str]
    for way in ways:
        files = {i: [way(names[i]) + ending for ending in endings] for i in left}
        counts = Counter(file for some in files.values() for file in some)
        for i, some in files.items():
            if len(os.fsencode(way(names[i]))) > LONGEST:
                continue
            if all(counts[file] == 1 and file not in taken for file in some):
                stems[i] = way(names[i])
        taken = taken | {file for i in files.keys() & stems.keys() for file in files[i]}
        left = [i for i in left if i not in stems]
    for i in left:
        digest = hashlib.blake2b(os.fsencode(names[i]), digest_size=12).hexdigest()
        stems[i] = f"{_plain(names[i])}_{digest}"
    return [f"maps/{stems[i]}" for i in range(len(names))]


def _plain(name: str) -> str:
    """The end of an image's name without its ending, in letters that every system takes."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", os.path.splitext(name)[0])[-SHOWN:]
