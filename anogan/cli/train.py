"""The command --train: a new run, or a run that goes on."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anogan.cli.options import Options
from anogan.cli.paths import (
    output_name,
    require_run_of,
    run_folder,
    strictly_inside,
    training_folder,
)
from anogan.cli.printing import (
    print_line,
    print_outliers,
    print_search,
    print_skipped,
    print_warnings,
)
from anogan.cli.run import Devices, Run
from anogan.cli.settings import given_settings, require_settings
from anogan.config import FILE_NAME, FREE, PRESETS, Config, preset
from anogan.data import drop_list, mnist, scale
from anogan.data.choosing import require, thin
from anogan.data.folders import Selection, find_images, image_folder
from anogan.data.image_set import ImageSet
from anogan.data.listing import Listing
from anogan.data.near_copies import near_copies
from anogan.data.probing import find_range, probe
from anogan.errors import UserError
from anogan.image_form import feature_size
from anogan.method import suspicious
from anogan.method.scoring import Calibration
from anogan.report import oddest
from anogan.runs import distributed, estimate
from anogan.runs.files import clear_temporaries, require_writable

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN

FEW_IMAGES = 100  # to train on: of fewer the user is warned
# benchmarks/few_images.py
FEW_WARNING = "on digits AUROC was 0.93 with 20, 0.96 with 100 and 0.98 with 5,851 of them"
PROBED = 64  # images that are looked at to know whether they are grey or colour, 8 bits or more


@dataclass(frozen=True)
class Kept:
    """What a run's folder says of how it is trained."""

    config: Config
    dropped: tuple[str, ...]  # see drop_list.dropped


def kept_by(folder: Path) -> Kept | None:
    """Read what a run's folder says; None where there is no run."""
    if not (folder / FILE_NAME).exists():
        return None
    return Kept(Config.load(folder), drop_list.dropped(folder))


@dataclass(frozen=True)
class TrainPlan(Run):
    """What --train needs besides the run."""

    kept: Kept | None  # what the folder said when all else was found by it
    images: ImageSet
    source: Path | None  # the folder that they lie in; None: mnist
    drop: str | None
    samples: Path
    logs: Path

    def execute(self) -> DCGAN:
        """Train a new run, or go on with the one that is there; return the model."""
        with self.devices.only_writer(self.folder, "training run", "--checkpoint_dir"):
            if kept_by(self.folder) != self.kept:
                raise UserError(
                    f"another training run was at work in {self.folder} until now: the same "
                    "command goes on from there, or says what is other; or name another "
                    "--checkpoint_dir"
                )
            model = self._start()
            before = model.steps_done
            if model.workers.chief:
                drop_list.keep_dropped(self.folder, self.images.dropped)
                clear_temporaries(self.samples)
            model.train(self.images, self.folder, self.samples, self.logs)
            print_end(self, model, before)
            # for the usual search, so that scoring begins at once
            held_out = len(model.images.held_out)
            calibration = model.keep_calibration(
                begin=lambda: print_search(model.search(), held_out, model.workers)
            )
            print_outliers(calibration, model.workers)
            # the last run may have been stopped before the list
            trained = model.steps_done > before or not (self.samples / oddest.LIST).exists()
            if trained and model.workers.chief and self.source:
                rank(model, calibration, self.images, self.samples)
        print_skipped(self.images)
        print_warnings(self.images)
        return model

    def _start(self) -> DCGAN:
        """Return the model that is to be trained; say what is about to happen."""
        precision, workers = self.devices.connect()
        from anogan.runs.checkpoint import has_checkpoint
        from model import DCGAN

        if has_checkpoint(self.folder):
            model = DCGAN.load(self.folder, precision, workers, **self.free_settings())
            if self.drop and self.source:
                known = list(model.images.states)
                drop_list.require_unseen(self.drop, known, self.source, self.folder)
            print_line(f"going on from step {model.steps_done} of {self.folder}", workers)
        else:
            model = DCGAN(self.config, precision, workers)
        print_start(self, model)
        return model


