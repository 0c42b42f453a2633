"""The pictures worth showing, of however many images."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anogan.data.image_set import ImageSet
from anogan.method.scoring import Detection
from anogan.runs.files import open_own, write_atomic
from utils import to_uint8

NAMED = 2**17  # bytes that a picture takes for its name and the like, at most
TOGETHER = 32  # images that are scored again at a time, where their pictures were lost


class Picture(NamedTuple):
    """What is shown of one image."""

    score: float
    query: np.ndarray  # (h, w, c) uint8
    reconstruction: np.ndarray  # likewise
    anomaly_map: np.ndarray  # (h, w) float32


class Best:
    """The most and the least anomalous images, and those nearest to the threshold."""

    def __init__(
        self, most: int = 100, least: int = 50, nearest: int = 50, near: float | None = None
    ):
        """Keep so many of each; near: the threshold, None where it is not known yet."""
        self.counts = {"most": most, "least": least, "nearest": 0 if near is None else nearest}
        self.near = near or 0.0
        self.pictures: dict[int, Picture] = {}  # by the image's index

    def groups(self, indices: npt.ArrayLike, scores: npt.ArrayLike) -> dict[str, list[int]]:
        """Return the indices to show, first those that are so most; of equal ones the lower."""
        chosen, values = np.asarray(indices, int), np.asarray(scores, float)
        keys = {"most": -values, "least": values, "nearest": np.abs(values - self.near)}
        return {
            name: chosen[np.lexsort((chosen, keys[name]))[:count]].tolist()
            for name, count in self.counts.items()
        }

    def offer(self, indices: Sequence[int], detection: Detection) -> None:
        """Keep the pictures that are worth showing so far."""
        scores = [*(p.score for p in self.pictures.values()), *detection.score]
        wanted = set().union(*self.groups([*self.pictures, *indices], scores).values())
        self.pictures = {i: p for i, p in self.pictures.items() if i in wanted}
        self._draw(indices, detection, wanted)

    def _draw(self, indices: Sequence[int], detection: Detection, wanted: Collection[int]) -> None:
        for i, index in enumerate(indices):
            if index in wanted:
                drawn = to_uint8(detection.image[i]), to_uint8(detection.reconstruction[i])
                anomaly_map = np.array(detection.anomaly_map[i], np.float32)
                self.pictures[index] = Picture(float(detection.score[i]), *drawn, anomaly_map)

    def complete(
        self,
        indices: npt.ArrayLike,
        scores: npt.ArrayLike,
        images: ImageSet,
        detect: Callable[[np.ndarray], Detection],
    ) -> dict[str, list[int]]:
        """Return the groups of all that were scored; make pictures that no run kept anew.

        An image that cannot be read any more, and has no picture, is left out.
        """
        groups = self.groups(indices, scores)
        missing = sorted(set().union(*groups.values()) - self.pictures.keys())
        for start in range(0, len(missing), TOGETHER):
            read, some = images.read(missing[start : start + TOGETHER])
            if len(read):
                self._draw(some.tolist(), detect(read), missing)
        return {name: [i for i in some if i in self.pictures] for name, some in groups.items()}

    def save(self, path: Path, key: dict[str, Any], names: Sequence[str]) -> None:
        """Write the pictures, each with its image's name."""
        about = {"key": key, "names": [names[i] for i in self.pictures]}
        columns = [np.array(column) for column in zip(*self.pictures.values(), strict=True)]
        arrays = dict(zip(Picture._fields, columns, strict=False))
        packed = io.BytesIO()
        np.savez(packed, about=np.array(json.dumps(about)), **arrays)  # type: ignore[arg-type]
        write_atomic(path, packed.getvalue())


def saved(
    path: Path, key: dict[str, Any], shape: tuple[int, ...], most: int
) -> list[tuple[str, Picture]]:
    """Return (name, Picture) of those saved with the same key; [] where they cannot be read.

    shape: (h, w, c) of the images; most: how many there may be.
    """
    h, w, c = shape
    room = (most + 1) * (h * w * (2 * c + 4) + NAMED)
    try:
        with open_own(path, room) as file, np.load(file) as arrays:
            if sum(member.file_size for member in arrays.zip.infolist()) > room:
                return []
            about = json.loads(str(arrays["about"]))
            scores, queries, drawn, maps = (arrays[name] for name in Picture._fields)
        same = queries.shape == drawn.shape == (len(scores), *shape)
        same &= maps.shape == queries.shape[:3]
        kinds = [queries.dtype, drawn.dtype, maps.dtype] == [np.uint8, np.uint8, np.float32]
        named = all(isinstance(name, str) for name in about["names"])
        if about["key"] != key or not (same and kinds and named):
            return []
        pictures = map(Picture, map(float, scores), queries, drawn, maps)
        return list(zip(about["names"], pictures, strict=True))
    except Exception:  # it is a cache, whatever is wrong with it
        return []
