"""Trains a DCGAN on normal images and scores unseen ones by how far G can come to them.

python main.py --dataset mnist --normal_class 8 --train --anomaly_test
python main.py --dataset NAME --train             images in data/NAME
python main.py --dataset NAME --anomaly_test      images in test_data
"""

from __future__ import annotations

import signal
import sys

if (
    __name__ == "__main__"
    and sys._getframe().f_back is None  # not called by a notebook's %run, a profiler, a debugger
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the rest loads Ctrl-C just ends it

import contextlib
import dataclasses
import os

from anogan.cli.options import Options
from anogan.cli.parser import parse
from anogan.cli.printing import print_line, set_up_console
from anogan.errors import UserError
from anogan.runs.distributed import handled, hangup, lost, start_anew
from anogan.runs.files import printable
from anogan.runs.start_up import leave, open_streams


def run(options: Options) -> int:
    """Do what the flags ask for, or else draw samples; return the exit code.

    What can be wrong is looked at first, before TensorFlow's slow import and the training.
    """
    if options.compare:
        from anogan.evaluation import compare  # without TensorFlow
        from anogan.report import differences

        for line in compare.compared(*options.compare):
            print_line(line)
        print_line(differences.write(*options.compare))
        return 0
    from anogan.cli import deploy, draw, load, paths, score, train  # slow

    out = sys.stdout
    with contextlib.redirect_stdout(sys.stderr if options.json else out):
        dataset = paths.dataset_name(options.data_dir, options.dataset)
        options = dataclasses.replace(options, dataset=dataset)
        source = train.prepare(options) if options.train else load.prepare(options)
        plans = (
            score.prepare(options, source, out),
            draw.prepare(options, source),
            deploy.prepare_export(options, source),
            deploy.prepare_serving(options, source),
        )
        model = source.execute()
        codes = [plan.execute(model) for plan in plans if plan]
        model.workers.part()
    return max(codes, default=0)


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0, 1 for a user's error, 3 as --fail_on_anomaly says, 130 after Ctrl-C.

    Wrong arguments exit with 2.
    """
    options = parse(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    set_up_console()
    try:
        # save, as Ctrl-C does
        with handled(signal.default_int_handler, signal.SIGTERM, *hangup()):
            try:
                return run(options)
            except Exception as error:
                if options.strategy != "multiworker" or not lost(error):
                    raise
                start_anew()
    except UserError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {printable(f'{where}{error.strerror or error}')}", file=sys.stderr)
    except KeyboardInterrupt:
        print(
            "stopped; what was done is kept: run the same command again to go on", file=sys.stderr
        )
        return 130
    return 1


if __name__ == "__main__" and sys._getframe().f_back is None:  # the process is this script's own
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not open_streams() and "--json" in sys.argv:
        print("error: --json writes to standard output, which is closed", file=sys.stderr)
        leave(1)
    leave(main())
elif __name__ == "__main__":
    sys.exit(main())
