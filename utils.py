"""Image files: find, read, crop, resize, tile, save."""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import io
import itertools
import math
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from errors import UserError
from outputs import may_hold_output, write_atomic, written

# Pillow knows these by name, but reads them with the help of other programs only, or never.
NOT_BY_ITSELF = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where this many times the output size is left:
# 2 to 5 times as fast. At 3 the result is within 53 dB of the full decode, at 2 within 43.
SPARE = 3
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
ORIENTATION = 0x0112
TIFF_WIDTH, TIFF_HEIGHT = 0x0100, 0x0101


class ImageError(UserError):
    """A file that cannot be used as an image; `reason` is the message without the path."""

    def __init__(self, path, reason: str):
        super().__init__(f"{path}: {reason}")
        self.reason = reason


# files


class Listing(NamedTuple):
    """What a folder and its sub-folders hold."""

    names: list[str]  # paths of the images within the folder, sorted
    left_out: Counter[str]  # files that are no images, by ending; none where a pattern chose
    results: int  # files that this tool itself wrote: pictures of earlier results and the like

    def told(self) -> list[str]:
        """What was left out, in lines for the user."""
        lines = []
        if self.left_out:
            endings = ", ".join(sorted(self.left_out))
            lines.append(f"left out {self.left_out.total()} files that are no images: {endings}")
        if self.results:
            lines.append(f"left out {self.results} files of earlier results of this tool")
        return lines


def find_images(folder, pattern: str | None = None, exclude=()) -> list[Path]:
    """The images in a folder and its sub-folders: see list_images."""
    return [Path(folder) / name for name in list_images(folder, pattern, exclude).names]


def list_images(folder, pattern: str | None = None, exclude=()) -> Listing:
    """The images in a folder and its sub-folders, and what else is there.

    pattern: for the file's name, as in a shell; none: any ending of an image type that Pillow
    reads. Hidden files and folders, the folders in `exclude`, and what this tool wrote are left
    out. Links are followed, but no folder is entered twice.
    Raises UserError where the folder is missing, cannot be read or holds no such file.
    """
    folder = Path(folder)
    above = Path(os.path.realpath(folder)).parents  # links up there are loops
    seen = {os.path.realpath(path) for path in (*exclude, *above)}
    found, folders, links = [], [""], []
    left_out, own, results = Counter(), set(), 0
    while folders or links:  # links last, so that a folder is known by its own name
        here = folders.pop() if folders else links.pop(0)
        if (real := os.path.realpath(folder / here)) in seen:
            continue
        seen.add(real)
        inside = list(_entries(folder / here))
        if may_hold_output({entry.name for entry in inside}):
            own |= {os.path.join(real, name) for name in written(folder / here)}
        for entry in inside:
            name = f"{here}/{entry.name}" if here else entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append(name)
            elif _wanted(entry, pattern):
                if own and os.path.join(real, entry.name) in own:
                    results += 1
                else:
                    found.append(name)
            elif (
                not (pattern or entry.is_symlink())
                and entry.is_file()
                and not _is_about(entry, own, real)
            ):
                left_out[os.path.splitext(entry.name)[1].lower() or "no ending"] += 1
    listing = Listing(sorted(found), left_out, results)
    if not found:
        wanted = f"file that matches {pattern!r}" if pattern else "image"
        told = "".join(f"; {line}" for line in listing.told())
        raise UserError(
            f"{folder} holds no {wanted}: put images there or name another folder{told}"
        )
    return listing


def _is_about(entry, own: set[str], real: str) -> bool:
    """Whether a file that is no image need not be mentioned: a README, or this tool's own."""
    return entry.name.split(".")[0] == "README" or os.path.join(real, entry.name) in own


@functools.cache
def image_endings() -> frozenset[str]:
    """The endings, in lower case, of all image types that Pillow can read by itself."""
    known = Image.registered_extensions().items()  # loads all of Pillow's formats
    return frozenset(e for e, kind in known if kind in Image.OPEN and kind not in NOT_BY_ITSELF)


def _entries(folder):
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except FileNotFoundError:
        raise UserError(f"{folder} does not exist: create it and put images there") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be read as a folder ({error.strerror})") from None


