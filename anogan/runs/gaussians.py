"""What a run keeps of a pretrained network's features: Gaussians, in a file of its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Gaussians(NamedTuple):
    """Of one of the network's maps: a Gaussian for each of its p places, row by row."""

    mean: np.ndarray  # (p, d) float32
    whitening: np.ndarray  # (p, d (d + 1) / 2) int8: upper triangles
    scale: np.ndarray  # (p, d) float32, of a whitening's columns
    usual: np.ndarray  # (2,) float32: mean and spread of normal images' values


def packed(known: Sequence[Gaussians]) -> bytes:
    """Return the file of Gaussians, of one map after the other."""
    file = io.BytesIO()
    named = {f"{name}_{i}": v for i, one in enumerate(known) for name, v in one._asdict().items()}
    np.savez_compressed(file, **named)
    return file.getvalue()


def unpacked(content: bytes, count: int) -> list[Gaussians]:
    """Return the Gaussians of so many maps that a file holds; ValueError where it does not."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        known = [
            Gaussians(*(arrays[f"{name}_{i}"] for name in Gaussians._fields)) for i in range(count)
        ]
    for one in known:
        places, d = one.mean.shape
        shapes = [(places, d), (places, d * (d + 1) // 2), (places, d), (2,)]
        kinds = [np.float32, np.int8, np.float32, np.float32]
        if [a.shape for a in one] != shapes or [a.dtype for a in one] != kinds:
            raise ValueError("the Gaussians do not fit each other")
    return known
