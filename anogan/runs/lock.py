"""One process a folder: a lock that the system drops with the process that holds it."""

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

LOCK = ".lock"  # in a run's or a result's folder


@contextlib.contextmanager
def only_one(path: str | Path, busy: str) -> Iterator[None]:
    """What the lock file stands for is this process's; a UserError `busy` where it is another's.

    It ends with the process, however that ends.
    """
    path = Path(path)
    with _locked(path) as file:
        if file is None:
            raise UserError(busy)
        try:
            yield
        finally:
            if sys.platform != "win32":  # there an open file cannot be removed
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes] | None]:
    """A file that only this process has locked; None where another process has.

    Whoever holds the lock may remove the file: one that is not at the path any more is no lock.
    """
    while True:
        with _opened(path) as file:
            if not _lock(file):
                yield None
                return
            if _is_at(path, file):
                yield file
                return


def _opened(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        no_link = getattr(os, "O_NOFOLLOW", 0)
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | no_link, 0o666), "r+b", 0)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror})") from error


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


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
