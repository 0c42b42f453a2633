"""One process a folder: a lock that the system drops with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from anogan.errors import UserError

LOCK = ".lock"  # in a run's or a result's folder
LOCKS_MISSING = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # on some network file systems
PATIENCE = 0.2  # seconds; the last holder may be about to remove the file


@contextlib.contextmanager
def only_one(path: str | Path, busy: str) -> Iterator[None]:
    """Hold the lock file in the block; UserError `busy` where another process does.

    The lock ends with the process, however that ends; its file goes at the end of the block.
    """
    path = Path(path)
    lock = FileLock(path, timeout=PATIENCE, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(busy) from None
    except OSError as error:
        if error.errno not in LOCKS_MISSING:
            raise UserError(f"{path} cannot be written ({error.strerror})") from error
        logging.getLogger(__name__).warning("%s cannot be locked (%s)", path, error.strerror)
    try:
        yield
    finally:
        if sys.platform != "win32":  # there an open file cannot be removed
            path.unlink(missing_ok=True)
        lock.release()
