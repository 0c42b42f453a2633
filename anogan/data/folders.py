"""Folders of images as data sets: which images are meant, and the set that they become."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from anogan.data.choosing import thin
from anogan.data.drop_list import without
from anogan.data.image_set import ImageSet
from anogan.data.layouts import is_conventional, require_normal
from anogan.data.listing import Listing, images_alone, list_chosen, list_images, shown_name
from anogan.data.sub_folders import labels_of, trained_on
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
    folder: str | Path, selection: Selection | None = None, training: str | None = None
) -> Listing:
    """The images that a selection means in a folder and its sub-folders, without masks and such.

    training: the data set, of which all must be normal images, see require_normal. UserError where
    there is no image.
    """
    wanted = selection or Selection()
    if wanted.chosen:
        listing = list_chosen(Path(folder), wanted.chosen, wanted.pattern, wanted.excluded)
    else:
        listing = images_alone(list_images(folder, wanted.pattern, wanted.excluded))
    if training:
        require_normal(listing, training)
    listing = without(listing, wanted.drop, wanted.dropped)
    listing = dataclasses.replace(listing, names=thin(listing.names, wanted.limit))
    if training:
        more = *listing.more_notes, *trained_on(listing)
        listing = dataclasses.replace(listing, more_notes=more)
    return listing


def image_folder(
    listing: Listing, form: ImageForm, labelled: bool = False, memory_limit: int = MEMORY_LIMIT
) -> ImageSet:
    """The listed images in that form, with the labels that their sub-folders give if `labelled`.

    Raises UserError, see sub_folders.labels_of.
    """
    labels, kinds, notes = None, None, list[str]()
    if labelled:
        labels, kinds, notes = labels_of(listing, is_conventional(listing.folder))
    shown = [shown_name(name) for name in listing.names]
    images = ImageSet.from_files(listing.paths(), shown, form, memory_limit, labels, kinds)
    images.left_out += [*listing.notes(), *notes]
    images.skipped += [(f"{shown_name(name)}/", reason) for name, reason in listing.unreadable]
    images.dropped |= listing.dropped
    return images
