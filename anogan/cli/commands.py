"""What the switches of main.py do: train, score, visualize, sample."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from anogan.cli.options import Options
from anogan.cli.paths import (
    Places,
    dataset_name,
    find_run,
    output_name,
    require_run_of,
    run_folder,
    strictly_inside,
    test_places,
    training_folder,
)
from anogan.config import FILE_NAME, FREE, Config, preset
from anogan.data import drop_list, folders, image_set, mnist, scale
from anogan.data.folders import list_images
from anogan.data.image_set import ImageSet
from anogan.data.labels import labelled
from anogan.data.masks import Masks
from anogan.deploy import export
from anogan.errors import UserError
from anogan.evaluation.output import Output
from anogan.evaluation.results import FILES, Decision, Results
from anogan.method import suspicious
from anogan.method.scoring import Calibration, Detection, Search
from anogan.method.threshold import Threshold
from anogan.report.facts import UNFINISHED, told_expected
from anogan.runs import distributed, estimate
from anogan.runs.files import clear_temporaries, printable, require_writable, unused_path
from anogan.runs.lock import LOCK, only_one
from anogan.runs.progress import progress
from anogan.runs.start_up import UNUSED, import_tensorflow
from utils import find_range, probe

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN

FEW_IMAGES = 100  # to train on: of fewer the user is warned
# benchmarks/few_images.py
TOLD_OF_FEW = "on digits AUROC was 0.93 with 20, 0.96 with 100 and 0.98 with 5,851 of them"
TOLD = 20  # images whose score is printed
ANOMALOUS = 3  # exit code of --fail_on_anomaly
PROBED = 64  # images that are looked at to know whether they are grey or colour, 8 bits or more


def settings(options: Options) -> dict[str, Any]:
    """The settings of Config that flags gave."""
    names = {f.name for f in dataclasses.fields(Config)}
    given = {k: v for k, v in vars(options).items() if k in names and v is not None}
    given.pop("crop", None)
    if options.dataset == "mnist":
        return given
    if options.crop:
        given["crop_height"] = options.input_height or 108
        given["crop_width"] = options.input_width or given["crop_height"]
    elif options.crop is False:
        given["crop_height"] = given["crop_width"] = 0
    elif options.input_height:  # scoring: the trained crop, said once more
        given["crop_height"] = options.input_height
    if options.input_fname_pattern and options.train:
        given["pattern"] = options.input_fname_pattern
    return given


def sizes(options: Options) -> dict[str, Any]:
    """Height and width, as far as flags gave them."""
    given: dict[str, Any] = {}
    if options.output_height:
        given["height"] = options.output_height
    if options.output_width or options.output_height:
        given["width"] = options.output_width or options.output_height
    return given


def new_config(options: Options) -> Config:
    """A new run's configuration, from the flags and the images."""
    given = {**settings(options), **sizes(options)}
    if options.dataset == "mnist":
        found: dict[str, Any] = {"height": 28, "width": 28, "channels": 1}
        if given.get("channels") == 3:
            raise UserError("mnist images are grey: leave --channels out")
    else:
        folder = training_folder(options)
        names, *_ = folders.without(
            options.drop, list_images(folder, options.input_fname_pattern).names, folder
        )
        names = image_set.thin(names, options.train_size)
        paths = [folder / name for name in names]
        some = image_set.thin(paths, PROBED)
        channels, deep = probe(some)
        found = {"channels": channels}
        if deep:
            found["min_value"], found["max_value"] = find_range(paths)
        found |= _scale(options, some, channels)
    return preset(options.preset or "default", **{**found, **given})


def _scale(options: Options, some: list[Path], channels: int) -> dict[str, Any]:
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


def contradictions(options: Options, config: Config, free: Collection[str] = ()) -> None:
    """UserError for a flag that says other than the trained run."""
    for name, value in {**settings(options), **sizes(options)}.items():
        mine = getattr(config, name)
        if name not in FREE and name not in free and value != mine:
            raise UserError(
                f"this run was trained with {name.rstrip('_')} {mine}, not {value}: leave the flag "
                "out, or train another run under another --checkpoint_dir"
            )