def _wanted(entry, pattern: str | None) -> bool:
    ending = os.path.splitext(entry.name)[1].lower()
    matches = fnmatch.fnmatch(entry.name, pattern) if pattern else ending in image_endings()
    if entry.is_symlink():  # a dangling link is reported when it is read
        return matches and (os.path.isfile(entry.path) or not os.path.exists(entry.path))
    return matches and entry.is_file()  # not a pipe: reading it would hang


# reading


def read_image(path, channels: int, white: float | None = None) -> np.ndarray:
    """An image file, whole, as uint8 (h, w, channels); channels 1 is grey, 3 is colour.

    Upright as its EXIF says; the first of several frames; transparent parts on white, as
    browsers and scikit-image show them, so that black ink stays visible. Files of more than 8
    bits a channel are scaled so that `white` becomes 255: as found by `probe`, else 65535, or 1
    for floats. (Pillow itself reduces colour of 16 bits to the upper 8.) Raises ImageError.
    """
    with _opened(path) as image:
        white = white or _default_white(image)
        return _as_bytes(_flat(image, channels), channels, white)


def load_image(
    path,
    height: int,
    width: int,
    channels: int,
    crop: tuple[int, int] | None = None,
    white: float | None = None,
) -> np.ndarray:
    """An image file as uint8 (height, width, channels), resized with antialiasing.

    crop: (height, width) of the centre that is resized; none: the whole image. What the pixels
    are: as in `read_image`. Raises ImageError, also for an image smaller than the crop.
    """
    with _opened(path) as image:
        white = white or _default_white(image)
        stored = image.size
        shrunk = _decode_small(image, height, width, channels, crop)
        sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
        image = _flat(image, channels)
        w, h = image.size if shrunk == 1 else stored[::-1] if sideways else stored
        crop_h, crop_w = crop or (h, w)
        if crop_h > h or crop_w > w:
            raise ImageError(
                path,
                f"{h} x {w} pixels, smaller than the crop of {crop_h} x {crop_w}: "
                "lower --input_height and --input_width, or leave out --crop",
            )
        left, top = (w - crop_w) // 2, (h - crop_h) // 2
        box = [edge / shrunk for edge in (left, top, left + crop_w, top + crop_h)]
        # resize would let what is outside its box bleed in at the edges
        outer = [math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3])]
        box = [edge - outer[i % 2] for i, edge in enumerate(box)]
        image = image.crop(outer).resize((width, height), Image.Resampling.BICUBIC, box=box)
        return _as_bytes(image, channels, white)


def image_size(path) -> tuple[int, int]:
    """(height, width) of an image file, upright as its EXIF says. Raises ImageError."""
    with _opened(path) as image:
        w, h = image.size
        if image.format == "TIFF":  # new Pillows give its size upright, old ones as it is stored
            w, h = image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
        # a square is not asked for its EXIF: Pillow decodes a whole PNG to find it
        sideways = w != h and image.getexif().get(ORIENTATION) in SIDEWAYS
        return (w, h) if sideways else (h, w)


