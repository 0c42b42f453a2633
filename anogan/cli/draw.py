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
from utils import save_image, tile, to_uint8

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN

INTERPOLATED = 8, 10  # pairs of latents, and images from one to the other


@dataclass(frozen=True)
class DrawPlan:
    """What to draw, and where."""

    folder: Path
    count: int  # of samples
    seed: int | None
    visualize: bool  # more than samples

    def execute(self, model: DCGAN) -> int:
        """Draw samples, for --visualize an interpolation in z, too."""
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
