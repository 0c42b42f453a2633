"""Safe unpacking of downloaded archives: zip (a wheel is one), tar and LMDB.

`unpack` fills a hidden folder beside the real one and renames that. So whatever has its final name
is complete, wherever a run broke off.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from anogan.fetch import DownloadError, progress, size

IMAGE_TYPES = {b"RIFF": ".webp", b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n": ".png"}
SHARD = 1000  # images of an LMDB in a sub-folder
Place = Callable[[PurePosixPath], "str | PurePosixPath | None"]


def unpack(archive: Path, folder: Path, place: Place = PurePosixPath) -> int:
    """Unpack a zip or tar archive to the new `folder`, all of it or nothing; count the files.

    `place` turns a member's path into its path inside `folder`, or None to leave it out.
    Raises DownloadError where the archive is damaged or holds nothing that is wanted, and where a
    member is a link or lies outside `folder`.
    """
    count = 0
    with scratch(folder) as temp, damage_is_an_error(archive):
        for path, stream in progress(_members(archive), unit=" files", desc="unpacking"):
            target = place(path)
            if target is None:
                continue
            (temp / target).parent.mkdir(parents=True, exist_ok=True)
            with open(temp / target, "xb") as file:
                shutil.copyfileobj(stream, file)
            count += 1
        if not count:
            raise DownloadError(f"{archive} holds none of the files of this data set")
        os.replace(temp, folder)
    return count


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, IO[bytes]]]:
    """(path, stream) of each file in a zip or tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                path = _inside(archive, info.filename, stat.S_ISLNK(info.external_attr >> 16))
                if not info.is_dir():
                    with opened.open(info) as stream:
                        yield path, stream
    else:
        with tarfile.open(archive) as opened:
            for member in opened:
                path = _inside(archive, member.name, not (member.isfile() or member.isdir()))
                if file := opened.extractfile(member):
                    yield path, file


def _inside(archive: Path, name: str, is_link: bool) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if is_link or path.is_absolute() or ".." in path.parts or ":" in name:
        raise DownloadError(f"{archive} is not safe to unpack: {name!r} is a link or lies outside")
    return path


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A new hidden folder beside `folder` that goes at the end, as does one of a killed run."""
    temp = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir(parents=True)
    try:
        yield temp
    finally:
        shutil.rmtree(temp, ignore_errors=True)


@contextlib.contextmanager
def damage_is_an_error(archive: Path) -> Iterator[None]:
    """DownloadError in place of whatever a damaged archive raises in the block."""
    damage = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)
    try:
        yield
    except (*damage, RuntimeError):  # RuntimeError: encrypted
        raise DownloadError(f"{archive} is damaged or encrypted, or no archive") from None


def unpack_fetched(archive: Path, folder: Path, place: Place = PurePosixPath) -> int:
    """`unpack`, and remove the archive if that went well or if it turned out to be damaged."""
    try:
        count = unpack(archive, folder, place)
    except DownloadError as error:
        archive.unlink()
        raise DownloadError(f"{error}; removed it, run the same command again") from None
    archive.unlink()
    return count


def unpack_lmdb(source: Path, folder: Path) -> tuple[int, int]:
    """Turn the LMDB of encoded images under `source` into files in the new `folder`.

    Removes `source` in the end. What an interrupted run wrote is kept, in `source`, and not written
    again. Returns (images written, values skipped because they do not begin like an image).
    Raises DownloadError where there is no LMDB, or a damaged one, or no image in it.
    """
    import lmdb

    temp = source / "images"
    count = bad = 0
    try:
        database = next(source.rglob("data.mdb"), source / "data.mdb").parent
        with lmdb.open(str(database), readonly=True, lock=False) as env, env.begin() as entries:
            total = env.stat()["entries"]
            for _, value in progress(entries.cursor(), total=total, unit=" images"):
                suffix = next((IMAGE_TYPES[m] for m in IMAGE_TYPES if value.startswith(m)), None)
                if suffix is None:
                    bad += 1
                    continue
                path = temp / f"{count // SHARD:05d}" / f"{count:08d}{suffix}"
                if size(path) != len(value):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(value)
                count += 1
        if not count:
            raise lmdb.Error(f"none of its {total:,} values is an image")
    except lmdb.Error as error:
        shutil.rmtree(source)
        raise DownloadError(f"no usable LMDB ({error}); removed it, run again") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(temp, folder)
    shutil.rmtree(source)
    return count, bad
