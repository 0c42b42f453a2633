"""Folders of images as data sets: what they hold, their layout, labels by sub-folder."""

from __future__ import annotations

import fnmatch
import functools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image

from anogan.data.drop_list import listed
from anogan.data.image_set import ImageSet, thin
from anogan.errors import UserError
from anogan.runs.files import MARKER, written
from utils import NOT_READ, image_size, load_image

MEMORY_LIMIT = 256 * 2**20  # bytes; larger sets of files are decoded again at each use
NORMAL_FOLDERS = {"normal", "good"}
# Sub-folders of these names hold what must not be trained on.
OTHER_FOLDERS = {
    *("test", "val", "validation", "ground_truth", "mask", "masks"),
    *("defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal", "bad"),
}
SHOWN = 5  # lines of a list that name no image
# Pillow knows these by name, but reads them with the help of other programs only, or never
NOT_BY_ITSELF = NOT_READ | {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}


class Listing(NamedTuple):
    """What a folder and its sub-folders hold."""

    names: list[str]  # paths of the images within the folder, sorted
    left_out: Counter[str]  # files that are no images, by ending; none where a pattern chose
    results: int  # files that this tool itself wrote: pictures of earlier results and the like

    def told(self) -> list[str]:
        """What was left out, in lines for the user."""
        lines = []
        if self.left_out:
            endings = ", ".join(sorted(self.left_out))
            lines.append(f"left out {self.left_out.total()} files that are no images: {endings}")
        if self.results:
            lines.append(f"left out {self.results} files of earlier results of this tool")
        return lines


def list_images(
    folder: str | Path, pattern: str | None = None, exclude: Iterable[str | Path] = ()
) -> Listing:
    """The images in a folder and its sub-folders, and what else is there.

    pattern: for the file's name, as in a shell; none: any ending of an image type that Pillow
    reads. Hidden files and folders, the folders in `exclude`, and what this tool wrote are left
    out. Links are followed, but no folder is entered twice.
    Raises UserError where the folder is missing, cannot be read or holds no such file.
    """
    folder = Path(folder)
    above = Path(os.path.realpath(folder)).parents  # links up there are loops
    seen = {os.path.realpath(path) for path in (*exclude, *above)}
    found: list[str] = []
    folders, links = [""], list[str]()
    left_out, own, results = Counter[str](), set[str](), 0
    while folders or links:  # links last, so that a folder is known by its own name
        here = folders.pop() if folders else links.pop(0)
        if (real := os.path.realpath(folder / here)) in seen:
            continue
        seen.add(real)
        inside = list(_entries(folder / here))
        if any(entry.name == MARKER for entry in inside):
            own |= {os.path.join(real, name) for name in written(folder / here)}
        for entry in inside:
            name = f"{here}/{entry.name}" if here else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append(name)
            elif _wanted(entry, pattern):
                if own and os.path.join(real, entry.name) in own:
                    results += 1
                else:
                    found.append(name)
            elif (
                not (pattern or entry.is_symlink())
                and entry.is_file()
                and not _is_about(entry, own, real)
            ):
                left_out[os.path.splitext(entry.name)[1].lower() or "no ending"] += 1
    listing = Listing(sorted(found), left_out, results)
    if not found:
        wanted = f"file that matches {pattern!r}" if pattern else "image"
        told = "".join(f"; {line}" for line in listing.told())
        raise UserError(
            f"{folder} holds no {wanted}: put images there or name another folder{told}"
        )
    return listing


def list_chosen(
    folder: Path, chosen: Sequence[str], pattern: str | None, exclude: Iterable[str | Path] = ()
) -> Listing:
    """The images among some files and in some folders, as list_images lists one; in that order.

    chosen: paths within the folder. A file that is named is taken for an image, whatever its
    ending. UserError where one is missing, or a folder holds no image.
    """
    names: list[str] = []
    left_out, results, exclude = Counter[str](), 0, list(exclude)
    for path in chosen:
        if os.path.isdir(folder / path):
            found = list_images(folder / path, pattern, exclude)
            names += [PurePosixPath(path, name).as_posix() for name in found.names]
            left_out += found.left_out
            results += found.results
        elif os.path.isfile(folder / path):
            names.append(PurePosixPath(path).as_posix())
        else:
            raise UserError(f"{folder / path} does not exist: name a file or folder of images")
    return Listing(list(dict.fromkeys(names)), left_out, results)


