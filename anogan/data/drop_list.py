"""Which training images to leave out: lists of names that a user gives, and a run's own.

A list of names, a line each: the name, and if it is this tool's, a tab and the score. A name that
would not be read back as it is, for line breaks and the like, is a JSON string.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from anogan.data.labels import finder, read_text
from anogan.errors import UserError, first_line
from anogan.runs.files import read_own, write_atomic

DROPPED = "dropped.json"  # in a run's folder


def as_line(name: str) -> str:
    plain = name.isprintable() and name == name.strip() and not name.startswith('"')
    return name if plain else json.dumps(name)


def listed(
    path: str | Path, names: Sequence[str], folder: str | Path
) -> tuple[set[str], list[str]]:
    """(those of the names of images in a folder that a list has, its lines that name none)."""
    known, find = set(names), finder(names, folder)
    found, strangers = set(), []
    for line in filter(str.strip, re.split(r"\r?\n", read_text(path))):
        name = _meant(line, known, find)
        if name is None:
            strangers.append(line)
        else:
            found.add(name)
    return found, strangers


def _meant(line: str, names: set[str], find: Callable[[str], str | None]) -> str | None:
    """The name that a line of a list has, before a tab or alone."""
    name, _, score = line.rpartition("\t")
    for text in (name, line) if _is_number(score) else (line, name):
        if text and (found := _unquoted(text, names) or find(text)):
            return found
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
