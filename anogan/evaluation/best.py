"""The pictures worth showing, of however many images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from anogan.data.image_set import ImageSet
from anogan.method.scoring import Detection
from utils import to_uint8

TOGETHER = 32  # images that are scored again at a time, where another run or worker scored them


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
        """Return the groups of all that were scored; make missing pictures anew.

        An image that cannot be read any more, and has no picture, is left out.
        """
        groups = self.groups(indices, scores)
        missing = sorted(set().union(*groups.values()) - self.pictures.keys())
        for start in range(0, len(missing), TOGETHER):
            read, some = images.read(missing[start : start + TOGETHER])
            if len(read):
                self._draw(some.tolist(), detect(read), missing)
        return {name: [i for i in some if i in self.pictures] for name, some in groups.items()}