def is_image_name(path: str) -> bool:
    """Whether a path ends as an image does."""
    return os.path.splitext(path)[1].lower() in image_endings()


def _is_about(entry: os.DirEntry[str], own: set[str], real: str) -> bool:
    """Whether a file that is no image need not be mentioned: a README, or this tool's own."""
    return entry.name.split(".")[0] == "README" or os.path.join(real, entry.name) in own


@functools.cache
def image_endings() -> frozenset[str]:
    """The endings, in lower case, of all image types that Pillow can read by itself."""
    known = Image.registered_extensions().items()  # loads all of Pillow's formats
    return frozenset(e for e, kind in known if kind in Image.OPEN and kind not in NOT_BY_ITSELF)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        raise UserError(f"{folder} does not exist: create it and put images there") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be read as a folder ({error.strerror})") from None


def _wanted(entry: os.DirEntry[str], pattern: str | None) -> bool:
    ending = os.path.splitext(entry.name)[1].lower()
    matches = fnmatch.fnmatch(entry.name, pattern) if pattern else ending in image_endings()
    if entry.is_symlink():  # a dangling link is reported when it is read
        return matches and (os.path.isfile(entry.path) or not os.path.exists(entry.path))
    return matches and entry.is_file()  # not a pipe: reading it would hang


def available(data_dir: str | Path) -> list[str]:
    """Names of the data sets in a folder: its sub-folders that hold anything."""
    try:
        folders = [entry for entry in Path(data_dir).iterdir() if entry.is_dir()]
        return sorted(f.name for f in folders if f.name[0] != "." and _visible(f))
    except OSError:
        return []


def image_folder(
    folder: str | Path,
    pattern: str | None,
    height: int,
    width: int,
    channels: int,
    crop: tuple[int, int] | None = None,
    value_range: tuple[float, float] | None = None,
    labelled: bool = False,
    training: bool = False,
    exclude: Iterable[str | Path] = (),
    limit: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    drop: str | Path | None = None,
    dropped: Collection[str] = (),
    chosen: Sequence[str] = (),
) -> ImageSet:
    """The images in a folder and its sub-folders: see list_images and load_image.

    labelled: if images lie in a sub-folder `normal` or `good`, those are labelled 0, the images
    in all other sub-folders 1, and the kind is the sub-folder's name; then an image in none is a
    UserError, for it would count as one or the other and falsify the AUROC. training: all images
    must be normal ones, see refuse_labelled. limit: at most so many images, evenly spaced. drop: a
    file that names images to leave out, dropped: more names, see without. chosen: only these files
    and folders in it, see list_chosen. UserError where there is no image.
    """
    if chosen:
        listing = list_chosen(Path(folder), chosen, pattern, exclude)
    else:
        listing = list_images(folder, pattern, exclude)
    if training:
        refuse_labelled(Path(folder), listing.names)
    kept, told, left_out = without(drop, listing.names, folder, dropped)
    places = thin(kept, limit)
    names = [printable(place) for place in places]
    labels, kinds = _labels(Path(folder), places) if labelled else (None, None)
    shape = (height, width, channels)

    def decode(path: str, warn: Callable[[str], None]) -> np.ndarray:
        return load_image(path, *shape, crop, value_range, warn)

    def original(path: str, longest: int) -> np.ndarray:
        h, w = crop or image_size(path)
        scale = min(1.0, longest / max(h, w))
        size = max(1, round(h * scale)), max(1, round(w * scale))
        return load_image(path, *size, 3, crop, value_range)

    images = ImageSet.from_files(
        folder, places, names, shape, decode, memory_limit, labels, kinds, image_size, original
    )
    images.left_out += listing.told()
    images.left_out += told
    images.dropped |= left_out
    return images


