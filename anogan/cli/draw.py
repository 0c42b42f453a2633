"""The commands that draw: samples of the model, --visualize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from anogan.cli.options import Options
from anogan.cli.paths import output_name
from anogan.cli.printing import print_line
from anogan.runs.files import unused_path

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN


def sample_folder(options: Options, model: DCGAN) -> Path:
    """Where pictures of what this run's model draws go."""
    assert model.folder  # from which it was loaded, or to which it was saved
    return Path(options.sample_dir) / output_name(model.folder)


def visualize(options: Options, model: DCGAN) -> None:
    """A grid of samples, an interpolation in z, and early beside present images, scored."""
    from anogan.report import pictures  # Matplotlib is slow to load

    folder = sample_folder(options, model)
    path = unused_path(folder, "samples.png")
    pictures.samples(path, model, options.generate_test_images, options.seed)
    pictures.interpolation(unused_path(folder, "interpolation.png"), model)
    early, now = pictures.early_and_now(unused_path(folder, "early_and_now.png"), model)
    print_line(f"mean anomaly score of G's first images {early:.3f}, of its present ones {now:.3f}")
    print_line(f"pictures in {folder}")


def draw_samples(options: Options, model: DCGAN) -> None:
    """A grid of samples in a file of its own."""
    from anogan.report import pictures

    path = unused_path(sample_folder(options, model), "samples.png")
    pictures.samples(path, model, options.generate_test_images, options.seed)
    print_line(f"{options.generate_test_images} samples in {path}")