def require_same(expected: Config, found: Config) -> None:
    """UserError where a run was replaced by another one while this process started."""
    if any(
        getattr(found, f.name) != getattr(expected, f.name)
        for f in dataclasses.fields(Config)
        if f.name not in FREE
    ):
        raise UserError("the run was replaced by another meanwhile: give the same command again")


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
        images = folders.image_folder(
            folder,
            config.pattern or None,
            *config.shape,
            crop=config.crop,
            value_range=config.value_range,
            training=True,
            exclude=strictly_inside(folder, options.test_result_dir, options.mask_dir),
            limit=limit,
            drop=options.drop,
            dropped=dropped,
        )
    return images


def fit_batch(config: Config, changes: dict, images: ImageSet) -> tuple[Config, dict]:
    """(configuration, what it changes of the run) with a batch that there are images for.

    A warning where it is lowered, and where there are few images. UserError for fewer than two.
    """
    enough = max(config.batch_size, FEW_IMAGES)
    usable = image_set.require(images, 2, "training images", enough)
    log = logging.getLogger(__name__)
    if usable < FEW_IMAGES:
        log.warning("only %d training images: %s", usable, TOLD_OF_FEW)
    if usable >= config.batch_size:
        return config, changes
    lowered = usable - usable % 2
    log.warning(
        "%d training images are too few for a batch of %d: the batch is lowered to %d",
        *(usable, config.batch_size, lowered),
    )
    return dataclasses.replace(config, batch_size=lowered), {**changes, "batch_size": lowered}


def test_images(options: Options, config: Config, places: Places) -> ImageSet:
    """The ImageSet to score: see test_places; for mnist, if none is given, its own."""
    if config.dataset == "mnist" and not options.test_dir:
        classes = (config.normal_class, config.anomaly_class)
        images = mnist.mnist(options.data_dir, "test", *classes, config.height, config.width)
    else:
        images = folders.image_folder(
            places.images,
            options.input_fname_pattern,
            *config.shape,
            crop=config.crop,
            value_range=config.value_range,
            labelled=not (options.labels or places.chosen),
            exclude=strictly_inside(places.images, places.results, places.masks),
            chosen=places.chosen,
        )
        if options.labels:
            images = labelled(images, options.labels, places.images)
    image_set.require(images, 1, "images to score")
    if options.test_size and options.test_size < len(images):
        images = images.subset(np.linspace(0, len(images) - 1, options.test_size).astype(int))
    return images


class Test(NamedTuple):
    """What is to be scored, and how to decide; all that can be wrong with it was looked at."""

    images: ImageSet
    masks: Masks | None
    threshold: Threshold
    folder: Path  # for the results
    lines: list[str]  # for the user to read


def threshold_of(options: Options) -> Threshold:
    return Threshold(
        options.threshold,
        Threshold.target_fpr if options.target_fpr is None else options.target_fpr,
        options.threshold_from or Threshold.rule,
    )


def prepare_test(options: Options, config: Config) -> Test:
    """Everything that scoring needs and the model does not; UserError where it cannot be had."""
    places = test_places(options, config)
    images, lines = test_images(options, config, places), []
    if places.has_layout:
        lines = [f"{places.images.parent} has the layout of MVTec AD: scoring {places.images}"]
    threshold = threshold_of(options)
    if threshold.uses_labels and (images.labels is None or len(set(images.labels)) < 2):
        raise UserError(f"--threshold_from {threshold.rule} needs labels of both sorts")
    masks = None
    if places.masks and os.path.realpath(places.masks) == os.path.realpath(places.images):
        raise UserError(f"{places.masks} holds images and masks: put the masks into another folder")
    if places.masks:
        try:
            masks = Masks(places.masks, images, config.crop)
            lines.append(masks.check())
        except UserError as error:
            if options.mask_dir:
                raise
            masks = None
            lines.append(f"no pixel measures: {error}")
    if not options.test_result_dir and places.results.is_symlink():
        raise UserError(
            f"{places.results} is a link, and results would be written where it leads: remove it, "
            "or name the folder for the results with --test_result_dir"
        )
    Output(places.results, FILES)
    require_writable(places.results)
    return Test(images, masks, threshold, places.results, lines + images.left_out)


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
    with _only(options, folder, "training run", "--checkpoint_dir"):
        if kept_by(folder) != before:
            raise UserError(
                f"another training run was at work in {folder} until now: the same command goes on "
                "from there, or says what is other; or name another --checkpoint_dir"
            )
        return _train(options, folder, config, changes, images)


