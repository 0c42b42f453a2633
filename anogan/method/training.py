"""The training run: progress, sample grids, TensorBoard, checkpoints, and when to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from anogan.config import Config
from anogan.data.image_set import ImageSet
from anogan.errors import UserError
from anogan.method.inference import ONE_LEVEL
from anogan.method.trainer import Trainer
from anogan.runs.distributed import handled, interrupts
from anogan.runs.files import printable, unused_path
from anogan.runs.progress import progress
from utils import save_image, tile, to_float, to_uint8

CHECK_EVERY = 50  # steps between looks at losses and diversity
GRIDS = 10  # sample grids over the run, besides the first and the last
SAVE_SECONDS = 30.0  # between checkpoints
COLLAPSED = 0.05  # diversity of samples as a fraction of the training images'
LOOKED_AT = 256  # training images whose diversity stands for that of all


class TrainingFailed(UserError):
    """NaN losses or collapse; the last good checkpoint is kept."""


class TrainingRun:
    """Takes a Trainer from the step it is at to a later one."""

    def __init__(
        self,
        trainer: Trainer,
        images: ImageSet,
        spread: float,
        save: Callable[[], None] | None,
        draw: Callable[[], np.ndarray],
        judge: Callable[[], Callable[[], dict[str, float]]] = lambda: dict,
        sample_dir: str | Path | None = None,
        log_dir: str | Path | None = None,
        progress: bool = True,
    ):
        """images: to train on; spread: theirs, from find_spread.

        save: writes a checkpoint, or None; draw: G's present images (n, h, w, c) of some latents;
        judge: makes a function that says how good the networks are, for TensorBoard.
        sample_dir, log_dir: folders for grids of these and for TensorBoard, or None.
        """
        self.trainer, self.images, self.spread, self.draw = trainer, images, spread, draw
        mine = trainer.workers.chief  # to write and to show
        self.progress = progress and mine
        self.save = save if mine else None
        self.sample_dir = Path(sample_dir) if sample_dir and mine else None
        self.log_dir = Path(log_dir) if log_dir and mine else None
        self.writer: tf.summary.SummaryWriter | None = None
        self.judge = judge
        self.judged: Callable[[], dict[str, float]] = dict
        self.given_up: set[str] = set()  # what cannot be written
        self.stopped = False  # by a signal: the step is still to be finished

    def to(self, total: int) -> None:
        """Trains up to this step; saves regularly, at the end, and on Ctrl-C, SIGTERM or SIGHUP.

        What would raise KeyboardInterrupt does so after the step and its checkpoint; when it comes
        a second time, at once, and the last checkpoint stays. Both shell and system may send SIGHUP
        when a terminal is closed: a second one changes nothing.
        """
        with handled(self._stop, *interrupts()):
            self._to(total)

    def _stop(self, number: int, _: object) -> None:
        if self.stopped and number != getattr(signal, "SIGHUP", None):
            raise KeyboardInterrupt
        self.stopped = True

    def _to(self, total: int) -> None:
        trainer, batch_size = self.trainer, self.trainer.config.batch_size
        step = trainer.steps_done
        if self.log_dir:
            with self._optional("curves", self.log_dir):
                self.writer = tf.summary.create_file_writer(os.fsencode(self.log_dir))
                with self.writer.as_default(step=step):
                    tf.summary.text("settings", settings_table(trainer.config))
            self.judged = self.judge()
        if step == 0:
            self._save()
            self._grid(0)
        batches = trainer.batches(self.images)
        saved = time.monotonic()
        every = max(1, total // GRIDS)
        bar = progress(total, "step", "training", initial=step, shown=self.progress)
        try:
            with bar:
                started, first = time.monotonic(), step
                while step < total:
                    losses = trainer.update(next(batches))
                    step += 1
                    bar.update()
                    last = step == total
                    if last or step % CHECK_EVERY == 0:
                        losses = {k: float(v) for k, v in losses.items()}
                        self._check_health(step, losses)
                        rate = (step - first) * batch_size / (time.monotonic() - started)
                        self._report(bar, step, losses, rate)
                        if last or time.monotonic() - saved > SAVE_SECONDS:
                            self._save()
                            saved = time.monotonic()
                    if last or step % every == 0:
                        self._grid(step)
                    if self.stopped:
                        if not last:
                            self._check_health(step, {})
                            self._save()
                        raise KeyboardInterrupt
        finally:
            if self.writer:
                with self._optional("curves", self.log_dir):
                    self.writer.close()

    @contextlib.contextmanager
    def _optional(self, what: str, folder: Path | None) -> Iterator[None]:
        """Of what a run can do without: where it can't be written, that is said once."""
        try:
            yield
        except (OSError, UserError, tf.errors.OpError) as error:
            if what in self.given_up:
                return
            self.given_up.add(what)
            reason = str(error).splitlines()[0]
            logging.getLogger(__name__).warning(
                "no %s from here on, %s cannot be written (%s)", what, folder, reason
            )

    def _save(self) -> None:
        if self.save:
            self.save()

    def _report(self, bar: tqdm, step: int, losses: dict[str, float], rate: float) -> None:
        bar.set_postfix({k: f"{v:.3g}" for k, v in losses.items()} | {"img/s": f"{rate:.0f}"})
        if self.writer:
            with self._optional("curves", self.log_dir), self.writer.as_default(step=step):
                also = {"learning_rate": self.trainer.config.learning_rate}
                for name, value in {**losses, **also, "images_per_second": rate}.items():
                    tf.summary.scalar(name, value)

    def _grid(self, step: int) -> None:
        """The fixed latents' images, as a file and for TensorBoard."""
        if not (self.sample_dir or self.writer):
            return
        grid = tile(to_uint8(self.draw()))
        if self.sample_dir:
            with self._optional("samples", self.sample_dir):
                save_image(unused_path(self.sample_dir, f"train_{step:07d}.png"), grid)
        if self.writer:
            with self._optional("curves", self.log_dir), self.writer.as_default(step=step):
                tf.summary.image("samples", grid[None])
                for name, value in self.judged().items():
                    tf.summary.scalar(name, value)

    def _check_health(self, step: int, losses: dict[str, float]) -> None:
        """Raises TrainingFailed if a loss is not finite or all samples look the same."""
        bad = [k for k, v in losses.items() if not np.isfinite(v)]
        samples = self.draw()
        if not (self.trainer.finite() and np.isfinite(samples).all()):
            bad.append("weights")
        kept = "the last good checkpoint is kept" if self.save else "stopped"
        if bad:
            raise TrainingFailed(
                f"training failed at step {step}: {', '.join(bad)} not finite; {kept}: "
                "go on from it with a lower --learning_rate"
            )
        if step >= 4 * CHECK_EVERY and samples.std(axis=0).mean() < COLLAPSED * self.spread:
            raise TrainingFailed(
                f"training collapsed at step {step}: all samples look the same; {kept}: "
                "go on from it with a lower --learning_rate, or start anew with another --seed"
            )


