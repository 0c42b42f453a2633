"""A memory bank of normal images: how far is each place from all that was seen there?

PatchCore's nearest neighbours (Roth et al. 2022, section 3) with histograms of gradient
orientations (Dalal and Triggs 2005) and the sharpness of the place, in place of a pretrained
network's features.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from anogan.data.choosing import permutation
from anogan.recipe import BankRecipe
from anogan.runs.distributed import graph_of
from utils import to_float

BATCH = 64  # images
# Orientations and sharpness of each place's cells, for one grid: (n, y, x, d) and (n, y, x, 9)
Described = tuple[tf.Tensor, tf.Tensor]
FOLDS = 3  # of images that are measured by banks without them
MOST_BYTES = 2**29  # of a bank; those of all images but strips are smaller


class Grid(NamedTuple):
    """Cells of so many pixels' side, of which so many cover each pixel along a side."""

    cell: int
    overlap: int

    @property
    def step(self) -> int:
        return self.cell // self.overlap

    def mean(self, values: tf.Tensor) -> tf.Tensor:
        """(b, h, w, d) -> (b, y, x, d)"""
        return tf.nn.avg_pool2d(values, self.cell, self.step, "VALID")

    def highest(self, values: tf.Tensor) -> tf.Tensor:
        return tf.nn.max_pool2d(values, self.cell, self.step, "VALID")

    def with_neighbours(self, cells: tf.Tensor, border: str) -> tf.Tensor:
        """Each cell's and its eight neighbours' values: (b, y, x, d) -> (b, y, x, 9 d)."""
        n, (rows, columns) = self.overlap, cells.shape[1:3]
        around = tf.pad(cells, [[0, 0], [n, n], [n, n], [0, 0]], border)
        starts = 0, n, 2 * n
        return tf.concat(
            [around[:, i : i + rows, j : j + columns] for i in starts for j in starts], -1
        )