def without(
    drop: str | Path | None,
    places: list[str],
    folder: str | Path,
    dropped: Collection[str] = (),
) -> tuple[list[str], list[str], set[str]]:
    """Images in a folder but for those that a list names or that a run has dropped before.

    Returns (the images that are left, lines for the user, names of all that are not).
    """
    names, lines = [printable(place) for place in places], []
    there, before = set(names), set(dropped)
    named: set[str] = set()
    if drop is not None:
        named, strangers = listed(drop, list(dict.fromkeys((*names, *dropped))), folder)
        if not named:
            raise UserError(f"--drop {drop} names no image in {folder}: write a name a line")
        told = f"left out {len(named & there)} images that {drop} names"
        if strangers:
            told += f"; {len(strangers)} of its lines name none or are damaged: "
            told += ", ".join(strangers[:SHOWN]) + (", …" if len(strangers) > SHOWN else "")
        lines.append(told)
    if more := there & before - named:
        lines.append(f"left out {len(more)} images that this run has dropped before (--drop)")
    kept = [place for place in places if printable(place) not in named | before]
    if not kept:
        what = f"--drop {drop} names" if named >= there else "this run has dropped"
        raise UserError(f"{what} all images in {folder}: there is none to train on")
    return kept, lines, named | before


class Layout(NamedTuple):
    """The parts of a data set that lies as those of MVTec AD do (Bergmann et al. 2019)."""

    train: Path  # normal images
    test: Path  # sub-folder good and one for each kind of anomaly
    masks: Path | None  # of the test images, if known


def layout(folder: str | Path) -> Layout | None:
    """The parts of a data set with folders `train` and `test`; None for any other.

    Normal training images lie in train/good or train/normal, or in train itself where that has no
    sub-folder.
    """
    train, test, masks = (Path(folder) / name for name in ("train", "test", "ground_truth"))
    if not (train.is_dir() and test.is_dir()):
        return None
    inside = [entry for entry in train.iterdir() if entry.is_dir() and entry.name[0] != "."]
    normal = [entry for entry in inside if entry.name.lower() in NORMAL_FOLDERS]
    if not inside:
        normal = [train]
    return Layout(normal[0], test, masks if masks.is_dir() else None) if normal else None


def refuse_labelled(folder: Path, places: list[str]) -> None:
    """UserError where sub-folders look as if not all images were normal ones.

    places: of the images within the folder.
    """
    holding = sorted({PurePosixPath(place).parent for place in places})
    inside = sorted({p for place in holding for p in (place, *place.parents)})  # "." among them
    normal = [p for p in inside if p.name.lower() in NORMAL_FOLDERS]
    beside = {p.parent for p in normal}
    odd = [p for p in inside if p.name.lower() in OTHER_FOLDERS]
    odd += [p for p in inside if p.name and p.parent in beside and p not in normal]
    odd += [p / "*" for p in holding if p in beside]
    if not odd:
        return
    better = [p for p in inside if p.name and layout(folder / p)]
    better += [p for p in normal if not {q.name.lower() for q in p.parents} & OTHER_FOLDERS]
    better += [p for p in inside if p.name.lower() in ("train", "training")]
    remedy = (
        f"train on a part of it: --dataset .../{folder.name}/{better[0]}"
        if better
        else "put the normal images into a folder of their own and name that as --dataset"
    )
    raise UserError(f"{folder} holds {odd[0]}, which are hardly all normal images: {remedy}")


def printable(place: str) -> str:
    """The place itself, or what can be shown of it if its name is not UTF-8."""
    try:
        place.encode()
        return place
    except UnicodeEncodeError:
        return os.fsencode(place).decode(errors="backslashreplace")


def _labels(folder: Path, places: list[str]) -> tuple[np.ndarray | None, list[str] | None]:
    kinds = [place.split("/")[0] if "/" in place else "" for place in places]
    normal = [kind.lower() in NORMAL_FOLDERS for kind in kinds]
    if not any(normal):
        return None, None
    if "" in kinds:
        loose = places[kinds.index("")]
        raise UserError(
            f"{folder / loose} lies beside the labelled sub-folders: "
            "move it into normal, or into any other sub-folder if it is anomalous"
        )
    return np.where(normal, 0, 1), kinds


def _visible(folder: Path) -> bool:
    return any(path.name[0] != "." for path in folder.iterdir())
