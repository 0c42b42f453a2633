"""The command --train."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from anogan.cli.options import Options
from anogan.cli.paths import (
    output_name,
    require_run_of,
    run_folder,
    strictly_inside,
    training_folder,
)
from anogan.cli.printing import print_line, print_skipped, print_warnings
from anogan.cli.settings import contradictions, settings, sizes
from anogan.cli.trained import calibrate, connect, only_chief
from anogan.config import FILE_NAME, FREE, Config, preset
from anogan.data import drop_list, image_set, mnist, scale
from anogan.data.folders import Selection, find_images, image_folder
from anogan.data.image_set import ImageSet
from anogan.data.probing import find_range, probe
from anogan.errors import UserError
from anogan.method import suspicious
from anogan.method.scoring import Calibration
from anogan.runs import distributed, estimate
from anogan.runs.files import clear_temporaries

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN

FEW_IMAGES = 100  # to train on: of fewer the user is warned
# benchmarks/few_images.py
FEW_WARNING = "on digits AUROC was 0.93 with 20, 0.96 with 100 and 0.98 with 5,851 of them"
PROBED = 64  # images that are looked at to know whether they are grey or colour, 8 bits or more


def new_config(options: Options) -> Config:
    """A new run's configuration, from the flags and the images."""
    given = {**settings(options), **sizes(options)}
    if options.dataset == "mnist":
        found: dict[str, Any] = {"height": 28, "width": 28, "channels": 1}
        if given.get("channels") == 3:
            raise UserError("mnist images are grey: leave --channels out")
    else:
        wanted = Selection(options.input_fname_pattern, drop=options.drop, limit=options.train_size)
        paths = find_images(training_folder(options), wanted).paths()
        some = image_set.thin(paths, PROBED)
        channels, deep = probe(some)
        found = {"channels": channels}
        if deep:
            found["min_value"], found["max_value"] = find_range(paths)
        found |= _scale(options, some, channels)
    return preset(options.preset or "default", **{**found, **given})


def _scale(options: Options, some: list[str], channels: int) -> dict[str, Any]:
    """Size and window as the images want them, as far as no flag gives them."""
    given = sizes(options)
    if options.window == 0 or (options.window is None and (given or options.preset == "classic")):
        return {}
    cut = settings(options)
    crop = (cut["crop_height"], cut["crop_width"]) if cut.get("crop_height") else None
    if options.window:
        height, width = scale.typical_size(some, crop)
        return {"height": height, "width": width}
    return scale.choose(some, crop, channels)._asdict()


def training_images(options: Options, config: Config, dropped: Collection[str] = ()) -> ImageSet:
    """The ImageSet to train on, without those that the run has dropped before."""
    limit = config.train_size or None
    if config.dataset == "mnist":
        classes = (config.normal_class, config.anomaly_class)
        images = mnist.mnist(
            options.data_dir, "train", *classes, config.height, config.width, limit=limit
        )
    else:
        folder = training_folder(options)
        wanted = Selection(
            config.pattern or None,
            excluded=tuple(strictly_inside(folder, options.test_result_dir, options.mask_dir)),
            drop=options.drop,
            dropped=tuple(dropped),
            limit=limit,
        )
        images = image_folder(find_images(folder, wanted, training=True), config.form)
    return images


def fit_batch(config: Config, changes: dict, images: ImageSet) -> tuple[Config, dict]:
    """(configuration, what it changes of the run) with a batch that there are images for.

    A warning where it is lowered, and where there are few images. UserError for fewer than two.
    """
    enough = max(config.batch_size, FEW_IMAGES)
    usable = image_set.require(images, 2, "training images", enough)
    log = logging.getLogger(__name__)
    if usable < FEW_IMAGES:
        log.warning("only %d training images: %s", usable, FEW_WARNING)
    if usable >= config.batch_size:
        return config, changes
    lowered = usable - usable % 2
    log.warning(
        "%d training images are too few for a batch of %d: the batch is lowered to %d",
        *(usable, config.batch_size, lowered),
    )
    return dataclasses.replace(config, batch_size=lowered), {**changes, "batch_size": lowered}


class Kept(NamedTuple):
    """What a run's folder says of how it is trained."""

    config: Config
    dropped: tuple[str, ...]  # see drop_list.dropped


def kept_by(folder: Path) -> Kept | None:
    """None where there is no run."""
    if not (folder / FILE_NAME).exists():
        return None
    return Kept(Config.load(folder), drop_list.dropped(folder))


