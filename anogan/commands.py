"""What the switches of main.py do: train, score, visualize, sample."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from tqdm import tqdm

from anogan import dataset, distributed
from anogan.config import FILE_NAME, FREE, Config, preset
from anogan.errors import UserError
from anogan.files import Output, record, require_writable
from anogan.labels import labelled
from anogan.masks import Masks
from anogan.report import pictures
from anogan.report.results import FILES, Results, Threshold, told_trust
from utils import find_range, list_images, probe

PROBED = 64  # images that are looked at to know whether they are grey or colour, 8 bits or more
TEST_DIR = "test_data"
CHECKPOINTS = "checkpoints"  # where runs are unless --checkpoint_dir says otherwise


def settings(args) -> dict:
    """The settings of Config that flags gave."""
    names = {f.name for f in dataclasses.fields(Config)}
    given = {k: v for k, v in vars(args).items() if k in names and v is not None}
    given.pop("crop", None)
    if args.dataset == "mnist":
        return given
    if args.crop:
        given["crop_height"] = args.input_height or 108
        given["crop_width"] = args.input_width or given["crop_height"]
    elif args.crop is False:
        given["crop_height"] = given["crop_width"] = 0
    elif args.input_height:  # scoring: the trained crop, said once more
        given["crop_height"] = args.input_height
    if args.input_fname_pattern and args.train:
        given["pattern"] = args.input_fname_pattern
    return given


def sizes(args) -> dict:
    """Height and width, as far as flags gave them."""
    given = {}
    if args.output_height:
        given["height"] = args.output_height
    if args.output_width or args.output_height:
        given["width"] = args.output_width or args.output_height
    return given


def run_name(args) -> str:
    """The run's folder below --checkpoint_dir."""
    if args.normal_class is not None:
        return f"mnist_normal{args.normal_class}"
    if args.anomaly_class is not None:
        return f"mnist_anomaly{args.anomaly_class}"
    return safe_name(args.dataset)


def dataset_name(args) -> str:
    """--dataset as one way of writing it: its path within --data_dir, or else its whole path."""
    root = os.path.realpath(args.data_dir)
    path = os.path.realpath(os.path.join(root, args.dataset))
    if path == root:
        raise UserError(f"--dataset {args.dataset} is --data_dir itself: name a folder in it")
    return os.path.relpath(path, root) if path.startswith(os.path.join(root, "")) else path


def safe_name(path: str) -> str:
    """A path as the name of one folder; with a checksum, unless it is such a name by itself."""
    if re.fullmatch(r"[\w-][\w. -]*", path):
        return path
    words = re.sub(r"[^\w.-]+", "_", path).strip("._")[-60:]
    return f"{words}_{crc32(os.fsencode(path)):08x}"


def output_name(folder: Path) -> str:
    """A run's folder below --sample_dir and --log_dir: no two runs share one."""
    path = os.path.realpath(folder)
    root = os.path.realpath(CHECKPOINTS)
    beside = os.path.dirname(path) == root
    return safe_name(os.path.basename(path) if beside else os.path.relpath(path))


def find_run(args) -> Path:
    """The folder of the trained model that the flags mean; UserError if there is none."""
    folder = run_folder(args)
    if (folder / FILE_NAME).exists():
        return folder
    root = Path(args.checkpoint_dir)
    runs = sorted(p.parent.name for p in root.glob(f"*/{FILE_NAME}"))
    of_mnist = [r for r in runs if r.startswith("mnist_")]
    if folder.name == "mnist" and len(of_mnist) == 1:
        return root / of_mnist[0]
    there = f"trained so far: {', '.join(runs)}" if runs else "none is trained so far"
    raise UserError(f"no trained model in {folder} ({there}): train it first with --train")


def run_folder(args) -> Path:
    """Where the run of these flags has its checkpoints."""
    root = Path(args.checkpoint_dir)
    if (root / FILE_NAME).exists():
        return root
    former = root / os.path.normpath(args.dataset)  # nested data sets had nested runs once
    if former.is_relative_to(root) and ".." not in former.parts and (former / FILE_NAME).exists():
        return former
    return root / run_name(args)


def new_config(args) -> Config:
    """A new run's configuration, from the flags and the images."""
    given = {**settings(args), **sizes(args)}
    if args.dataset == "mnist":
        found = {"height": 28, "width": 28, "channels": 1}
        if given.get("channels") == 3:
            raise UserError("mnist images are grey: leave --channels out")
    else:
        folder = training_folder(args)
        names = dataset.thin(list_images(folder, args.input_fname_pattern).names, args.train_size)
        paths = [folder / name for name in names]
        channels, deep = probe(dataset.thin(paths, PROBED))
        found = {"channels": channels}
        if deep:
            found["min_value"], found["max_value"] = find_range(paths)
    return preset(args.preset or "default", **{**found, **given})


