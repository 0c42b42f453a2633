"""Industrial parts to fetch: MVTec AD, KolektorSDD and VisA, in the layout of MVTec AD.

That is train/good, test/good, test/KIND, and in ground_truth/KIND a mask NAME_mask.png for each
anomalous image NAME: what main.py trains on and scores without another flag.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from anogan.datasets.fetch import DownloadError, fetch
from anogan.datasets.sources import already_there, or_by_hand
from anogan.datasets.unpack import NothingWanted, clear_scratch, linked, read_first, scratch, unpack

# There the addresses below are from: an archive for each category
MVTEC_PAGE = "www.mvtec.com/research-teaching/datasets/mvtec-ad/downloads"
MVTEC_URL = "https://www.mydrive.ch/shares/{}/{}.tar.xz"
MVTEC_SHARE = "38536/3830184030e49fe74747669442f0f283"  # which once held them all
MVTEC_PLACES = {
    "bottle": "150452/132a93367fb17cdf968dfb5c4013f6e7/download/420937370-1629958698",
    "cable": "150453/10f960e07fec2838b2cd512586633a32/download/420937413-1629958794",
    "capsule": "150454/e0ce6dd74eb150f46c0d98131b3703f2/download/420937454-1629958872",
    "carpet": "150455/eac7fbce84d93a5094e13f391170eca4/download/420937484-1629959013",
    "grid": "150456/bb0b2e3dc804ccb8b4485e01f8e4493b/download/420937487-1629959044",
    "hazelnut": "150457/51d49f65e84bdc100ff8035d7dd783ea/download/420937545-1629959162",
    "leather": "150458/923030ce14e10a7d147e95d0f8885f6b/download/420937607-1629959262",
    "metal_nut": "150459/c68856a21dca589b0f8ff6d4ee0f18f4/download/420937637-1629959294",
    "pill": "150460/d4f1c04da67034ccc8d8b5fa3e73f244/download/420938129-1629960351",
    "screw": "150461/242f454cc6385e5693c4fd4b94567d1e/download/420938130-1629960389",
    "tile": "150462/5479f0fdc97bc6fa16eab0cb0cf0109f/download/420938133-1629960456",
    "toothbrush": "150463/895a1a5fb84b958f07417784b060434b/download/420938134-1629960477",
    "transistor": "150464/99b8ea0332438d64fcc2475ee73f9c29/download/420938166-1629960554",
    "wood": "150465/d5b4115b720cdb54d217e75636e6e374/download/420938383-1629960649",
    "zipper": "150466/bd155b557520edaf692d9bfdb915c24a/download/420938385-1629960680",
}
MVTEC_SHA256 = {
    "bottle": "726512129cb3b1f47d4f6cd7c7fc9170db7fc209132249c788fec06029cb5dc3",
    "cable": "1e3d59b80a6a8da5adf32fb0cf311c7b964cde146d6920aef9ca66380999a9cd",
    "capsule": "f6a41cb11f1589d552888fe9c43a1adcbcae15b70073e19093322f836d00a2b6",
    "carpet": "d9dd5064515a20bd75cf24d223c570579141abd72388beef892780b74dbaa85d",
    "grid": "d94a9a651cbfaee22c94d06cf8fa8204a590c872362de0489eb34f1645328de8",
    "hazelnut": "a7f4e7d65a60a235def7236a46fcb854d62e6c6917c16b1ec9cb4ff089d3b0da",
    "leather": "704ffa48b1dc2fc44824aa50442d9febc399dd92a5d6fd8156f8aa0373d15f24",
    "metal_nut": "86e3c8e163ceb19146ad3ddc408e85cc34ae02e0da430e07a73bac6bbb48532a",
    "pill": "ac6ce9ec4ec2a5d67c906d82147bd7431980cf00b78f25d63201a5f17e3a2038",
    "screw": "0a27a365a21e472d19b9fb48cb8e4002b49fabe083bff7f4c16fa57d78154f10",
    "tile": "392228153b96d0db9f179d3f7c2d63e131e907154883b57309fcbf798643173c",
    "toothbrush": "fe72a34b4b0d074f84e844be7ef8c4f64f7f02f20e25f19c9e3b4a231c8bea77",
    "transistor": "146b2166c35a1d0cf37ded091366ac01a50338b4ac704632f1239890eaca4449",
    "wood": "3757297ac2a266072eb4f25a97f805f5b37fd583492b20bd709f310736c1ea47",
    "zipper": "7ab46e0e195da145db30052baea3d3a5d14c5f0e710137c968e0423f02cb942d",
}
MVTEC_CATEGORIES = tuple(MVTEC_SHA256)
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
MOST_SPLIT = 1 << 22  # bytes of that table


def fetch_mvtec(data_dir: Path, from_file: Path | None = None, category: str | None = None) -> str:
    """DATA_DIR/mvtec/CATEGORY, as MVTec made it: one category (none: bottle) or "all" of them.

    `from_file` is the archive of a category, or the one of all; without `category` whatever it
    holds is taken. Returns a line to show, as the others do. Raises DownloadError.
    """
    root = linked(data_dir / "mvtec")
    clear_scratch(root)
    if from_file:
        names = [category] if category in MVTEC_SHA256 else list(MVTEC_CATEGORIES)
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
    """Those of some categories that an archive holds, each to its folder: a line for each."""
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
    """DownloadError where a data set that came from `archive` cannot be trained on or scored."""
    for part in ("train/good", "test/good"):
        if not (folder / part).is_dir():
            raise DownloadError(f"{archive} is not whole: it has no {folder.name}/{part}")


def _counted(*folders: Path) -> str:
    """The first folder, or the one above several, and how many images they have of each part."""
    train, good, test = (
        sum(len(list(folder.glob(pattern))) for folder in folders)
        for pattern in ("train/good/*", "test/good/*", "test/*/*")
    )
    counts = f"{train:,} training, {good:,} normal and {test - good:,} anomalous test images"
    where = folders[0] if len(folders) == 1 else f"{folders[0].parent}/*"
    return f"{where} ({counts})"


def fetch_kolektor(data_dir: Path, from_file: Path | None = None) -> str:
    """DATA_DIR/kolektor, cracked surfaces of commutators: from its authors or the zip `from_file`.

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
    with scratch(folder) as temp:
        unpack(archive, temp / "raw", _place_part, KOLEKTOR_LIMIT)
        _arrange_kolektor(archive, temp / "raw", temp / folder.name)
        _require_parts(archive, temp / folder.name)
        if not from_file:
            archive.unlink()
        os.replace(temp / folder.name, folder)
    return f"done: {_counted(folder)}; licence: CC BY-NC-SA 4.0"


