"""Names of the files that show an image: safe and short, whatever the image is called."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

LONGEST = 200  # bytes of a map's name with its folders; file systems end a name at 255
SHOWN = 40  # characters of an image's name in a picture's
MAP_ENDINGS = (".npy", ".png", "_overlay.png")  # of the three files of an anomaly map


def picture_name(group: str, rank: int, name: str) -> str:
    """Return most_01_NAME.png, with what is plain of the end of the image's name."""
    return f"{group}_{rank:02d}_{_plain(name)}.png"


def map_stems(names: Sequence[str]) -> list[str]:
    """Return maps/NAME for each image, to which MAP_ENDINGS are added: no two files are the same.

    NAME is the image's without its ending; where files of another image are called the same, with
    it; where that does not help or is too long, its plain part with a checksum.
    """
    stems: dict[int, str] = {}
    taken = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    shortened: tuple[Callable[[str], str], ...] = (lambda name: os.path.splitext(name)[0], str)
    for short in shortened:
        wanted = {i: short(name) for i, name in enumerate(names) if i not in stems}
        files = {i: [stem + ending for ending in MAP_ENDINGS] for i, stem in wanted.items()}
        counts = Counter(file for some in files.values() for file in some)
        for i, some in files.items():
            free = all(counts[file] == 1 and file not in taken for file in some)
            if free and len(os.fsencode(wanted[i])) <= LONGEST:
                stems[i] = wanted[i]
        taken.update(file for i in files.keys() & stems.keys() for file in files[i])
    for i, name in enumerate(names):
        digest = hashlib.blake2b(os.fsencode(name), digest_size=12).hexdigest()
        stems.setdefault(i, f"{_plain(name)}_{digest}")
    return [f"maps/{stems[i]}" for i in range(len(names))]


def _plain(name: str) -> str:
    """Return the end of a name without its ending, in letters that every system takes."""
    return re.sub(r"[^A-Za-z0-9-]+", "_", os.path.splitext(name)[0])[-SHOWN:]