def read_mask(path) -> np.ndarray:
    """A mask file as bool (h, w), upright: true where it marks something. Raises ImageError.

    Whatever is above 0 is marked, in any channel, in the colours of a palette, in 1, 8, 16 or 32
    bits: masks are written with 255, 1 or a number for each kind. In a JPEG, which blurs edges, it
    is what is above 127. What is transparent is not marked; where nothing but black shows on a
    partly transparent mask, it is drawn in black, and all that shows is marked.
    """
    with _opened(path) as image:
        level = 127 if image.format == "JPEG" else 0
        _turn_upright(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            return np.asarray(image) > level
        shows = None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            shows = np.asarray(image.getchannel("A")) > 0
        if image.mode not in ("1", "L"):
            image = image.convert("RGB")
        marked = np.any([np.asarray(channel) > level for channel in image.split()], axis=0)
        if shows is None:
            return marked
        marked &= shows
        return marked if marked.any() or shows.all() else shows


def probe(paths) -> tuple[int, int]:
    """(channels, white) of image files.

    channels: 1 if every pixel is grey, else 3. white: for files of more than 8 bits, the first
    of 255, 1023, 4095, 16383, 65535, ... that no value exceeds (1 for floats up to 1); 65535
    where there is no such file. Files that cannot be read are ignored; UserError if none can.
    """
    channels, white, failure = 0, 0, None
    for path in paths:
        try:
            with _opened(path) as image:
                image.draft("RGB", (256, 256))
                floats = image.mode == "F"
                pixels = np.asarray(_flat(image, 3))
        except ImageError as error:
            failure = failure or error
            continue
        channels = max(channels, 1 if _is_grey(pixels) else 3)
        if pixels.dtype == np.float32:
            top = pixels.max()
            known = (4**k - 1 for k in itertools.count(4))
            white = max(white, 1 if floats and top <= 1 else next(v for v in known if v >= top))
    if not channels:
        raise UserError(f"none of {len(paths)} images can be read; the first: {failure}")
    return channels, white or 65535


COMMON = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")  # tried before Pillow's other formats


@contextlib.contextmanager
def _opened(path):
    """A Pillow image; whatever Pillow raises in the block becomes an ImageError."""
    Image.init()  # so that no thread sees a half-filled list of formats
    try:
        try:
            image = Image.open(path, formats=COMMON)
        except UnidentifiedImageError:
            image = Image.open(path)
        with image:
            yield image
    except (UserError, MemoryError):
        raise
    except UnidentifiedImageError:
        reason = "not an image" if os.path.getsize(path) else "an empty file"
        raise ImageError(path, reason) from None
    except Exception as error:  # Pillow's decoders raise any of a dozen kinds on broken files
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(path, f"cannot be read ({text.splitlines()[0]})") from error


def _decode_small(image, height, width, channels, crop) -> int:
    """Has a large JPEG decoded at 1/1, 1/2, 1/4 or 1/8; returns the divisor."""
    spare = min(crop or image.size) // (SPARE * max(height, width))
    divisor = max(d for d in (1, 2, 4, 8) if d <= max(spare, 1))
    size = max(1, image.width // divisor), max(1, image.height // divisor)
    drafted = image.draft("L" if channels == 1 else "RGB", size)
    return divisor if drafted else 1


def _flat(image, channels):
    """The image upright and opaque in mode L, RGB, or F for more than 8 bits."""
    _turn_upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        values = np.asarray(image, np.float32)
        return Image.fromarray(np.nan_to_num(values, nan=0, posinf=0, neginf=0))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode in ("1", "L"):
        return image.convert("L")
    image = image.convert("RGB")
    return image.convert("L") if channels == 1 else image


def _turn_upright(image) -> None:
    """Loads the image and turns it as its EXIF says."""
    if image.format == "TIFF":
        image.filename = ""  # keeps Pillow from mapping it: one on its side came out garbled
    image.load()
    # damaged EXIF makes this fail when it writes the rest of it back, the pixels being turned
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _default_white(image) -> int:
    return 1 if image.mode == "F" else 65535


def _as_bytes(image, channels, white) -> np.ndarray:
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels * (255 / white), 0, 255)).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], channels, axis=2)
    return pixels


def _is_grey(pixels) -> bool:
    return pixels.ndim == 2 or (pixels[..., :1] == pixels).all()


# arrays


def to_uint8(images) -> np.ndarray:
    """[-1, 1] to uint8, rounded; what is outside is clipped."""
    return np.rint(np.clip(np.asarray(images) * 127.5 + 127.5, 0, 255)).astype(np.uint8)


def to_float(images) -> np.ndarray:
    """uint8 to float32 in [-1, 1]."""
    return np.asarray(images, np.float32) / np.float32(127.5) - 1


def tile(images, columns: int | None = None, pad: int = 2, background: int = 255) -> np.ndarray:
    """A grid, row by row, of images (n, h, w, c), uint8 or float in [-1, 1]; uint8 (H, W, c)."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        images = to_uint8(images)
    n, h, w, c = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    h, w = h + pad, w + pad
    grid = np.full((-(-n // columns) * h + pad, columns * w + pad, c), background, np.uint8)
    for i, image in enumerate(images):
        y, x = i // columns * h + pad, i % columns * w + pad
        grid[y : y + h - pad, x : x + w - pad] = image
    return grid


def save_image(path, image) -> None:
    """Writes (h, w), (h, w, 1) or (h, w, 3), uint8 or float in [-1, 1]; extension = format."""
    path, image = Path(path), np.asarray(image)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise UserError(f"{path}: {path.suffix or 'no extension'} is no image type; use .png")
    if image.dtype != np.uint8:
        image = to_uint8(image)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, kind)
    write_atomic(path, encoded.getvalue())