def settings_table(config: Config) -> str:
    """A Markdown table of all settings, those of the recipe last."""
    settings = asdict(config)
    settings |= settings.pop("recipe")
    rows = [f"| {name.rstrip('_')} | {printable(value)} |" for name, value in settings.items()]
    return "\n".join(["| setting | value |", "|-|-|", *rows])


def find_spread(images: ImageSet) -> float:
    """The mean standard deviation of training images, in [-1, 1], in a pixel.

    UserError where they are all the same, or each is of one colour; a warning where nearly so.
    """
    places = np.linspace(0, len(images) - 1, min(len(images), LOOKED_AT), dtype=int)
    some, _ = images.read(places)
    if len(some) == 1:
        raise UserError("one training image is left, at least 2 are needed: add images")
    flat = some.reshape(len(some), -1, some.shape[-1])
    for what, same in (("the same", flat == flat[:1]), ("of one colour each", flat == flat[:, :1])):
        if len(some) and same.all():
            raise UserError(
                f"the {len(some)} training images that were looked at are all {what}, from which "
                "nothing can be learned: look at the files, or name others"
            )
    variances = to_float(some).var(axis=0)
    if variances.mean() < ONE_LEVEL**2:
        logging.getLogger(__name__).warning(
            "the training images are nearly the same: on average they differ by "
            f"{variances.mean() ** 0.5 / ONE_LEVEL:.2g} of 255 grey levels"
        )
    return float(np.sqrt(variances).mean())
