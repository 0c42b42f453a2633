"""What the switches of main.py do: train, score, visualize, sample."""

from __future__ import annotations

import dataclasses
import logging
import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

import data
import pictures
import workers
from config import FILE_NAME, FREE, Config, preset
from errors import UserError
from labels import labelled
from masks import Masks
from results import Results, Threshold
from utils import find_names, probe

PROBED = 64  # images that are looked at to know whether they are grey or colour
TEST_DIR = "test_data"


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
    return args.dataset


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
    return root if (root / FILE_NAME).exists() else root / run_name(args)


def new_config(args) -> Config:
    """A new run's configuration, from the flags and the images."""
    given = {**settings(args), **sizes(args)}
    if args.dataset == "mnist":
        found = {"height": 28, "width": 28, "channels": 1}
        if given.get("channels") == 3:
            raise UserError("mnist images are grey: leave --channels out")
    else:
        folder = dataset_folder(args)
        names = data.thin(find_names(folder, args.input_fname_pattern), PROBED)
        channels, white = probe([folder / name for name in names])
        found = {"channels": channels, "white": white}
    return preset(args.preset or "default", **{**found, **given})


def dataset_folder(args) -> Path:
    """The folder of a data set of image files; a UserError that helps where there is none."""
    folder = Path(args.data_dir) / args.dataset
    if folder.is_dir():
        return folder
    there = ", ".join(data.available(args.data_dir)) or "none"
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


def training_images(args, config: Config):
    """The ImageSet to train on; a UserError where it is too small."""
    limit = config.train_size or None
    if config.dataset == "mnist":
        classes = (config.normal_class, config.anomaly_class)
        images = data.mnist(
            args.data_dir, "train", *classes, config.height, config.width, limit=limit
        )
    else:
        images = data.image_folder(
            dataset_folder(args),
            config.pattern or None,
            *config.shape,
            crop=config.crop,
            white=config.white,
            limit=limit,
        )
    data.require(images, config.batch_size, "training images")
    return images


def test_images(args, config: Config):
    """The ImageSet to score: those in --test_dir; for mnist, if none is given, its own."""
    if config.dataset == "mnist" and not args.test_dir:
        classes = (config.normal_class, config.anomaly_class)
        images = data.mnist(args.data_dir, "test", *classes, config.height, config.width)
    else:
        images = data.image_folder(
            args.test_dir or TEST_DIR,
            args.input_fname_pattern,
            *config.shape,
            crop=config.crop,
            white=config.white,
            labelled=not args.labels,
            exclude=(result_folder(args),),
        )
        if args.labels:
            images = labelled(images, args.labels, args.test_dir or TEST_DIR)
    data.require(images, 1, "images to score")
    if args.test_size and args.test_size < len(images):
        images = images.subset(np.linspace(0, len(images) - 1, args.test_size).astype(int))
    return images


def result_folder(args) -> Path:
    return Path(args.test_result_dir or Path(args.test_dir or TEST_DIR) / "test_result")


def train(args):
    """Trains a new run, or goes on with the one that is there; the model."""
    folder = run_folder(args)
    changes = {}
    if (folder / FILE_NAME).exists():
        config = Config.load(folder)
        contradictions(args, config)
        changes = {k: v for k, v in settings(args).items() if k in FREE}
        config = dataclasses.replace(config, **changes)
    else:
        config = new_config(args)
    images = training_images(args, config)
    team = connect(args)
    from model import DCGAN, has_checkpoint, resolve_precision

    precision = resolve_precision(args.precision)
    if has_checkpoint(folder):
        model = DCGAN.load(folder, precision, team, **changes)
        say(f"going on from step {model.steps_done} of {folder}", team)
    else:
        model = DCGAN(config, precision, team)
    h, w, c = config.shape
    say(f"training on {len(images)} images of {h} x {w} x {c} in {folder}, {precision}", team)
    name, before = folder.name, model.steps_done
    model.train(images, folder, Path(args.sample_dir) / name, Path(args.log_dir) / name)
    step = model.steps_done
    if step == before:
        say(f"nothing to do: trained to step {step} already; a larger --epoch goes on", team)
    elif team.chief:
        say(f"trained to step {step}: model in {folder}, samples in {args.sample_dir}/{name}")
        tell_fit(model.unexplained())
    tell_skipped(images)
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
    return workers.Workers(args.strategy)


def anomaly_test(args, model) -> None:
    """Scores the test images and writes the results."""
    images, team = test_images(args, model.config), model.workers
    folder = result_folder(args)
    target_fpr = args.target_fpr or Threshold.target_fpr
    threshold = Threshold(args.threshold, target_fpr, args.threshold_from or Threshold.rule)
    if threshold.rule != "held_out" and (images.labels is None or len(set(images.labels)) < 2):
        raise UserError(f"--threshold_from {threshold.rule} needs labels of both sorts")
    masks = Masks(args.mask_dir, images, model.config.crop) if args.mask_dir else None
    if masks:
        say(masks.check(), team)
    say(f"scoring {len(images)} images", team)
    search = args.search, args.test_epoch, args.test_learning_rate
    results = Results(
        folder,
        images,
        model,
        model.normal_scores(*search),
        model.pixel_threshold(target_fpr, *search),
        threshold,
        masks,
        args.save_maps,
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
        say("no threshold: too few held-out normal images; give --threshold")
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
    folder = Path(args.sample_dir) / model.folder.name
    pictures.samples(folder / "samples.png", model, args.generate_test_images, args.seed)
    pictures.interpolation(folder / "interpolation.png", model)
    early, now = pictures.early_and_now(folder / "early_and_now.png", model)
    say(f"mean anomaly score of G's first images {early:.3f}, of its present ones {now:.3f}")
    say(f"pictures in {folder}")


def tell_skipped(images) -> None:
    if images.skipped:
        say(f"skipped {len(images.skipped)} unreadable files, the first: {images.skipped[0][0]}")


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
    """What the switches ask for; without any, samples from the trained model."""
    if args.anomaly_test and not args.train:
        test_images(args, Config.load(find_run(args)))  # errors before TensorFlow's slow import
    if args.strategy == "multiworker":
        workers.task()
    model = train(args) if args.train else load(args)
    if args.anomaly_test:
        anomaly_test(args, model)
    if model.workers.chief:
        if args.visualize:
            visualize(args, model)
        if not (args.train or args.anomaly_test or args.visualize):
            path = Path(args.sample_dir) / model.folder.name / "samples.png"
            pictures.samples(path, model, args.generate_test_images, args.seed)
            say(f"{args.generate_test_images} samples in {path}")
    model.workers.wait()  # a worker that leaves early looks lost
