"""The form that the images of a model have."""

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
