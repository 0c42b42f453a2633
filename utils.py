"""Image files: read, crop, resize, tile, save."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from anogan.errors import UserError, first_line
from anogan.runs.files import write_atomic
from anogan.runs.quiet import silence_pillow

Stored = str | Path | IO[bytes]
File = Stored | Image.Image
Size = tuple[int, int]  # height and width, pixels
Range = tuple[float, float]  # values that become black and white
Remark = Callable[[str], None]
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where this many times the output size is left:
# 2 to 5 times as fast. At 3 the result is within 53 dB of the full decode, at 2 within 43.
SPARE = 3
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
ORIENTATION = 0x0112
TIFF_WIDTH, TIFF_HEIGHT = 0x0100, 0x0101
SAMPLE_FORMAT = 339  # TIFF's tag: 1 unsigned, 2 signed, 3 floating
OUTSIDE = 0.01  # fraction of an image's pixels outside the run's range that is worth a warn
FEW_LEVELS = 16
ROUNDING = 1e-3  # that floats may be off; half a grey level is 4e-3
ONE_PICTURE = ("MPO", "PSD")  # whose further frames are previews or layers of the first
silence_pillow()
# Pillow refuses large images lest a web server be attacked; these are the user's own, for which
# the memory is the limit. They are decoded one at a time.
Image.MAX_IMAGE_PIXELS = None
LARGE = 89_000_000  # pixels
LARGE_AT_WORK = threading.Lock()
# A damaged header may ask for any amount of memory.
UNQUESTIONED = 2**28  # bytes
MOST_PACKED = 1100  # times its size is what a file holds; deflate reaches 1,032
STORED_BITS = {"1": 1, "P": 1, "RGB": 24}  # of a pixel, at least; of other modes 8
# Each scan of a JPEG passes over the whole image, however few bytes it has; ten are usual
# (libjpeg-turbo's advice; libtiff has the same limit for the JPEGs in a TIFF)
MOST_SCANS = 100
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # of a JPEG, but those within a scan
START_OF_SCAN, END, WITHOUT_LENGTH = 0xDA, 0xD9, (0xD8, 0x01)
MOST_COMMENTS = 1000  # of a plain PPM: Pillow copies what follows at each
BYTES_A_PIXEL = {"1": 3, "L": 3, "RGB": 12}  # measured while decoding; of other modes up to 20


class ImageError(UserError):
    """A file that cannot be used as an image; `reason` is the message without the path."""

    def __init__(self, path: File, reason: str):
        super().__init__(f"{path}: {reason}")
        self.reason = reason


# reading


def read_image(path: str | Path, channels: int, value_range: Range | None = None) -> np.ndarray:
    """An image file, whole, as uint8 (h, w, channels); channels 1 is grey, 3 is colour.

    Upright as its EXIF says; the first of several frames; transparent parts on white, as
    browsers and scikit-image show them, so that black ink stays visible. 8 bits a channel stay as
    they are. Other files (16 or 32 bits, signed, floats) are scaled so that value_range, see
    `find_range`, becomes 0 to 255, and clipped; without one, 0 to 65535, or 0 to 1 for floats.
    (Pillow itself reduces colour of 16 bits to the upper 8.) Raises ImageError, also for NaN.
    """
    with _opened(path) as image:
        value_range = value_range or _natural_range(image)
        return _as_bytes(_flat(image, channels), channels, value_range)


def load_image(
    path: File,
    height: int,
    width: int,
    channels: int,
    crop: Size | None = None,
    value_range: Range | None = None,
    warn: Remark = lambda text: None,
) -> np.ndarray:
    """An image file as uint8 (height, width, channels), resized with antialiasing.

    path: or an image that Pillow has opened or made, which is not changed. crop: (height, width)
    of the centre that is resized; none: the whole image. What the pixels are: as in `read_image`;
    value_range: None where the training images have 8 bits a channel.
    warn: called with what was left out or may look otherwise than meant, in the same words for
    each such file. Raises ImageError, also for an image smaller than the crop.
    """
    with _opened(path) as image:
        natural, cut = _natural_range(image), _is_cut_to_8_bits(image)
        pages = _has_pages(image)
        stored = image.size
        shrunk = _decode_small(image, height, width, channels, crop)
        sideways = shrunk > 1 and image.getexif().get(ORIENTATION) in SIDEWAYS
        image = _flat(image, channels)
        w, h = image.size if shrunk == 1 else stored[::-1] if sideways else stored
        crop_h, crop_w = crop or (h, w)
        if crop_h > h or crop_w > w:
            raise ImageError(
                name_of(path),
                f"{h} x {w} pixels, smaller than the crop of {crop_h} x {crop_w}: "
                "lower --input_height and --input_width, or leave out --crop",
            )
        left, top = (w - crop_w) // 2, (h - crop_h) // 2
        x, y = left / shrunk, top / shrunk
        right, bottom = (left + crop_w) / shrunk, (top + crop_h) / shrunk
        # resize would let what is outside its box bleed in at the edges
        x0, y0 = math.floor(x), math.floor(y)
        image = image.crop((x0, y0, math.ceil(right), math.ceil(bottom)))
        box = x - x0, y - y0, right - x0, bottom - y0
        resized = image.resize((width, height), Image.Resampling.BICUBIC, box=box)
        pixels = _as_bytes(resized, channels, value_range or natural)
        if pages:
            warn("several pages or frames, of which only the first is read")
        _remark_on_values(image, pixels, value_range, natural, cut, warn)
        return pixels


def image_size(path: File) -> Size:
    """(height, width) of an image file, upright as its EXIF says. Raises ImageError."""
    with _opened(path) as image:
        w, h = image.size
        if isinstance(image, TiffImageFile):  # new Pillows give its size upright, old as stored
            w, h = image.tag_v2[TIFF_WIDTH], image.tag_v2[TIFF_HEIGHT]
        # a square is not asked for its EXIF: Pillow decodes a whole PNG to find it
        sideways = w != h and image.getexif().get(ORIENTATION) in SIDEWAYS
        return (w, h) if sideways else (h, w)


def read_mask(path: str | Path) -> np.ndarray:
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


def probe(paths: Sequence[str | Path]) -> tuple[int, bool]:
    """(channels, deep) of image files.

    channels: 1 if every pixel is grey, else 3. deep: whether any has other values than 0 to 255,
    so that they need a range, see `find_range`. Files that cannot be read are ignored; UserError
    if none can.
    """
    channels, deep, failure = 0, False, None
    for path in paths:
        try:
            with _opened(path) as image:
                image.draft("RGB", (256, 256))
                image = _flat(image, 3)
        except ImageError as error:
            failure = failure or error
            continue
        channels = max(channels, 1 if _is_grey(np.asarray(image)) else 3)
        deep = deep or image.mode == "F"
    if not channels:
        raise UserError(f"none of {len(paths)} images can be read; the first: {failure}")
    return channels, deep


def find_range(paths: Sequence[str | Path]) -> Range:
    """The values that become black and white, of those image files that are deep (see `probe`).

    0 and the first of 1, 255, 1023, 4095, 16383, 65535, ... that no value exceeds, so that
    brighter images than these have room; the lowest and the highest value where some are negative,
    or where less than 16 of 256 grey levels would be left. Decodes all deep files, and looks no
    further than the header of others. Files that cannot be read are ignored.
    """
    threads = ThreadPoolExecutor(os.cpu_count())
    try:
        found = [pair for pair in threads.map(_extremes, paths) if pair]
    finally:
        threads.shutdown(cancel_futures=True)  # on Ctrl-C, not after all files
    low, high = min(pair[0] for pair in found), max(pair[1] for pair in found)
    top = next(v for v in itertools.chain([1], (4**k - 1 for k in itertools.count(4))) if v >= high)
    if low >= 0 and (high - low) * 256 >= FEW_LEVELS * top:
        return 0.0, float(top)
    return low, high if high > low else low + 1


def _extremes(path: str | Path) -> Range | None:
    """The lowest and the highest value of a deep file; None for others and broken ones."""
    try:
        with _opened(path) as image:
            if not _is_deep(image):
                return None
            values = np.asarray(_flat(image, 1))
            return float(values.min()), float(values.max())
    except ImageError:
        return None


COMMON = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")  # tried before Pillow's other formats
# EPS is a program, which Ghostscript would run; the others hold a JPEG that no limit is kept for
NOT_READ = {"EPS", "BLP", "IPTC"}


@contextlib.contextmanager
def _opened(path: File) -> Iterator[Image.Image]:
    """A Pillow image; whatever Pillow raises in the block becomes an ImageError."""
    if isinstance(path, Image.Image):
        with _copied(path) as image:
            yield image
        return
    Image.init()  # so that no thread sees a half-filled list of formats
    try:
        try:
            image = Image.open(path, formats=COMMON)
        except UnidentifiedImageError:
            image = Image.open(path, formats=[kind for kind in Image.ID if kind not in NOT_READ])
        _require_plausible(image, _bytes_in(path))
        large = image.width * image.height > LARGE
        with image, LARGE_AT_WORK if large else contextlib.nullcontext():
            yield image
    except UserError:
        raise
    except UnidentifiedImageError:
        reason = "an empty file" if not _bytes_in(path) else "not an image that Pillow reads"
        raise ImageError(path, reason) from None
    except MemoryError:
        raise ImageError(path, "takes more memory than there is: shrink it") from None
    except Exception as error:  # Pillow's decoders raise any of a dozen kinds on broken files
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ImageError(path, f"cannot be read ({reason})") from error


def _bytes_in(file: Stored) -> int:
    """How long a file is, also an open one."""
    if isinstance(file, str | Path):
        return os.path.getsize(file)
    place, length = file.tell(), file.seek(0, os.SEEK_END)
    file.seek(place)
    return length


@contextlib.contextmanager
def _copied(given: Image.Image) -> Iterator[Image.Image]:
    """A copy of a Pillow image; whatever Pillow raises in the block becomes an ImageError."""
    try:
        _require_quick(given)
        yield given.copy()
    except UserError:
        raise
    except Exception as error:  # as for files, which Pillow reads as late as here
        raise ImageError(name_of(given), f"cannot be read ({first_line(error)})") from error


def name_of(path: File) -> File:
    """Of a file, or what an image is called that may be from none."""
    return getattr(path, "filename", "") or "an image" if isinstance(path, Image.Image) else path


def _require_plausible(image: Image.Image, size: int) -> None:
    """ValueError where a file of so many bytes can hardly hold an image that fills memory."""
    pixels, bits = image.width * image.height, STORED_BITS.get(image.mode, 8)
    large = pixels * BYTES_A_PIXEL.get(image.mode, 20) > UNQUESTIONED
    if large and pixels * bits > 8 * MOST_PACKED * size:
        raise ValueError(f"its header says {image.height} x {image.width} pixels, in {size} bytes")


def _require_quick(image: Image.Image) -> None:
    """ValueError for a file, not decoded yet, that is small and would take minutes."""
    file, tiles = getattr(image, "fp", None), getattr(image, "tile", [])
    if not (file and tiles and tiles[0].codec_name in ("jpeg", "ppm_plain")):
        return
    place = file.tell()
    file.seek(tiles[0].offset)
    content = file.read()
    file.seek(place)
    if image.format in ("JPEG", "MPO") and (scans := _scans(content)) > MOST_SCANS:
        raise ValueError(
            f"it has {scans} scans, and more than {MOST_SCANS} take long: save it anew"
        )
    if image.format == "PPM" and (comments := content.count(b"#")) > MOST_COMMENTS:
        raise ValueError(f"it has {comments} comments among its pixels: save it anew")


def _scans(jpeg: bytes) -> int:
    """How many scans a JPEG has, up to its end."""
    count = place = 0
    while found := MARKER.search(jpeg, place):
        place, kind = found.end(), jpeg[found.end() - 1]
        if kind == END:
            break
        count += kind == START_OF_SCAN
        if kind not in WITHOUT_LENGTH:
            place += int.from_bytes(jpeg[place : place + 2], "big")
    return count


def _decode_small(
    image: Image.Image, height: int, width: int, channels: int, crop: Size | None
) -> int:
    """Has a large JPEG decoded at 1/1, 1/2, 1/4 or 1/8; returns the divisor."""
    spare = min(crop or image.size) // (SPARE * max(height, width))
    divisor = max(d for d in (1, 2, 4, 8) if d <= max(spare, 1))
    size = max(1, image.width // divisor), max(1, image.height // divisor)
    drafted = image.draft("L" if channels == 1 else "RGB", size)
    return divisor if drafted else 1


def _flat(image: Image.Image, channels: int) -> Image.Image:
    """The image upright and opaque in mode L, RGB, or F where it is deep; ValueError for NaN."""
    _turn_upright(image)
    if _is_deep(image):
        values = np.asarray(image)
        if image.mode == "L":  # Pillow takes signed for unsigned here, and vice versa below
            values = values.view(np.int8)
        elif image.mode == "I" and _sample_format(image) == 1:
            values = values.view(np.uint32)
        values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("it holds NaN or infinite values: write a number in their place")
        return Image.fromarray(values)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    wanted = "L" if image.mode in ("1", "L") else "RGB"
    image = image if image.mode == wanted else image.convert(wanted)
    return image.convert("L") if channels == 1 and wanted == "RGB" else image


def _require_memory(image: Image.Image) -> None:
    """ValueError for an image that would fill more than half of the machine's memory."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows
        memory = 8 * 2**30
    needed = image.width * image.height * BYTES_A_PIXEL.get(image.mode, 20)
    if needed > memory / 2:
        raise ValueError(
            f"{image.height} x {image.width} pixels take up to {needed / 2**30:.0f} GB of memory, "
            f"and half of this machine's is {memory / 2**31:.0f}: cut it into tiles, or shrink it"
        )