def dataset_folder(args) -> Path:
    """The folder of a data set of image files; a UserError that helps where there is none."""
    folder = Path(args.data_dir) / args.dataset
    if folder.is_dir():
        return folder
    there = ", ".join(dataset.available(args.data_dir)) or "none"
    fetched = args.dataset in ("celebA", "lsun", "elpv")
    remedy = f"fetch it with: python download.py {args.dataset}" if fetched else "put images there"
    raise UserError(f"{folder} does not exist: {remedy} (data sets in {args.data_dir}: {there})")


def contradictions(args, config: Config, free=()) -> None:
    """UserError for a flag that says other than the trained run."""
    for name, value in {**settings(args), **sizes(args)}.items():
        mine = getattr(config, name)
        if name not in FREE and name not in free and value != mine:
            raise UserError(
                f"this run was trained with {name.rstrip('_')} {mine}, not {value}: leave the flag "
                "out, or train another run under another --checkpoint_dir"
            )


def training_folder(args) -> Path:
    """The folder of the normal images to train on."""
    folder = dataset_folder(args)
    parts = dataset.layout(folder)
    return parts.train if parts else folder


def training_images(args, config: Config):
    """The ImageSet to train on; a UserError where it is too small."""
    limit = config.train_size or None
    if config.dataset == "mnist":
        classes = (config.normal_class, config.anomaly_class)
        images = dataset.mnist(
            args.data_dir, "train", *classes, config.height, config.width, limit=limit
        )
    else:
        folder = training_folder(args)
        images = dataset.image_folder(
            folder,
            config.pattern or None,
            *config.shape,
            crop=config.crop,
            value_range=config.value_range,
            training=True,
            exclude=_strictly_inside(folder, args.test_result_dir, args.mask_dir),
            limit=limit,
        )
    dataset.require(images, config.batch_size, "training images")
    return images


class Places(NamedTuple):
    """Where scoring finds the test images and their masks, and leaves the results."""

    images: Path
    masks: Path | None
    results: Path
    has_layout: bool  # of MVTec AD: that is how the places are known


def test_places(args, config: Config) -> Places:
    """As the flags say; else the parts of the data set, where it has a layout with a test set."""
    if args.test_dir:
        folder = Path(args.test_dir)
        parts = dataset.layout(folder.parent) if folder.name == "test" else dataset.layout(folder)
    else:
        folder = Path(args.data_dir) / config.dataset
        parts = dataset.layout(folder)
    if parts:
        images, masks, beside = parts.test, parts.masks, parts.test.parent
    else:
        images, masks = Path(args.test_dir or TEST_DIR), None
        beside = images
    masks = Path(args.mask_dir) if args.mask_dir else masks
    results = Path(args.test_result_dir or beside / "test_result")
    return Places(images, masks, results, parts is not None)


def _strictly_inside(folder, *others) -> list:
    """Those of some folders that lie inside a folder and are not that folder itself."""
    root = os.path.join(os.path.realpath(folder), "")
    return [other for other in others if other and os.path.realpath(other).startswith(root)]


def test_images(args, config: Config, places: Places):
    """The ImageSet to score: see test_places; for mnist, if none is given, its own."""
    if config.dataset == "mnist" and not args.test_dir:
        classes = (config.normal_class, config.anomaly_class)
        images = dataset.mnist(args.data_dir, "test", *classes, config.height, config.width)
    else:
        images = dataset.image_folder(
            places.images,
            args.input_fname_pattern,
            *config.shape,
            crop=config.crop,
            value_range=config.value_range,
            labelled=not args.labels,
            exclude=_strictly_inside(places.images, places.results, places.masks),
        )
        if args.labels:
            images = labelled(images, args.labels, places.images)
    dataset.require(images, 1, "images to score")
    if args.test_size and args.test_size < len(images):
        images = images.subset(np.linspace(0, len(images) - 1, args.test_size).astype(int))
    return images


class Test(NamedTuple):
    """What is to be scored, and how to decide; all that can be wrong with it was looked at."""

    images: dataset.ImageSet
    masks: Masks | None
    threshold: Threshold
    folder: Path  # for the results
    lines: list[str]  # for the user to read


