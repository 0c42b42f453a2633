"""Writing files: whole or not at all, and known later on as this tool's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TextIO

from anogan.errors import UserError

MARKER = ".anogan_files"  # in each folder with output: its files, a JSON string a line
# What a killed process leaves: of write_atomic and its like, and of TensorFlow in former versions
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp|ckpt-[0-9]+_temp")
STAGING = ".anogan_new"  # below it: what a run has written and not yet published
PARTIAL = ".anogan_partial"  # below it: what an interrupted scoring goes on with
# Results of versions before the marker: a folder with both of these …
SIGNS = {"scores.csv", "metrics.json"}
SIGN_HEADER = "file,label,kind,score"  # … of which the first begins so
FORMER = re.compile(
    r"scores\.csv|metrics\.json|report\.html|contact_sheet\.png|pictures/(most|least)_\d+_.*\.png"
    r"|plots/(histogram|roc|precision_recall|terms|tsne|convergence)\.(png|svg)"
)


def printable(text: object) -> str:
    """A text from outside for one line of a terminal: all that would not show is escaped.

    That is control characters, line breaks, marks that turn the writing direction and bytes that
    are no text, as in names of files, labels and what a server answers.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[TextIO]:
    """A text file to write (UTF-8) that appears, with its folder, whole or not at all.

    UserError where it cannot be written.
    """
    with _replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        yield file


def write_atomic(path: str | Path, content: bytes | str) -> None:
    """Writes a file whole or not at all, making its folder; UserError where it cannot."""
    with _replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def _replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if all goes well."""
    path = Path(path)
    temporary = temporary_in(path.parent)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Where the system refuses to write in the block, a UserError that names path and reason."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error})") from error


def temporary_in(folder: Path) -> Path:
    """A new path in a folder that clear_temporaries knows."""
    return folder / f".{secrets.token_hex(8)}.tmp"


def clear_temporaries(folder: Path) -> None:
    """Removes what killed processes left half written in a folder."""
    with contextlib.suppress(OSError):
        for path in [p for p in folder.iterdir() if TEMPORARY.fullmatch(p.name)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def is_own(path: Path) -> bool:
    """Whether a file is there and lies where it is named: no link that may lead elsewhere."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def read_own(path: Path) -> bytes:
    """A file of a folder that may come from elsewhere; OSError, also where it is a link or pipe."""
    if os.path.lexists(path) and not is_own(path):
        raise OSError(f"{path.name} is no file of its own")
    return path.read_bytes()


def require_writable(folder: str | Path) -> None:
    """UserError unless a folder is there and can be written to, or can be made."""
    folder = Path(os.path.abspath(folder))
    there = next(p for p in (folder, *folder.parents) if p.exists())
    if not there.is_dir():
        raise UserError(f"{there} is a file, not a folder: name another folder than {folder}")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written to (no permission): name another folder")


def written(folder: Path) -> set[str]:
    """The files, as paths within the folder, that this tool wrote there; empty for others."""
    folder = Path(folder)
    try:
        lines = (folder / MARKER).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return _former(folder)
    found = set()
    for line in lines:  # the last one may be cut short
        try:
            name = json.loads(line)
        except ValueError:
            continue
        if isinstance(name, str) and _inside(name):
            found.add(name)
    return found


def may_hold_output(names: set[str]) -> bool:
    """Whether a folder with files of these names should be asked what was `written` there."""
    return MARKER in names or names >= SIGNS


