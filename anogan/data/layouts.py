"""The layout of data sets: where training images, test images and masks lie."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from anogan.data.file_kinds import kind_of
from anogan.data.lexicon import ANOMALOUS, meaning
from anogan.data.listing import SYSTEM_FOLDERS, Listing
from anogan.data.sub_folders import are_opposites, is_held_out, is_normal
from anogan.errors import UserError

TESTS = ("test", "test_public")  # the latter in MVTec AD 2, which keeps the masks inside
USUAL = ("good", "normal")  # of MVTec AD and its like: what lies beside it is no doubt not normal


class Layout(NamedTuple):
    """The parts of a data set that lies as those of MVTec AD do (Bergmann et al. 2019)."""

    train: Path  # normal images
    test: Path  # sub-folder good and one for each kind of anomaly
    masks: Path | None  # of the test images, if known


def layout(folder: str | Path) -> Layout | None:
    """The parts of a data set with folders `train` and one of TESTS; None for any other.

    Normal training images lie in the one sub-folder of `train` that is called so, or in train
    itself where all of its sub-folders are, or where it has none but kinds of files.
    """
    train, masks, *tests = (Path(folder) / name for name in ("train", "ground_truth", *TESTS))
    test = next((path for path in tests if path.is_dir()), None)
    if not (train.is_dir() and test):
        return None
    inside = [path for path in sorted(train.iterdir()) if path.is_dir() and _counts(path.name)]
    normal = [path for path in inside if is_normal(path.name)]
    usual = [path for path in normal if path.name.lower() in USUAL]
    if usual:
        normal = usual
    elif len(normal) < len(inside) and not all(kind_of(path.name) for path in inside):
        return None
    elif len(normal) != 1:
        normal = [train]
    return Layout(normal[0], test, masks if masks.is_dir() else None)


def is_conventional(test: Path) -> bool:
    """Whether a folder is the test of a data set where all but normal sub-folders are anomalies."""
    parts = layout(test.parent)
    if not parts or parts.test.name != test.name:
        return False
    return parts.train.parent.name == "train" or parts.masks is not None


def require_normal(listing: Listing, dataset: str) -> None:
    """UserError where sub-folders look as if not all images of a data set were normal ones."""
    holding = sorted({PurePosixPath(name).parent for name in listing.names})
    inside = sorted({p for place in holding for p in (place, *place.parents)})  # "." among them
    beside = defaultdict(list)
    for path in inside:
        if path.name:
            beside[path.parent].append(path)
    normal = [p for p in inside if is_normal(p.name)]
    others = [p for p in inside if _is_other(p)]
    for parent, paths in beside.items():
        if any(p in normal for p in paths):
            others += [p for p in paths if p not in normal]
            others += [parent / "*"] * (parent in holding)
        else:
            others += [p for p in paths for q in paths if are_opposites(p.name, q.name)]
    for name in listing.masks:
        if not any(map(is_normal, [listing.folder.name, *name.split("/")[:-1]])):
            others.append(PurePosixPath(name))
    if not others:
        return
    better = [p for p in inside if p.name and layout(listing.folder / p)]
    better += [p for p in normal if not any(map(_is_other, p.parents))]
    likely = [p for paths in beside.values() for p in _opposite(paths)]
    likely += [p for p in inside if p.name.lower() in ("train", "training")]
    better += [p for p in likely if not any(p in q.parents for q in others)]
    remedy = (
        f"train on a part of it: --dataset {_as_dataset(listing.folder, dataset)}/{better[0]}"
        if better
        else "put the normal images into a folder of their own and name that as --dataset"
    )
    raise UserError(
        f"{listing.folder} holds {others[0]}, which are hardly all normal images: {remedy}"
    )


def _is_other(path: PurePosixPath) -> bool:
    return bool(path.name) and (is_held_out(path.name) or meaning(path.name) == ANOMALOUS)


def _opposite(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    """The unknown one of two sub-folders of which the other is anomalous."""
    unknown = [p for p in paths if meaning(p.name) is None and not is_held_out(p.name)]
    return unknown if len(paths) == 2 and len(unknown) == 1 else []


def _as_dataset(folder: Path, dataset: str) -> str:
    """A data set's folder, or one in it, as --dataset names it."""
    _, found, inner = str(folder).rpartition(dataset)
    return f"{dataset}{inner}" if found else f".../{folder.name}"


def _counts(name: str) -> bool:
    return not (name.startswith(".") or SYSTEM_FOLDERS.fullmatch(name))