@contextlib.contextmanager
def _only(options: Options, folder: Path, what: str, flag: str) -> Iterator[None]:
    """The chief is the only one that writes to a folder; UserError where another process does."""
    if options.strategy == "multiworker" and distributed.task()[0]:
        yield
        return
    busy = f"another {what} is at work in {folder}: wait until it ends, or name another {flag}"
    with only_one(folder / LOCK, busy):
        clear_temporaries(folder)
        yield


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
        say(f"going on from step {model.steps_done} of {folder}", team)
    else:
        model = DCGAN(config, precision, team)
    h, w, c = config.shape
    where = "" if config.dataset == "mnist" else f" from {training_folder(options)}"
    seen = f", through windows of {config.window}" if config.window else ""
    say(f"training on {len(images)} images{where} at {h} x {w} x {c}{seen}, {precision}", team)
    if config.value_range:
        low, high = config.value_range
        say(f"files of more than 8 bits a channel: {low:g} becomes black, {high:g} white", team)
    for line in [*images.left_out, *model.images.changes(images.dated())]:
        say(line, team)
    name, before = output_name(folder), model.steps_done
    left = model.steps_of(images) - before
    if left > 0:
        say(estimate.told(model.config, len(images), left, distributed.has_gpu()), team)
    if team.chief:
        drop_list.keep_dropped(folder, images.dropped)
        clear_temporaries(Path(options.sample_dir) / name)
    model.train(images, folder, Path(options.sample_dir) / name, Path(options.log_dir) / name)
    step = model.steps_done
    if step == before:
        say(f"nothing to do: trained to step {step} already; a larger --epoch goes on", team)
    elif team.chief:
        say(f"trained to step {step}: model in {folder}, samples in {options.sample_dir}/{name}")
        tell_fit(model.unexplained())
    calibrate(model, team)  # for the usual search, so that scoring begins at once
    samples = Path(options.sample_dir) / name
    unlisted = not (samples / suspicious.LIST).exists()  # the last run was stopped before that
    if (step > before or unlisted) and team.chief and config.dataset != "mnist":
        count = min(len(images), suspicious.most(model.search()))
        say(f"ranking {count} training images by how odd they are")
        tell_suspicious(model, images, samples)
    tell_skipped(images)
    print_warnings(images)
    return model


def calibrate(model: DCGAN, team: distributed.Workers, search: Search | None = None) -> Calibration:
    """Of a way to search; the user is told where it is to be found first, for that may take long.

    And where held-out images that should be normal look as if they were not.
    """

    def begin() -> None:
        chosen, count = model.search(search), len(model.images.held_out)
        steps = f", {chosen.steps} steps each" if chosen.steps else ""
        say(
            f"measuring {count} held-out normal images, and some with planted anomalies, to scale "
            f"the scores (--search {chosen.kind}{steps})",
            team,
        )

    calibration = model.keep_calibration(search, begin=begin)
    normal = calibration.normal_scores
    if team.chief and normal and (outliers := normal.outliers()):
        logging.getLogger(__name__).warning(
            "%d of %d held-out normal images score far above all others (%.3g; half of all are "
            "below %.3g) and raise the threshold: if they are not normal (suspicious.txt in the "
            "samples may name them), train without them (--drop), or give --threshold",
            *(outliers, len(normal.scores), normal.scores[-1], np.median(normal.scores)),
        )
    return calibration


def tell_suspicious(model: DCGAN, images: ImageSet, folder: Path) -> None:
    """Ranks the training images by how odd they are, and writes which are the oddest."""
    indices, scores = suspicious.rank(
        model.detector, model.search(), model.keep_calibration(), images
    )
    try:
        path, sheet, count = suspicious.write(folder, images, indices, scores)
    except (OSError, UserError) as error:  # a run can do without
        logging.getLogger(__name__).warning("no list of the oddest training images: %s", error)
        return
    of_many = f" (evenly spaced ones of {len(images)})" if len(indices) < len(images) else ""
    say(
        f"are all normal? The oddest {count} of {len(indices)} training images{of_many} are in "
        f"{path} and on {sheet}: take the lines of good ones out and train anew with --drop {path}"
    )
    say(
        "ranked by memories that had not seen the image, and by the discriminator, which was "
        "trained on most of them: what is odd may look a little less so"
    )


def tell_fit(unexplained: float | None) -> None:
    """How well held-out normal images are reconstructed; a warning where the model is useless."""
    if unexplained is None:
        return
    say(f"reconstructions leave {unexplained:.0%} of the variance of held-out normal images")
    if unexplained >= 1:
        logging.getLogger(__name__).warning(
            "no better than the mean image: train longer (--epoch), or anew with another --seed"
        )