def _place_part(path: PurePosixPath) -> str | None:
    found = KOLEKTOR_FILE.fullmatch(str(path))
    return f"{found[1]}_{found[2]}" if found else None


def split_kolektor(commutators: Iterable[str]) -> set[str]:
    """Those of the commutators (kos01, …) whose images without a crack are for training.

    KolektorSDD has no split of this kind. It shows each commutator eight times, and one that was
    trained on must not be in the test: so half of them, in the order of the MD5 of their names,
    are for training, and their few cracked images are left out; all images of the others are the
    test.
    """
    names = sorted(set(commutators), key=lambda name: hashlib.md5(name.encode()).hexdigest())
    return set(names[: (len(names) + 1) // 2])


def _arrange_kolektor(archive: Path, raw: Path, folder: Path) -> None:
    """Moves kos01_Part0.jpg … to where they belong; what is cracked, the labels beside them say."""
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
    """DATA_DIR/visa/CATEGORY, twelve of them: from Amazon or the tar `from_file`.

    `split_visa` says what goes where.
    """
    folder = linked(data_dir / "visa")
    if line := already_there(folder):
        return line
    archive = from_file or data_dir / PurePosixPath(VISA_URL).name
    if not from_file:
        with or_by_hand(f"{archive.name} from {VISA_PAGE}", f"visa --from_file {archive.name}"):
            fetch(VISA_URL, archive, VISA_SHA256, VISA_LIMIT)
    table, content = read_first(archive, VISA_SPLIT, MOST_SPLIT)
    top = table.parent.parent
    try:
        places = {top / path: place for path, place in split_visa(content.decode()).items()}
    except ValueError as error:  # or one that is not UTF-8
        raise DownloadError(f"{archive} is damaged: {VISA_SPLIT}: {error}") from None
    with scratch(folder) as temp:
        whole = temp / folder.name
        if unpack(archive, whole, places.get, VISA_LIMIT) < len(places):
            raise DownloadError(f"{archive} lacks images that its {VISA_SPLIT} names")
        for category in whole.iterdir():
            _require_parts(archive, category)
        if not from_file:
            archive.unlink()
        os.replace(whole, folder)
    return f"done: {_counted(*sorted(folder.iterdir()))}; licence: CC BY 4.0"


def split_visa(table: str) -> dict[str, str]:
    """Where each file that VisA's 1cls.csv names goes: {path: new path}.

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