def run_config(options: Options) -> tuple[Config, dict]:
    """(configuration of the run that --train starts or goes on with, what the flags change)."""
    folder = run_folder(options)
    if not (folder / FILE_NAME).exists():
        return new_config(options), {}
    config = Config.load(folder)
    require_run_of(options, folder, config)
    contradictions(options, config, free=("dataset",))  # the run was found by it
    changes = {k: v for k, v in settings(options).items() if k in FREE}
    return dataclasses.replace(config, **changes), changes


def train(
    options: Options, before: Kept | None, config: Config, changes: dict, images: ImageSet
) -> DCGAN:
    """Trains a new run, or goes on with the one that is there; the model.

    before: what the folder said when all else was found by it.
    """
    folder = run_folder(options)
    with only_chief(options, folder, "training run", "--checkpoint_dir"):
        if kept_by(folder) != before:
            raise UserError(
                f"another training run was at work in {folder} until now: the same command goes on "
                "from there, or says what is other; or name another --checkpoint_dir"
            )
        return _train(options, folder, config, changes, images)


def _train(
    options: Options, folder: Path, config: Config, changes: dict, images: ImageSet
) -> DCGAN:
    team = connect(options)
    from anogan.runs.checkpoint import has_checkpoint
    from model import DCGAN

    precision = distributed.resolve_precision(options.precision)
    if has_checkpoint(folder):
        model = DCGAN.load(folder, precision, team, **changes)
        if options.drop:
            known = list(model.images.states)
            drop_list.require_unseen(options.drop, known, training_folder(options), folder)
        print_line(f"going on from step {model.steps_done} of {folder}", team)
    else:
        model = DCGAN(config, precision, team)
    h, w, c = config.shape
    where = "" if config.dataset == "mnist" else f" from {training_folder(options)}"
    seen = f", through windows of {config.window}" if config.window else ""
    print_line(
        f"training on {len(images)} images{where} at {h} x {w} x {c}{seen}, {precision}", team
    )
    if config.value_range:
        low, high = config.value_range
        print_line(
            f"files of more than 8 bits a channel: {low:g} becomes black, {high:g} white", team
        )
    for line in [*images.left_out, *model.images.changes(images.dated())]:
        print_line(line, team)
    name, before = output_name(folder), model.steps_done
    left = model.steps_of(images) - before
    if left > 0:
        on_gpu = distributed.has_gpu()
        print_line(estimate.describe(model.config, len(images), left, on_gpu), team)
    if team.chief:
        drop_list.keep_dropped(folder, images.dropped)
        clear_temporaries(Path(options.sample_dir) / name)
    model.train(images, folder, Path(options.sample_dir) / name, Path(options.log_dir) / name)
    step = model.steps_done
    if step == before:
        print_line(f"nothing to do: trained to step {step} already; a larger --epoch goes on", team)
    elif team.chief:
        print_line(
            f"trained to step {step}: model in {folder}, samples in {options.sample_dir}/{name}"
        )
        print_fit(model.inference.unexplained(model.images))
    calibration = calibrate(model, team)  # for the usual search, so that scoring begins at once
    samples = Path(options.sample_dir) / name
    unlisted = not (samples / suspicious.LIST).exists()  # the last run was stopped before that
    if (step > before or unlisted) and team.chief and config.dataset != "mnist":
        count = min(len(images), suspicious.most(model.search()))
        print_line(f"ranking {count} training images by how odd they are")
        print_suspicious(model, calibration, images, samples)
    print_skipped(images)
    print_warnings(images)
    return model


def print_suspicious(
    model: DCGAN, calibration: Calibration, images: ImageSet, folder: Path
) -> None:
    """Ranks the training images by outlier score, and writes which have the highest."""
    indices, scores = suspicious.rank(model.detector, model.search(), calibration, images)
    try:
        path, sheet, count = suspicious.write(folder, images, indices, scores)
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


def print_fit(unexplained: float | None) -> None:
    """How well held-out normal images are reconstructed; a warning where the model is useless."""
    if unexplained is None:
        return
    print_line(f"reconstructions leave {unexplained:.0%} of the variance of held-out normal images")
    if unexplained >= 1:
        logging.getLogger(__name__).warning(
            "no better than the mean image: train longer (--epoch), or anew with another --seed"
        )