def trained_config(options: Options) -> Config:
    """The configuration of the trained model that the flags mean."""
    folder = find_run(options)
    config = Config.load(folder)
    require_run_of(options, folder, config)
    contradictions(options, config, free=("dataset", "seed"))
    return config


def load(options: Options) -> DCGAN:
    """The trained model that the flags mean."""
    folder = find_run(options)
    team = connect(options)
    from model import DCGAN

    changes = {} if options.lambda_ is None else {"lambda_": options.lambda_}
    model = DCGAN.load(folder, distributed.resolve_precision(options.precision), team, **changes)
    say(f"the model in {folder} as of step {model.progress}", team)  # it may be in training
    if team.chief and model.steps_done < model.total_steps:
        logging.getLogger(__name__).warning(UNFINISHED)
    return model


def connect(options: Options) -> distributed.Workers:
    """The devices and machines of --strategy."""
    import_tensorflow(*UNUSED)
    gc.freeze()  # it is not looked through for garbage again and again
    return distributed.Workers(options.strategy)


def anomaly_test(options: Options, model: DCGAN, test: Test, out: TextIO | None = None) -> int:
    """Scores the test images and writes the results, and JSON to `out`; the exit code."""
    with _only(options, test.folder, "scoring", "--test_result_dir"):
        return _anomaly_test(options, model, test, out)


def _anomaly_test(options: Options, model: DCGAN, test: Test, out: TextIO | None) -> int:
    images, team, folder = test.images, model.workers, test.folder
    for line in test.lines:
        say(line, team)
    say(f"scoring {len(images)} images", team)
    search = model.search(options.search, options.test_epoch, options.test_learning_rate)
    calibration = calibrate(model, team, search)
    say(told_expected(calibration.expected), team)
    batch_size = min(options.test_batch_size, len(images))

    def detect(batch: np.ndarray) -> Detection:
        return model.anomaly_detector(batch, search, batch_size, calibration)

    results = Results(
        folder,
        images,
        model,
        calibration,
        test.threshold,
        test.masks,
        options.save_maps,
        search=search,
        batch_size=batch_size * team.devices,
        detect=detect,
        report=options.report,
    )
    if test.threshold.too_fine_for(results.normal):
        count = len(calibration.scores)
        logging.getLogger(__name__).warning(
            "--target_fpr %g is finer than %d held-out normal images can show (1 in %d): "
            "the threshold is extrapolated",
            test.threshold.target_fpr,
            count,
            count,
        )
    left = results.settle()
    if len(left) < len(images):
        say(f"going on: {len(images) - len(left)} of them are scored already", team)
    share = team.share(len(left), results.batch_size)
    mine = left[share.start : share.stop]
    batches = images.subset(mine).batches(results.batch_size)
    with results, progress(len(mine), "img", "scoring", shown=team.chief) as bar:
        for indices, batch in batches:
            results.add(mine[indices], batch, detect(batch))
            bar.update(len(indices))
        bar.close()
        results.gather()
        if team.chief:
            if options.report:
                say("drawing pictures, plots and the report")
            metrics = results.finish()
    tell_skipped(images)
    print_warnings(images)
    if not team.chief:
        return 0
    decisions = results.decisions(metrics["threshold"])
    tell_decisions(decisions)
    tell_metrics(metrics)
    if options.report:
        say(f"scores in {folder / 'scores.csv'}, pictures in {folder / 'pictures'}")
        say(f"report: {folder / 'report.html'}")
    else:
        say(f"scores in {folder / 'scores.csv'}")
    if out:
        skipped = [{"file": name, "reason": reason} for name, reason in images.skipped]
        summary = {"summary": {**metrics, "skipped_files": skipped, "results": str(folder)}}
        for found in (*(decision._asdict() for decision in decisions), summary):
            print(json.dumps(found), file=out)
        out.flush()
    return exit_code(decisions, images) if options.fail_on_anomaly else 0


def tell_decisions(decisions: list[Decision]) -> None:
    """A line for each of the first images."""
    for file, score, threshold, is_anomaly, *_ in decisions[:TOLD]:
        if threshold is None:
            say(f"{file}: score {score:.4g}")
        else:
            called = "anomalous" if is_anomaly else "normal"
            say(f"{file}: score {score:.4g}, threshold {threshold:.4g}: {called}")
    if len(decisions) > TOLD:
        say(f"and {len(decisions) - TOLD} more in scores.csv")