def prepare(options: Options) -> TrainPlan:
    """Find the run that --train starts or goes on with, and its images; UserError for none."""
    folder = run_folder(options)
    kept = kept_by(folder)
    is_mnist = (kept.config.dataset if kept else options.dataset) == "mnist"
    if kept:
        require_run_of(options, folder, kept.config)
        require_settings(options, kept.config, free=("dataset",))  # the run was found by it
        own = Path(options.data_dir) / kept.config.dataset
        by_folder = folder == Path(options.checkpoint_dir) and own.is_dir()
        if by_folder and options.dataset == Options.dataset:  # none was named
            options = dataclasses.replace(options, dataset=kept.config.dataset)
    source = None if is_mnist else training_folder(options.data_dir, options.dataset)
    listing = list_training(options, source, kept) if source else None
    if kept:
        free = {name: v for name, v in given_settings(options).items() if name in FREE}
        config = dataclasses.replace(kept.config, **free)
    else:
        config = new_config(options, listing)
    images = image_folder(listing, config.form) if listing else digits(options.data_dir, config)
    config = fit_batch(config, images)
    for written in (options.log_dir, options.checkpoint_dir, options.sample_dir):
        require_writable(written)
    name = output_name(folder)
    samples, logs = Path(options.sample_dir) / name, Path(options.log_dir) / name
    devices = Devices.of(options)
    return TrainPlan(folder, config, devices, kept, images, source, options.drop, samples, logs)


def list_training(options: Options, source: Path, kept: Kept | None) -> Listing:
    """Return the images to train on, without those that the run has dropped before."""
    pattern = kept.config.pattern if kept else options.input_fname_pattern
    limit = kept.config.train_size if kept else options.train_size
    wanted = Selection(
        pattern or None,
        excluded=tuple(strictly_inside(source, options.test_result_dir, options.mask_dir)),
        drop=options.drop,
        dropped=kept.dropped if kept else (),
        limit=limit or None,
    )
    return find_images(source, wanted, training=options.dataset)


def digits(data_dir: str, config: Config) -> ImageSet:
    """Return mnist's training images."""
    classes, limit = (config.normal_class, config.anomaly_class), config.train_size or None
    return mnist.mnist(data_dir, "train", *classes, config.height, config.width, limit=limit)


def new_config(options: Options, listing: Listing | None) -> Config:
    """Return a new run's configuration, from the flags and the images; no listing: mnist."""
    given = given_settings(options)
    if listing:
        found = probed(options, listing, given)
    else:
        found = {"height": 28, "width": 28, "channels": 1}
        if given.get("channels") == 3:
            raise UserError("mnist images are grey: leave --channels out")
    return preset(options.preset or "default", **{**found, **given})


