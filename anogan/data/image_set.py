"""Data sets: which images and labels a name stands for, and batches of them."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from anogan.data.choosing import drawn_number, file_state, permutation, unusable
from anogan.image_form import MEMORY_LIMIT, ImageForm
from utils import ImageError, checked_images, image_size, load_image, to_float, to_uint8

if TYPE_CHECKING:
    import tensorflow as tf

FEWEST_HELD_OUT = 8  # images, if the fraction asks for as many: chance alone could leave none
DECODED_TOGETHER = 8  # images
RESIZED_TOGETHER = 64
AHEAD = 4  # batches of a stream that are read at once, and kept until they are asked for
COPIED = 2  # so much of file_state has a copy of the file, too: size and time
DECODERS = ThreadPoolExecutor(os.cpu_count(), "decode")  # shared: as many threads as cores at most


class ImageSet:
    """Images of one shape, from memory or from files, with their names and labels.

    names: unique; for files the path within the folder. labels: int (n,), 0 normal, 1 anomalous,
    or None. kinds: sub-folder or digit of each, or None. shape: (h, w, c). skipped: (name,
    reason) of each broken file met so far, by this set or any that it is a part of or was split
    into; warnings: what is to be said of others (see utils.load_image), each with a dict whose keys
    are their names. left_out: what else lies in the folder, in lines for the user; dropped: names
    of images left out by the user's wish. Files are decoded at first use, once where all fit in
    the memory limit.
    """

    def __init__(
        self,
        source: _Source,
        names: Sequence[str],
        labels: npt.ArrayLike | None = None,
        kinds: Sequence[str] | None = None,
        indices: np.ndarray | None = None,
    ):
        self._source = source
        self._indices = np.arange(len(names)) if indices is None else indices  # in the source
        self.names = tuple(names)
        self.labels = None if labels is None else np.asarray(labels)
        self.kinds = None if kinds is None else tuple(kinds)
        self.shape = source.shape
        self.skipped, self.warnings = source.skipped, source.warnings
        self.left_out, self.dropped = source.left_out, source.dropped

    @classmethod
    def from_array(
        cls,
        images: npt.ArrayLike,
        names: Sequence[str] | None = None,
        labels: npt.ArrayLike | None = None,
        kinds: Sequence[str] | None = None,
    ) -> ImageSet:
        """images: (n, h, w, c), uint8 or float in [-1, 1]; UserError for what else they are."""
        images = checked_images(images)
        images = images if images.dtype == np.uint8 else to_uint8(images)
        names = [f"{i:05d}" for i in range(len(images))] if names is None else names
        height, width, channels = map(int, images.shape[1:])
        source = _Source(names, (height, width, channels), images)
        return cls(source, names, labels, kinds)

    @classmethod
    def from_files(
        cls,
        paths: Sequence[str],
        names: Sequence[str],
        form: ImageForm,
        memory_limit: int,
        labels: npt.ArrayLike | None = None,
        kinds: Sequence[str] | None = None,
    ) -> ImageSet:
        """The image files in that form; names: what they are called, mostly within a folder."""
        fits = len(paths) * int(np.prod(form.shape)) <= memory_limit
        cache = np.empty((len(paths), *form.shape), np.uint8) if fits else None
        return cls(_Source(names, form.shape, cache, paths, form), names, labels, kinds)

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: np.ndarray | Sequence[int]) -> ImageSet:
        """The images at these places, or where a mask (n,) is true."""
        chosen = np.arange(len(self))[indices]
        return ImageSet(
            self._source,
            [self.names[i] for i in chosen],
            None if self.labels is None else self.labels[chosen],
            None if self.kinds is None else [self.kinds[i] for i in chosen],
            self._indices[chosen],
        )

    def relabelled(self, labels: npt.ArrayLike | None, kinds: Sequence[str] | None) -> ImageSet:
        """The same images with other labels (n,) and kinds."""
        return ImageSet(self._source, self.names, labels, kinds, self._indices)

    def at(self, shape: tuple[int, int, int]) -> ImageSet:
        """The same images resized to a shape (h, w, c); what is broken is broken in both."""
        if shape == self.shape:
            return self
        return ImageSet(self._source.at(shape), self.names, self.labels, self.kinds, self._indices)

    def split(
        self,
        fraction: float,
        seed: int,
        decided: dict[str, bool] | None = None,
        groups: dict[str, str] | None = None,
    ) -> tuple[ImageSet, ImageSet]:
        """(rest, held_out): whether an image is held out depends on its name and the seed alone.

        So the split stays where images are added or removed. About that fraction is held out;
        of few images the nearest to it, so that neither side is empty if there are two and the
        fraction is above 0. decided: {name: is held out} of an earlier split, which it keeps to.
        groups: {name: what decides in its place} of images that stay together.
        """
        decided, groups = decided or {}, groups or {}
        drawn = np.array([drawn_number(groups.get(name, name), seed) for name in self.names])
        held_out, each = drawn < fraction, np.unique(drawn)
        if decided:
            together = {groups[name]: side for name, side in decided.items() if name in groups}
            for i, name in enumerate(self.names):
                side = together.get(groups.get(name, ""), held_out[i])
                held_out[i] = decided.get(name, side)
        elif fraction > 0 and len(each) > 1:
            count = max(1, min(round(fraction * len(each)), FEWEST_HELD_OUT, len(each) - 1))
            held_out = (held_out | (drawn <= each[count - 1])) & (drawn < each[-1])
        else:
            held_out[:] = False
        return self.subset(~held_out), self.subset(held_out)

    def some(self, count: int, seed: int) -> np.ndarray:
        """At most so many of the images, from all over the set at random: uint8 (m, h, w, c)."""
        return self.read(np.sort(permutation(len(self), seed)[:count]))[0]

    def states(self) -> dict[str, list[int]]:
        """What tells whether an image is the one that is read here: {name: see file_state}.

        A file's is found once, before it is read for the first time: where it is replaced after
        that, the state is none of the new one.
        """
        return {
            name: self._source.state(i) for name, i in zip(self.names, self._indices, strict=True)
        }

    def dated(self) -> dict[str, list[int]]:
        """The part of the states that a copy of the folder has, too: {name: [size, time]}."""
        return {name: state[:COPIED] for name, state in self.states().items()}

    def read(self, indices: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images (m, h, w, c) and the m indices they belong to: without the broken ones."""
        indices = np.asarray(indices, int)
        images, good = self._source.read(self._indices[indices])
        return images, indices[good]

    def leave_out(self, index: int, reason: str) -> None:
        """Counts a file as broken without reading it: another run has done so."""
        self._source.leave_out(self._indices[index], reason)

    def path(self, index: int) -> str | None:
        """The path of an image's file; None where it is of an array."""
        source = self._source
        return source.paths[self._indices[index]] if source.form else None

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of an image in its file, whole and upright; of others, of this set.

        Reads the file's header. Raises ImageError.
        """
        path = self.path(index)
        return image_size(path) if path else self.shape[:2]

    def original(self, index: int, longest: int) -> np.ndarray:
        """An image as it is in its file, in its own aspect: uint8 (h, w, 1 or 3), upright.

        Not enlarged, and no side longer than that many pixels. Raises ImageError.
        """
        path, form = self.path(index), self._source.form
        if not (path and form):
            return self.read([index])[0][0]
        height, width = form.crop or image_size(path)
        scale = min(1.0, longest / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        return load_image(path, *size, 3, form.crop, form.value_range)

    def batches(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (indices (m,), float32 images (m, h, w, c) in [-1, 1]) in order, m <= batch_size.

        Broken files are left out. The next batch is read while the caller works on this one.
        """
        with ThreadPoolExecutor(1, "batch") as ahead:
            pending = None
            for start in range(0, len(self), batch_size):
                following = ahead.submit(self.read, np.arange(len(self))[start:][:batch_size])
                if pending:
                    yield from _as_batch(*pending.result())
                pending = following
            if pending:
                yield from _as_batch(*pending.result())

    def stream(
        self,
        batch_size: int,
        seed: int = 0,
        first_step: int = 0,
        shares: range = range(1),
        of: int = 1,
    ) -> tf.data.Dataset:
        """An endless tf.data.Dataset of shuffled float32 batches (batch_size, h, w, c) in [-1, 1].

        shares: which of the `of` equal shares of each batch to deliver, one after the other, as
        elements of their own: share i is images i, i + of, i + 2 of, … of the batch.
        Each epoch is a permutation that depends on seed and epoch alone, and batches run on over
        its end: batch k is the same in every run, also in one that begins at first_step = k.
        A broken file's place is taken by another image, drawn for it once and for all.
        UserError if no image can be read.
        """
        import tensorflow as tf

        n = len(self)
        self._stand_in(0)  # raises here if all are broken: within tf.data it would be a traceback
        order = functools.lru_cache(4)(lambda epoch: permutation(n, seed, epoch))

        size = batch_size // of

        def batch(element: np.ndarray) -> np.ndarray:
            step, i = divmod(int(element), len(shares))
            wanted = np.arange(batch_size)[shares[i] :: of]
            epochs, places = np.divmod((first_step + step) * batch_size + wanted, n)
            parts = [order(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)]
            indices = np.concatenate(parts)
            images, good = self._source.read(self._indices[indices])
            if good.all():
                return images
            full = np.empty((size, *self.shape), np.uint8)
            full[good] = images
            full[~good] = [self._stand_in(i) for i in indices[~good]]
            return full

        @tf.autograph.experimental.do_not_convert  # which writes files, see distributed.graph_of
        def tensor(element: tf.Tensor) -> tf.Tensor:
            images = tf.numpy_function(batch, [element], tf.uint8, stateful=False)
            images = tf.ensure_shape(images, (size, *self.shape))
            return tf.cast(images, tf.float32) / 127.5 - 1

        # Its tuner sleeps up to a minute, and the end of a training, or Ctrl-C, would wait for that
        options = tf.data.Options()
        options.autotune.enabled = False
        elements = tf.data.Dataset.counter().map(tensor, AHEAD, deterministic=True).prefetch(AHEAD)
        return elements.with_options(options)

    def _stand_in(self, index: int) -> np.ndarray:
        for i in permutation(len(self), int(index)):
            images, _ = self.read([i])
            if len(images):
                return images[0]
        raise unusable(self, "the data set")


