"""Small image files of many sorts, and damaged copies of files."""

import io
import random

import numpy as np
from PIL import Image

FORMATS = (
    *("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF", "ICO", "TGA", "JPEG2000", "PCX", "SGI"),
    *("AVIF", "DDS", "ICNS", "IM", "SPIDER", "QOI"),
)
COMPRESSIONS = ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd", "lzma")
WORDS = (
    *(b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\1\0\0", b"\0\0\xff\x7f"),
    *(b"\0\0\x75\x30", b"\x30\x75\0\0"),
)


def images():
    """(ending, content) of files of 40 x 50 pixels, as far as this Pillow can write them."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    colour, deep = Image.fromarray(pixels), pixels[..., 0].astype(np.uint16) * 257
    grey, palette = colour.convert("L"), colour.convert("P")
    exif = Image.Exif()
    exif[0x112] = 6
    frames = {"save_all": True, "append_images": [colour.rotate(90)] * 3}
    wanted = [(colour, kind, {}) for kind in FORMATS]
    wanted += [(colour, "TIFF", {"compression": name}) for name in COMPRESSIONS]
    wanted += [
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (grey.convert("1"), "XBM", {}),
        (grey.convert("1"), "MSP", {}),
        (colour, "JPEG", {"progressive": True, "exif": exif}),
        (colour, "PNG", {"exif": exif}),
        (colour, "PNG", frames),
        (palette, "GIF", frames),
        (colour, "TIFF", frames),
        (palette, "PNG", {}),
        (colour.convert("RGBA"), "PNG", {}),
        (grey.convert("LA"), "PNG", {}),
        (colour.convert("RGBA"), "WEBP", {"lossless": True}),
        (colour.convert("CMYK"), "JPEG", {}),
        (colour.convert("CMYK"), "TIFF", {}),
        (Image.fromarray(deep), "PNG", {}),
        (Image.fromarray(deep), "TIFF", {}),
        (Image.fromarray(deep.astype(np.float32)), "TIFF", {}),
        (Image.fromarray(deep.astype(np.int32)), "TIFF", {"compression": "tiff_lzw"}),
    ]
    found = []
    for image, kind, options in wanted:
        packed = io.BytesIO()
        try:
            image.save(packed, kind, **options)
        except (OSError, KeyError, RuntimeError):  # this Pillow was built without
            continue
        found.append((kind.lower(), packed.getvalue()))
    return found


def mutated(content: bytes, rng: random.Random) -> bytes:
    """A copy with bits turned, bytes replaced, cut out, doubled, moved, or the end missing."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            break
        i = rng.randrange(min(len(data), rng.choice((32, 64, 256, 10**9))))  # headers more often
        j, end = rng.randrange(len(data)), i + rng.randrange(1, 64)
        way = rng.randrange(8)
        if way == 0:
            data[i] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[i] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif way == 2:
            data[i : i + 4] = rng.choice(WORDS)
        elif way == 3:
            del data[i:]
        elif way == 4:
            del data[i:end]
        elif way == 5:
            data[i:i] = data[i:end]
        elif way == 6:
            data[i : i + rng.randrange(1, 16)] = rng.randbytes(rng.randrange(1, 16))
        else:
            data[i : i + 8], data[j : j + 8] = data[j : j + 8], data[i : i + 8]
    return bytes(data)
