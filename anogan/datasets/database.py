"""Reading an LMDB in a process of its own, as a damaged one may end whatever process reads it.

It writes the number of values, the length and content of each, and 0, every number as a line.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


class DamagedDatabase(Exception):
    """What is wrong with it."""


@contextlib.contextmanager
def opened_values(path: Path) -> Iterator[tuple[int, Iterator[bytes]]]:
    """How many values the LMDB file `path` holds, and the values in the order of their keys.

    Raises DamagedDatabase as soon as it is known to be damaged: at the last value at the latest.
    """
    command = [sys.executable, "-m", __name__, os.path.abspath(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe) as child:
        try:
            total = _number(child)
            yield total, _values(child, total)
        finally:
            child.kill()


def _values(child: subprocess.Popen[bytes], total: int) -> Iterator[bytes]:
    assert child.stdout
    for _ in range(total):
        yield child.stdout.read(_number(child))
    _number(child)  # it found no more of them


def _number(child: subprocess.Popen[bytes]) -> int:
    assert child.stdout and child.stderr
    line = child.stdout.readline()
    if line.endswith(b"\n"):
        return int(line)
    lines = child.stderr.read().decode(errors="replace").splitlines()
    raise DamagedDatabase(lines[-1] if lines else f"reading it ended with code {child.wait()}")


def write_values(path: str, out: IO[bytes]) -> None:
    """Write what `opened_values` reads; an lmdb.Error where the database is damaged."""
    import lmdb

    with lmdb.open(path, subdir=False, readonly=True, lock=False) as env, env.begin() as entries:
        total, count, last = env.stat()["entries"], 0, None
        out.write(b"%d\n" % total)
        for key, value in entries.cursor():
            if last is not None and key <= last:  # pages that form a circle would not end
                raise lmdb.Error("its keys are out of order")
            out.write(b"%d\n" % len(value) + value)
            count, last = count + 1, key
        if count != total:
            raise lmdb.Error(f"{count:,} of its {total:,} values are there")
        out.write(b"0\n")
        out.flush()


if __name__ == "__main__":
    try:
        write_values(sys.argv[1], sys.stdout.buffer)
    except Exception as error:
        sys.exit(str(error) or type(error).__name__)
