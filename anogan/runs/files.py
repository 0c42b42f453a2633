"""Writing files: whole or not at all, and known later on as this tool's."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TextIO

from anogan.errors import UserError

MARKER = ".anogan_files"  # in each folder with output: its files, a JSON string a line
# What a killed process leaves: of write_atomic and its like, and of TensorFlow in former versions
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp|ckpt-[0-9]+_temp")
LARGEST = 2**32  # bytes of a file that is read as a whole, and more than any of this tool's has
LONGEST = 2**24  # bytes of a line that this tool reads back, and more than it ever writes


def printable(text: object) -> str:
    """A text from outside for one line of a terminal: all that would not show is escaped.

    That is control characters, line breaks, marks that turn the writing direction and bytes that
    are no text, as in names of files, labels and what a server answers.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[TextIO]:
    """A text file to write (UTF-8) that appears, with its folder, whole or not at all.

    UserError where it cannot be written.
    """
    with _replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        yield file


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Write a file whole or not at all, making its folder; UserError where it cannot."""
    with _replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def _replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if all goes well."""
    path = Path(path)
    temporary = temporary_in(path.parent)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Where the system refuses to write in the block, a UserError that names path and reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error})") from error


def temporary_in(folder: Path) -> Path:
    """A new path in a folder that clear_temporaries knows."""
    return folder / f".{secrets.token_hex(8)}.tmp"


def clear_temporaries(folder: Path) -> None:
    """Remove what killed processes left half written in a folder."""
    with contextlib.suppress(OSError):
        for path in [p for p in folder.iterdir() if TEMPORARY.fullmatch(p.name)]:
            if is_folder(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_own(path: Path) -> bool:
    """Whether a file is there and lies where it is named: no link that may lead elsewhere."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder is there, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def open_own(path: Path, most: int | None = None) -> BinaryIO:
    """Open a file of a folder that may come from elsewhere; OSError, also for a link or pipe.

    most: bytes; where it has more it is not read either.
    """
    if os.path.lexists(path) and not is_own(path):
        raise OSError(f"{path.name} is no file of its own")
    file = open(path, "rb", opener=_no_link)  # noqa: SIM115
    if most is not None and os.fstat(file.fileno()).st_size > most:
        file.close()
        raise OSError(f"{path.name} is larger than {most:,} bytes")
    return file


def read_own(path: Path, most: int = LARGEST) -> bytes:
    """All of what open_own opens."""
    with open_own(path, most) as file:
        return file.read()


def own_lines(path: Path) -> Iterator[bytes]:
    """The lines of what open_own opens, up to one that is longer than this tool's are."""
    with open_own(path) as file:
        while (line := file.readline(LONGEST)) and len(line) < LONGEST:
            yield line


def append_own(path: Path) -> BinaryIO:
    """Open a file to add lines; a link or pipe in its place is dropped, what it leads to is not.

    Where the last line was cut short, the next one is not added to it.
    """
    if not is_own(path) and not is_folder(path):
        path.unlink(missing_ok=True)
    file = open(path, "a+b", opener=_no_link)  # noqa: SIM115
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def discard(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; of a link the link alone."""
    if is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def require_writable(folder: str | Path) -> None:
    """UserError unless a folder is there and can be written to, or can be made."""
    folder = Path(os.path.abspath(folder))
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file, not a folder: name another folder than {folder}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written to (no permission): name another folder")


def written(folder: Path) -> set[str]:
    """The files, as paths within the folder, that this tool wrote there; empty for others."""
    folder, found = Path(folder), set()
    try:
        for line in own_lines(folder / MARKER):
            try:
                name = json.loads(line)
            except (ValueError, RecursionError):  # it was cut short
                continue
            if isinstance(name, str) and _inside(name):
                found.add(name)
    except OSError:
        return set()
    return found


def record(folder: Path, *names: str) -> None:
    """Note, before they are written, that files of a folder are this tool's."""
    known = written(folder)
    new = [name for name in names if name not in known]
    with writing(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with append_own(Path(folder) / MARKER) as file:
            file.writelines(json.dumps(name).encode() + b"\n" for name in new)


def free_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """The name, or the first of "NAME (2)", "NAME (3)" … that is not taken."""
    place, number = PurePosixPath(name), 1
    while is_taken(name):
        number += 1
        name = str(place.with_name(f"{place.stem} ({number}){place.suffix}"))
    return name


def unused_path(
    folder: Path, name: str, unchanged: Callable[[Path], bool] = lambda _: True
) -> Path:
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


def _inside(name: str) -> bool:
    """Whether a path is relative and leads nowhere else; a marker may come from elsewhere."""
    path = Path(name)
    return bool(name) and not path.anchor and ".." not in path.parts and "\0" not in name
