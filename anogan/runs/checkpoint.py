"""What a run's folder holds, and how it is written and read: the format of a checkpoint.

    config.json       the Config, and the version of this format
    ckpt-STEP.*       TensorFlow's checkpoints, the two newest: weights of G, D, E and of their EMA
                      ("…_average"), Adam's moments, and the step; aside-STEP.* are those that could
                      not be read when a run went on from an older one
    images.npz        uint8: held_out and seen, some images (n, h, w, c) that were and were not
                      kept from training; first, G's samples before it
    images.json       held_out: names of all images kept from training; images: {name: [size,
                      time]} of all training images. Runs of before version 2 have none
    dropped.json      names of images that --drop left out, if it did, see data/drop_list.py
    calibration.json  {version and way: Calibration}, a cache
    .lock             held by the process that trains here, see lock.only_one

A folder is data, maybe from elsewhere: loading it runs none of its content, and only files of these
names in it are read, replaced or removed, no links. Each file is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import tensorflow as tf

from anogan.config import Config
from anogan.errors import UserError, first_line
from anogan.method.scoring import Calibration
from anogan.method.trainer import Averages
from anogan.runs.files import is_own, read_own, temporary_in, write_atomic

ARRAYS, IMAGES, CALIBRATIONS = "images.npz", "images.json", "calibration.json"
KEPT = 2  # checkpoints
OPEN_FOLDERS = Path("/proc/self/fd")  # those that this process has open, by number, on Linux
MOST_IMAGES = 4096  # in each of the arrays, far more than are ever kept
PART = re.compile(r"ckpt-(0|[1-9][0-9]{0,14})\.(index|data-[0-9]{5}-of-([0-9]{5}))")
# What says nothing of a checkpoint itself
OUTSIDE = (
    *(PermissionError, MemoryError),
    *(tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError),
)


@dataclass(frozen=True)
class RunImages:
    """What a run keeps of its training images."""

    held_out: np.ndarray  # (n, h, w, c) uint8, some of those kept from training
    seen: np.ndarray  # some of those trained on
    first: np.ndarray | None = None  # what G drew for the fixed latents before training
    states: dict[str, list[int]] = field(default_factory=dict)  # see ImageSet.dated
    held_out_names: tuple[str, ...] = ()

    def decided(self) -> dict[str, bool]:
        """{name: is held out} of all images that the run knows."""
        held_out = set(self.held_out_names)
        return {name: name in held_out for name in self.states}

    def changes(self, states: dict[str, list[int]]) -> list[str]:
        """What is other in these states than when the run saw the images, for the user."""
        if not self.states:
            return []
        both = states.keys() & self.states.keys()
        counts = {
            "new": len(states) - len(both),
            "missing": len(self.states) - len(both),
            "changed (size or date)": sum(states[name] != self.states[name] for name in both),
        }
        told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        line = f"images since the run last saw them: {told}; a larger --epoch goes on with them"
        return [line] if told else []

    def save(self, folder: Path) -> None:
        packed = io.BytesIO()
        arrays = {"held_out": self.held_out, "seen": self.seen}
        arrays |= {} if self.first is None else {"first": self.first}
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]
        write_atomic(folder / ARRAYS, packed.getvalue())
        listed = {"held_out": list(self.held_out_names), "images": self.states}
        write_atomic(folder / IMAGES, json.dumps(listed) + "\n")

    @classmethod
    def load(cls, folder: Path, config: Config) -> RunImages:
        """UserError where a file is damaged or not of a run of this configuration."""
        path = folder / ARRAYS
        try:
            # what G draws are windows, where the images are seen through them
            shapes = {"held_out": config.shape, "seen": config.shape, "first": config.net_shape}
            found = _arrays(read_own(path), shapes)
            path = folder / IMAGES
            listed = json.loads(read_own(path)) if os.path.lexists(path) else {}
            names, states = listed.get("held_out", []), listed.get("images", {})
            numbers = [number for state in states.values() for number in state]
            if not all(type(n) is int for n in numbers) or type(names) is not list:
                raise ValueError("no list of images")
            if not all(type(name) is str for name in names):
                raise ValueError("no list of names")
            return cls(**found, states=states, held_out_names=tuple(names))
        except Exception as error:
            raise UserError(
                f"{path} cannot be restored ({first_line(error)}): put it back from a copy, or "
                "train again under another --checkpoint_dir"
            ) from None


def _arrays(packed: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays of images in an archive, {name: (n, *shape) uint8}; in no more memory than that.

    shapes: {name: of one image}.
    """
    found = {}
    with ZipFile(io.BytesIO(packed)) as archive:
        for name, shape in shapes.items():
            if f"{name}.npy" not in archive.namelist() and name == "first":
                continue
            with archive.open(f"{name}.npy") as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError(f"{name} is of another format")
                held, _, kind = np.lib.format.read_array_header_1_0(file)
                if kind != np.uint8 or held[1:] != shape or not 0 <= held[0] <= MOST_IMAGES:
                    raise ValueError(f"{name} is {held} of {kind}, not images of {shape}")
            with archive.open(f"{name}.npy") as file:
                found[name] = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):  # the end, where the checksum is looked at
                    raise ValueError(f"{name} is too long")
    return found


class Checkpoints:
    """A run's folder: saves and restores a Trainer's variables, or restores its Averages alone."""

    def __init__(self, folder: Path, trainer: Averages):
        self.folder, self.trainer = Path(folder), trainer
        self._objects = tf.train.Checkpoint(**trainer.parts())
        self._last = -1  # step of the newest checkpoint there that is this trainer's

    def save(self) -> None:
        """Writes a checkpoint; a kill at any time leaves the last one. UserError if it can't."""
        step, new = self.trainer.steps_done, temporary_in(self.folder)
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
        """Renames checkpoints that are newer than what the trainer comes from: unread, or foreign.

        So they are not overwritten, and not taken for the newest again.
        """
        for step, names in _parts(self.folder).items():
            if step <= self._last:
                break
            for name in names:
                os.rename(self.folder / name, _free(self.folder / name.replace("ckpt", "aside", 1)))

    def restore(self) -> None:
        """Reads the newest checkpoint that can be read; UserError where there is none."""
        rates = {name: o.learning_rate.numpy() for name, o in self.trainer.optimisers.items()}
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
                for name, optimiser in self.trainer.optimisers.items():  # restored to the old rate
                    optimiser.learning_rate.assign(rates[name])
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
        if self.trainer.steps_done != step:
            raise ValueError(f"it is of step {self.trainer.steps_done}")


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


def save_calibrations(folder: Path, calibrations: dict[str, Calibration]) -> None:
    """Writes the cache of a run's calibrations."""
    stored = {key: found.to_json() for key, found in calibrations.items()}
    write_atomic(Path(folder) / CALIBRATIONS, json.dumps(stored, indent=1) + "\n")


def load_calibrations(folder: Path) -> dict[str, Calibration]:
    """The cache of a run's calibrations; empty, with a warning, where it cannot be used."""
    path = Path(folder) / CALIBRATIONS
    try:
        stored = json.loads(read_own(path)) if os.path.lexists(path) else {}
        return {
            key: Calibration.from_json(found) for key, found in stored.items() if "maps" in found
        }
    except Exception as error:
        logging.getLogger(__name__).warning("%s: %s: calibrating anew", path, first_line(error))
        return {}
