"""A worker's part of the results as bytes: arrays as npz, all else as JSON; nothing that runs."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

PLACE = "npy"  # key of what stands in the JSON for an array


def pack(part: Any) -> bytes:
    """Lists, dicts with text keys, texts, numbers and arrays, nested as they like."""
    arrays: list[np.ndarray] = []

    def place(value: Any) -> dict[str, int]:
        arrays.append(np.asarray(value))
        return {PLACE: len(arrays) - 1}

    text = json.dumps(part, default=place).encode()
    packed = io.BytesIO()
    named = {f"{i}": a for i, a in enumerate(arrays)}
    np.savez(packed, json=np.frombuffer(text, np.uint8), **named)  # type: ignore[arg-type]
    return packed.getvalue()


def unpack(packed: bytes) -> Any:
    """What was packed; tuples have become lists."""
    with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:

        def fill(found: dict[str, Any]) -> Any:
            return arrays[f"{found[PLACE]}"] if found.keys() == {PLACE} else found

        return json.loads(arrays["json"].tobytes(), object_hook=fill)
