"""Image files opened within limits: whatever Pillow raises becomes an ImageError of one line."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from anogan.errors import UserError, first_line
from anogan.runs.quiet import silence_pillow

Stored = str | Path | IO[bytes]
File = Stored | Image.Image
silence_pillow()
# Pillow refuses large images lest a web server be attacked; these are the user's own, for which
# the memory is the limit. They are decoded one at a time.
Image.MAX_IMAGE_PIXELS = None
LARGE = 89_000_000  # pixels
LARGE_AT_WORK = threading.RLock()  # a JPEG is opened anew for its colours
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
COMMON = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF")  # tried before Pillow's other formats
# EPS is a program, which Ghostscript would run; the others hold a JPEG that no limit is kept for
NOT_READ = {"EPS", "BLP", "IPTC"}


class ImageError(UserError):
    """A file that cannot be used as an image; `reason` is the message without the path."""

    def __init__(self, path: File | os.PathLike, reason: str):
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@contextlib.contextmanager
def opened(path: File) -> Iterator[Image.Image]:
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
        raise ImageError(name_of(path), reason) from None
    except MemoryError:
        raise ImageError(name_of(path), "takes more memory than there is: shrink it") from None
    except Exception as error:  # Pillow's decoders raise any of a dozen kinds on broken files
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ImageError(name_of(path), f"cannot be read ({reason})") from error


@contextlib.contextmanager
def _copied(given: Image.Image) -> Iterator[Image.Image]:
    """A copy of a Pillow image; whatever Pillow raises in the block becomes an ImageError."""
    try:
        require_quick(given)
        yield given.copy()
    except UserError:
        raise
    except Exception as error:  # as for files, which Pillow reads as late as here
        raise ImageError(name_of(given), f"cannot be read ({first_line(error)})") from error


def name_of(file: File) -> str | os.PathLike:
    """The path of a file, or what an open one or an image is called that may be from none."""
    if isinstance(file, str | os.PathLike):
        return file
    name = getattr(file, "filename", None) or getattr(file, "name", None)
    return name if name and isinstance(name, str | os.PathLike) else "an image"


def _bytes_in(file: Stored) -> int:
    """How long a file is, also an open one."""
    if isinstance(file, str | Path):
        return os.path.getsize(file)
    place, length = file.tell(), file.seek(0, os.SEEK_END)
    file.seek(place)
    return length


def _require_plausible(image: Image.Image, size: int) -> None:
    """ValueError where a file of so many bytes can hardly hold an image that fills memory."""
    pixels, bits = image.width * image.height, STORED_BITS.get(image.mode, 8)
    large = pixels * BYTES_A_PIXEL.get(image.mode, 20) > UNQUESTIONED
    if large and pixels * bits > 8 * MOST_PACKED * size:
        raise ValueError(f"its header says {image.height} x {image.width} pixels, in {size} bytes")


def require_memory(image: Image.Image) -> None:
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


def require_quick(image: Image.Image) -> None:
    """ValueError for a file, not decoded yet, that is small and would take minutes."""
    file, tiles = getattr(image, "fp", None), getattr(image, "tile", [])
    if not (file and tiles and tiles[0].codec_name in ("jpeg", "ppm_plain")):
        return
    place = file.tell()
    file.seek(tiles[0].offset)
    content = file.read()
    file.seek(place)
    if image.format in ("JPEG", "MPO") and (count := scans(content)) > MOST_SCANS:
        raise ValueError(
            f"it has {count} scans, and more than {MOST_SCANS} take long: save it anew"
        )
    if image.format == "PPM" and (comments := content.count(b"#")) > MOST_COMMENTS:
        raise ValueError(f"it has {comments} comments among its pixels: save it anew")


def scans(jpeg: bytes) -> int:
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