class MemoryBank:
    """Descriptors of normal images at each place, and distances to the nearest."""

    def __init__(self, described: Sequence[Described], size: tuple[int, int], recipe: BankRecipe):
        """described: normal images, 2 or more, by `describe`; size: theirs, (h, w) pixels."""
        self.recipe, self.size = recipe, size
        self.grids = _grids(size, recipe)
        self.known, self.usual, self.spread, self.sharpness = [], [], [], []
        for found, weight in itertools.starmap(self._weighted, described):
            count = len(found)
            half = max(count // 2, 1)
            first = _ready(found[:half])
            apart = [_distances(found[i : i + BATCH], *first) for i in range(half, count, BATCH)]
            usual = tf.reduce_mean(tf.concat(apart, 0), axis=0)
            self.sharpness.append(weight)
            self.known.append(_ready(found))
            self.usual.append(recipe.usual * usual)
            self.spread.append(tf.maximum(tf.reduce_mean(usual), 1e-3))
        self.compare = graph_of(self.distances, reduce_retracing=True)

    @classmethod
    def of(cls, images: np.ndarray, recipe: BankRecipe) -> MemoryBank:
        """Of normal images (n, h, w, c), uint8 or float in [-1, 1], n at least 2."""
        return cls(describe(images, recipe), images.shape[1:3], recipe)

    def numbers(self) -> int:
        """How many the bank holds."""
        return sum(int(np.prod(placed.shape)) for placed, _ in self.known)

    def distances(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(b, h, w, c) in [-1, 1] -> distances of the images (b,) and of their places (b, h, w).

        1 is about as far as normal images are from each other; those of places are 0 and up.
        `compare` is the same as a graph.
        """
        return self.distances_of(_described(images, self.grids, self.recipe))

    def distances_of(self, described: Sequence[Described]) -> tuple[tf.Tensor, tf.Tensor]:
        """As `distances`, of images by `describe`."""
        value, whole = 0.0, 0.0
        for grid, (shapes, sharp), weight, known, usual, spread in zip(
            *(self.grids, described, self.sharpness, self.known, self.usual, self.spread),
            strict=True,
        ):
            found = tf.concat([shapes, weight * sharp], -1)
            far = (_distances(found, *known) - usual) / spread
            flat = tf.reshape(far, (-1, far.shape[1] * far.shape[2]))
            count = max(1, round(self.recipe.highest * flat.shape[1]))
            value += tf.reduce_mean(tf.math.top_k(flat, count).values, axis=1)
            covered = [grid.step * n for n in far.shape[1:]]
            enlarged = tf.image.resize(tf.nn.relu(far)[..., None], covered)
            before = (grid.cell - grid.step) // 2  # to the middle of the first cell
            after = (a - b - before for a, b in zip(self.size, covered, strict=True))
            around = [(0, 0), *((before, rest) for rest in after), (0, 0)]
            whole += tf.pad(enlarged, around, "SYMMETRIC")[..., 0]
        return value / len(self.grids), whole / len(self.grids)

    def frozen(self) -> MemoryBank:
        """A copy whose numbers become part of the graphs in which it is used."""
        copied = copy.copy(self)
        for name in ("known", "usual", "spread", "sharpness"):
            setattr(copied, name, tf.nest.map_structure(np.asarray, getattr(self, name)))
        return copied

    def _weighted(self, shapes: tf.Tensor, sharp: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(descriptors, the weight of the sharpness in them).

        Where the sharpness of a place is by turns none and the utmost, as in images of two shades
        (digits, circuit boards), it shows the shape, as orientations do better: weight 0.
        """
        spread = tf.reduce_mean(tf.math.reduce_std(sharp, axis=0))
        weight = self.recipe.sharpness / (1.0 + (spread / self.recipe.two_shades) ** 8)
        return tf.concat([shapes, weight * sharp], -1), weight


def bank_alone(images: np.ndarray, recipe: BankRecipe, seed: int = 0) -> np.ndarray:
    """How far each image is from the others: (n, h, w, c) uint8 -> (n,), see MemoryBank.

    Each is measured by a bank of the other folds, which has not seen it.
    """
    found, described = np.zeros(len(images)), describe(images, recipe)

    def some(places: np.ndarray) -> list[Described]:
        return tf.nest.map_structure(lambda x: tf.gather(x, places), described)

    folds = np.array_split(permutation(len(images), seed), min(FOLDS, len(images) // 2))
    for fold in folds:
        others = np.setdiff1d(np.arange(len(images)), fold)
        bank = MemoryBank(some(others), images.shape[1:3], recipe)
        for i in range(0, len(fold), BATCH):
            part = fold[i : i + BATCH]
            found[part] = bank.distances_of(some(part))[0]
    return found


def describe(images: np.ndarray, recipe: BankRecipe) -> list[Described]:
    """Describe images (n, h, w, c), uint8 or float in [-1, 1], at each place of each grid."""
    grids = _grids(images.shape[1:3], recipe)
    parts = [
        _described(to_float(images[i : i + BATCH]), grids, recipe)
        for i in range(0, len(images), BATCH)
    ]
    return [
        tuple(tf.concat(each, 0) for each in zip(*of_grid, strict=True))
        for of_grid in zip(*parts, strict=True)
    ]


def _described(images: tf.Tensor, grids: Sequence[Grid], recipe: BankRecipe) -> list[Described]:
    lines, fine = strokes(images, recipe.bins), detail(images)
    return [
        (orientations(lines, grid, recipe.no_gradient), sharpness(fine, grid, recipe.blurred))
        for grid in grids
    ]


def _grids(size: tuple[int, int], recipe: BankRecipe) -> list[Grid]:
    """The fine and the coarse grid of images of this size."""
    return [
        Grid(max(smallest, round(min(size) / count)), overlap)
        for count, smallest, overlap in zip(
            recipe.cells, recipe.smallest_cells, recipe.overlaps, strict=True
        )
    ]


def most_images(size: tuple[int, int], recipe: BankRecipe) -> int:
    """How many images of this size fit into a bank: of long strips few, which have many places."""
    places = sum(
        math.prod((side - grid.cell) // grid.step + 1 for side in size)
        for grid in _grids(size, recipe)
    )
    return MOST_BYTES // (4 * 9 * (recipe.bins + 1) * places)


def strokes(images: tf.Tensor, bins: int) -> tf.Tensor:
    """The gradient's strength by its orientation: (b, h, w, c) in [-1, 1] -> (b, h, w, bins)."""
    grey = tf.pad(tf.reduce_mean(images, -1), [[0, 0], [1, 1], [1, 1]], "SYMMETRIC")
    down = (grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]) / 2.0
    across = (grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2]) / 2.0
    strength = tf.sqrt(tf.square(down) + tf.square(across) + 1e-12)
    angle = tf.math.floormod(tf.atan2(down, across), np.pi) * (bins / np.pi)
    off = tf.abs(angle[..., None] - tf.range(bins, dtype=tf.float32))
    return strength[..., None] * tf.maximum(1.0 - tf.minimum(off, bins - off), 0.0)


def orientations(lines: tf.Tensor, grid: Grid, no_gradient: float) -> tf.Tensor:
    """`strokes` of cells and their eight neighbours, of length 1: (b, y, x, 9 bins)."""
    found = grid.with_neighbours(grid.mean(lines), "CONSTANT")
    lengths = tf.reduce_sum(tf.square(found), -1, keepdims=True)
    return found / tf.sqrt(lengths + no_gradient**2)


def detail(images: tf.Tensor) -> tf.Tensor:
    """How much a pixel differs from those around it: (b, h, w, c) in [-1, 1] -> (b, h, w, 1)."""
    x = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    laplacian = x[:, 2:, 1:-1] + x[:, :-2, 1:-1] + x[:, 1:-1, 2:] + x[:, 1:-1, :-2] - 4.0 * images
    return tf.reduce_max(tf.abs(laplacian), axis=-1, keepdims=True)


def sharpness(fine: tf.Tensor, grid: Grid, blurred: float) -> tf.Tensor:
    """Logarithm of the sharpest `detail` in cells and their eight neighbours: (b, y, x, 9).

    What is pasted, erased, scratched or noisy has an edge or a grain that its place never has, and
    what is blurred has too little.
    """
    return grid.with_neighbours(tf.math.log(grid.highest(fine) + blurred), "SYMMETRIC")


def _ready(known: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Descriptors (n, y, x, d) as _distances takes them: (y, x, d, n) and their squared lengths."""
    placed = tf.transpose(known, (1, 2, 3, 0))
    return placed, tf.reduce_sum(tf.square(placed), axis=2)


def _distances(found: tf.Tensor, known: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """From descriptors (b, y, x, d) to the nearest known at their place: (b, y, x)."""
    placed = tf.transpose(found, (1, 2, 0, 3))
    squared = tf.reduce_min(lengths[:, :, None] - 2.0 * tf.matmul(placed, known), axis=-1)
    squared = tf.transpose(squared, (2, 0, 1)) + tf.reduce_sum(tf.square(found), -1)
    return tf.sqrt(tf.maximum(squared, 0.0))
