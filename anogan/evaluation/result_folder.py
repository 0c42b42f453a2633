"""The folder of a scoring's results: written aside, and published as a whole."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePosixPath

from anogan.errors import UserError
from anogan.runs.files import (
    MARKER,
    clear_temporaries,
    discard,
    free_name,
    is_folder,
    is_own,
    record,
    write_atomic,
    writing,
    written,
)

SCORES, METRICS, REPORT, SHEET = "scores.csv", "metrics.json", "report.html", "contact_sheet.png"
FILES = SCORES, METRICS, REPORT, SHEET
FOLDERS = "pictures", "plots", "maps"
STAGING = ".anogan_new"  # below it: what a run has written and not yet published
PARTIAL = ".anogan_partial"  # below it: what an interrupted scoring goes on with
# What a scoring may have written, of what a marker names: other commands write beside it
RESULT = re.compile(
    rf"(scores|metrics|report|contact_sheet)( \(\d+\))?\.\w+|({'|'.join(FOLDERS)})/.*", re.DOTALL
)


class ResultFolder:
    """A scoring's files, written aside and then put in the place of the last one's as a whole."""

    def __init__(
        self, path: str | Path, fixed: Iterable[str] = (), folders: Iterable[str] = FOLDERS
    ):
        """Take files that will be written, and folders into which others will be.

        UserError where one is somebody else's file, or a folder is a link that may lead elsewhere.
        """
        self.path, self.staging = Path(path), Path(path) / STAGING
        known = self._last()
        for name in fixed:
            self._require_replaceable(name, known)
        self._require_folders({PurePosixPath(name) for name in folders}, known)

    def _last(self) -> set[str]:
        """Return the files of the last scoring."""
        return set(filter(RESULT.fullmatch, written(self.path)))

    def _require_replaceable(self, name: str, known: Collection[str]) -> None:
        if self._is_anothers(name, known):
            raise UserError(
                f"{self.path / name} was not written by this tool and would be replaced: "
                "move it, or name another --test_result_dir"
            )

    def _require_folders(self, places: Iterable[PurePosixPath], known: Collection[str]) -> None:
        for place in sorted({p for inner in places for p in (inner, *inner.parents)}):
            path = self.path / place
            if place.name and path.is_symlink():
                raise UserError(
                    f"{path} is a link, and results would be written where it leads: "
                    "remove it, or name another --test_result_dir"
                )
            if place.name and not path.is_dir():
                self._require_replaceable(place.as_posix(), known)

    def _is_anothers(self, name: str, mine: Collection[str]) -> bool:
        path = self.path / name
        return os.path.lexists(path) and (name not in mine or is_folder(path))

    def staged(self) -> set[str]:
        """Return what is staged, by the names it will have, without links and what they lead to."""
        return {name for name, path in self._in_staging() if is_own(path)}

    def _in_staging(self) -> Iterator[tuple[str, Path]]:
        """Yield (path below staging, whole path) of all but folders; no link is followed."""
        if self.staging.is_symlink():
            return
        for here, folders, names in os.walk(self.staging):
            for path in (Path(here, name) for name in (*folders, *names)):
                if not is_folder(path):
                    yield path.relative_to(self.staging).as_posix(), path

    def begin(self, keep: Collection[str] = ()) -> None:
        """Make the folder, and clear away what an interrupted run left staged, but for `keep`."""
        record(self.path)
        with writing(self.path):
            clear_temporaries(self.path)
            if not keep or not is_folder(self.staging):
                discard(self.staging)
            for name, path in self._in_staging():
                if name not in keep or not is_own(path):
                    path.unlink()

    def publish(self) -> None:
        """Move all staged files into place and remove the last run's, as a whole.

        The last run's go first: a kill in between leaves some files out, and never new scores
        beside an old report. Files of others, and of other commands, stay: where one has the name
        of a staged file, that gets another one.
        """
        old = self._last()
        new: dict[str, Path] = {}
        for name in sorted(self.staged()):
            free = free_name(name, lambda n: n in new or self._is_anothers(n, old))
            new[free] = self.staging / name
        parents = {parent for name in new for parent in PurePosixPath(name).parents}
        self._require_folders(parents, old)
        record(self.path, *new)  # first, so that a kill leaves no file of unknown origin
        with writing(self.path):
            needed = {self.path / parent for parent in parents}
            for name in sorted(old & set(map(str, parents))):
                self._remove(name, needed)  # a file where a folder will be
            for place in needed:
                place.mkdir(parents=True, exist_ok=True)  # before the others go, for it takes room
            for name in sorted(old):
                self._remove(name, needed)
            for name, path in new.items():
                os.replace(path, self.path / name)
        names = written(self.path) - old | new.keys()
        write_atomic(self.path / MARKER, "".join(json.dumps(n) + "\n" for n in sorted(names)))
        with writing(self.path):
            discard(self.staging)
            discard(self.path / PARTIAL)  # last: until then the same command makes all this again

    def _remove(self, name: str, needed: Collection[Path]) -> None:
        """Remove one of the last run's files, and its folder if that is left empty for good."""
        path = self.path / name
        real = os.path.realpath(path.parent)  # a folder on the way may be a link that leads out
        root = os.path.realpath(self.path)
        if os.path.commonpath([real, root]) != root or is_folder(path):
            return
        if os.path.lexists(path):  # not even its folder may be there
            path.unlink()
        for parent in PurePosixPath(name).parents:  # innermost first; "." is the folder itself
            place = self.path / parent
            if str(parent) == "." or place in needed or not is_folder(place) or os.listdir(place):
                return
            place.rmdir()
