"""What a run's folder holds, and how it is written and read: the format of a checkpoint.

    config.json       the Config, its recipe, and the version of this format
    ckpt-STEP.*       TensorFlow's checkpoints, the two newest: weights of G, D, E and of their EMA
                      ("…_average"), Adam's moments, and the step; aside-STEP.* are those that could
                      not be read when a run went on from an older one
    images.npz        images held out and images seen, see run_images.py
    features.npz      the Gaussians of a pretrained network's features, where they are in the score
    images.json       names of all images
    dropped.json      names of images that --drop left out, if it did, see data/drop_list.py
    calibration.json  {what it depends on: Calibration}, a cache
    .lock             held by the process that trains here, see lock.only_one

A folder is data, maybe from elsewhere: loading it runs none of its content, and only files of these
names in it are read, replaced or removed, no links. Each file is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tensorflow as tf

from anogan.errors import UserError, first_line
from anogan.runs.files import is_own, read_own, temporary_in, write_atomic

CALIBRATIONS = "calibration.json"
Found = TypeVar("Found")
KEPT = 2  # checkpoints
OPEN_FOLDERS = Path("/proc/self/fd")  # those that this process has open, by number, on Linux
PART = re.compile(r"ckpt-(0|[1-9][0-9]{0,14})\.(index|data-[0-9]{5}-of-([0-9]{5}))")
# What says nothing of a checkpoint itself
OUTSIDE = (
    *(PermissionError, MemoryError),
    *(tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError),
)


class Checkpoints:
    """A run's folder: saves and restores the state of some objects, by name."""

    def __init__(self, folder: Path, objects: Mapping[str, Any]):
        """objects: what TensorFlow can keep, all or some of those saved; one is the `step`."""
        self.folder, self.step = Path(folder), objects["step"]
        self._objects = tf.train.Checkpoint(**objects)
        self._last = -1  # of the newest checkpoint there that is of these objects

    def save(self) -> None:
        """Writes a checkpoint; a kill at any time leaves the last one. UserError if it can't."""
        step, new = int(self.step.numpy()), temporary_in(self.folder)
        try:
            new.mkdir(parents=True)
            with plain_path(new) as place:
                self._objects.write(f"{place}/ckpt")
            self._set_aside()
            for path in sorted(new.iterdir()):  # the index last: only with it is it one
                os.replace(path, self.folder / path.name.replace("ckpt", f"ckpt-{step}", 1))
            self._last = step
        except (OSError, tf.errors.OpError) as error:
            raise UserError(
                f"{self.folder} cannot be written ({first_line(error)}): make room, then "
                "the same command goes on from the last checkpoint that is there"
            ) from None
        finally:
            shutil.rmtree(new, ignore_errors=True)
        for old in list(_parts(self.folder).values())[KEPT:]:
            for name in reversed(old):  # the index first: what has none is no checkpoint
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()

    def _set_aside(self) -> None:
        """Renames checkpoints that are newer than what the objects come from: unread, or foreign.

        So they are not overwritten, and not taken for the newest again.
        """
        for step, names in _parts(self.folder).items():
            if step <= self._last:
                break
            for name in names:
                os.rename(self.folder / name, _free(self.folder / name.replace("ckpt", "aside", 1)))

    def restore(self) -> None:
        """Reads the newest checkpoint that can be read; UserError where there is none."""
        there: dict[int, list[str]] = {}
        while there != (there := _parts(self.folder)):  # training beside it may replace some
            reasons = []
            for step, names in there.items():
                try:
                    self._read(step, names)
                except UserError:  # of the folder's name, which says nothing of a checkpoint
                    raise
                except OUTSIDE as error:
                    raise UserError(f"{self.folder} cannot be read ({first_line(error)})") from None
                except Exception as error:  # a damaged file may raise anything
                    reasons.append(f"ckpt-{step} cannot be restored ({first_line(error)})")
                    continue
                self._last = step
                for reason in reasons:
                    logging.getLogger(__name__).warning(
                        "%s: %s: going back to step %d", self.folder, reason, step
                    )
                return
        if not there:
            raise UserError(f"{self.folder} holds no checkpoint yet: train it first (--train)")
        raise UserError(
            f"{self.folder}: {reasons[0]}, nor any other: put it back from a copy, or train again "
            "under another --checkpoint_dir"
        )

    def _read(self, step: int, names: list[str]) -> None:
        """Raises an error of some kind where it cannot be read as a whole."""
        counts = [int(match[3] or 0) for match in map(PART.fullmatch, names) if match]
        if len(names) != 1 + max(counts) or len(names) < 2 or "index" not in names[-1]:
            raise ValueError("a part of it is missing")
        if not all(is_own(self.folder / name) for name in names):
            raise ValueError("a part of it is no file of its own")
        with plain_path(self.folder) as place:
            path = f"{place}/ckpt-{step}"
            stored = tf.train.load_checkpoint(path)
            for name in stored.get_variable_to_shape_map():  # where only a part is restored, too
                stored.get_tensor(name)  # compares its checksum
            status = self._objects.read(path).expect_partial()
            status.assert_existing_objects_matched()
        if int(self.step.numpy()) != step:
            raise ValueError(f"it is of step {int(self.step.numpy())}")


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint, readable or not."""
    return bool(_parts(folder))


def _parts(folder: Path) -> dict[int, list[str]]:
    """{step: names of its files, the index last} of a folder's checkpoints, the newest first."""
    found: dict[int, list[str]] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in sorted(os.listdir(folder)):
            if match := PART.fullmatch(name):
                found.setdefault(int(match[1]), []).append(name)
    return dict(sorted(found.items(), reverse=True))


def _free(path: Path) -> Path:
    """A path, or one like it, that is not there yet."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name} ({number})")
    return free


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A path of a folder, for as long as the block, at which TensorFlow finds checkpoints.

    It takes *, ?, [, ] and backslashes for patterns, and UTF-8 alone. UserError where a system has
    no other path.
    """
    text = os.fsencode(folder).decode(errors="replace").replace(os.sep, "/")
    if not re.search(r"[*?\[\]\\\ufffd]", text):
        yield folder
        return
    if not OPEN_FOLDERS.is_dir():
        raise UserError(
            f"{folder}: here TensorFlow reads no checkpoint in a folder with one of * ? [ ] \\, or "
            "what is no text, in its name: name another --checkpoint_dir"
        )
    number = os.open(folder, os.O_RDONLY)
    try:
        yield OPEN_FOLDERS / str(number)
    finally:
        os.close(number)


def save_calibrations(folder: Path, calibrations: Mapping[str, Any]) -> None:
    """Write the cache of a run's calibrations, with a warning where that cannot be."""
    stored = {key: found.to_json() for key, found in calibrations.items()}
    try:
        write_atomic(Path(folder) / CALIBRATIONS, json.dumps(stored, indent=1) + "\n")
    except UserError as error:  # a read-only model scores all the same
        logging.getLogger(__name__).warning("calibration is not kept: %s", error)


def load_calibrations(folder: Path, parse: Callable[[Any], Found]) -> dict[str, Found]:
    """The cache of a run's calibrations; empty, with a warning, where it cannot be used."""
    path = Path(folder) / CALIBRATIONS
    try:
        stored = json.loads(read_own(path)) if os.path.lexists(path) else {}
        return {key: parse(found) for key, found in stored.items()}
    except Exception as error:
        logging.getLogger(__name__).warning("%s: %s: calibrating anew", path, first_line(error))
        return {}
