"""Writing beside files of others: no file that somebody else made or changed is replaced."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from anogan.runs.files import free_name, record, written


def claim(folder: Path, name: str, unchanged: Callable[[Path], bool] = lambda _: True) -> Path:
    """Where to write a file of that name, which is noted as this tool's before it is there.

    Where somebody else's file is, or one of this tool's that is not `unchanged`, "NAME (2)" is
    written instead, which the user is told.
    """
    folder, known = Path(folder), written(folder)

    def is_anothers(name: str) -> bool:
        path = folder / name
        return os.path.lexists(path) and not (name in known and unchanged(path))

    free = free_name(name, is_anothers)
    record(folder, free)
    if free != name:
        logging.getLogger(__name__).warning(
            "%s was made or changed by somebody else and stays: %s is written",
            *(folder / name, folder / free),
        )
    return folder / free