def prepare_test(args, config: Config) -> Test:
    """Everything that scoring needs and the model does not; UserError where it cannot be had."""
    places = test_places(args, config)
    images, lines = test_images(args, config, places), []
    if places.has_layout:
        lines = [f"{places.images.parent} has the layout of MVTec AD: scoring {places.images}"]
    threshold = Threshold(
        args.threshold,
        Threshold.target_fpr if args.target_fpr is None else args.target_fpr,
        args.threshold_from or Threshold.rule,
    )
    if threshold.rule != "held_out" and (images.labels is None or len(set(images.labels)) < 2):
        raise UserError(f"--threshold_from {threshold.rule} needs labels of both sorts")
    masks = None
    if places.masks:
        try:
            masks = Masks(places.masks, images, config.crop)
            lines.append(masks.check())
        except UserError as error:
            if args.mask_dir:
                raise
            masks = None
            lines.append(f"no pixel measures: {error}")
    Output(places.results, FILES)
    require_writable(places.results)
    return Test(images, masks, threshold, places.results, lines + images.left_out)


def run_config(args) -> tuple[Config, dict]:
    """(configuration of the run that --train starts or goes on with, what the flags change)."""
    folder = run_folder(args)
    if not (folder / FILE_NAME).exists():
        return new_config(args), {}
    config = Config.load(folder)
    contradictions(args, config)
    changes = {k: v for k, v in settings(args).items() if k in FREE}
    return dataclasses.replace(config, **changes), changes


def train(args, config: Config, changes: dict, images):
    """Trains a new run, or goes on with the one that is there; the model.

    images: an ImageSet.
    """
    folder = run_folder(args)
    team = connect(args)
    from model import DCGAN, has_checkpoint, resolve_precision

    precision = resolve_precision(args.precision)
    if has_checkpoint(folder):
        model = DCGAN.load(folder, precision, team, **changes)
        say(f"going on from step {model.steps_done} of {folder}", team)
    else:
        model = DCGAN(config, precision, team)
    h, w, c = config.shape
    where = "" if config.dataset == "mnist" else f" from {training_folder(args)}"
    say(f"training on {len(images)} images{where} at {h} x {w} x {c}, {precision}", team)
    if config.value_range:
        low, high = config.value_range
        say(f"files of more than 8 bits a channel: {low:g} becomes black, {high:g} white", team)
    for line in [*images.left_out, *model.image_changes(images)]:
        say(line, team)
    name, before = output_name(folder), model.steps_done
    model.train(images, folder, Path(args.sample_dir) / name, Path(args.log_dir) / name)
    step = model.steps_done
    if step == before:
        say(f"nothing to do: trained to step {step} already; a larger --epoch goes on", team)
    elif team.chief:
        say(f"trained to step {step}: model in {folder}, samples in {args.sample_dir}/{name}")
        tell_fit(model.unexplained())
    tell_skipped(images)
    tell_remarks(images)
    return model


def tell_fit(unexplained) -> None:
    """How well held-out normal images are reconstructed; a warning where the model is useless."""
    if unexplained is None:
        return
    say(f"reconstructions leave {unexplained:.0%} of the variance of held-out normal images")
    if unexplained >= 1:
        logging.getLogger(__name__).warning(
            "no better than the mean image: train longer (--epoch), or anew with another --seed"
        )


def load(args):
    """The trained model that the flags mean."""
    folder = find_run(args)
    contradictions(args, Config.load(folder), free=("dataset", "seed"))
    team = connect(args)
    from model import DCGAN, resolve_precision

    changes = {} if args.lambda_ is None else {"lambda_": args.lambda_}
    return DCGAN.load(folder, resolve_precision(args.precision), team, **changes)


def connect(args):
    """The devices and machines of --strategy."""
    import_tensorflow()
    return distributed.Workers(args.strategy)


