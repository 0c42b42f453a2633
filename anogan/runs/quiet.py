"""Keeps from the console what libraries write that is of no use to the user.

Their log levels do not reach all of it: libtiff writes of damaged files to standard error, naming
none, and TensorFlow of GPUs before it has read its level.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

STARTUP_LINES = (
    r"^WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR",
    r"^I[0-9]{4} [0-9:. ]+",  # absl's information
    r"^[WE][0-9]{4} [0-9:. ]+(cuda|cudart|gpu)[a-z_]*\.cc:[0-9]+\] .*"
    r"(cuda|cuInit|CUDA|factory|GPU libraries)",  # there is no GPU
    r"^To enable the following instructions: .* rebuild TensorFlow",
    r"^Skipping registering GPU devices",
)


@contextlib.contextmanager
def without_startup_lines() -> Iterator[None]:
    """Let through what C++ and Python write to standard error in the block, but for STARTUP_LINES.

    A process of its own filters, so that the last line of a crash comes through.
    """
    grep = shutil.which("grep")
    if not grep:
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    command = [grep, "-a", "--line-buffered", "-v", "-E", "|".join(STARTUP_LINES)]
    plain = {**os.environ, "LC_ALL": "C"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stderr, env=plain) as reader:
        assert reader.stdin
        os.dup2(reader.stdin.fileno(), 2)
        reader.stdin.close()
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)  # the last end of the pipe, so that grep ends
            os.close(stderr)


def silence_retracing() -> None:
    """Once for the process: TensorFlow takes the graphs of several objects for one made anew."""
    logging.getLogger("tensorflow").addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in record.getMessage()


def silence_pillow() -> None:
    """Once for the process, for good; what matters of a damaged file is in an ImageError."""
    import PIL  # here, so that main.py answers a mistyped flag at once
    from PIL import Image

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
