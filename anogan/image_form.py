"""The form that a model's images have, and the size at which a pretrained network sees them."""

from __future__ import annotations

from dataclasses import dataclass

MEMORY_LIMIT = 256 * 2**20  # bytes; larger sets of files are decoded again at each use


@dataclass(frozen=True)
class ImageForm:
    """What image files become: size, centre crop and range of values."""

    height: int  # pixels
    width: int
    channels: int = 3  # 1 grey, 3 colour
    crop: tuple[int, int] | None = None  # (height, width) of the centre that is resized; None: all
    value_range: tuple[float, float] | None = None  # black and white; None: 8 bits a channel

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels


# Of the pretrained network's input, pixels
STRIDE = 32  # its sides are multiples of it
LEAST = 3 * STRIDE  # a map of 2 x 2 places, averaged over 3 x 3, says nothing
SIDE = 224  # the shorter one at most, as in its training
ENLARGED, MOST_ENLARGED = 3, 192  # smaller images are enlarged so many times, up to that
LONGEST = 5 * SIDE**2  # pixels in all


def feature_size(height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) at which a pretrained network sees images of this size."""
    short = min(height, width)
    side = max(min(short, SIDE), min(ENLARGED * short, MOST_ENLARGED), LEAST)
    scale = side / short
    scale *= min(1.0, (LONGEST / (height * width * scale**2)) ** 0.5)
    first, second = (max(1, round(side * scale / STRIDE)) * STRIDE for side in (height, width))
    return first, second