class _Source:
    """Images by index: an array, or files that are decoded into one, or at each use."""

    def __init__(
        self,
        names: Sequence[str],
        shape: tuple[int, int, int],
        images: np.ndarray | None,
        paths: Sequence[str] = (),
        form: ImageForm | None = None,
    ):
        self.names, self.shape, self.images = names, shape, images
        self.paths, self.form = paths, form  # none: of an array
        self.known = np.full(len(names), form is None)  # is in `images`, or broken
        self.broken = np.zeros(len(names), bool)
        self.skipped: list[tuple[str, str]] = []
        self.left_out: list[str] = []
        self.dropped: set[str] = set()
        self.warnings: dict[str, dict[str, None]] = {}
        self.states: dict[int, list[int]] = {}  # of files, as far as they were asked for
        self.sizes: dict[tuple[int, int, int], _Resized] = {}  # see at
        self.lock = threading.Lock()

    def at(self, shape: tuple[int, int, int]) -> _Resized:
        """The same images at another size, resized once for all sets of them."""
        if shape not in self.sizes:
            self.sizes[shape] = _Resized(self, shape)
        return self.sizes[shape]

    def state(self, i: int) -> list[int]:
        """The file_state of file i from before it was read, or of an array the checksum."""
        if self.form is None and self.images is not None:
            return [zlib.crc32(self.images[i].tobytes())]
        if i not in self.states:
            self.states.setdefault(i, file_state(self.paths[i]))  # another thread may be first
        return self.states[i]

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint8 images (m, h, w, c) of those that are good, and which ones are (n,)."""
        if self.images is None:
            decoded = list(self._decoded(indices))
            good = np.array([image is not None for image in decoded], bool)
            images = np.array([image for image in decoded if image is not None], np.uint8)
            return images.reshape(-1, *self.shape), good
        missing = np.unique(indices[~self.known[indices]])
        for i, image in zip(missing, self._decoded(missing), strict=True):
            if image is not None:
                self.images[i] = image
            self.known[i] = True
        good = ~self.broken[indices]
        return self.images[indices[good]], good

    def _decoded(self, indices: np.ndarray) -> Iterator[np.ndarray | None]:
        """Yields each image, or None; some at a time to a thread, for handing over costs, too."""
        parts = np.array_split(indices, -(-len(indices) // DECODED_TOGETHER) or 1)
        decode = self._decode
        return itertools.chain.from_iterable(
            DECODERS.map(lambda part: [decode(i) for i in part], parts)
        )

    def _decode(self, i: int) -> np.ndarray | None:
        """Image i, or None where it is broken, which is said once."""
        form = self.form
        if self.broken[i] or form is None:
            return None
        self.state(i)  # first: what is read may be of a later one, never of an earlier
        warn = functools.partial(self._warn, self.names[i])
        try:
            return load_image(self.paths[i], *self.shape, form.crop, form.value_range, warn)
        except ImageError as error:
            if self.leave_out(i, error.reason):
                logging.getLogger(__name__).warning("skipped %s", error)
            return None

    def leave_out(self, i: int, reason: str) -> bool:
        """Notes that file i is broken; whether that is new."""
        with self.lock:
            new = not self.broken[i]
            if new:
                self.broken[i] = self.known[i] = True
                self.skipped.append((self.names[i], reason))
            return new

    def _warn(self, name: str, text: str) -> None:
        """Keeps what is to be said of a file; it is said at once for the first such file alone."""
        with self.lock:
            names = self.warnings.setdefault(text, {})
            if not names:
                logging.getLogger(__name__).warning("%s: %s", name, text)
            names[name] = None


class _Resized(_Source):
    """The images of another source, which decodes them, at another size."""

    def __init__(self, source: _Source, shape: tuple[int, int, int]):
        vars(self).update(vars(source))  # what is skipped or broken is one list for both
        fits = len(source.names) * int(np.prod(shape)) <= MEMORY_LIMIT
        self.source, self.shape = source, shape
        self.images = np.empty((len(source.names), *shape), np.uint8) if fits else None
        self.known, self.sizes = np.zeros(len(source.names), bool), {}

    def state(self, i: int) -> list[int]:
        return self.source.state(i)

    def leave_out(self, i: int, reason: str) -> bool:
        return self.source.leave_out(i, reason)

    def _decoded(self, indices: np.ndarray) -> Iterator[np.ndarray | None]:
        from ops import resized  # TensorFlow is slow to load

        for start in range(0, len(indices), RESIZED_TOGETHER):
            images, good = self.source.read(indices[start : start + RESIZED_TOGETHER])
            made = iter(to_uint8(resized(to_float(images), *self.shape[:2]).numpy()))
            yield from (next(made) if one else None for one in good)


def _as_batch(images: np.ndarray, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if len(indices):
        yield indices, to_float(images)
