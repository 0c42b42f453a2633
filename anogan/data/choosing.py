"""Which of many images, in which order, and whether files are usable and still the same."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from anogan.errors import UserError

Item = TypeVar("Item")


def file_state(path: str | Path) -> list[int]:
    """Size, time of change, ns, and what no other file has that takes its place; [] for none.

    That is the time at which the system noted the change or renaming, and the file's number: a
    copy or another file of the same size and time differs in them.
    """
    try:
        found = os.stat(path)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def thin(items: list[Item], limit: int | None) -> list[Item]:
    """At most `limit` of them, evenly spaced."""
    if not limit or limit >= len(items):
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).astype(int)]


def drawn_number(name: str, seed: int) -> float:
    """A number from 0 up to 1 that depends on nothing but an image's name and the seed."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(errors="surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") / 2**64


def permutation(n: int, *seed: int) -> np.ndarray:
    """0 to n - 1, shuffled by these numbers alone: (n,)."""
    return np.random.default_rng([s % 2**32 for s in seed]).permutation(n)


def require(images: Any, count: int, what: str, enough: int = 0) -> int:
    """How many images can be read, counted up to `enough`; UserError for fewer than `count`.

    images: an ImageSet. Decodes no more than it takes to know.
    """
    usable, enough = 0, max(count, enough)
    for start in range(0, len(images), enough):
        usable += len(images.read(np.arange(len(images))[start:][:enough])[1])
        if usable >= enough:
            return enough
    if usable >= count:
        return usable
    if usable:
        raise UserError(f"{what}: {usable} usable, at least {count} are needed: add images")
    raise unusable(images, what)


def unusable(images: Any, what: str) -> UserError:
    """Say that no file of an ImageSet is a usable image, and why the first is none."""
    first = "; the first: {}: {}".format(*images.skipped[0]) if images.skipped else ""
    return UserError(f"{what}: none of {len(images)} files is a usable image{first}")