def exit_code(decisions: list[Decision], images: ImageSet) -> int:
    """Of --fail_on_anomaly; UserError where it cannot be told that there is none."""
    if any(decision.is_anomaly for decision in decisions):
        return ANOMALOUS
    if any(decision.is_anomaly is None for decision in decisions):
        raise UserError("--fail_on_anomaly needs a threshold, and there is none: give --threshold")
    if images.skipped:
        raise UserError(
            f"--fail_on_anomaly: {len(images.skipped)} files could not be read and are not "
            f"judged, the first: {images.skipped[0][0]} ({images.skipped[0][1]})"
        )
    return 0


def tell_metrics(metrics: dict[str, Any]) -> None:
    """The measures in a few lines."""
    if "auroc" in metrics:
        low, high = metrics["auroc_interval"]
        say(
            f"AUROC {metrics['auroc']:.4f} (95 % interval {low:.4f} to {high:.4f}), average "
            f"precision {metrics['average_precision']:.4f} "
            f"({metrics['normal']} normal, {metrics['anomalous']} anomalous images)"
        )
    if "pixel_auroc" in metrics:
        say(f"pixel AUROC {metrics['pixel_auroc']:.4f}, AU-PRO {metrics['au_pro']:.4f}")
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
    say(f"mean anomaly score of G's first images {early:.3f}, of its present ones {now:.3f}")
    say(f"pictures in {folder}")


def tell_skipped(images: ImageSet) -> None:
    if images.skipped:
        say(f"skipped {len(images.skipped)} unreadable files, the first: {images.skipped[0][0]}")


def print_warnings(images: ImageSet) -> None:
    """What is to be said of files that could be read."""
    for text, names in images.warnings.items():
        say(f"{text}: in {len(names)} of {len(images)} files, the first: {next(iter(names))}")


def say(text: str, team: distributed.Workers | None = None) -> None:
    """A line for the user; of a team only the chief says it."""
    if team is None or team.chief:
        print(printable(text), flush=True)


def run(options: Options) -> int:
    """What the switches ask for; without any, samples from the trained model. The exit code.

    With --json standard output is for JSON alone.
    """
    if not options.json:
        return _run(options)
    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        return _run(options, out)


def _run(options: Options, out: TextIO | None = None) -> int:
    """What can be wrong is looked at first, before TensorFlow's slow import and the training."""
    if options.dataset != "mnist":
        options = dataclasses.replace(options, dataset=dataset_name(options))
    if options.train:
        before = kept_by(run_folder(options))
        config, changes = run_config(options)
        images = training_images(options, config, before.dropped if before else ())
        config, changes = fit_batch(config, changes, images)
    else:
        config = trained_config(options)
    test = prepare_test(options, config) if options.anomaly_test else None
    if options.export:
        run = run_folder(options) if options.train else find_run(options)
        place = export.prepare(options.export, config, run, options.export_dir)
    if options.serve is not None:
        from anogan.deploy import serve  # its library may be missing

        listener = serve.listen(options.serve_host, options.serve)
    if options.train:
        for folder in (options.log_dir, options.checkpoint_dir):
            require_writable(folder)
    deploys = options.export or options.serve is not None
    draws = not (options.train or options.anomaly_test or options.visualize or deploys)
    if draws or options.train or options.visualize:
        require_writable(options.sample_dir)
    if options.strategy == "multiworker":
        distributed.task()
    if options.train:
        model = train(options, before, config, changes, images)
    else:
        model = load(options)
        require_same(config, model.config)
    code = anomaly_test(options, model, test, out) if test else 0
    if model.workers.chief:
        if options.visualize:
            visualize(options, model)
        if options.export:
            say(export.export(model, options.export, place, threshold_of(options)))
        if draws:
            from anogan.report import pictures

            path = unused_path(sample_folder(options, model), "samples.png")
            pictures.samples(path, model, options.generate_test_images, options.seed)
            say(f"{options.generate_test_images} samples in {path}")
        if options.serve is not None:
            search = model.search(options.search, options.test_epoch, options.test_learning_rate)
            service = serve.Service(model, threshold_of(options), search)
            serve.serve(service, listener, options.serve_host)
    model.workers.wait()  # a worker that leaves early looks lost
    return code
