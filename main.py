"""Trains a DCGAN on normal images and scores unseen ones by how far G can come to them.

python main.py --dataset mnist --normal_class 8 --train --anomaly_test
python main.py --dataset NAME --train             images in data/NAME
python main.py --dataset NAME --anomaly_test      images in test_data
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the rest loads Ctrl-C just ends it

import io
import logging
import os
import sys

from anogan.cli.parser import parse
from anogan.errors import UserError
from anogan.runs.distributed import handled, lost, start_anew
from anogan.runs.files import printable
from anogan.runs.start_up import leave, open_streams


class OneLine(logging.Formatter):
    """A line for each record, whatever names of files it holds."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, 1 for a user's error, 3 as --fail_on_anomaly says, 130 after Ctrl-C.

    Wrong arguments exit with 2.
    """
    options = parse(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console may lack the letters of a file's name
            stream.reconfigure(errors="backslashreplace")
    console = logging.StreamHandler()
    console.setFormatter(OneLine("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[console])
    try:
        with handled(signal.default_int_handler, signal.SIGTERM):  # saves, as Ctrl-C does
            if options.compare:
                from anogan.evaluation import compare  # without TensorFlow

                print(*map(printable, compare.compared(*options.compare)), sep="\n")
                return 0
            from anogan.cli import run  # slow: only when the arguments are good

            try:
                return run.run(options)
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


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if not open_streams() and "--json" in sys.argv:
        print("error: --json writes to standard output, which is closed", file=sys.stderr)
        leave(1)
    leave(main())
