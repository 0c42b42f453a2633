"""Loading TensorFlow fast and without its lines, and ending a process that has it fast."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from anogan.quiet import silence_retracing, without_startup_lines

# Keras takes these in where they are installed, for wrappers and plots that main.py does not use:
# a third of the time that TensorFlow's import takes
UNUSED = "matplotlib", "pandas", "sklearn"


def import_tensorflow(*unused: str) -> None:
    """Slow. unused: modules that it shall not load; they count as not installed for it."""
    silence_retracing()
    if "tensorflow" in sys.modules:
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with without_startup_lines(), not_imported(*unused), uncollected():
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """In the block no time is lost on looking for garbage: all that it makes stays."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def not_imported(*names: str) -> Iterator[None]:
    """In the block these modules, unless loaded already, count as not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def leave(code: int) -> NoReturn:
    """Ends the process without taking all of TensorFlow apart first, which takes 0.7 s."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # who read it is gone, or the disk is full
            code = code or 1
    os._exit(code)
