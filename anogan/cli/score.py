"""The command --anomaly_test."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from anogan.cli.options import Options
from anogan.cli.paths import Places, strictly_inside, test_places
from anogan.cli.printing import print_line, print_skipped, print_warnings
from anogan.cli.trained import calibrate, only_chief
from anogan.config import Config
from anogan.data import image_set, mnist
from anogan.data.folders import Selection, find_images, image_folder
from anogan.data.image_set import ImageSet
from anogan.data.labels import labelled
from anogan.data.masks import Masks
from anogan.errors import UserError
from anogan.evaluation.output import Output
from anogan.evaluation.results import FILES, Decision, Results
from anogan.method.scoring import Detection
from anogan.method.threshold import Threshold
from anogan.report.facts import told_expected
from anogan.runs.files import require_writable
from anogan.runs.progress import progress

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN

PRINTED = 20  # images whose score is printed
ANOMALOUS = 3  # exit code of --fail_on_anomaly


class Test(NamedTuple):
    """What is to be scored, and how to decide; all that can be wrong with it was looked at."""

    images: ImageSet
    masks: Masks | None
    threshold: Threshold
    folder: Path  # for the results
    lines: list[str]  # for the user to read


def test_images(options: Options, config: Config, places: Places) -> ImageSet:
    """The ImageSet to score: see test_places; for mnist, if none is given, its own."""
    if config.dataset == "mnist" and not options.test_dir:
        classes = (config.normal_class, config.anomaly_class)
        images = mnist.mnist(options.data_dir, "test", *classes, config.height, config.width)
    else:
        wanted = Selection(
            options.input_fname_pattern,
            excluded=tuple(strictly_inside(places.images, places.results, places.masks)),
            chosen=places.chosen,
        )
        by_folder = not (options.labels or places.chosen)
        images = image_folder(find_images(places.images, wanted), config.form, by_folder)
        if options.labels:
            images = labelled(images, options.labels, places.images)
    image_set.require(images, 1, "images to score")
    if options.test_size and options.test_size < len(images):
        images = images.subset(np.linspace(0, len(images) - 1, options.test_size).astype(int))
    return images


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


def anomaly_test(options: Options, model: DCGAN, test: Test, out: TextIO | None = None) -> int:
    """Scores the test images and writes the results, and JSON to `out`; the exit code."""
    with only_chief(options, test.folder, "scoring", "--test_result_dir"):
        return _anomaly_test(options, model, test, out)


def _anomaly_test(options: Options, model: DCGAN, test: Test, out: TextIO | None) -> int:
    images, team, folder = test.images, model.workers, test.folder
    for line in test.lines:
        print_line(line, team)
    print_line(f"scoring {len(images)} images", team)
    search = model.search(options.search, options.test_epoch, options.test_learning_rate)
    calibration = calibrate(model, team, search)
    print_line(told_expected(calibration.expected), team)
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
        print_line(f"going on: {len(images) - len(left)} of them are scored already", team)
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
                print_line("drawing pictures, plots and the report")
            metrics = results.finish()
    print_skipped(images)
    print_warnings(images)
    if not team.chief:
        return 0
    decisions = results.decisions(metrics["threshold"])
    print_decisions(decisions)
    print_metrics(metrics)
    if options.report:
        print_line(f"scores in {folder / 'scores.csv'}, pictures in {folder / 'pictures'}")
        print_line(f"report: {folder / 'report.html'}")
    else:
        print_line(f"scores in {folder / 'scores.csv'}")
    if out:
        skipped = [{"file": name, "reason": reason} for name, reason in images.skipped]
        summary = {"summary": {**metrics, "skipped_files": skipped, "results": str(folder)}}
        for found in (*(decision._asdict() for decision in decisions), summary):
            print(json.dumps(found), file=out)
        out.flush()
    return exit_code(decisions, images) if options.fail_on_anomaly else 0


def print_decisions(decisions: list[Decision]) -> None:
    """A line for each of the first images."""
    for file, score, threshold, is_anomaly, *_ in decisions[:PRINTED]:
        if threshold is None:
            print_line(f"{file}: score {score:.4g}")
        else:
            called = "anomalous" if is_anomaly else "normal"
            print_line(f"{file}: score {score:.4g}, threshold {threshold:.4g}: {called}")
    if len(decisions) > PRINTED:
        print_line(f"and {len(decisions) - PRINTED} more in scores.csv")


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


def print_metrics(metrics: dict[str, Any]) -> None:
    """The measures in a few lines."""
    if "auroc" in metrics:
        low, high = metrics["auroc_interval"]
        print_line(
            f"AUROC {metrics['auroc']:.4f} (95 % interval {low:.4f} to {high:.4f}), average "
            f"precision {metrics['average_precision']:.4f} "
            f"({metrics['normal']} normal, {metrics['anomalous']} anomalous images)"
        )
    if "pixel_auroc" in metrics:
        print_line(f"pixel AUROC {metrics['pixel_auroc']:.4f}, AU-PRO {metrics['au_pro']:.4f}")
    if metrics["threshold"] is None:
        print_line(f"no threshold ({metrics['threshold_is']}): give --threshold")
        return
    line = f"threshold {metrics['threshold']:.4g} ({metrics['threshold_is']}): "
    line += f"{metrics['called_anomalous']} of {metrics['images']} images are called anomalous"
    at = metrics.get("at_threshold", {})
    parts = [
        f"{name.replace('_', ' ')} {at[name]:.3f}"
        for name in ("recall", "precision", "f1", "false_positive_rate")
        if name in at
    ]
    print_line("; ".join([line, *parts]))
