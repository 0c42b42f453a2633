"""Industrial parts to fetch: MVTec AD, KolektorSDD and VisA, in the layout of MVTec AD.

That is train/good, test/good, test/KIND, and in ground_truth/KIND a mask NAME_mask.png for each
anomalous image NAME: what main.py trains on and scores without another flag.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from anogan.datasets.fetch import DownloadError, fetch
from anogan.datasets.sources import already_there, or_by_hand
from anogan.datasets.unpack import (
    NothingWanted,
    clear_scratch,
    linked,
    new_folder,
    scratch,
    unpack,
    unpack_listed,
)

# There the addresses below are from: an archive for each category
MVTEC_PAGE = "www.mvtec.com/research-teaching/datasets/mvtec-ad/downloads"
MVTEC_URL = "https://www.mydrive.ch/shares/{}/{}.tar.xz"
MVTEC_SHARE = "38536/3830184030e49fe74747669442f0f283"  # which once held them all
with open(Path(__file__).with_name("mvtec.csv"), encoding="ascii") as _file:
    _MVTEC = {row["category"]: row for row in csv.DictReader(_file)}
MVTEC_PLACES = {name: row["place"] for name, row in _MVTEC.items()}
MVTEC_SHA256 = {name: row["sha256"] for name, row in _MVTEC.items()}
MVTEC_CATEGORIES = tuple(_MVTEC)
MVTEC_LIMIT = 1 << 30  # bytes that one category, at most 705 MB, may take on disk
MVTEC_FILE = re.compile(
    rf"(?:.*/)?(?P<category>{'|'.join(MVTEC_CATEGORIES)})/"
    r"(?P<place>(?:train/good|test/\w+|ground_truth/\w+)/\w+\.png)",
    re.ASCII,
)
KOLEKTOR_PAGE = "www.vicos.si/resources/kolektorsdd"
KOLEKTOR_URLS = (
    "https://go.vicos.si/kolektorsdd",
    "https://data.vicos.si/datasets/KSDD/KolektorSDD.zip",
)
KOLEKTOR_SHA256 = "65dc621693418585de9c4467d1340ea7958a6181816f0dc2883a1e8b61f9d4dc"
KOLEKTOR_LIMIT = 1 << 29  # bytes that 102 MB of archive may take on disk
KOLEKTOR_FILE = re.compile(r"(?:.*/)?(kos\d+)/(Part\d+(?:\.jpg|_label\.bmp))", re.ASCII)
KOLEKTOR_PIXELS = 1 << 21  # of an image at most; they have 500 x 1270
VISA_PAGE = "github.com/amazon-science/spot-diff"
VISA_URL = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar"
VISA_SHA256 = "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362"
VISA_LIMIT = 1 << 32  # bytes that 1.9 GB of archive may take on disk
VISA_SPLIT = "split_csv/1cls.csv"
VISA_HEADER = "object,split,label,image,mask"
VISA_LINE = re.compile(
    r"(?P<category>\w+),(?P<part>train|test),(?P<label>normal|anomaly),"
    r"(?P<image>(?P=category)/Data/Images/(?:Normal|Anomaly)/(?P<name>\w+)(?P<ending>\.\w+)),"
    r"(?P<mask>(?P=category)/Data/Masks/Anomaly/\w+\.png)?",
    re.ASCII,
)


def fetch_mvtec(data_dir: Path, from_file: Path | None = None, category: str | None = None) -> str:
    """Fetch DATA_DIR/mvtec/CATEGORY, as MVTec made it: a category (none: bottle) or "all" of them.

    `from_file` is the archive of a category, or the one of all; without `category` whatever it
    holds is taken. Returns a line to show, as the others do. Raises DownloadError.
    """
    root = linked(data_dir / "mvtec")
    clear_scratch(root)
    if from_file:
        names = [category] if category and category != "all" else list(MVTEC_CATEGORIES)
        return "; ".join(_unpack_mvtec(from_file, root, names))
    lines = []
    for name in MVTEC_CATEGORIES if category == "all" else [category or "bottle"]:
        if line := already_there(root / name):
            lines.append(line)
            continue
        archive, place = data_dir / f"mvtec_{name}.tar.xz", MVTEC_PLACES[name]
        shares = place, f"{MVTEC_SHARE}/download/{PurePosixPath(place).name}"
        with or_by_hand(f"{name}.tar.xz from {MVTEC_PAGE}", f"mvtec --from_file {name}.tar.xz"):
            urls = [MVTEC_URL.format(share, name) for share in shares]
            fetch(urls, archive, MVTEC_SHA256[name], MVTEC_LIMIT)
        lines += _unpack_mvtec(archive, root, [name], remove=True)
    return "; ".join(lines)


def _unpack_mvtec(archive: Path, root: Path, names: list[str], remove: bool = False) -> list[str]:
    """Unpack those of some categories that an archive holds; return a line for each."""
    there = {name: line for name in names if (line := already_there(root / name))}
    missing, held = set(names) - there.keys(), set()
    if not missing:
        return list(there.values())

    def place(path: PurePosixPath) -> str | None:
        if not (found := MVTEC_FILE.fullmatch(str(path))):
            return None
        held.add(found["category"])
        return f"{found['category']}/{found['place']}" if found["category"] in missing else None

    with scratch(root) as temp:
        whole = temp / "all"
        try:
            unpack(archive, whole, place, MVTEC_LIMIT * len(missing))
        except NothingWanted as error:
            if not held & there.keys():
                only = f", only {', '.join(sorted(held))} of MVTec AD" if held else ""
                raise DownloadError(f"{error}{only}") from None
        new = sorted(held & missing)
        for name in new:
            _require_parts(archive, whole / name)
        if remove:  # first, as a kill after the renaming would leave it for ever
            archive.unlink()
        root.mkdir(parents=True, exist_ok=True)
        for name in new:
            os.replace(whole / name, root / name)
    lines = [f"done: {_counted(root / name)}; licence: CC BY-NC-SA 4.0" for name in new]
    return [there[name] for name in sorted(held & there.keys())] + lines


def _require_parts(archive: Path, folder: Path) -> None:
    """Raise DownloadError where a data set from `archive` cannot be trained on or scored."""
    for part in ("train/good", "test/good"):
        if not (folder / part).is_dir():
            raise DownloadError(f"{archive} is not whole: it has no {folder.name}/{part}")


def _counted(*folders: Path) -> str:
    """Name the first folder, or the one above several, and count the images of each part."""
    train, good, test = (
        sum(len(list(folder.glob(pattern))) for folder in folders)
        for pattern in ("train/good/*", "test/good/*", "test/*/*")
    )
    counts = f"{train:,} training, {good:,} normal and {test - good:,} anomalous test images"
    where = folders[0] if len(folders) == 1 else f"{folders[0].parent}/*"
    return f"{where} ({counts})"


def fetch_kolektor(data_dir: Path, from_file: Path | None = None) -> str:
    """Fetch DATA_DIR/kolektor, cracked commutators: from its authors or the zip `from_file`.

    Which of them are for training, `split_kolektor` says. The kind of anomaly is "defect".
    """
    folder = linked(data_dir / "kolektor")
    if line := already_there(folder):
        return line
    archive = from_file or data_dir / "KolektorSDD.zip"
    if not from_file:
        with or_by_hand(
            f"{archive.name} from {KOLEKTOR_PAGE}", f"kolektor --from_file {archive.name}"
        ):
            fetch(KOLEKTOR_URLS, archive, KOLEKTOR_SHA256, KOLEKTOR_LIMIT)
    with new_folder(folder, None if from_file else archive) as temp:
        unpack(archive, temp / "raw", _place_part, KOLEKTOR_LIMIT)
        _arrange_kolektor(archive, temp / "raw", temp / folder.name)
        _require_parts(archive, temp / folder.name)
    return f"done: {_counted(folder)}; licence: CC BY-NC-SA 4.0"


def _place_part(path: PurePosixPath) -> str | None:
    found = KOLEKTOR_FILE.fullmatch(str(path))
    return f"{found[1]}_{found[2]}" if found else None


def split_kolektor(commutators: Iterable[str]) -> set[str]:
    """Return those of the commutators (kos01, …) whose images without a crack are for training.

    KolektorSDD has no split of this kind. It shows each commutator eight times, and one that was
    trained on must not be in the test: so half of them, in the order of the MD5 of their names,
    are for training, and their few cracked images are left out; all images of the others are the
    test.
    """
    names = sorted(set(commutators), key=lambda name: hashlib.md5(name.encode()).hexdigest())
    return set(names[: (len(names) + 1) // 2])


def _arrange_kolektor(archive: Path, raw: Path, folder: Path) -> None:
    """Move kos01_Part0.jpg … to where they belong; what is cracked, the labels beside them say."""
    import numpy as np
    from PIL import Image

    from utils import ImageError, image_size, read_mask

    images = sorted(raw.glob("*.jpg"))
    train = split_kolektor(path.name.split("_")[0] for path in images)
    for image in images:
        label = image.with_name(f"{image.stem}_label.bmp")
        if not label.is_file():
            raise DownloadError(f"{archive} is not whole: it has no {label.name}")
        try:
            size = image_size(label)
            if size != image_size(image) or size[0] * size[1] > KOLEKTOR_PIXELS:
                raise DownloadError(
                    f"{archive} is damaged: {label.name} is not of its image's size"
                )
            mask = read_mask(label)
        except ImageError as error:
            raise DownloadError(f"{archive} is damaged: {error}") from None
        is_for_training = image.name.split("_")[0] in train
        if is_for_training and mask.any():
            continue
        part = "train/good" if is_for_training else "test/defect" if mask.any() else "test/good"
        (folder / part).mkdir(parents=True, exist_ok=True)
        os.replace(image, folder / part / image.name)
        if mask.any():
            masks = folder / "ground_truth" / "defect"
            masks.mkdir(parents=True, exist_ok=True)
            png = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
            png.save(masks / f"{image.stem}_mask.png")


def fetch_visa(data_dir: Path, from_file: Path | None = None) -> str:
    """Fetch DATA_DIR/visa/CATEGORY, twelve of them: from Amazon or the tar `from_file`.

    `split_visa` says what goes where.
    """
    folder = linked(data_dir / "visa")
    if line := already_there(folder):
        return line
    archive = from_file or data_dir / PurePosixPath(VISA_URL).name
    if not from_file:
        with or_by_hand(f"{archive.name} from {VISA_PAGE}", f"visa --from_file {archive.name}"):
            fetch(VISA_URL, archive, VISA_SHA256, VISA_LIMIT)
    with new_folder(folder, None if from_file else archive) as temp:
        unpack_listed(archive, temp / folder.name, VISA_SPLIT, split_visa, VISA_LIMIT)
        for category in (temp / folder.name).iterdir():
            _require_parts(archive, category)
    return f"done: {_counted(*sorted(folder.iterdir()))}; licence: CC BY 4.0"


def split_visa(table: str) -> dict[str, str]:
    """Return where each file that VisA's 1cls.csv names goes: {path: new path}.

    That table is the authors' split for training on normal images alone: nine tenths of the normal
    images are for training. Like their own script, this calls all anomalies "bad", for many have
    several kinds at once. Raises ValueError for lines that are none of that table.
    """
    first, *lines = table.splitlines() or [""]
    if first != VISA_HEADER:
        raise ValueError(f"it begins with {first[:80]!r}")
    places: dict[str, str] = {}
    for number, line in enumerate(lines, 2):
        found = VISA_LINE.fullmatch(line)
        is_bad = found is not None and found["label"] == "anomaly"
        if not found or is_bad != bool(found["mask"]) or (is_bad and found["part"] == "train"):
            raise ValueError(f"line {number} is {line[:80]!r}")
        kind = "bad" if is_bad else "good"
        root, name = found["category"], found["name"]
        new = {found["image"]: f"{root}/{found['part']}/{kind}/{name}{found['ending']}"}
        if is_bad:
            new[found["mask"]] = f"{root}/ground_truth/{kind}/{name}_mask.png"
        if places.keys() & new.keys():
            raise ValueError(f"line {number} names {line[:80]!r} again")
        places |= new
    return places