def _is_deep(image: Image.Image) -> bool:
    """Whether the values are other than 0 to 255: more than 8 bits, signed, or floats."""
    if image.mode == "L":
        return _sample_format(image) == 2
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def _sample_format(image: Image.Image) -> int | None:
    """As a TIFF says it; None for other files."""
    return image.tag_v2.get(SAMPLE_FORMAT, (1,))[0] if isinstance(image, TiffImageFile) else None


def _turn_upright(image: Image.Image) -> None:
    """Loads the image and turns it as its EXIF says."""
    if isinstance(image, TiffImageFile):
        image.filename = ""  # keeps Pillow from mapping it: one on its side came out garbled
    _require_memory(image)
    _require_quick(image)
    image.load()
    # damaged EXIF makes this fail when it writes the rest of it back, the pixels being turned
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _is_cut_to_8_bits(image: Image.Image) -> bool:
    """Whether this is colour of 16 bits, of which Pillow keeps the upper 8; before loading."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return not _is_deep(image) and any(";16" in str(tile[3]) for tile in tiles)


def _has_pages(image: Image.Image) -> bool:
    return getattr(image, "is_animated", False) and image.format not in ONE_PICTURE


def _natural_range(image: Image.Image) -> Range:
    return (0, 1) if image.mode == "F" else (0, 65535)


def _as_bytes(image: Image.Image, channels: int, value_range: Range) -> np.ndarray:
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        low, high = value_range
        scaled = (pixels.astype(np.float64) - low) * (255 / (high - low))
        pixels = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], channels, axis=2)
    return pixels


def _remark_on_values(
    image: Image.Image,
    pixels: np.ndarray,
    value_range: Range | None,
    natural: Range,
    cut: bool,
    warn: Remark,
) -> None:
    """What became of the values of an image (mode L, RGB or F) on the way to uint8 pixels."""
    low, high = value_range or natural
    run = f"the run's range, {low:g} to {high:g}"
    deep = image.mode == "F"
    if deep and not value_range:
        warn(
            "more than 8 bits a channel, where the training images have 8: "
            f"{low:g} to {high:g} are taken for black to white"
        )
    if value_range and not deep:
        warn(f"8 bits a channel: 0 to 255 are taken for {run}")
    levels = len(np.unique(pixels)) if deep or cut else 256
    if cut and levels < FEW_LEVELS:
        warn("colour of 16 bits, of which the upper 8 are read: fewer than 16 levels are left")
    if not deep:
        return
    values = np.asarray(image)
    least, most = float(values.min()), float(values.max())
    if (least < low or most > high) and np.mean((values < low) | (values > high)) > OUTSIDE:
        warn(f"more than 1 % of the pixels outside {run}: they are clipped")
    if levels < FEW_LEVELS and len(np.unique(values)) > levels:
        warn(f"fewer than 16 grey levels are left in {run}")


def _is_grey(pixels: np.ndarray) -> bool:
    return pixels.ndim == 2 or (pixels[..., :1] == pixels).all()


# arrays


def checked_images(images: npt.ArrayLike) -> np.ndarray:
    """Anything like an array of images (n, h, w, c) as uint8 or as float32 in [-1, 1].

    UserError for any other shape, type or range, and for NaN; also for floats of which none is
    below -0.1, which are from 0 to 1 in all likelihood, unless all are 8-bit values in [-1, 1].
    """
    images = np.asarray(images)
    if images.ndim != 4:
        raise UserError(
            f"images are of shape {images.shape}: give (n, height, width, channels), "
            "for grey ones images[..., None]"
        )
    if images.dtype == np.uint8:
        return images
    wanted = "give uint8 from 0 to 255, or floats from -1 to 1"
    if images.dtype.kind != "f":
        raise UserError(f"images are {images.dtype}: {wanted}")
    if not images.size:
        return images.astype(np.float32)
    low, high = images.min(), images.max()
    if not np.isfinite([low, high]).all():
        raise UserError(f"images hold NaN or infinite values: {wanted}")
    if low < -1 - ROUNDING or high > 1 + ROUNDING:
        raise UserError(f"images are from {low:.4g} to {high:.4g}: {wanted}")
    images = images.astype(np.float32)
    if low > -0.1 and np.abs(to_float(to_uint8(images)) - images).max() > ROUNDING:
        raise UserError(
            f"images are from {low:.4g} to {high:.4g}: {wanted}, images * 2 - 1; "
            "if they are meant so, give utils.to_uint8(images)"
        )
    return images


def to_uint8(images: npt.ArrayLike) -> np.ndarray:
    """[-1, 1] to uint8, rounded; what is outside is clipped."""
    return np.rint(np.clip(np.asarray(images) * 127.5 + 127.5, 0, 255)).astype(np.uint8)


def to_float(images: npt.ArrayLike) -> np.ndarray:
    """Images as float32 in [-1, 1]: uint8 is scaled, floats are in that range already."""
    images = np.asarray(images)
    if images.dtype != np.uint8:
        return images.astype(np.float32)
    return images.astype(np.float32) / np.float32(127.5) - 1


def tile(
    images: npt.ArrayLike, columns: int | None = None, pad: int = 2, background: int = 255
) -> np.ndarray:
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


def save_image(path: str | Path, image: npt.ArrayLike) -> None:
    """Writes (h, w), (h, w, 1) or (h, w, 3), uint8 or float in [-1, 1]; extension = format."""
    path, pixels = Path(path), np.asarray(image)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise UserError(f"{path}: {path.suffix or 'no extension'} is no image type; use .png")
    if pixels.dtype != np.uint8:
        pixels = to_uint8(pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind)
    write_atomic(path, encoded.getvalue())
