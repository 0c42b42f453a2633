"""The commands that draw: samples of the model, --visualize."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anogan.cli.options import Options
from anogan.cli.paths import output_name
from anogan.cli.printing import print_line
from anogan.cli.run import Run
from anogan.runs.files import require_writable, unused_path

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN


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
        from anogan.report import pictures  # Matplotlib is slow to load

        path = unused_path(self.folder, "samples.png")
        pictures.samples(path, model, self.count, self.seed)
        if not self.visualize:
            print_line(f"{self.count} samples in {path}")
            return 0
        pictures.interpolation(unused_path(self.folder, "interpolation.png"), model)
        early, now = pictures.early_and_now(unused_path(self.folder, "early_and_now.png"), model)
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