def record(folder: Path, *names: str) -> None:
    """Notes, before they are written, that files of a folder are this tool's."""
    known = written(folder)
    new = [name for name in names if name not in known]
    with writing(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with open(Path(folder) / MARKER, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(name) + "\n" for name in new)


class Output:
    """A run's files, written aside and then put in the place of the last run's as a whole."""

    def __init__(self, folder: Path, fixed: Sequence[str] = ()):
        """fixed: names that will be written; UserError where one is somebody else's file."""
        self.folder, self.staging = Path(folder), Path(folder) / STAGING
        known = written(self.folder)
        for name in fixed:
            if name not in known and (self.folder / name).exists():
                raise UserError(
                    f"{self.folder / name} was not written by this tool and would be replaced: "
                    "move it, or name another --test_result_dir"
                )

    def begin(self, keep: Collection[str] = ()) -> None:
        """Makes the folder, and clears away what an interrupted run left staged, but for `keep`."""
        record(self.folder)
        with writing(self.folder):
            clear_temporaries(self.folder)
            if not keep or self.staging.is_symlink():
                _clear(self.staging)
            for path in [p for p in self.staging.rglob("*") if not p.is_dir() or p.is_symlink()]:
                if path.relative_to(self.staging).as_posix() not in keep:
                    path.unlink()

    def publish(self) -> None:
        """Moves all staged files into place and removes the last run's, as a whole.

        The last run's go first: a kill in between leaves some files out, and never new scores
        beside an old report. Files of others stay: where one has the name of a staged file, that
        gets another one.
        """
        old = written(self.folder)
        new: dict[str, Path] = {}
        for path in sorted(p for p in self.staging.rglob("*") if p.is_file()):
            name = path.relative_to(self.staging).as_posix()
            new[self._free(name, old, new)] = path
        record(self.folder, *new)  # first, so that a kill leaves no file of unknown origin
        with writing(self.folder):
            needed = {
                self.folder / parent for name in new for parent in PurePosixPath(name).parents
            }
            for place in needed:
                place.mkdir(parents=True, exist_ok=True)  # first, for it takes room
            for name in sorted(old):
                self._remove(name, needed)
            for name, path in new.items():
                os.replace(path, self.folder / name)
        write_atomic(self.folder / MARKER, "".join(json.dumps(n) + "\n" for n in sorted(new)))
        with writing(self.folder):
            _clear(self.staging)
            _clear(self.folder / PARTIAL)  # last: until then the same command makes all this again

    def _free(self, name: str, mine: set[str], taken: dict[str, Path]) -> str:
        place, number = PurePosixPath(name), 1
        while name in taken or (name not in mine and (self.folder / name).exists()):
            number += 1
            name = str(place.with_name(f"{place.stem} ({number}){place.suffix}"))
        return name

    def _remove(self, name: str, needed: Collection[Path]) -> None:
        """Removes one of the last run's files, and its folder if that is left empty for good."""
        path = self.folder / name
        real = os.path.realpath(path.parent)  # a folder on the way may be a link that leads out
        if os.path.commonpath([real, root := os.path.realpath(self.folder)]) != root:
            return
        if path.is_dir() and not path.is_symlink():
            return
        path.unlink(missing_ok=True)
        for parent in PurePosixPath(name).parents:  # innermost first; "." is the folder itself
            place = self.folder / parent
            if str(parent) == "." or place in needed or any(place.iterdir()):
                return
            place.rmdir()


def _clear(folder: Path) -> None:
    """Removes a folder of this tool's own with all that is in it; of a link the link alone."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _inside(name: str) -> bool:
    """Whether a path is relative and leads nowhere else; a marker may come from elsewhere."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _former(folder: Path) -> set[str]:
    try:
        found = {p.name for p in folder.glob("scores.partial*.csv") if _begins_as_scores(p)}
        if not all((folder / name).is_file() for name in SIGNS):
            return found
        if not _begins_as_scores(folder / "scores.csv"):
            return found
        inside = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        maps = [name[:-4] for name in inside if re.fullmatch(r"maps/.*\.npy", name)]
        found |= {stem + end for stem in maps for end in (".npy", ".png", "_overlay.png")} & inside
        return found | {name for name in inside if FORMER.fullmatch(name)}
    except OSError:
        return set()


def _begins_as_scores(path: Path) -> bool:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.readline().startswith(SIGN_HEADER)
