"""Pixel masks of known anomalies: found, checked against the images, read."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from anogan.data.choosing import file_state
from anogan.data.file_kinds import MASK_SUFFIX, image_stems, without_kinds
from anogan.data.image_set import ImageSet
from anogan.data.listing import list_images, shortened, shown_name
from anogan.errors import UserError
from utils import ImageError, read_mask

SUFFIX = "_mask"  # that a mask's file name may end in; MASK_SUFFIX has more
# So many masks may be of no use, of those that there should be; more, and all are put in question
FEW, FEWEST = 0.1, 4  # of fewer than FEWEST none


class Masks:
    """The masks in a folder of the images in an ImageSet, at the masks' own resolution.

    A mask has its image's name, whatever the extensions, or that name and a suffix as SUFFIX;
    several of one image are numbered, or lie in a folder of its name, and are joined. What it marks
    is anomalous (see utils.read_mask); an image without a mask is normal throughout.
    """

    def __init__(
        self,
        folder: str | Path,
        images: ImageSet,
        crop: tuple[int, int] | None = None,
        names: Sequence[str] | None = None,
    ):
        """crop: (height, width) of the centre of the files that the images show; none: all.

        names: of the masks in the folder; none: all images in it. UserError where no mask is named
        as an image is, or one could belong to several images, or several to one.
        """
        self.folder, self.images, self.crop = Path(folder), images, crop
        self.paths: dict[int, list[Path]] = {}  # by place in `images`
        self.left_out: dict[int, str] = {}  # of the pixel measures, and why; see check
        self.unmatched: list[str] = []  # masks that belong to no image
        exact, loose = defaultdict(list), defaultdict(list)
        for i, name in enumerate(images.names):
            exact[_stem(name)].append(i)
            loose[without_kinds(_stem(name))].append(i)
        joined: dict[int, bool] = {}  # whether an image's masks are named as parts of one
        for name in list_images(folder).names if names is None else names:
            path = self.folder / name
            stems = [(*stem, at) for stem in _stems(shown_name(name)) for at in (exact, loose)]
            matches = ((at[stem], is_part) for stem, is_part, at in stems if stem in at)
            among, is_part = next(matches, ([], False))
            if not among:
                self.unmatched.append(shown_name(name))
                continue
            if len(among) > 1:
                one, other = (images.names[i] for i in among[:2])
                raise UserError(f"{path} could be the mask of {one} or of {other}: rename one")
            [index] = among
            before = self.paths.setdefault(index, [])
            if before and not (joined[index] and is_part):
                raise UserError(
                    f"{before[0]} and {path} are both masks of {images.names[index]}: remove one"
                )
            joined[index] = is_part
            before.append(path)
        if not self.paths:
            raise UserError(
                f"none of {len(self.unmatched)} masks in {folder} belongs to an image to score: "
                f"name the mask of {self._example()} {_mask_name(self._example())}, "
                f"not as {self.unmatched[0]}"
            )

    def _example(self) -> str:
        """The name of an image that should have a mask, as far as is known."""
        labels = self.images.labels
        return self.images.names[0 if labels is None else int(np.argmax(labels))]

    def check(self) -> str:
        """Reads all masks that `read` will read, and returns a line that says how many there are.

        Images whose mask is missing or of no use (it cannot be read, is not of its image's aspect
        ratio, or contradicts its image's label) are left out of the pixel measures where they are
        few, and named. UserError where they are many, and where no mask marks anything.
        """
        labels, any_marks = self.images.labels, False
        for i, name in enumerate(self.images.names):
            if i not in self.paths:
                if labels is not None and labels[i]:
                    self.left_out[i] = (
                        f"{self.folder} has no mask for {name}: "
                        f"add {_mask_name(name)}, or leave --mask_dir out"
                    )
                continue
            try:
                any_marks |= self._marks(i)
            except UserError as error:
                self.left_out[i] = str(error)
        expected = len(self.paths.keys() | self.left_out.keys())
        allowed = max(1, int(FEW * expected)) if expected >= FEWEST else 0
        if len(self.left_out) > allowed:
            raise UserError(next(iter(self.left_out.values())))
        if not any_marks:
            raise UserError(f"no mask in {self.folder} marks anything: all is 0, which is normal")
        return self._line()

    def _marks(self, index: int) -> bool:
        """Whether an image's mask marks anything; UserError where it is of no use."""
        name, labels, path = self.images.names[index], self.images.labels, self.paths[index][0]
        mask = self._joined(index)
        self._require_aspect(index, path, mask)
        marks = bool(mask.any())
        if labels is not None and marks != bool(labels[index]):
            raise UserError(
                f"{path} marks pixels of {name}, which is labelled normal: correct one of them"
                if marks
                else f"{path} marks nothing (all is 0), but {name} is labelled anomalous: "
                "correct one of them"
            )
        return marks

    def _joined(self, index: int) -> np.ndarray:
        """bool (h, w): what any of an image's masks marks; ImageError, also for unlike shapes."""
        first, *more = self.paths[index]
        mask = read_mask(first)
        for path in more:
            part = read_mask(path)
            if part.shape != mask.shape:
                raise ImageError(path, f"{part.shape} pixels, {first.name} has {mask.shape}")
            mask |= part
        return mask

    def _require_aspect(self, index: int, path: Path, mask: np.ndarray) -> None:
        try:
            height, width = self.images.size(index)
        except ImageError:
            return  # is left out of the scoring, too
        h, w = mask.shape
        # the sides of a resized mask are rounded to whole pixels, which is all they may differ by
        if abs(h * width - w * height) > max(height, width):
            raise UserError(
                f"{path} has {h} x {w} pixels, {self.images.names[index]} {height} x {width}: "
                "a mask must be of its image's shape; its size may be another"
            )

    def _line(self) -> str:
        count, labels = len(self.images), self.images.labels
        parts = [f"{len(self.paths)} of {count} images have a mask"]
        if labels is not None and not self.left_out:
            parts[0] += f", all {np.sum(labels)} anomalous ones among them"
        if len(self.paths.keys() | self.left_out.keys()) < count:
            parts.append("the others count as normal throughout")
        if self.unmatched:
            count = len(self.unmatched)
            match = "1 mask belongs" if count == 1 else f"{count} masks belong"
            parts.append(f"{match} to none of these images, the first: {self.unmatched[0]}")
        if self.left_out:
            reasons = list(self.left_out.values())
            parts.append(f"left out of the pixel measures: {shortened(reasons)}")
        return "; ".join(parts)

    def state(self, index: int) -> list[int]:
        """What tells whether an image's mask is still the same, see file_state."""
        return [number for path in self.paths.get(index, ()) for number in file_state(path)]

    def read(self, index: int) -> np.ndarray:
        """bool (h, w): where image `index`, or the centre that was cropped, is anomalous.

        At the mask's resolution; all False, at the image's, where there is no mask. Raises
        ImageError, also where the image is left out of the pixel measures.
        """
        index = int(index)
        if index in self.left_out:
            raise ImageError(self.images.names[index], f"its mask is of no use, see {self.folder}")
        height, width = self.images.size(index)
        mask = self._joined(index) if index in self.paths else np.zeros((height, width), bool)
        if self.crop is None:
            return mask
        h, w = self.crop
        top, left = (height - h) // 2, (width - w) // 2
        down, across = mask.shape[0] / height, mask.shape[1] / width
        return mask[_scaled(top, top + h, down), _scaled(left, left + w, across)]


def _stem(name: str) -> str:
    """The name without its extension, in the one of its Unicode forms that is usual."""
    return unicodedata.normalize("NFC", os.path.splitext(name)[0])


def _stems(name: str) -> Iterator[tuple[str, bool]]:
    """Yields what the image of a mask may be called, and whether the mask is a part of several."""
    own = _stem(name)
    for stem in dict.fromkeys((own, without_kinds(own))):
        yield stem, False
        suffix = MASK_SUFFIX.search(stem)
        if suffix:
            for image in image_stems(f"{stem}."):
                yield image, bool(suffix["number"])
        yield stem.rpartition("/")[0], True


def _mask_name(name: str) -> str:
    return f"{os.path.splitext(name)[0]}{SUFFIX}.png"


def _scaled(start: int, stop: int, scale: float) -> slice:
    start, stop = round(start * scale), round(stop * scale)
    return slice(start, max(stop, start + 1))
