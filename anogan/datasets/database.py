"""Reading an LMDB in a process of its own, as a damaged one may end whatever process reads it."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

NUMBER = struct.Struct("<q")
END = -1  # in place of a value's length: that was all


class DamagedDatabase(Exception):
    """What is wrong with it."""


@contextlib.contextmanager
def opened_values(path: Path) -> Iterator[tuple[int, Iterator[bytes]]]:
    """How many values the LMDB file `path` holds, and the values in the order of their keys.

    Raises DamagedDatabase as soon as it is known to be damaged: at the last value at the latest.
    """
    command = [sys.executable, "-m", __name__, os.path.abspath(path)]
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            total = _number(child)
            yield total, _values(child, total, path.stat().st_size)
        finally:
            child.kill()


def _values(child: subprocess.Popen[bytes], total: int, most: int) -> Iterator[bytes]:
    count = 0
    while (length := _number(child)) != END:
        if not 0 <= length <= most:
            raise DamagedDatabase(f"a value of {length:,} bytes")
        yield _exactly(child, length)
        count += 1
    if count != total:
        raise DamagedDatabase(f"{count:,} of its {total:,} values are there")


def _number(child: subprocess.Popen[bytes]) -> int:
    return NUMBER.unpack(_exactly(child, NUMBER.size))[0]


def _exactly(child: subprocess.Popen[bytes], length: int) -> bytes:
    assert child.stdout is not None and child.stderr is not None
    data = child.stdout.read(length)
    if len(data) < length:
        lines = child.stderr.read().decode(errors="replace").splitlines()
        code = child.wait()
        died = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise DamagedDatabase(lines[-1] if lines else f"reading it ended with {died}")
    return data


def send_values(path: str, out: IO[bytes]) -> None:
    """What `opened_values` reads: the number of values, (length, value) of each, END."""
    import lmdb

    with lmdb.open(path, subdir=False, readonly=True, lock=False) as env, env.begin() as entries:
        out.write(NUMBER.pack(env.stat()["entries"]))
        last: bytes | None = None
        for key, value in entries.cursor():
            if last is not None and key <= last:  # pages that form a circle would not end
                raise lmdb.Error("its keys are out of order")
            out.write(NUMBER.pack(len(value)) + value)
            last = key
        out.write(NUMBER.pack(END))
        out.flush()


def main() -> int:
    """The process that reads; what is wrong is the last line of its standard error."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        send_values(sys.argv[1], sys.stdout.buffer)
    except Exception as error:
        print(str(error) or type(error).__name__, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
