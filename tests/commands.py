"""What tests of whole commands share."""

import contextlib
import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main

ROOT = Path(__file__).parent.parent
NETS = ["--gf_dim=4", "--df_dim=4", "--z_dim=4", "--output_height=16", "--batch_size=16"]


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(image).squeeze()).save(path)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def exit_code(arguments):
    with pytest.raises(SystemExit) as stopped:
        main.main(arguments)
    return stopped.value.code


@contextlib.contextmanager
def without_graphs():
    """TensorFlow runs each operation as it comes: where steps are few, graphs take far longer."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
