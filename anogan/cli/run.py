"""What the switches of main.py do, one after the other."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import TextIO

from anogan.cli.draw import draw_samples, visualize
from anogan.cli.options import Options
from anogan.cli.paths import dataset_name, find_run, run_folder
from anogan.cli.printing import print_line
from anogan.cli.score import anomaly_test, prepare_test, threshold_of
from anogan.cli.settings import require_same
from anogan.cli.train import fit_batch, kept_by, run_config, train, training_images
from anogan.cli.trained import load, trained_config
from anogan.deploy import export
from anogan.runs import distributed
from anogan.runs.files import require_writable


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
            print_line(export.export(model, options.export, place, threshold_of(options)))
        if draws:
            draw_samples(options, model)
        if options.serve is not None:
            search = model.search(options.search, options.test_epoch, options.test_learning_rate)
            calibration = model.keep_calibration(search)
            service = serve.Service(
                model.config,
                calibration,
                lambda images: model.anomaly_detector(images, search, 1, calibration),
                threshold_of(options),
            )
            serve.serve(service, listener, options.serve_host)
    model.workers.wait()  # a worker that leaves early looks lost
    return code
