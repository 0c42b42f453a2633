"""Labels by sub-folder: which images its name calls normal, and which anomalous."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from anogan.data.file_kinds import IMAGE, MASK, kind_of
from anogan.data.lexicon import ANOMALOUS, NORMAL, is_kind_of_defect, is_negation, meaning, tokens
from anogan.data.listing import Listing, shown_name
from anogan.errors import UserError

HELD_OUT = {
    *("test", "tests", "testing", "val", "valid", "validation", "eval", "evaluation"),
    *("holdout", "heldout"),
}
FILLING = {
    *("public", "private", "mixed", "images", "image", "img", "data", "dataset", "set", "sets"),
    *("dir", "folder", "split"),
}
WITH = {"with", "mit", "avec", "con", "met"}
OPPOSITES = ({"yes", "no"}, {"true", "false"}, {"ja", "nein"}, {"y", "n"}, {"si", "no"})
MOST_NAMED = 12  # sub-folders in a line


class Labels(NamedTuple):
    """What the sub-folders say of images; None for both where they say nothing."""

    labels: np.ndarray | None  # (n,) 0 normal, 1 anomalous
    kinds: list[str] | None  # the sub-folder of each
    notes: list[str]  # for the user


def is_normal(name: str) -> bool:
    """Whether a folder of that name holds normal images."""
    return meaning(name) == NORMAL and not is_held_out(name)


def is_held_out(name: str) -> bool:
    """Whether a folder of that name holds what is not for training: test images, or masks."""
    words = [word for word in tokens(name) if word not in FILLING]
    rest = [word for word in words if word not in HELD_OUT]
    held_out = len(rest) < len(words) and all(meaning(word) is not None for word in rest)
    return held_out or kind_of(name) == MASK


def are_opposites(name: str, other: str) -> bool:
    """Whether two names contradict each other, without saying which one is normal."""
    one, two = set(tokens(name)), set(tokens(other))
    if {*one} | {*two} in OPPOSITES:
        return True
    meant = [{word for word in words if not is_negation(word)} - WITH for words in (one, two)]
    return meant[0] == meant[1] != set() and any(map(is_negation, one ^ two))


def labels_of(listing: Listing, convention: bool = False) -> Labels:
    """What the names of sub-folders say of the images in them.

    Where one is called normal, its images are labelled 0 and all others 1, and the kind is the
    sub-folder's name. Of two of which one is called anomalous, the other is normal. Where all are
    kinds of defects, all images are anomalous. convention: the folder is the test of a data set
    where each sub-folder but the normal one is a kind of anomaly. UserError for an image in no
    sub-folder beside a normal one: it would count as one or the other and falsify the AUROC.
    """
    folders, kinds = _folders(listing, lambda name: kind_of(name) == IMAGE)
    senses = _senses(sorted(set(kinds)), convention)
    if NORMAL in senses.values():
        if "" in kinds:
            loose = listing.names[kinds.index("")]
            raise UserError(
                f"{listing.folder / loose} lies beside the labelled sub-folders: "
                "move it into normal, or into any other sub-folder if it is anomalous"
            )
        return Labels(np.array([int(senses[kind] != NORMAL) for kind in kinds]), kinds, [])
    if "" not in kinds and _are_defects(list(senses), convention):
        note = (
            f"{listing.folder} has no sub-folder of normal images: all {len(kinds)} count as "
            f"anomalous ({counted(kinds)}), so there is recall, but no AUROC"
        )
        return Labels(np.ones(len(kinds), int), kinds, [note])
    deeper = _deeper(folders)
    if deeper:
        return Labels(np.array([int(meaning(kind) != NORMAL) for kind in deeper]), deeper, [])
    if len(set(kinds) - {""}) < 2:
        return Labels(None, None, [])
    return Labels(
        *(None, None),
        [
            f"no labels: none of the sub-folders of {listing.folder} is known as normal "
            f"({counted(kinds)}): call it normal, or give --labels"
        ],
    )


def _folders(
    listing: Listing, says_nothing: Callable[[str], bool]
) -> tuple[list[list[str]], list[str]]:
    """The folders that each image lies in, and the first of these, "" for none.

    From where they differ on: those that all images share are left out if they say nothing.
    """
    folders = [name.split("/")[:-1] for name in listing.names]
    while all(folders) and len({path[0] for path in folders}) == 1 and says_nothing(folders[0][0]):
        folders = [path[1:] for path in folders]
    return folders, [path[0] if path else "" for path in folders]


def _senses(names: list[str], convention: bool) -> dict[str, int | None]:
    """{sub-folder: what it means}; of two, the one that is not known is the other's opposite."""
    senses = {name: meaning(name) for name in names}
    unknown = [name for name, sense in senses.items() if sense is None]
    if len(names) == 2 and len(unknown) == 1 and not convention:
        [name] = unknown
        if name and not is_kind_of_defect(name):
            senses[name] = NORMAL if ANOMALOUS in senses.values() else ANOMALOUS
    return senses


def _are_defects(names: Sequence[str], convention: bool) -> bool:
    """Whether sub-folders, of which none is normal, all hold anomalous images."""
    if convention or all(meaning(name) == ANOMALOUS for name in names):
        return True
    return len(names) > 1 and all(is_kind_of_defect(name) for name in names)


def _deeper(folders: list[list[str]]) -> list[str] | None:
    """The sub-folder of each image on the first level where all have a known one, some normal."""
    for depth in range(1, min(map(len, folders))):
        senses = {name: meaning(name) for name in {path[depth] for path in folders}}
        if None not in senses.values() and NORMAL in senses.values():
            return [path[depth] for path in folders]
    return None


def trained_on(listing: Listing) -> list[str]:
    """A line that names sub-folders that are trained on together, as far as that may be wrong."""
    _, kinds = _folders(listing, lambda _: True)
    if len(set(kinds)) < 2 or all(kind and is_normal(kind) for kind in kinds):
        return []
    return [f"all count as normal, for nothing says otherwise: {counted(kinds)}"]


def counted(kinds: Sequence[str]) -> str:
    """Sub-folders and how many images each has, in one line."""
    counts = sorted(Counter(kinds).items())
    parts = [f"{shown_name(kind) or 'in none'} {count}" for kind, count in counts[:MOST_NAMED]]
    more = f", and {len(counts) - MOST_NAMED} more" if len(counts) > MOST_NAMED else ""
    return ", ".join(parts) + more + " images"
