"""Folders of images as data sets: which images are meant, and the set that they become."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from anogan.data.drop_list import without
from anogan.data.image_set import ImageSet, thin
from anogan.data.layouts import require_normal
from anogan.data.listing import Listing, list_chosen, list_images, shown_name
from anogan.data.sub_folders import labels_of
from anogan.image_form import MEMORY_LIMIT, ImageForm


@dataclass(frozen=True)
class Selection:
    """Which images of a folder are meant."""

    pattern: str | None = None  # of file names; None: any ending of an image type, see list_images
    excluded: tuple[str | Path, ...] = ()  # folders
    chosen: tuple[str, ...] = ()  # only these files and folders in it, see list_chosen; (): all
    drop: str | Path | None = None  # a file that names images to leave out, see drop_list
    dropped: tuple[str, ...] = ()  # more names, which the run has dropped before
    limit: int | None = None  # at most so many images, evenly spaced


def find_images(
    folder: str | Path, selection: Selection | None = None, training: bool = False
) -> Listing:
    """The images that a selection means in a folder and its sub-folders.

    training: all must be normal ones, see require_normal. UserError where there is no image.
    """
    wanted = selection or Selection()
    if wanted.chosen:
        listing = list_chosen(Path(folder), wanted.chosen, wanted.pattern, wanted.excluded)
    else:
        listing = list_images(folder, wanted.pattern, wanted.excluded)
    if training:
        require_normal(listing)
    listing = without(listing, wanted.drop, wanted.dropped)
    return dataclasses.replace(listing, names=thin(listing.names, wanted.limit))


def image_folder(
    listing: Listing, form: ImageForm, labelled: bool = False, memory_limit: int = MEMORY_LIMIT
) -> ImageSet:
    """The listed images in that form, with the labels that their sub-folders give if `labelled`.

    Raises UserError, see sub_folders.labels_of.
    """
    labels, kinds = labels_of(listing) if labelled else (None, None)
    shown = [shown_name(name) for name in listing.names]
    images = ImageSet.from_files(listing.paths(), shown, form, memory_limit, labels, kinds)
    images.left_out += listing.notes()
    images.dropped |= listing.dropped
    return images
