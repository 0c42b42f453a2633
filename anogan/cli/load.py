"""The trained model that all commands but --train are for."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anogan.cli.options import Options
from anogan.cli.paths import find_run, require_run_of
from anogan.cli.printing import print_line
from anogan.cli.run import Devices, Run
from anogan.cli.settings import require_settings
from anogan.config import Config
from anogan.errors import UserError
from anogan.report.facts import UNFINISHED

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN


@dataclass(frozen=True)
class LoadPlan(Run):
    """A run that is there."""

    def execute(self) -> DCGAN:
        """Load the model; UserError where another run has taken its place meanwhile."""
        precision, workers = self.devices.connect()
        from model import DCGAN

        model = DCGAN.load(self.folder, precision, workers, **self.free_settings())
        if model.config != self.config:  # the images were prepared for that
            raise UserError(
                "the run was replaced by another meanwhile: give the same command again"
            )
        # it may be in training
        print_line(f"the model in {self.folder} as of step {model.progress}", workers)
        if workers.chief and model.steps_done < model.total_steps:
            logging.getLogger(__name__).warning(UNFINISHED)
        return model


def prepare(options: Options) -> LoadPlan:
    """Find the trained run that the flags mean; UserError where they contradict it."""
    folder = find_run(options)
    config = Config.load(folder)
    require_run_of(options, folder, config)
    require_settings(options, config, free=("dataset", "seed"))
    if options.lambda_ is not None:
        config = dataclasses.replace(config, lambda_=options.lambda_)
    return LoadPlan(folder, config, Devices.of(options))
