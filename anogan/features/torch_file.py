"""Tensors of a file in PyTorch's older format (before 1.6, no zip archive), without PyTorch."""

from __future__ import annotations

import collections
import hashlib
import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anogan.errors import UserError, first_line

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
STORAGES: dict[str, np.dtype] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Storage(NamedTuple):
    """Numbers that lie behind the pickles, by their key there."""

    key: str
    dtype: np.dtype


class _Tensor(NamedTuple):
    """A tensor's place in a storage, in numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def within(self, numbers: np.ndarray) -> np.ndarray:
        """Return the tensor as a view of its storage; NumPy refuses what would lie outside."""
        size = numbers.itemsize
        strides = tuple(step * size for step in self.stride)
        return np.ndarray(self.shape, numbers.dtype, numbers, self.offset * size, strides)


def read_tensors(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Return the file's state dict, {name: float32 or int64 array}.

    Raises UserError where the file is not the one of this SHA-256, or holds more than tensors.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path}: is damaged or not the expected file (its SHA-256 differs)")
    try:
        return _tensors(data)
    except Exception as error:  # an unpickler raises nearly everything
        raise UserError(f"{path}: is no file of tensors ({first_line(error)})") from error


def _tensors(data: bytes) -> dict[str, np.ndarray]:
    """Read the pickles (magic number, protocol, system, state dict, keys), then the storages."""
    file = io.BytesIO(data)
    magic, protocol, system, state, keys = (_OnlyTensors(file).load() for _ in range(5))
    if (magic, protocol, system["little_endian"]) != (MAGIC, PROTOCOL, True):
        raise pickle.UnpicklingError("neither PyTorch's older format nor a state dict")
    tensors = {name: t for name, t in dict.items(state) if isinstance(t, _Tensor)}
    if len(tensors) != len(state):
        raise pickle.UnpicklingError("the state dict holds more than tensors")
    dtypes = {t.storage.key: t.storage.dtype for t in tensors.values()}
    storages = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(data, dtypes[key], count, file.tell())
        file.seek(storages[key].nbytes, io.SEEK_CUR)
    return {name: t.within(storages[t.storage.key]) for name, t in tensors.items()}


class _OnlyTensors(pickle.Unpickler):
    """An unpickler that calls nothing but an ordered dict and a note of where a tensor lies."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A new function each time: what a pickle sets on it is lost with it
            return lambda *arguments: _Tensor(*arguments[:4])
        if module == "torch" and name in STORAGES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, _, _, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"{kind} is not allowed")
        return _Storage(key, STORAGES[str(storage)])
