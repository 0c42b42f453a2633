"""The commands that draw: samples of the model, --visualize."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anogan.cli.options import Options
from anogan.cli.paths import output_name
from anogan.cli.printing import print_line
from anogan.cli.run import Run
from anogan.runs.files import require_writable, unused_path
from utils import save_image, tile, to_float, to_uint8

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN

INTERPOLATED = 8, 10  # pairs of latents, and images from one to the other
COMPARED = 8  # latents whose early and present images are shown


@dataclass(frozen=True)
class DrawPlan:
    """What to draw, and where."""

    folder: Path
    count: int  # of samples
    seed: int | None
    visualize: bool  # more than samples

    def execute(self, model: DCGAN) -> int:
        """Draw samples; for --visualize an interpolation in z and early beside present images."""
        if not model.workers.chief:
            return 0
        path = unused_path(self.folder, "samples.png")
        rng = np.random.default_rng(self.seed)
        z = rng.standard_normal((self.count, model.config.z_dim), np.float32)
        save_image(path, tile(to_uint8(model.generate(z))))
        if not self.visualize:
            print_line(f"{self.count} samples in {path}")
            return 0
        _save_interpolation(unused_path(self.folder, "interpolation.png"), model)
        early, now = _save_early_and_now(unused_path(self.folder, "early_and_now.png"), model)
        print_line(
            f"mean anomaly score of G's first images {early:.3f}, of its present ones {now:.3f}"
        )
        print_line(f"pictures in {self.folder}")
        return 0


def prepare(options: Options, run: Run) -> DrawPlan | None:
    """Return what --visualize asks for, or else samples where nothing is asked for; or None."""
    deploys = options.export or options.serve is not None
    if (options.train or options.anomaly_test or deploys) and not options.visualize:
        return None
    require_writable(options.sample_dir)
    folder = Path(options.sample_dir) / output_name(run.folder)
    return DrawPlan(folder, options.generate_test_images, options.seed, options.visualize)


def _save_interpolation(path: Path, model: DCGAN) -> None:
    """Draw rows of images along great circles between two latents (White 2016, section 2.1)."""
    rows, columns = INTERPOLATED
    ends = model.fixed_latents(2 * rows)
    ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    a, b = ends[:rows, None], ends[rows:, None]
    angle = np.arccos(np.clip((a * b).sum(-1, keepdims=True), -0.999, 0.999))
    t = np.linspace(0, 1, columns, dtype=np.float32)[None, :, None]
    z = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    z *= np.sqrt(model.config.z_dim)  # the length of a typical latent
    images = model.generate(z.reshape(-1, z.shape[-1]))
    save_image(path, tile(to_uint8(images), columns=columns))


def _save_early_and_now(path: Path, model: DCGAN) -> tuple[float, float]:
    """Draw for fixed latents G's first image above its present one, each with its anomaly score.

    Return the mean score of the first images and of the present ones, over all fixed latents.
    """
    from anogan.report.plots import image_rows  # Matplotlib is slow to load

    now = to_uint8(model.generate(model.fixed_latents()))  # as exact as the first ones are kept
    assert model.images.first is not None  # training draws them
    first, present = to_float(model.images.first), to_float(now)
    both = [model.anomaly_detector(images).score for images in (first, present)]
    title = "the same latents before training (above) and now; anomaly scores"
    rows = [images[:COMPARED] for images in (first, present)]
    image_rows(path, title, rows, [[f"{score:.3g}" for score in scores] for scores in both])
    return float(both[0].mean()), float(both[1].mean())
