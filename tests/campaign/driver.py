"""Runs commands of main.py as processes that start at once: forked from one with TensorFlow.

stdin: a JSON line for each, {"cwd", "arguments", "setup"}; stdout: its process id, and when it is
over its exit code; what it prints goes to the file descriptor that is this script's argument.
setup: Python statements before it, such as limits. Nothing that TensorFlow computes with has begun
when it is forked.
"""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import main
import model  # noqa: F401  # what is slow to import
from anogan.cli import deploy, draw, load, score, train  # noqa: F401
from anogan.method import training  # noqa: F401
from anogan.report import showing  # noqa: F401


def run(order):
    for name, place in ("stdout", 1), ("stderr", 2):
        os.dup2(int(sys.argv[1]), place)
        setattr(sys, name, os.fdopen(os.dup(place), "w"))
    os.chdir(order["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    exec(order["setup"], {"training": training, "os": os})
    code = main.main(order["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    return code


for line in sys.stdin:
    pid = os.fork()
    if not pid:
        code = 99  # a traceback
        try:
            code = run(json.loads(line))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(code)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
