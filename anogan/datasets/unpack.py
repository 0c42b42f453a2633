"""Safe unpacking of downloaded archives: zip (a wheel is one), tar and LMDB.

`unpack` fills a hidden folder beside the real one and renames that. So whatever has its final name
is complete, wherever a run broke off.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from anogan.datasets.database import DamagedDatabase, opened_values
from anogan.datasets.fetch import DownloadError, progress, size

IMAGE_TYPES = {b"RIFF": ".webp", b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n": ".png"}
SHARD = 1000  # images of an LMDB in a sub-folder
CHUNK = 1 << 16  # bytes read at a time
BLOCK = 4096  # bytes that even an empty file takes on disk, at least
DEEPEST = 32  # folders within folders
LONGEST_TABLE = 1 << 22  # bytes of a table that says what is where
ENTRY = b"PK\1\2"  # begins each entry of a zip's table of contents
LONGEST_END = 1 << 20  # bytes of zeros after a tar's last member: tar fills up to 10 KiB or more
# What the system says where a member's name is at fault and not the disk.
BAD_NAME = {
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ),
}
Place = Callable[[PurePosixPath], "str | PurePosixPath | None"]


class NothingWanted(DownloadError):
    """There is nothing in an archive that `place` would have."""


def unpack(
    archive: Path, folder: Path, place: Place = PurePosixPath, limit: float = math.inf
) -> int:
    """Unpack a zip or tar archive to the new `folder`, all of it or nothing; count the files.

    `place` turns a member's path into its path inside `folder`, or None to leave it out. `limit` is
    what may be written, in bytes on disk.
    Raises DownloadError where the archive is damaged, cut short, larger than `limit` or holds
    nothing that is wanted, and where a member is a link or lies outside `folder`; OSError where
    files cannot be read or written.
    """
    count = room = 0
    with scratch(folder) as temp:
        for path, chunks in progress(_members(archive), unit=" files", desc="unpacking"):
            target = place(path)
            if target is None:
                continue
            room += BLOCK
            with _create(archive, temp, target) as file:
                for chunk in itertools.chain([b""], chunks):
                    room += len(chunk)
                    if room > limit:
                        raise DownloadError(f"{archive} is not this data set: it is far larger")
                    file.write(chunk)
            count += 1
        if not count:
            raise NothingWanted(f"{archive} holds none of the files of this data set")
        os.replace(temp, folder)
    return count


def unpack_listed(
    archive: Path, folder: Path, table: str, split: Callable[[str], dict[str, str]], limit: int
) -> dict[str, str]:
    """Unpack what a table in an archive names; return what `split` makes of that.

    `table`: the last parts of its path; its names are those below the folder that these begin in.
    `split`: its text -> {name: new path}; a ValueError says what is wrong with it.
    """
    path, content = _read_first(archive, table)
    top = path.parents[len(PurePosixPath(table).parts) - 1]
    try:
        places = split(content.decode())
    except ValueError as error:  # or one that is not UTF-8
        raise DownloadError(f"{archive} is damaged: {table}: {error}") from None
    wanted = {top / name: new for name, new in places.items()}
    if unpack(archive, folder, wanted.get, limit) < len(places):
        raise DownloadError(f"{archive} lacks images that its {table} names")
    return places


def _read_first(archive: Path, ending: str) -> tuple[PurePosixPath, bytes]:
    """Return (path, content) of the first file in an archive whose path ends in these last parts.

    Raises DownloadError where there is none, or it is longer than LONGEST_TABLE.
    """
    wanted = PurePosixPath(ending).parts
    for path, chunks in _members(archive):
        if path.parts[-len(wanted) :] == wanted:
            content = b""
            for chunk in chunks:
                content += chunk
                if len(content) > LONGEST_TABLE:
                    raise DownloadError(f"{archive}: {ending} is far too long")
            return path, content
    raise DownloadError(f"{archive} holds no {ending}")


def _create(archive: Path, folder: Path, target: str | PurePosixPath) -> IO[bytes]:
    """Open a new file, inside `folder` whatever the archive says."""
    inside = _inside(archive, str(target), False)
    path = folder / inside
    try:
        if len(inside.parts) > DEEPEST:
            raise ValueError("too deep")
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in BAD_NAME:
            raise
        why = "there twice" if isinstance(error, FileExistsError) else "no name for a file"
        raise DownloadError(f"{archive} is damaged: {str(target)[:80]!r} is {why}") from None


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, Iterator[bytes]]]:
    """Yield (path, content) of each file in a zip or tar archive."""
    with damage_is_an_error(archive):
        yield from _zipped(archive) if zipfile.is_zipfile(archive) else _tarred(archive)


def _zipped(archive: Path) -> Iterator[tuple[PurePosixPath, Iterator[bytes]]]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            if ENTRY in info.extra + info.comment:  # a damaged length has swallowed the next one
                raise zipfile.BadZipFile("some files are missing in its table of contents")
            path = _inside(archive, info.filename, stat.S_ISLNK(info.external_attr >> 16))
            with opened.open(info) as stream:  # a folder's too: that compares both of its headers
                if not info.is_dir():
                    yield path, _chunks(archive, stream)
                elif info.file_size:
                    raise zipfile.BadZipFile(f"{info.filename} is a folder with content")


def _tarred(archive: Path) -> Iterator[tuple[PurePosixPath, Iterator[bytes]]]:
    with tarfile.open(archive) as opened:
        for member in opened:
            path = _inside(archive, member.name, not (member.isfile() or member.isdir()))
            if member.size < 0:  # the next one would be this one again
                raise tarfile.ReadError(f"{path} has {member.size} bytes")
            if file := opened.extractfile(member):
                yield path, _chunks(archive, file)
        # tarfile takes a damaged header, but for the first, and a missing rest for the end: there
        # are to be two blocks of zeros and, up to the end, which a .gz's checksum follows, no more.
        rest = opened.fileobj
        assert rest is not None
        rest.seek(opened.offset)
        end = rest.read(LONGEST_END + 1)
        if not 2 * tarfile.BLOCKSIZE <= len(end) <= LONGEST_END or end.strip(b"\0"):
            raise tarfile.ReadError("it is cut short, or a header is damaged")


def _chunks(archive: Path, stream: IO[bytes]) -> Iterator[bytes]:
    with damage_is_an_error(archive):
        while chunk := stream.read(CHUNK):
            yield chunk


def _inside(archive: Path, name: str, is_link: bool) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if is_link or path.is_absolute() or ".." in path.parts or ":" in name:
        raise DownloadError(
            f"{archive} is not safe to unpack: {name[:80]!r} is a link or lies outside"
        )
    return path


def linked(folder: Path) -> Path:
    """Return where a data set goes: its folder may be a link to another disk, even to nothing."""
    return Path(os.path.realpath(folder)) if folder.is_symlink() else folder


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a hidden folder beside `folder` that goes at the end, as does one of a killed run."""
    temp = clear_scratch(folder)
    temp.mkdir(parents=True)
    try:
        yield temp
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def clear_scratch(folder: Path) -> Path:
    """Remove what a killed run left of `scratch`, and say where that would be."""
    temp = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temp, ignore_errors=True)
    return temp


