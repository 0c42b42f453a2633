"""The command --anomaly_test."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from zlib import crc32

import numpy as np

from anogan.cli.options import Options
from anogan.cli.paths import Places, strictly_inside, test_places
from anogan.cli.printing import (
    print_decisions,
    print_line,
    print_metrics,
    print_outliers,
    print_search,
    print_skipped,
    print_warnings,
    write_json,
)
from anogan.cli.run import Devices, Run
from anogan.cli.settings import search_of, threshold_of
from anogan.config import Config
from anogan.data import mnist
from anogan.data.choosing import require
from anogan.data.folders import Selection, find_images, image_folder
from anogan.data.image_set import ImageSet
from anogan.data.labels import labelled
from anogan.data.masks import Masks
from anogan.errors import UserError
from anogan.evaluation.best import Best
from anogan.evaluation.metrics import LABELS
from anogan.evaluation.outcome import Decision, Outcome, decide
from anogan.evaluation.result_folder import FILES, REPORT, SCORES, ResultFolder
from anogan.evaluation.scoring import Scoring
from anogan.method.scoring import Calibration, Detection, Search
from anogan.method.threshold import Threshold
from anogan.report.facts import expectation
from anogan.runs import provenance
from anogan.runs.files import require_writable
from anogan.runs.progress import progress

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN

ANOMALOUS = 3  # exit code of --fail_on_anomaly


@dataclass(frozen=True)
class ScorePlan:
    """What --anomaly_test needs; all that can be wrong with it was looked at."""

    images: ImageSet
    masks: Masks | None
    threshold: Threshold
    folder: Path  # for the results
    notes: list[str]  # for the user to read
    search: Search
    batch_size: int
    save_maps: bool
    report: bool
    fail_on_anomaly: bool
    json: TextIO | None  # where JSON goes; None: nowhere
    devices: Devices

    def execute(self, model: DCGAN) -> int:
        """Score the images and write the results; return the exit code."""
        with self.devices.only_writer(self.folder, "scoring", "--test_result_dir"):
            outcome = score_images(self, model)
        print_skipped(self.images)
        print_warnings(self.images)
        if outcome is None:
            return 0
        print_decisions(outcome.decisions)
        print_metrics(outcome.metrics)
        pictures = f", pictures in {self.folder / 'pictures'}" if self.report else ""
        print_line(f"scores in {self.folder / SCORES}{pictures}")
        if self.report:
            print_line(f"report: {self.folder / REPORT}")
        if self.json:
            write_json(self.json, outcome, self.folder)
        return exit_code(outcome.decisions, self.images) if self.fail_on_anomaly else 0


def prepare(options: Options, run: Run, out: TextIO) -> ScorePlan | None:
    """Find all that scoring needs besides the model; None where it is not asked for.

    out: for JSON. UserError for what cannot be had.
    """
    if not options.anomaly_test:
        return None
    places = test_places(options, run.config)
    (images, beside), threshold = test_images(options, run.config, places), threshold_of(options)
    if threshold.uses_labels and (images.labels is None or len(set(images.labels)) < 2):
        raise UserError(f"--threshold_from {threshold.rule} needs labels of both sorts")
    required = bool(options.mask_dir)
    masks, mask_note = masks_of(places, images, beside, run.config, required)
    if not options.test_result_dir and places.results.is_symlink():
        raise UserError(
            f"{places.results} is a link, and results would be written where it leads: remove it, "
            "or name the folder for the results with --test_result_dir"
        )
    ResultFolder(places.results, FILES)
    require_writable(places.results)
    layout = f"{places.images.parent} has the layout of MVTec AD: scoring {places.images}"
    notes = [layout] * places.has_layout + mask_note + images.left_out
    return ScorePlan(
        *(images, masks, threshold, places.results, notes, search_of(options, run.config)),
        *(options.test_batch_size, options.save_maps, options.report, options.fail_on_anomaly),
        *(out if options.json else None, run.devices),
    )


def masks_of(
    places: Places, images: ImageSet, beside: list[str], config: Config, required: bool
) -> tuple[Masks | None, list[str]]:
    """Return the masks, None where none can be used, and what the user should know of them.

    beside: names of masks that lie beside the images. UserError where they are required and cannot
    be used.
    """
    folder = places.masks or (places.images if beside else None)
    if not folder:
        return None, []
    is_same = os.path.realpath(folder) == os.path.realpath(places.images)
    if is_same and not beside:
        raise UserError(f"{folder} holds images and masks: put the masks into another folder")
    try:
        masks = Masks(folder, images, config.crop, beside if is_same else None)
        return masks, [masks.check()]
    except UserError as error:
        if required:
            raise
        return None, [f"no pixel measures: {error}"]


def test_images(options: Options, config: Config, places: Places) -> tuple[ImageSet, list[str]]:
    """Return the images to score, see test_places, and the names of masks beside them.

    For mnist, if none is given, its own.
    """
    beside = list[str]()
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
        listing = find_images(places.images, wanted)
        images, beside = image_folder(listing, config.form, by_folder), listing.masks
        if options.labels:
            images = labelled(images, options.labels, places.images)
    require(images, 1, "images to score")
    if options.test_size and options.test_size < len(images):
        images = images.subset(np.linspace(0, len(images) - 1, options.test_size).astype(int))
    return images, beside


def score_images(plan: ScorePlan, model: DCGAN) -> Outcome | None:
    """Make rows, then measures and decisions, then pictures and the page, and publish all.

    Return what the set comes to, None where this process is not the chief.
    """
    images, team, rule = plan.images, model.workers, plan.threshold
    for line in plan.notes:
        print_line(line, team)
    print_line(f"scoring {len(images)} images", team)
    search, held_out = plan.search, len(model.images.held_out)
    calibration = model.keep_calibration(search, begin=lambda: print_search(search, held_out, team))
    counted = calibration.suiting(rule)  # all else, such as a score, is the same by every rule
    if rule.by_rate:
        print_outliers(counted, team)
    print_line(expectation(calibration.expected), team)
    rule.warn_of(counted.normal_scores)
    batch_size = model.inference.together(len(images), plan.batch_size)
    seen = images.at(model.config.shape)  # by the networks

    def detect(batch: np.ndarray) -> Detection:
        return model.anomaly_detector(batch, search, batch_size, calibration)

    # a threshold from labels is known only when all scores are
    near = None if rule.uses_labels else rule.choose(counted.normal_scores, None, None)[0]
    best = Best(near=near) if plan.report else None
    together = batch_size * team.devices
    pixel_threshold = counted.pixel_threshold(rule.target_fpr)
    scoring = Scoring(
        *(plan.folder, seen, team, identity(model, calibration, search, together), together),
        pixel_threshold=pixel_threshold,
        masks=plan.masks,
        save_map=map_writer(pixel_threshold) if plan.save_maps else None,
        best=best,
    )
    left = scoring.resume()
    if len(left) < len(images):
        print_line(f"going on: {len(images) - len(left)} of them are scored already", team)
    share = team.share(len(left), together)
    mine = left[share.start : share.stop]
    with scoring, progress(len(mine), "img", "scoring", shown=team.chief) as bar:
        for indices, batch in images.subset(mine).batches(together):
            scoring.add(mine[indices], detect(batch))
            bar.update(len(indices))
        bar.close()
        rows = scoring.gather()
        if not team.chief:
            return None
        if best:
            print_line("drawing pictures, plots and the report")
        outcome = decide(images, rows, rule, calibration, origin(model, search))
        outcome.write(scoring.folder.staging)
        if best:
            draw_report(scoring.folder.staging, model, outcome, best, detect, plan.masks)
        scoring.folder.publish()
    return outcome


def draw_report(
    folder: Path,
    model: DCGAN,
    outcome: Outcome,
    best: Best,
    detect: Callable[[np.ndarray], Detection],
    masks: Masks | None,
) -> None:
    """Write pictures, plots and the page."""
    from anogan.report import showing  # Matplotlib is slow to load

    groups = best.complete(outcome.rows.indices, outcome.scores, outcome.images, detect)
    shown = showing.Shown(outcome, best.pictures, masks.read if masks else None)
    showing.write(folder, shown, groups, features(model, outcome))


def identity(
    model: DCGAN, calibration: Calibration, search: Search, batch_size: int
) -> dict[str, int]:
    """Return checksums of what scores depend on but the images, by name."""
    settings = model.config, calibration, search, batch_size
    return {
        "model": model.checksum(),
        "precision": crc32(model.precision.encode()),
        "settings": crc32(repr(settings).encode()),
    }


def map_writer(threshold: float) -> Callable[[Path, np.ndarray, np.ndarray], None]:
    """Return what writes the files of an anomaly map, see Scoring."""
    from anogan.report.pictures import save_map  # Matplotlib is slow to load

    return partial(save_map, threshold=threshold)


def origin(model: DCGAN, search: Search) -> dict[str, Any]:
    """Return what the figures in metrics.json are of."""
    return {
        "dataset": model.config.dataset,
        "run": None if model.folder is None else str(model.folder),
        "step": model.steps_done,
        "total_steps": model.total_steps,
        "size": " x ".join(map(str, model.config.shape)),
        "window": model.config.window,
        "search": str(search),
        "precision": model.precision,
        "versions": provenance.versions(),
        "date": provenance.now(),
    }


def features(model: DCGAN, outcome: Outcome) -> dict[str, np.ndarray]:
    """Return D's features (m, d) of some images of each label, and of some trained on."""
    from anogan.report.plots import TSNE_IMAGES  # Matplotlib is slow to load

    indices, known = outcome.rows.indices, outcome.labels
    names = ("images",) if known is None else LABELS
    found = {}
    for label, name in enumerate(names):
        some = indices if known is None else indices[known == label]
        images, _ = outcome.images.read(some[:TSNE_IMAGES])
        if len(images):
            found[name] = model.features(images)
    if len(model.images.seen):
        # kept as the networks see them, so not of the size that model.features takes
        seen = model.images.seen[:TSNE_IMAGES]
        found["normal, trained on"] = model.inference.features(seen)
    return found


def exit_code(decisions: list[Decision], images: ImageSet) -> int:
    """Return that of --fail_on_anomaly; UserError where it is not known that there is none."""
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
