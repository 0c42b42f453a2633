"""The pictures worth showing, of however many images."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np


class Best:
    """The `count` pictures with the highest keys."""

    def __init__(self, count: int):
        self.count = count
        self.heap: list[tuple[float, int, tuple]] = []
        self.ticket = itertools.count()  # ties never compare images

    def offer(self, key: float, picture: Sequence[Any]) -> None:
        """picture: (place, arrays of one image …), copied, for a view keeps its whole batch."""
        if len(self.heap) == self.count and not key > self.heap[0][0]:
            return
        place, *arrays = picture
        entry = (key, -next(self.ticket), (place, *map(np.copy, arrays)))
        add = heapq.heappush if len(self.heap) < self.count else heapq.heapreplace
        add(self.heap, entry)

    def in_order(self) -> list:
        """(key, picture) in the order in which they were offered."""
        return [(key, picture) for key, _, picture in sorted(self.heap, key=lambda e: -e[1])]

    def ranked(self) -> list:
        return [picture for *_, picture in sorted(self.heap, reverse=True)]
