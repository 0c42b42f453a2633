"""Images: read from files, crop, resize, tile, save."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from anogan.errors import UserError
from anogan.opening import File, ImageError, name_of, opened, require_memory, require_quick
from anogan.runs.files import write_atomic

Size = tuple[int, int]  # height and width, pixels
Range = tuple[float, float]  # values that become black and white
Warn = Callable[[str], None]
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where this many times the output size is left:
# 2 to 5 times as fast. At 3 the result is within 53 dB of the full decode, at 2 within 43.
SPARE = 3
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
ORIENTATION = 0x0112
TIFF_WIDTH, TIFF_HEIGHT = 0x0100, 0x0101
SAMPLE_FORMAT = 339  # TIFF's tag: 1 unsigned, 2 signed, 3 floating
OUTSIDE = 0.01  # fraction of an image's pixels outside the run's range that is worth a warning
FEW_LEVELS = 16
SEEN, COLOURED = 64, 16  # side of what is looked at for colour, pixels, and levels between channels
HALF_CLEAR = 0.1  # of the pixels: cut-out things have fewer at their edges
SQUASHED, ENLARGED = 3, 4  # times that are worth a warning
ROUNDING = 1e-3  # that floats may be off; half a grey level is 4e-3
ONE_PICTURE = ("MPO", "PSD")  # whose further frames are previews or layers of the first

# reading


def load_image(
    path: File,
    height: int,
    width: int,
    channels: int,
    crop: Size | None = None,
    value_range: Range | None = None,
    warn: Warn | None = None,
) -> np.ndarray:
    """An image file as uint8 (height, width, channels), resized with antialiasing.

    path: or an image that Pillow has opened or made, which is not changed. channels: 1 is grey, 3
    is colour. crop: (height, width) of the centre that is resized; none: the whole image.
    Upright as its EXIF says; the first of several frames; transparent parts on white, as
    browsers and scikit-image show them, so that black ink stays visible. 8 bits a channel stay as
    they are. Other files (16 or 32 bits, signed, floats) are scaled so that value_range, see
    `find_range`, becomes 0 to 255, and clipped; without one, where the training images have 8 bits
    a channel, 0 to 65535, or 0 to 1 for floats. (Pillow itself reduces colour of 16 bits to the
    upper 8.)
    warn: called with what was left out or may look otherwise than meant, in the same words for
    each such file. Raises ImageError, also for NaN and for an image smaller than the crop.
    """
    with opened(path) as image:
        natural, cut = _natural_range(image), _is_cut_to_8_bits(image)
        pages = _has_pages(image)
        stored = image.size
        hue = warn is not None and channels == 1 and _has_hue(image, path)
        shrunk = _decode_small(image, height, width, channels, crop)
        sideways = shrunk > 1 and image.getexif().get(ORIENTATION) in SIDEWAYS
        _turn_upright(image)
        clear = _lost_to_alpha(image) if warn else None
        image = flat(image, channels)
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
        if warn:
            shape = _lost_to_shape(crop_h, crop_w, height, width)
            pages_lost = "several pages or frames, of which only the first is read"
            hue_lost = "in colour, of which a grey model sees the brightness alone"
            for text in (pages and pages_lost, hue and hue_lost, clear, shape):
                if text:
                    warn(text)
            _warn_of_values(image, pixels, value_range, natural, cut, warn)
        return pixels


def image_size(path: File) -> Size:
    """(height, width) of an image file, upright as its EXIF says. Raises ImageError."""
    with opened(path) as image:
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
    with opened(path) as image:
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


def _decode_small(
    image: Image.Image, height: int, width: int, channels: int, crop: Size | None
) -> int:
    """Has a large JPEG decoded at 1/1, 1/2, 1/4 or 1/8; returns the divisor."""
    spare = min(crop or image.size) // (SPARE * max(height, width))
    divisor = max(d for d in (1, 2, 4, 8) if d <= max(spare, 1))
    size = max(1, image.width // divisor), max(1, image.height // divisor)
    drafted = image.draft("L" if channels == 1 else "RGB", size)
    return divisor if drafted else 1


def flat(image: Image.Image, channels: int) -> Image.Image:
    """The image upright and opaque in mode L, RGB, or F where it is deep; ValueError for NaN."""
    _turn_upright(image)
    if is_deep(image):
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


def is_deep(image: Image.Image) -> bool:
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
    require_memory(image)
    require_quick(image)
    image.load()
    # damaged EXIF makes this fail when it writes the rest of it back, the pixels being turned
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _is_cut_to_8_bits(image: Image.Image) -> bool:
    """Whether this is colour of 16 bits, of which Pillow keeps the upper 8; before loading."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    return not is_deep(image) and any(";16" in str(tile[3]) for tile in tiles)


def _has_pages(image: Image.Image) -> bool:
    return getattr(image, "is_animated", False) and image.format not in ONE_PICTURE


def _has_hue(image: Image.Image, path: File) -> bool:
    """Whether more than a hundredth of an image is coloured, other than by a JPEG's noise."""
    if image.mode in ("1", "L", "LA") or is_deep(image):
        return False
    if image.format in ("JPEG", "MPO") and isinstance(path, str | Path):
        with opened(path) as again:  # for the image itself may be decoded without its colours
            again.draft("RGB", (SEEN, SEEN))
            return _is_coloured(again)
    return _is_coloured(image)


def _is_coloured(image: Image.Image) -> bool:
    _turn_upright(image)
    small = image.resize((SEEN, SEEN), Image.Resampling.NEAREST).convert("RGB")
    values = np.asarray(small).astype(int)
    return float(np.mean(np.ptp(values, axis=2) > COLOURED)) > OUTSIDE


def _lost_to_alpha(image: Image.Image) -> str | None:
    """What is lost of a loaded image whose transparent parts are shown on white."""
    if is_deep(image) or not image.has_transparency_data:
        return None
    *colours, alpha = image.convert("RGBA").split()
    counts = np.array(alpha.histogram())
    if counts[0] == counts.sum() and any(low != high for low, high in _extrema(colours)):
        return "transparent throughout: white is read, not the colours that are stored"
    between = counts[1:255]
    if between.sum() > HALF_CLEAR * counts.sum() and np.count_nonzero(between) > FEW_LEVELS:
        return (
            "more than a tenth is half transparent and mixed with white: if the fourth channel "
            "holds something else, such as depth, save the image without it"
        )
    return None


def _extrema(channels: list[Image.Image]) -> list[tuple[float, float]]:
    return [channel.getextrema() for channel in channels]  # type: ignore[misc]


def _lost_to_shape(h: int, w: int, height: int, width: int) -> str | None:
    """What is lost where h x w pixels become height x width."""
    across, down = width / w, height / h
    if max(across, down) > SQUASHED * min(across, down):
        return f"of a shape far from that of the model's images: squashed {SQUASHED} times or more"
    if min(across, down) > ENLARGED:
        return f"small beside the model's images: enlarged {ENLARGED} times or more"
    return None


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


def _warn_of_values(
    image: Image.Image,
    pixels: np.ndarray,
    value_range: Range | None,
    natural: Range,
    cut: bool,
    warn: Warn,
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


def is_grey(pixels: np.ndarray) -> bool:
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
