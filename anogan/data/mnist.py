"""MNIST: one digit, or all but one, as what is normal."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from anogan.data.choosing import thin
from anogan.data.image_set import ImageSet
from anogan.errors import UserError

MOST_BYTES = 60_000 * 28 * 28  # of the training images; what is longer is not read


def mnist(
    data_dir: str | Path,
    split: str,
    normal_class: int | None = None,
    anomaly_class: int | None = None,
    height: int = 28,
    width: int = 28,
    limit: int | None = None,
) -> ImageSet:
    """MNIST from data_dir/mnist: `train`, which is normal images only, or `test`, which is all.

    Normal is normal_class, or all but anomaly_class; without either all are, and labels is None.
    kinds: the digits; names: split and place in the file. limit: as in image_folder. UserError
    where files are missing or damaged.
    """
    prefix = {"train": "train", "test": "t10k"}[split]
    images = _idx(data_dir, f"{prefix}-images-idx3-ubyte", 3)
    digits = _idx(data_dir, f"{prefix}-labels-idx1-ubyte", 1)
    if len(images) != len(digits):
        raise _damaged(data_dir, f"{len(images)} images but {len(digits)} labels")
    if digits.max() > 9:
        raise _damaged(data_dir, f"{prefix}-labels-idx1-ubyte names a digit {digits.max()}")
    if normal_class is not None:
        labels = (digits != normal_class).astype(int)
    else:
        labels = (digits == anomaly_class).astype(int)
    chosen = np.flatnonzero(labels == 0) if split == "train" else np.arange(len(digits))
    if not len(chosen):
        raise UserError(f"mnist has no image of --normal_class {normal_class}: it is from 0 to 9")
    chosen = np.array(thin(chosen.tolist(), limit))
    images = images[chosen]
    if images.shape[1:] != (height, width):
        images = np.stack(
            [
                np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
                for image in images
            ]
        )
    labelled = normal_class is not None or anomaly_class is not None
    return ImageSet.from_array(
        images[..., None],
        [f"{split}/{i:05d}" for i in chosen],
        labels[chosen] if labelled else None,
        [str(digit) for digit in digits[chosen]],
    )


def _idx(data_dir: str | Path, name: str, dimensions: int) -> np.ndarray:
    """An idx file of uint8, raw or as .gz."""
    path = Path(data_dir) / "mnist" / name
    zipped = path.with_name(name + ".gz")
    start = 4 + 4 * dimensions
    try:
        is_zipped = not path.exists() and zipped.exists()
        with gzip.open(zipped) if is_zipped else open(path, "rb") as file:
            content = file.read(start + MOST_BYTES + 1)
    except FileNotFoundError:
        raise _damaged(data_dir, f"{path} is missing") from None
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(data_dir, f"{path} cannot be read ({error})") from None
    sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic or len(content) - start != math.prod(sizes) or not all(sizes):
        raise _damaged(data_dir, f"{path} is damaged or cut short")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _damaged(data_dir: str | Path, what: str) -> UserError:
    elsewhere = f" --data_dir {data_dir}" if str(data_dir) != "data" else ""
    return UserError(f"{what}: fetch it with: python download.py mnist{elsewhere}")