@contextlib.contextmanager
def new_folder(folder: Path, fetched: Path | None = None) -> Iterator[Path]:
    """Make a hidden folder; what it then holds of `folder`'s name becomes that at the block's end.

    `fetched`: the archive it comes from, if it is to go then, or as it turned out to be damaged.
    """
    with scratch(folder) as temp:
        try:
            yield temp
        except DownloadError as error:
            if not fetched:
                raise
            fetched.unlink()
            raise DownloadError(f"{error}; removed it, run the same command again") from None
        if fetched:  # first, as a kill after the other would leave it for ever
            fetched.unlink()
        os.replace(temp / folder.name, folder)


@contextlib.contextmanager
def damage_is_an_error(archive: Path) -> Iterator[None]:
    """Raise DownloadError in place of whatever reading a damaged archive raises in the block.

    zipfile, tarfile and the decompressors raise errors of any kind, and OSError without a number,
    or with EINVAL, for what they cannot read. Any other OSError is the disk's, and gets the path.
    """
    try:
        yield
    except DownloadError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise OSError(error.errno, error.strerror, str(archive)) from None
        reason = [*str(error).splitlines(), type(error).__name__][0][:160]
        what = f"{archive} is damaged or encrypted, or no archive ({reason})"
        raise DownloadError(what) from None


def unpack_lmdb(source: Path, folder: Path, limit: float = math.inf) -> tuple[int, int]:
    """Turn the LMDB of encoded images under `source` into files in the new `folder`.

    Removes `source` in the end. What an interrupted run wrote is kept, in `source`, and not written
    again. Returns (images written, values skipped because they do not begin like an image).
    Raises DownloadError where there is no LMDB, or a damaged one, or no image in it, or more than
    `limit` bytes of images.
    """
    temp = source / "images"
    count = bad = room = 0
    try:
        database = next(source.rglob("data.mdb"), source / "data.mdb")
        with opened_values(database) as (total, values):
            for value in progress(values, total=total, unit=" images"):
                suffix = next((IMAGE_TYPES[m] for m in IMAGE_TYPES if value.startswith(m)), None)
                if suffix is None:
                    bad += 1
                    continue
                room += BLOCK + len(value)
                if room > limit:
                    raise DamagedDatabase("it holds more than the data set has")
                path = temp / f"{count // SHARD:05d}" / f"{count:08d}{suffix}"
                if size(path) != len(value):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(value)
                count += 1
        if not count:
            raise DamagedDatabase(f"none of its {total:,} values is an image")
    except DamagedDatabase as error:
        shutil.rmtree(source)
        raise DownloadError(f"no usable LMDB ({error}); removed it, run again") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temp, folder)
    shutil.rmtree(source)
    return count, bad
