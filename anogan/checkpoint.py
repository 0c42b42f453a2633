"""What a run's folder holds, and how it is written and read: the format of a checkpoint.

    config.json       the Config, and the version of this format
    checkpoint        TensorFlow's list of the checkpoints below, the newest first
    ckpt-STEP.*       weights of G, D, E and of their EMA ("…_average"), Adam's moments, and the
                      step; the two newest
    images.npz        uint8: held_out and seen, some images (n, h, w, c) that were and were not
                      kept from training; first, G's samples before it
    images.json       held_out: names of all images kept from training; images: {name: [size,
                      time]} of all training images. Runs of before version 2 have none
    calibration.json  {version and way: Calibration}, a cache

A folder is data: loading it runs none of its content. Each file is written whole or not at all.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import tensorflow as tf

from anogan.errors import UserError
from anogan.files import write_atomic
from anogan.scoring import Calibration
from anogan.trainer import Trainer

ARRAYS, IMAGES, CALIBRATIONS = "images.npz", "images.json", "calibration.json"
KEPT = 2  # checkpoints
# What reading a damaged checkpoint or archive raises
UNREADABLE = (
    *(AssertionError, AttributeError, ValueError, TypeError, OSError, EOFError, LookupError),
    *(BadZipFile, zlib.error, tf.errors.OpError),
)


@dataclass(frozen=True)
class RunImages:
    """What a run keeps of its training images."""

    held_out: np.ndarray  # (n, h, w, c) uint8, some of those kept from training
    seen: np.ndarray  # some of those trained on
    first: np.ndarray | None = None  # what G drew for the fixed latents before training
    states: dict[str, list[int]] = field(default_factory=dict)  # see ImageSet.states
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
    def load(cls, folder: Path) -> RunImages:
        """UserError where a file is damaged."""
        path = folder / ARRAYS
        try:
            with np.load(path) as arrays:
                found = {name: arrays[name] for name in ("held_out", "seen", "first")}
            path = folder / IMAGES
            listed = json.loads(path.read_text()) if path.exists() else {}
            names = tuple(map(str, listed.get("held_out", ())))
            return cls(**found, states=dict(listed.get("images", {})), held_out_names=names)
        except UNREADABLE as error:
            raise UserError(_broken(path, error, folder)) from None


class Checkpoints:
    """A run's folder: saves and restores a Trainer's variables."""

    def __init__(self, folder: Path, trainer: Trainer):
        self.folder, self.trainer = Path(folder), trainer
        nets = dict(trainer.nets.trained())
        nets |= {f"{name}_average": net for name, net in trainer.ema.trained().items()}
        optimisers = {f"{name}_optimiser": o for name, o in trainer.optimisers.items()}
        self._objects = tf.train.Checkpoint(step=trainer.step, **nets, **optimisers)
        self._manager = tf.train.CheckpointManager(self._objects, self.folder, KEPT)

    def save(self) -> None:
        """Writes a checkpoint; a kill at any time leaves the last one. UserError if it can't."""
        step = self.trainer.steps_done
        try:
            self._manager.save(checkpoint_number=step)
        except (OSError, tf.errors.OpError) as error:
            shutil.rmtree(self.folder / f"ckpt-{step}_temp", ignore_errors=True)
            raise UserError(
                f"{self.folder} cannot be written ({str(error).splitlines()[0]}): make room, then "
                "the same command goes on from the last checkpoint that is there"
            ) from None

    def restore(self) -> None:
        """Reads the newest checkpoint; UserError where there is none or it is damaged."""
        latest = tf.train.latest_checkpoint(self.folder)
        if latest is None:
            raise UserError(f"{self.folder} holds no checkpoint yet: train it first (--train)")
        rates = {name: o.learning_rate.numpy() for name, o in self.trainer.optimisers.items()}
        try:
            self._objects.restore(latest).assert_existing_objects_matched()
        except UNREADABLE as error:
            raise UserError(_broken(latest, error, self.folder)) from None
        for name, optimiser in self.trainer.optimisers.items():  # restored to the old rate
            optimiser.learning_rate.assign(rates[name])


def has_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a checkpoint to go on from."""
    return tf.train.latest_checkpoint(folder) is not None


def save_calibrations(folder: Path, calibrations: dict[str, Calibration]) -> None:
    """Writes the cache of a run's calibrations."""
    stored = {key: found.to_json() for key, found in calibrations.items()}
    write_atomic(Path(folder) / CALIBRATIONS, json.dumps(stored, indent=1) + "\n")


def load_calibrations(folder: Path) -> dict[str, Calibration]:
    """The cache of a run's calibrations; empty, with a warning, where it cannot be used."""
    path = Path(folder) / CALIBRATIONS
    try:
        stored = json.loads(path.read_text()) if path.exists() else {}
        return {
            key: Calibration.from_json(found) for key, found in stored.items() if "maps" in found
        }
    except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        logging.getLogger(__name__).warning("%s: %s: calibrating anew", path, error)
        return {}


def _broken(path: str | Path, error: BaseException, folder: Path) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{path} cannot be restored ({reason}): delete {folder} and train again"
