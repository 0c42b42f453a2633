"""The commands --export and --serve."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anogan.cli.options import Options
from anogan.cli.printing import print_line
from anogan.cli.run import Run
from anogan.cli.settings import search_of, threshold_of
from anogan.deploy import export
from anogan.method.scoring import Search
from anogan.method.threshold import Threshold

if TYPE_CHECKING:  # it imports TensorFlow, which is slow
    from model import DCGAN


@dataclass(frozen=True)
class ExportPlan:
    """What --export needs besides the model."""

    kind: str  # of export.ENDS
    path: Path
    threshold: Threshold

    def execute(self, model: DCGAN) -> int:
        """Write the model as one file or folder, in float32, which all machines compute alike."""
        from anogan.deploy.inference_graph import graph_and_facts

        if not model.workers.chief:
            return 0
        if model.precision != "float32" or model.workers.devices > 1:
            assert model.folder
            model = type(model).load(model.folder, lambda_=model.config.lambda_)
        calibration = model.keep_calibration().suiting(self.threshold)
        made = model.config, model.detector, calibration, self.threshold, model.steps_done
        print_line(export.export(self.kind, self.path, *graph_and_facts(*made)))
        return 0


def prepare_export(options: Options, run: Run) -> ExportPlan | None:
    """Find where the export goes; None where none is asked for."""
    if not options.export:
        return None
    path = export.prepare(options.export, run.config, run.folder, options.export_dir)
    return ExportPlan(options.export, path, threshold_of(options))


@dataclass(frozen=True)
class ServePlan:
    """What --serve needs besides the model."""

    listener: socket.socket
    host: str
    allowed: Sequence[str]  # other hosts by which it may be asked for
    threshold: Threshold
    search: Search

    def execute(self, model: DCGAN) -> int:
        """Serve the page until Ctrl-C."""
        from anogan.deploy import serve

        calibration = model.keep_calibration(self.search).suiting(self.threshold)
        service = serve.Service(
            model.config,
            calibration,
            lambda images: model.anomaly_detector(images, self.search, 1, calibration),
            self.threshold,
        )
        serve.serve(service, self.listener, self.host, self.allowed)
        return 0


def prepare_serving(options: Options, run: Run) -> ServePlan | None:
    """Listen at the port of --serve, so that it is known to be free; None if not asked for."""
    if options.serve is None:
        return None
    from anogan.deploy import serve  # its library may be missing

    search = search_of(options, run.config)
    listener = serve.listen(options.serve_host, options.serve)
    hosts = options.serve_host, options.serve_allow or ()
    return ServePlan(listener, *hosts, threshold_of(options), search)
