"""Tensors of a file in PyTorch's older format (before 1.6, no zip archive), without PyTorch."""

from __future__ import annotations

import collections
import hashlib
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anogan.errors import UserError

STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


def read_tensors(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Return the file's state dict, {name: float32 or int64 array}.

    UserError where the file is not the one of this SHA-256, which is of a state dict.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path}: is damaged or not the expected file (its SHA-256 differs)")
    file = io.BytesIO(data)
    pickles = _OnlyTensors(file)  # magic number, protocol, system, state dict, keys
    *_, state, keys = (pickles.load() for _ in range(5))
    for key in keys:  # behind them the storages, each after its length
        file.seek(8, io.SEEK_CUR)
        storage = pickles.storages[key]
        storage[:] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
    return dict(state)


def _tensor(
    storage: np.ndarray, offset: int, shape: tuple[int, ...], stride: Sequence[int], *_: Any
) -> np.ndarray:
    """Return a view of a storage; offset and stride in numbers."""
    size = storage.itemsize
    return np.ndarray(shape, storage.dtype, storage, offset * size, [n * size for n in stride])


class _OnlyTensors(pickle.Unpickler):
    """An unpickler that calls nothing but an ordered dict and _tensor."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}  # to be filled, by their keys

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, count, _ = pid
        return self.storages.setdefault(key, np.zeros(count, dtype))
