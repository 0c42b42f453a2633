"""Writing beside files of others: no file that somebody else made or changed is replaced."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from anogan.files import record, written


def claim(folder: Path, name: str, unchanged: Callable[[Path], bool] = lambda _: True) -> Path:
    """Where to write a file of that name, which is noted as this tool's before it is there.

    Where somebody else's file is, or one of this tool's that is not `unchanged`, "NAME (2)" is
    written instead, which the user is told.
    """
    known, number = written(folder), 1
    path = wanted = Path(folder) / name
    while os.path.lexists(path) and not (path.name in known and unchanged(path)):
        number += 1
        path = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}")
    record(folder, path.name)
    if path != wanted:
        logging.getLogger(__name__).warning(
            "%s was made or changed by somebody else and stays: %s is written", wanted, path
        )
    return path