def probed(options: Options, listing: Listing, given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the images want: channels, range of values, size, window."""
    paths = listing.paths()
    some = thin(paths, PROBED)
    channels, deep = probe(some)
    found: dict[str, Any] = {"channels": channels}
    if deep:
        found["min_value"], found["max_value"] = find_range(paths)
    crop = (given["crop_height"], given["crop_width"]) if given.get("crop_height") else None
    if options.window and "height" not in given:
        size = dict(zip(("height", "width"), scale.typical_size(some, crop), strict=True)) | given
        found |= scale.windowed(size["height"], size["width"], options.window)._asdict()
    elif options.window is None and options.preset != "classic" and "width" not in given:
        found |= scale.choose(some, crop, channels)._asdict()
    if (given.get("features") or PRESETS[options.preset or "default"].get("features")) != "none":
        shape = {"height": Config.height, "width": Config.width} | found | given
        view = scale.view_size(scale.typical_size(some, crop), (shape["height"], shape["width"]))
        found["view_height"], found["view_width"] = view
    return found


def fit_batch(config: Config, images: ImageSet) -> Config:
    """Return the configuration with a batch that there are images for.

    A warning where it is lowered, and where there are few images. UserError for fewer than two.
    """
    enough = max(config.batch_size, FEW_IMAGES)
    usable = require(images, 2, "training images", enough)
    log = logging.getLogger(__name__)
    if usable < FEW_IMAGES:
        log.warning("only %d training images: %s", usable, FEW_WARNING)
    if usable >= config.batch_size:
        return config
    lowered = usable - usable % 2
    log.warning(
        "%d training images are too few for a batch of %d: the batch is lowered to %d",
        *(usable, config.batch_size, lowered),
    )
    return dataclasses.replace(config, batch_size=lowered)


def print_start(plan: TrainPlan, model: DCGAN) -> None:
    """Print what is trained on what, and how long it may take."""
    config, images, workers = plan.config, plan.images, model.workers
    h, w, c = config.shape
    where = f" from {plan.source}" if plan.source else ""
    seen = f", through windows of {config.window}" if config.window else ""
    if seen and scale.is_strip(h, w):
        seen += " along the strips"
    size = f"{h} x {w} x {c}{seen}"
    if config.has_features:
        pretrained = " x ".join(map(str, feature_size(*config.view[:2])))
        size += f", and by the pretrained {config.features} at {pretrained}"
    lines = [f"training on {len(images)} images{where} at {size}, {model.precision}"]
    if config.value_range:
        low, high = config.value_range
        deep = "files of more than 8 bits a channel"
        lines.append(f"{deep}: {low:g} becomes black, {high:g} white")
    lines += [*images.left_out, *model.images.changes(images.dated())]
    if groups := near_copies(images):
        lines.append(
            f"{len(groups)} images are near copies in {len(set(groups.values()))} groups by their "
            f"names (the first: {min(groups.values())}): each is trained on or held out as a whole"
        )
    left = model.steps_of(images) - model.steps_done
    if left > 0:
        lines.append(estimate.describe(model.config, len(images), left, distributed.has_gpu()))
    for line in lines:
        print_line(line, workers)


def print_end(plan: TrainPlan, model: DCGAN, before: int) -> None:
    """Print how far the training came from step `before`, and whether the model is of use."""
    step = model.steps_done
    if step == before:
        done = f"nothing to do: trained to step {step} already; a larger --epoch goes on"
        print_line(done, model.workers)
        return
    if not model.workers.chief:
        return
    print_line(f"trained to step {step}: model in {plan.folder}, samples in {plan.samples}")
    if (unexplained := model.inference.unexplained(model.images)) is None:
        return
    print_line(f"reconstructions leave {unexplained:.0%} of the variance of held-out normal images")
    if unexplained >= 1:
        logging.getLogger(__name__).warning(
            "no better than the mean image: train longer (--epoch), or anew with another --seed"
        )


def rank(model: DCGAN, calibration: Calibration, images: ImageSet, folder: Path) -> None:
    """Rank the training images by outlier score; list the highest in a folder."""
    count = min(len(images), suspicious.most(model.detector, model.search()))
    print_line(f"ranking {count} training images by how odd they are")
    indices, scores = suspicious.rank(
        model.detector, model.search(), calibration, images, model.images.fitted
    )
    try:
        path, sheet, count = oddest.write(folder, images, indices, scores)
    except (OSError, UserError) as error:  # a run can do without
        logging.getLogger(__name__).warning("no list of the oddest training images: %s", error)
        return
    of_many = f" (evenly spaced ones of {len(images)})" if len(indices) < len(images) else ""
    print_line(
        f"are all normal? The oddest {count} of {len(indices)} training images{of_many} are in "
        f"{path} and on {sheet}: take the lines of good ones out and train anew with --drop {path}"
    )
    print_line(
        "ranked by memories that had not seen the image, and by the discriminator, which was "
        "trained on most of them: what is odd may look a little less so"
    )
