"""Keeps from the console what Pillow and libtiff say of damaged files.

Their lines name no file; what matters of them is in an ImageError.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import warnings
from ctypes.util import find_library
from pathlib import Path

import PIL
from PIL import Image


def silence_pillow() -> None:
    """Once for the process, for good."""
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.ERROR)
    Image.core  # noqa: B018  # loads Pillow's libraries
    root = Path(PIL.__file__).parent
    bundled = [*root.parent.glob("pillow.libs/libtiff*"), *root.glob(".dylibs/libtiff*")]
    for path in filter(None, (*map(str, bundled), find_library("tiff"))):
        with contextlib.suppress(OSError, AttributeError):  # it is not the one that Pillow uses
            library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)
