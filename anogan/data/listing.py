"""What a folder and its sub-folders hold: images, and what else was left out."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from anogan.data.file_kinds import by_kind
from anogan.errors import UserError
from anogan.opening import NOT_READ
from anogan.runs.files import MARKER, written

SHOWN = 5  # of many, in a line
# Pillow knows these by name, but reads them with the help of other programs only, or never
NOT_BY_ITSELF = NOT_READ | {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}
# What systems and programs leave in folders, with copies of images or what was thrown away
SYSTEM_FOLDERS = re.compile(
    r"@(eadir|tmp|__thumb|sharebin|recycle|recently.*)|#(recycle|snapshot)|\$recycle\.bin|recycler"
    r"|__macosx|__pycache__|lost\+found|lost\.dir|system volume information|found\.\d{3}"
    r"|_?thumbnails|_gsdata_|_vti_cnf",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Listing:
    """The images in a folder: found once, then passed on."""

    folder: Path
    names: list[str]  # paths of the images within the folder, sorted
    left_out: Counter[str] = field(default_factory=Counter)  # files that are no images, by ending
    results: int = 0  # files that this tool itself wrote: pictures of earlier results and the like
    system: tuple[str, ...] = ()  # folders of the system that were left out
    unreadable: tuple[tuple[str, str], ...] = ()  # (folder, reason) of those that were skipped
    masks: list[str] = field(default_factory=list)  # masks beside the images, see file_kinds
    dropped: frozenset[str] = frozenset()  # names left out by the user's wish, see drop_list
    more_notes: tuple[str, ...] = ()

    def paths(self) -> list[str]:
        return [os.path.join(self.folder, name) for name in self.names]

    def notes(self) -> list[str]:
        """What was left out, in lines for the user."""
        lines = []
        if self.left_out:
            endings = ", ".join(sorted(self.left_out))
            lines.append(f"left out {self.left_out.total()} files that are no images: {endings}")
        if self.results:
            lines.append(f"left out {self.results} files of earlier results of this tool")
        if self.system:
            lines.append(f"left out folders of the system: {shortened(self.system)}")
        for name, reason in self.unreadable[:SHOWN]:
            lines.append(f"skipped the folder {self.folder / name}: it cannot be read ({reason})")
        return [*lines, *self.more_notes]


def list_images(
    folder: str | Path, pattern: str | None = None, exclude: Iterable[str | Path] = ()
) -> Listing:
    """The images in a folder and its sub-folders, and what else is there.

    pattern: for the file's name, as in a shell; none: any ending of an image type that Pillow
    reads. Hidden files and folders, those of the system, the folders in `exclude`, and what this
    tool wrote are left out; a sub-folder that cannot be read is skipped. Links are followed, but
    no folder is entered twice.
    Raises UserError where the folder is missing, cannot be read or holds no such file.
    """
    folder = Path(folder)
    above = Path(os.path.realpath(folder)).parents  # links up there are loops
    seen = {os.path.realpath(path) for path in (*exclude, *above)}
    images: list[str] = []
    system, unreadable = list[str](), list[tuple[str, str]]()
    folders, links = [""], list[str]()
    left_out, own, results = Counter[str](), set[str](), 0
    while folders or links:  # links last, so that a folder is known by its own name
        here = folders.pop() if folders else links.pop(0)
        if (real := os.path.realpath(folder / here)) in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder / here) as entries:
                inside = list(entries)
        except OSError as error:
            if not here:
                raise _unreadable(folder, error) from None
            unreadable.append((here, error.strerror or str(error)))
            continue
        if any(entry.name == MARKER for entry in inside):
            own |= {os.path.join(real, name) for name in written(folder / here)}
        for entry in inside:
            name = f"{here}/{entry.name}" if here else entry.name
            if entry.name.startswith("."):
                continue
            if SYSTEM_FOLDERS.fullmatch(entry.name) and entry.is_dir():
                system.append(name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append(name)
            elif _wanted(entry, pattern):
                if own and os.path.join(real, entry.name) in own:
                    results += 1
                else:
                    images.append(name)
            elif (
                not (pattern or entry.is_symlink())
                and entry.is_file()
                and not _is_about(entry, own, real)
            ):
                left_out[os.path.splitext(entry.name)[1].lower() or "no ending"] += 1
    skipped = tuple(sorted(system)), tuple(sorted(unreadable))
    listing = Listing(folder, sorted(images), left_out, results, *skipped)
    if not images:
        wanted = f"file that matches {pattern!r}" if pattern else "image"
        notes = "".join(f"; {line}" for line in listing.notes())
        raise UserError(
            f"{folder} holds no {wanted}: put images there or name another folder{notes}"
        )
    return listing


def images_alone(listing: Listing) -> Listing:
    """The images without what lies beside them: masks, depth maps and the like."""
    images, masks, others = by_kind(listing.names)
    notes = [
        f"{len(names)} files beside the images are {what}, the first: {shown_name(names[0])}"
        for names, what in ((masks, "masks"), (others, "of another kind"))
        if names
    ]
    return dataclasses.replace(
        listing, names=images, masks=masks, more_notes=(*listing.more_notes, *notes)
    )


def list_chosen(
    folder: Path, chosen: Sequence[str], pattern: str | None, exclude: Iterable[str | Path] = ()
) -> Listing:
    """The images among some files and in some folders, without masks and such; in that order.

    chosen: paths within the folder. A file that is named is taken for an image, whatever its
    ending. UserError where one is missing, or a folder holds no image.
    """
    names, masks, notes = list[str](), list[str](), list[str]()
    left_out, results, exclude = Counter[str](), 0, list(exclude)
    system, unreadable = list[str](), list[tuple[str, str]]()
    for path in chosen:
        if os.path.isdir(folder / path):
            inside = images_alone(list_images(folder / path, pattern, exclude))
            names += [PurePosixPath(path, name).as_posix() for name in inside.names]
            masks += [PurePosixPath(path, name).as_posix() for name in inside.masks]
            notes += [f"{path}: {note}" for note in inside.more_notes]
            left_out += inside.left_out
            results += inside.results
            system += [f"{path}/{name}" for name in inside.system]
            unreadable += [(f"{path}/{name}", reason) for name, reason in inside.unreadable]
        elif os.path.isfile(folder / path):
            names.append(PurePosixPath(path).as_posix())
        else:
            raise _missing(folder / path, "name a file or folder of images")
    unique = dict.fromkeys(names)
    masks = [name for name in dict.fromkeys(masks) if name not in unique]
    return Listing(
        *(folder, list(unique), left_out, results, tuple(system), tuple(unreadable), masks),
        more_notes=tuple(notes),
    )


def shortened(items: Sequence[str]) -> str:
    """The first of some items, in one line."""
    return ", ".join(items[:SHOWN]) + (", …" if len(items) > SHOWN else "")


def shown_name(name: str) -> str:
    """The name of a file itself, or what can be shown of it if it is not UTF-8."""
    try:
        name.encode()
        return name
    except UnicodeEncodeError:
        return os.fsencode(name).decode(errors="backslashreplace")


def is_image_name(path: str) -> bool:
    """Whether a path ends as an image does."""
    return os.path.splitext(path)[1].lower() in image_endings()


@functools.cache
def image_endings() -> frozenset[str]:
    """The endings, in lower case, of all image types that Pillow can read by itself."""
    known = Image.registered_extensions().items()  # loads all of Pillow's formats
    return frozenset(e for e, kind in known if kind in Image.OPEN and kind not in NOT_BY_ITSELF)


def available(data_dir: str | Path) -> list[str]:
    """Names of the data sets in a folder: its sub-folders that hold anything."""
    try:
        folders = [entry for entry in Path(data_dir).iterdir() if entry.is_dir()]
        return sorted(f.name for f in folders if f.name[0] != "." and _holds_anything(f))
    except OSError:
        return []


def _holds_anything(folder: Path) -> bool:
    return any(path.name[0] != "." for path in folder.iterdir())


def _is_about(entry: os.DirEntry[str], own: set[str], real: str) -> bool:
    """Whether a file that is no image need not be mentioned: a README, or this tool's own."""
    return entry.name.split(".")[0] == "README" or os.path.join(real, entry.name) in own


def _missing(path: Path, remedy: str) -> UserError:
    if path.exists():
        return UserError(
            f"{path} is a pipe or device: name files or folders of images, such as those that "
            "a command prints, with --test_dir $(command)"
        )
    if glob.has_magic(str(path)):
        return UserError(
            f"{path} does not exist: give a pattern without quotes, so that the shell finds the "
            "files, or name a folder of images"
        )
    return UserError(f"{path} does not exist: {remedy}")


def _unreadable(folder: Path, error: OSError) -> UserError:
    if isinstance(error, FileNotFoundError):
        return _missing(folder, "create it and put images there")
    return UserError(f"{folder} cannot be read as a folder ({error.strerror})")


def _wanted(entry: os.DirEntry[str], pattern: str | None) -> bool:
    ending = os.path.splitext(entry.name)[1].lower()
    matches = fnmatch.fnmatch(entry.name, pattern) if pattern else ending in image_endings()
    if entry.is_symlink():  # a dangling link is reported when it is read
        return matches and (os.path.isfile(entry.path) or not os.path.exists(entry.path))
    return matches and entry.is_file()  # not a pipe: reading it would hang
