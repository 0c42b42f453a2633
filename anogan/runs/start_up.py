"""How a process starts and ends: its streams, TensorFlow and Keras loaded fast, and left fast."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import gc
import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn

from anogan.errors import UserError
from anogan.runs.quiet import silence_retracing, without_startup_lines

# Keras takes these in where they are installed, for wrappers and plots that main.py does not use:
# a third of the time that TensorFlow's import takes
UNUSED = "matplotlib", "pandas", "sklearn"
_without_threads = False  # TensorFlow's, which a fork does not have


def provide_cache() -> None:
    """Give Matplotlib and fontconfig a folder where there is no home to write to, as in containers.

    They would make one each, with four lines about it; it goes with the process.
    """
    home = os.path.join(os.path.expanduser("~"), "")  # with a slash, for it may be no folder
    if "MPLCONFIGDIR" in os.environ or os.access(home, os.W_OK):
        return
    folder = tempfile.mkdtemp(prefix="anogan-")
    os.environ["MPLCONFIGDIR"] = folder
    os.environ.setdefault("XDG_CACHE_HOME", folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def import_tensorflow(*unused: str) -> None:
    """Slow. unused: modules that it shall not load; they count as not installed for it."""
    silence_retracing()
    provide_cache()
    _watch_forks()
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with without_startup_lines(), not_imported(*unused), uncollected(), own_keras():
            import tensorflow as tf

            tf.config.list_physical_devices()
    import_keras()


@functools.cache
def _watch_forks() -> None:
    """Once for the process: have its forks know that they are."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_note_fork)


def _note_fork() -> None:
    from tensorflow.python.eager import context  # no public function tells of its threads

    global _without_threads
    _without_threads = _without_threads or context.context()._initialized


def require_threads() -> None:
    """UserError in a fork of a process in which TensorFlow was at work: it would wait for ever."""
    if _without_threads:
        raise UserError(
            "TensorFlow was used before this process was forked from another, and does not work in "
            'it: use multiprocessing.get_context("spawn"), or load the model in each process alone'
        )


def import_keras() -> None:
    """With the settings that this tool is written for, whatever the user's keras.json says."""
    with own_keras():
        import keras
    if keras.config.backend() != "tensorflow":
        raise UserError(
            f"Keras is loaded with the backend {keras.config.backend()}: import this tool first, "
            "or set KERAS_BACKEND=tensorflow"
        )
    keras.config.set_floatx("float32")
    keras.config.set_image_data_format("channels_last")
    keras.config.set_epsilon(1e-7)


def own_keras() -> contextlib.AbstractContextManager[None]:
    """In the block Keras loads for TensorFlow, and finds no file of settings."""
    nowhere = os.path.join(os.devnull, "keras")
    return _changed(os.environ, {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": nowhere})


def not_imported(*names: str) -> contextlib.AbstractContextManager[None]:
    """In the block these modules, unless loaded already, count as not installed."""
    return _changed(sys.modules, {name: None for name in names if name not in sys.modules})


@contextlib.contextmanager
def _changed(mapping: MutableMapping[str, Any], changes: dict[str, Any]) -> Iterator[None]:
    before = {key: mapping.get(key) for key in changes}
    mapping.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del mapping[key]
            else:
                mapping[key] = value


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


class Output(io.TextIOWrapper):
    """Standard output or error that goes on in silence when nobody reads it any more."""

    def write(self, text: str) -> int:
        with self._unread():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._unread():
            super().flush()

    @contextlib.contextmanager
    def _unread(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not (error.errno == errno.EPIPE or self._is_closed_terminal(error)):
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)

    def _is_closed_terminal(self, error: OSError) -> bool:
        return error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self.fileno()).st_mode)


def open_streams() -> bool:
    """Once for a process, before it opens files; False where standard output was closed.

    A closed one (2>&-) would be the number of the next file that is opened, for C libraries to
    write to; and a reader may leave (| head) without that ending the work.
    """
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(nowhere)
    had_output = sys.stdout is not None
    for number, name in ((1, "stdout"), (2, "stderr")):
        given = getattr(sys, name)
        encoding, by_line = (given.encoding, given.line_buffering) if given else ("utf-8", True)
        file = given.detach() if given else os.fdopen(number, "wb", closefd=False)
        setattr(sys, name, Output(file, encoding, "backslashreplace", line_buffering=by_line))
    return had_output


def leave(code: int) -> NoReturn:
    """Ends the process without taking all of TensorFlow apart first, which takes 0.7 s."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # who read it is gone, or the disk is full
            code = code or 1
    os._exit(code)
