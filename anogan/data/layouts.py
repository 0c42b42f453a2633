"""The layout of data sets: where training images, test images and masks lie."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from anogan.data.listing import Listing
from anogan.data.sub_folders import is_normal, is_other
from anogan.errors import UserError


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
    normal = [entry for entry in inside if is_normal(entry.name)] if inside else [train]
    return Layout(normal[0], test, masks if masks.is_dir() else None) if normal else None


def require_normal(listing: Listing) -> None:
    """UserError where sub-folders look as if not all images were normal ones."""
    folder = listing.folder
    holding = sorted({PurePosixPath(name).parent for name in listing.names})
    inside = sorted({p for place in holding for p in (place, *place.parents)})  # "." among them
    normal = [p for p in inside if is_normal(p.name)]
    beside = {p.parent for p in normal}
    others = [p for p in inside if is_other(p.name)]
    others += [p for p in inside if p.name and p.parent in beside and p not in normal]
    others += [p / "*" for p in holding if p in beside]
    if not others:
        return
    better = [p for p in inside if p.name and layout(folder / p)]
    better += [p for p in normal if not any(is_other(q.name) for q in p.parents)]
    better += [p for p in inside if p.name.lower() in ("train", "training")]
    remedy = (
        f"train on a part of it: --dataset .../{folder.name}/{better[0]}"
        if better
        else "put the normal images into a folder of their own and name that as --dataset"
    )
    raise UserError(f"{folder} holds {others[0]}, which are hardly all normal images: {remedy}")