def anomaly_test(args, model, test: Test) -> None:
    """Scores the test images and writes the results."""
    images, team, folder = test.images, model.workers, test.folder
    for line in test.lines:
        say(line, team)
    say(f"scoring {len(images)} images", team)
    search = args.search, args.test_epoch, args.test_learning_rate
    formula = model.formula(*search)
    say(f"trust in the networks {told_trust(formula['trust'])}", team)
    results = Results(
        folder,
        images,
        model,
        model.normal_scores(*search),
        formula,
        model.pixel_threshold(test.threshold.target_fpr, *search),
        test.threshold,
        test.masks,
        args.save_maps,
    )
    if test.threshold.too_fine_for(results.normal):
        count = len(results.normal.scores)
        logging.getLogger(__name__).warning(
            "--target_fpr %g is finer than %d held-out normal images can show (1 in %d): "
            "the threshold is extrapolated",
            test.threshold.target_fpr,
            count,
            count,
        )
    results.settle()
    batch_size = min(args.test_batch_size, len(images))
    mine = team.share(len(images), batch_size)
    batches = images.subset(mine).batches(batch_size * team.devices)
    with results, tqdm(total=len(mine), unit="img", disable=not team.chief) as bar:
        for indices, batch in batches:
            found = model.anomaly_detector(batch, *search, batch_size)
            results.add(indices + mine.start, batch, found)
            bar.update(len(indices))
        bar.close()
        results.gather()
        if team.chief:
            say("drawing pictures, plots and the report")
            metrics = results.finish()
    tell_skipped(images)
    tell_remarks(images)
    if team.chief:
        tell_metrics(metrics)
        say(f"scores in {folder / 'scores.csv'}, pictures in {folder / 'pictures'}")
        say(f"report: {folder / 'report.html'}")


def tell_metrics(metrics) -> None:
    """The measures in a few lines."""
    if "auroc" in metrics:
        low, high = metrics["auroc_interval"]
        say(
            f"AUROC {metrics['auroc']:.4f} (95 % interval {low:.4f} to {high:.4f}), average "
            f"precision {metrics['average_precision']:.4f} "
            f"({metrics['normal']} normal, {metrics['anomalous']} anomalous images)"
        )
    if "pixel_auroc" in metrics:
        say(f"pixel AUROC {metrics['pixel_auroc']:.4f}, PRO {metrics['pro']:.4f}")
    if metrics["threshold"] is None:
        say(f"no threshold ({metrics['threshold_is']}): give --threshold")
        return
    line = f"threshold {metrics['threshold']:.4g} ({metrics['threshold_is']}): "
    line += f"{metrics['called_anomalous']} of {metrics['images']} images are called anomalous"
    at = metrics.get("at_threshold", {})
    parts = [
        f"{name.replace('_', ' ')} {at[name]:.3f}"
        for name in ("recall", "precision", "f1", "false_positive_rate")
        if name in at
    ]
    say("; ".join([line, *parts]))


def visualize(args, model) -> None:
    """A grid of samples, an interpolation in z, and early beside present images, scored."""
    folder = Path(args.sample_dir) / output_name(model.folder)
    record(folder, "samples.png", "interpolation.png", "early_and_now.png")
    pictures.samples(folder / "samples.png", model, args.generate_test_images, args.seed)
    pictures.interpolation(folder / "interpolation.png", model)
    early, now = pictures.early_and_now(folder / "early_and_now.png", model)
    say(f"mean anomaly score of G's first images {early:.3f}, of its present ones {now:.3f}")
    say(f"pictures in {folder}")


def tell_skipped(images) -> None:
    if images.skipped:
        say(f"skipped {len(images.skipped)} unreadable files, the first: {images.skipped[0][0]}")


def tell_remarks(images) -> None:
    """What is to be said of files that could be read."""
    for text, names in images.remarks.items():
        say(f"{text}: in {len(names)} of {len(images)} files, the first: {next(iter(names))}")


def import_tensorflow() -> None:
    """Slow, and without the lines that its libraries write about missing GPUs and the like."""
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def say(text: str, team=None) -> None:
    """A line for the user; of a team only the chief says it."""
    if team is None or team.chief:
        print(text, flush=True)


def run(args) -> None:
    """What the switches ask for; without any, samples from the trained model.

    Whatever can be wrong is looked at first, before TensorFlow's slow import and the training.
    """
    if args.dataset != "mnist":
        args.dataset = dataset_name(args)
    if args.train:
        config, changes = run_config(args)
        images = training_images(args, config)
    else:
        config = Config.load(find_run(args))
    test = prepare_test(args, config) if args.anomaly_test else None
    for folder in (args.sample_dir, args.log_dir, args.checkpoint_dir):
        require_writable(folder)
    if args.strategy == "multiworker":
        distributed.task()
    model = train(args, config, changes, images) if args.train else load(args)
    if test:
        anomaly_test(args, model, test)
    if model.workers.chief:
        if args.visualize:
            visualize(args, model)
        if not (args.train or args.anomaly_test or args.visualize):
            path = Path(args.sample_dir) / output_name(model.folder) / "samples.png"
            record(path.parent, path.name)
            pictures.samples(path, model, args.generate_test_images, args.seed)
            say(f"{args.generate_test_images} samples in {path}")
    model.workers.wait()  # a worker that leaves early looks lost
