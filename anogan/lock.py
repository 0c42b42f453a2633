"""One training run a folder: a lock that the system drops with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from anogan.errors import UserError
from anogan.files import clear_temporaries

LOCK = ".lock"  # in a run's folder


@contextlib.contextmanager
def only_run(folder: str | Path) -> Iterator[None]:
    """The right to train in a folder; UserError where another process has it.

    It ends with the process, however that ends. What a killed one left half written is removed.
    """
    folder = Path(folder)
    with _lock_file(folder / LOCK) as file:
        if not _lock(file):
            raise UserError(
                f"another training run is at work in {folder}: wait until it ends, or name another "
                "--checkpoint_dir"
            )
        clear_temporaries(folder)
        yield


def _lock_file(path: Path) -> IO[bytes]:
    """It stays where it is: who removed it could remove that of the next one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        no_link = getattr(os, "O_NOFOLLOW", 0)
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | no_link, 0o666), "r+b", 0)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error


def _lock(file: IO[bytes]) -> bool:
    """Locks a file until it is closed; False where another process has."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
            return False
        # some network file systems have no locks
        logging.getLogger(__name__).warning("%s cannot be locked (%s)", file.name, error.strerror)
    return True
