"""The trained model that the flags mean: found, loaded, calibrated."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anogan.cli.options import Options
from anogan.cli.paths import find_run, require_run_of
from anogan.cli.printing import print_line
from anogan.cli.settings import contradictions
from anogan.config import Config
from anogan.method.scoring import Calibration, Search
from anogan.report.facts import UNFINISHED
from anogan.runs import distributed
from anogan.runs.files import clear_temporaries
from anogan.runs.lock import LOCK, only_one
from anogan.runs.start_up import UNUSED, import_tensorflow

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN


def trained_config(options: Options) -> Config:
    """The configuration of the trained model that the flags mean."""
    folder = find_run(options)
    config = Config.load(folder)
    require_run_of(options, folder, config)
    contradictions(options, config, free=("dataset", "seed"))
    return config


def connect(options: Options) -> distributed.Workers:
    """The devices and machines of --strategy."""
    import_tensorflow(*UNUSED)
    gc.freeze()  # it is not looked through for garbage again and again
    return distributed.Workers(options.strategy)


def load(options: Options) -> DCGAN:
    """The trained model that the flags mean."""
    folder = find_run(options)
    team = connect(options)
    from model import DCGAN

    changes = {} if options.lambda_ is None else {"lambda_": options.lambda_}
    model = DCGAN.load(folder, distributed.resolve_precision(options.precision), team, **changes)
    print_line(f"the model in {folder} as of step {model.progress}", team)  # it may be in training
    if team.chief and model.steps_done < model.total_steps:
        logging.getLogger(__name__).warning(UNFINISHED)
    return model


@contextlib.contextmanager
def only_chief(options: Options, folder: Path, what: str, flag: str) -> Iterator[None]:
    """The chief is the only one that writes to a folder; UserError where another process does."""
    if options.strategy == "multiworker" and distributed.task()[0]:
        yield
        return
    busy = f"another {what} is at work in {folder}: wait until it ends, or name another {flag}"
    with only_one(folder / LOCK, busy):
        clear_temporaries(folder)
        yield


def calibrate(model: DCGAN, team: distributed.Workers, search: Search | None = None) -> Calibration:
    """Return a search's calibration; prints that it is found first, which may take long.

    And warns where held-out images that should be normal look as if they were not.
    """

    def begin() -> None:
        chosen, count = model.search(search), len(model.images.held_out)
        steps = f", {chosen.steps} steps each" if chosen.steps else ""
        print_line(
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
