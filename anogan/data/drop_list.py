"""Which training images to leave out: lists of names that a user gives, and a run's own.

A list of names, a line each: the name, and if it is this tool's, a tab and the score. A name that
would not be read back as it is, for line breaks and the like, is a JSON string.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from anogan.data.listing import Listing, shortened, shown_name
from anogan.data.text import finder, read_text
from anogan.errors import UserError, first_line
from anogan.runs.files import read_own, write_atomic

DROPPED = "dropped.json"  # in a run's folder


def without(listing: Listing, drop: str | Path | None, dropped: Collection[str] = ()) -> Listing:
    """The images but for those that a file names (`drop`) or that a run has dropped before.

    UserError where the file names none of them, or none is left.
    """
    folder, names = listing.folder, [shown_name(name) for name in listing.names]
    present, before, notes = set(names), set(dropped), []
    named: set[str] = set()
    if drop is not None:
        named, unmatched = listed(drop, list(dict.fromkeys((*names, *dropped))), folder)
        if not named:
            raise UserError(f"--drop {drop} names no image in {folder}: write a name a line")
        note = f"left out {len(named & present)} images that {drop} names"
        if unmatched:
            note += f"; {len(unmatched)} of its lines name none or are damaged: "
            note += shortened(unmatched)
        notes.append(note)
    if more := present & before - named:
        notes.append(f"left out {len(more)} images that this run has dropped before (--drop)")
    left_out = named | before
    kept = [name for name, shown in zip(listing.names, names, strict=True) if shown not in left_out]
    if not kept:
        what = f"--drop {drop} names" if named >= present else "this run has dropped"
        raise UserError(f"{what} all images in {folder}: there is none to train on")
    return dataclasses.replace(
        listing, names=kept, dropped=frozenset(left_out), more_notes=(*listing.more_notes, *notes)
    )


def as_line(name: str) -> str:
    """A name as a line of a list, from which `listed` reads it back."""
    plain = name.isprintable() and name == name.strip() and not name.startswith('"')
    return name if plain else json.dumps(name)


def listed(
    path: str | Path, names: Sequence[str], folder: str | Path
) -> tuple[set[str], list[str]]:
    """(those of the names of images in a folder that a list has, its lines that name none)."""
    known, find = set(names), finder(names, folder)
    matched, unmatched = set(), []
    for line in filter(str.strip, re.split(r"\r?\n", read_text(path))):
        name = _meant(line, known, find)
        if name is None:
            unmatched.append(line)
        else:
            matched.add(name)
    return matched, unmatched


def _meant(line: str, names: set[str], find: Callable[[str], str | None]) -> str | None:
    """The name that a line of a list has, before a tab or alone."""
    name, _, score = line.rpartition("\t")
    for text in (name, line) if _is_number(score) else (line, name):
        if text and (meant := _unquoted(text, names) or find(text)):
            return meant
    return None


def _unquoted(text: str, names: set[str]) -> str | None:
    """The name that a JSON string is; None for other texts."""
    try:
        name = json.loads(text) if text.startswith('"') else None
    except ValueError:
        return None
    return name if name in names else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def dropped(run: Path) -> tuple[str, ...]:
    """Names of the images that the run in a folder is trained without; UserError for damage."""
    path = run / DROPPED
    if not os.path.lexists(path):
        return ()
    try:
        names = json.loads(read_own(path))
        if type(names) is not list or not all(type(name) is str for name in names):
            raise ValueError("it is no list of names")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read ({first_line(error)}): put it back from a copy, or train again "
            "under another --checkpoint_dir"
        ) from None
    return tuple(names)


def keep_dropped(run: Path, names: Collection[str]) -> None:
    """Notes in a run's folder that it is trained without these images, and no others."""
    if not names:
        (run / DROPPED).unlink(missing_ok=True)
    else:
        write_atomic(run / DROPPED, json.dumps(sorted(names)) + "\n")


def require_unseen(path: str | Path, known: Sequence[str], images: Path, run: Path) -> None:
    """UserError where a run was already trained on some that a list names; known: those it was."""
    seen, _ = listed(path, known, images)
    if seen:
        raise UserError(
            f"the run in {run} was already trained on {len(seen)} of the images that {path} "
            "names: train another run without them, under another --checkpoint_dir"
        )
