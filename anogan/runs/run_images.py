"""What a run keeps of its training images, and how it is written and read.

images.npz   held_out and seen, some images (n, h, w, c) uint8 that were and were not kept from
             training; seen_features: RunImages' own, NaN where it has None
features.npz  the Gaussians of a pretrained network's features, where they are in the score
images.json  held_out: names of all images kept from training; features: RunImages' fitted;
             images: {name: [size, time]} of all training images
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import ZipFile
from zlib import crc32

import numpy as np

from anogan.config import Config
from anogan.errors import UserError, first_line
from anogan.runs.files import read_own, write_atomic
from anogan.runs.gaussians import Gaussians, packed, unpacked

ARRAYS, FEATURES, IMAGES = "images.npz", "features.npz", "images.json"
MOST_IMAGES = 4096  # in each of the arrays, far more than are ever kept


@dataclass(frozen=True)
class RunImages:
    """What a run keeps of its training images."""

    held_out: np.ndarray  # (n, H, W, c) uint8, some of those kept from training, as they are read
    seen: np.ndarray  # (n, h, w, c) some of those trained on, as the networks see them
    states: dict[str, list[int]] = field(default_factory=dict)  # see ImageSet.dated
    held_out_names: tuple[str, ...] = ()
    features: Sequence[Gaussians] = ()
    # how far in features each of the images that these are of is from the others: {name: distance}
    fitted: dict[str, float] = field(default_factory=dict)
    # the same of each of `seen`; None: unknown, or it has near copies
    seen_features: tuple[float | None, ...] = ()

    def decided(self) -> dict[str, bool]:
        """{name: is held out} of all images that the run knows."""
        held_out = set(self.held_out_names)
        return {name: name in held_out for name in self.states}

    def checksum(self, start: int) -> int:
        """Return the CRC-32, from a start on, of all of this that decides scores."""
        kept = [self.held_out, self.seen, *(one.whitening for one in self.features)]
        for array in kept:
            start = crc32(array.tobytes(), start)
        return crc32(repr(self.seen_features).encode(), start)

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
        file = io.BytesIO()
        arrays = {"held_out": self.held_out, "seen": self.seen}
        arrays["seen_features"] = np.array(self.seen_features, np.float64)  # None becomes NaN
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        write_atomic(folder / ARRAYS, file.getvalue())
        if self.features:
            write_atomic(folder / FEATURES, packed(self.features))
        listed = {
            "held_out": list(self.held_out_names),
            "features": self.fitted,
            "images": self.states,
        }
        write_atomic(folder / IMAGES, json.dumps(listed) + "\n")

    @classmethod
    def load(cls, folder: Path, config: Config) -> RunImages:
        """UserError where a file is damaged or not of a run of this configuration."""
        path = folder / ARRAYS
        try:
            found = _arrays(read_own(path), {"held_out": config.view, "seen": config.shape})
            far = found["seen_features"]
            if np.isinf(far).any() or len(far) not in (0, len(found["seen"])):
                raise ValueError("no distance for each image")
            known: list[Gaussians] = []
            if config.has_features:
                path = folder / FEATURES
                known = unpacked(read_own(path), len(config.recipe.features.blocks))
            path = folder / IMAGES
            listed = json.loads(read_own(path))
            names, states, fitted = (listed[k] for k in ("held_out", "images", "features"))
            numbers = [number for state in states.values() for number in state]
            if not all(type(n) is int for n in numbers) or type(names) is not list:
                raise ValueError("no list of images")
            if not all(type(name) is str for name in names):
                raise ValueError("no list of names")
            if not all(type(value) is float for value in fitted.values()):
                raise ValueError("no distance for each name")
            return cls(
                *(found["held_out"], found["seen"], states, tuple(names), known, fitted),
                tuple(None if np.isnan(value) else value for value in far.tolist()),
            )
        except Exception as error:
            raise UserError(
                f"{path} cannot be restored ({first_line(error)}): put it back from a copy, or "
                "train again under another --checkpoint_dir"
            ) from None


def _arrays(packed: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays in an archive: images {name: (n, *shape) uint8}, and seen_features (n,) float64.

    shapes: {name: of one image}. An array of another shape takes no memory.
    """
    found = {}
    kinds = {name: (shape, np.uint8) for name, shape in shapes.items()}
    with ZipFile(io.BytesIO(packed)) as archive:
        for name, (shape, wanted) in {**kinds, "seen_features": ((), np.float64)}.items():
            with archive.open(f"{name}.npy") as file:
                if np.lib.format.read_magic(file) != (1, 0):
                    raise ValueError(f"{name} is of another format")
                held, _, kind = np.lib.format.read_array_header_1_0(file)
                if kind != wanted or held[1:] != shape or not 0 <= held[0] <= MOST_IMAGES:
                    raise ValueError(f"{name} is {held} of {kind}, not some of {shape}")
            with archive.open(f"{name}.npy") as file:
                found[name] = np.lib.format.read_array(file, allow_pickle=False)
                if file.read(1):  # the end, where the checksum is looked at
                    raise ValueError(f"{name} is too long")
    return found
