"""Trains a DCGAN on normal images and scores unseen ones by how far G can come to them.

python main.py --dataset mnist --normal_class 8 --train --anomaly_test
python main.py --dataset NAME --train             images in data/NAME
python main.py --dataset NAME --anomaly_test      images in test_data
"""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the rest loads Ctrl-C just ends it

import argparse
import io
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from anogan.cli.flags import check
from anogan.cli.options import Options
from anogan.config import LARGE_BATCH, LARGEST, LARGEST_CROP, PRESETS, Config
from anogan.errors import UserError
from anogan.runs.distributed import STRATEGIES, handled, lost, start_anew
from anogan.runs.files import printable
from anogan.runs.start_up import leave, open_streams

EXAMPLES = """examples:
  python download.py mnist                                     fetch real images
  python main.py --dataset mnist --normal_class 8 --train --anomaly_test
  python main.py --dataset celebA --input_height=108 --crop --train
  python main.py --dataset parts --train                       images in data/parts
  python main.py --dataset parts --anomaly_test                images in test_data
  python main.py --dataset parts --anomaly_test --test_dir photo.jpg --no-report
  python main.py --dataset parts --generate_test_images 36     draw samples
  python main.py --dataset parts --visualize

With sub-folders test_data/normal (or good) and others, AUROC is printed, too."""

DEFAULT = Config()
LARGEST_NUMBER = 10**9  # images and the like: of more nobody can mean it
MOST_DRAWN = 10_000  # samples, which make one picture
LONG = 30  # digits
NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)  # also -1e3


class Switch(argparse.Action):
    """--flag, --flag=true, --flag=false and --no-flag."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any):
        negative = [f"--no-{s[2:]}" for s in option_strings]
        super().__init__([*option_strings, *negative], dest, nargs="?", metavar="yes|no", **kwargs)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        value: Any,
        option_string: str | None = None,
    ) -> None:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        on = True if value is None else words.get(value.lower())
        if on is None:
            parser.error(f"{option_string} takes true or false, not {value}")
        setattr(namespace, self.dest, on != str(option_string).startswith("--no-"))


class OneLine(logging.Formatter):
    """A line for each record, whatever names of files it holds."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """An argparse type: an int or float from low to high, which are finite."""

    def convert(text: str) -> float:
        value = kind(text)
        if value in (math.inf, -math.inf) or value != value:
            raise argparse.ArgumentTypeError(f"must be a finite number, not {text}")
        if not low <= value <= high:
            shown = text if len(text) < LONG else f"a number of {len(text)} digits"
            raise argparse.ArgumentTypeError(
                f"must be at least {low} and at most {high}, not {shown}"
            )
        return value

    convert.__name__ = {int: "whole number", float: "number"}[kind]
    return convert


def parser() -> argparse.ArgumentParser:
    """All flags; those that are settings of Config default to None: not given."""
    p = argparse.ArgumentParser(
        prog="main.py",
        description="AnoGAN: unsupervised anomaly detection in images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p._negative_number_matcher = NEGATIVE  # of values; argparse's own takes -1e3 for a flag
    count = number(int, 1, LARGEST_NUMBER)
    side = number(int, 16, LARGEST)

    group = p.add_argument_group("what to do (without any: draw samples from the trained model)")
    group.add_argument(
        "--train", action=Switch, default=False, help="Train a model, or go on training it."
    )
    group.add_argument(
        "--anomaly_test", action=Switch, default=False, help="Score images with the trained model."
    )
    group.add_argument(
        "--compare",
        nargs=2,
        metavar=("RESULT_A", "RESULT_B"),
        help="Print the results in two folders side by side, and which images changed sides.",
    )
    group.add_argument(
        "--visualize",
        action=Switch,
        default=False,
        help="Draw samples, an interpolation in z, and early beside present images, scored.",
    )
    group.add_argument(
        "--generate_test_images",
        type=number(int, 1, MOST_DRAWN),
        default=64,
        metavar="N",
        help="Draw so many samples (default 64).",
    )
    group.add_argument(
        "--export",
        choices=("onnx", "saved_model"),
        help="Write the trained model, from image to decision, as one file for ONNX Runtime, or as "
        "a folder for TensorFlow.",
    )
    group.add_argument(
        "--serve",
        type=number(int, 0, 65535),
        nargs="?",
        const=8000,
        metavar="PORT",
        help="Show a page on this machine (default port 8000; 0: any that is free) on which "
        "images are dropped and scored, and answer POST /score.",
    )

    group = p.add_argument_group("images")
    a = group.add_argument
    a(
        "--dataset",
        default="celebA",
        metavar="NAME",
        help="Train on the images in data/NAME (default celebA).",
    )
    a(
        "--data_dir",
        default="data",
        metavar="DIR",
        help="Look for data sets in this folder (default data).",
    )
    a(
        "--input_fname_pattern",
        metavar="PATTERN",
        help="Take the files with such names as images (default: all image types).",
    )
    a("--train_size", type=count, metavar="N", help="Train on at most N images (default: all).")
    a(
        "--drop",
        metavar="FILE",
        help="Train without the images that this file names, one a line, such as suspicious.txt.",
    )
    a(
        "--normal_class",
        type=number(int, 0, 9),
        metavar="DIGIT",
        help="With mnist, take this digit for normal and all others for anomalous.",
    )
    a(
        "--anomaly_class",
        type=number(int, 0, 9),
        metavar="DIGIT",
        help="With mnist, take this digit for anomalous and all others for normal.",
    )
    a(
        "--crop",
        action=Switch,
        default=None,
        help="Cut out the centre of each image before it is resized (default no).",
    )
    a(
        "--input_height",
        type=number(int, 1, LARGEST_CROP),
        metavar="PIXELS",
        help="Cut out a centre of this height (default 108).",
    )
    a(
        "--input_width",
        type=number(int, 1, LARGEST_CROP),
        metavar="PIXELS",
        help="Cut out a centre of this width (default: its height).",
    )
    a(
        "--output_height",
        type=side,
        metavar="PIXELS",
        help="Resize images to this height, 16 to 256, with --window up to 4096 (default 64; mnist "
        "28).",
    )
    a(
        "--output_width",
        type=side,
        metavar="PIXELS",
        help="Resize images to this width (default: their height).",
    )
    a(
        "--window",
        type=number(int, 0, LARGEST_NUMBER),
        metavar="PIXELS",
        help="Look at images through overlapping windows of this side, 16 to 256; 0: at whole "
        "images (default: windows of 64 on images that would lose small defects at 64).",
    )
    a(
        "--channels",
        type=int,
        choices=(1, 3),
        help="Use grey (1) or colour (3) images (default: as they are).",
    )

    group = p.add_argument_group("networks")
    a = group.add_argument
    a(
        "--preset",
        choices=tuple(PRESETS),
        help="Use the default method, or the classic one of the 2017 paper.",
    )
    a(
        "--z_dim",
        type=number(int, 1, 4096),
        metavar="N",
        help=f"Give z so many dimensions (default {DEFAULT.z_dim}; classic 100).",
    )
    a(
        "--gf_dim",
        type=number(int, 1, 1024),
        metavar="N",
        help=f"Give G's last stage so many channels (default {DEFAULT.gf_dim}; classic 64).",
    )
    a(
        "--df_dim",
        type=number(int, 1, 1024),
        metavar="N",
        help=f"Give D's first stage so many channels (default {DEFAULT.df_dim}; classic 64).",
    )
    a(
        "--lambda",
        dest="lambda_",
        type=number(float, 0, 1),
        metavar="FRACTION",
        help="Weigh the discrimination loss so in the score, beside the residual loss "
        f"(default {DEFAULT.lambda_}; classic 0.1).",
    )

    group = p.add_argument_group("training")
    a = group.add_argument
    a(
        "--epoch",
        dest="epochs",
        type=number(float, 0.001, 10**6),
        metavar="N",
        help=f"Train for N passes over the images (default: {DEFAULT.steps} batches; classic 25).",
    )
    a(
        "--batch_size",
        type=number(int, 2, 65536),
        metavar="N",
        help=f"Train on batches of N images (default {DEFAULT.batch_size}; of more than 32 x 32 "
        f"pixels {LARGE_BATCH}).",
    )
    a(
        "--learning_rate",
        type=number(float, 1e-8, 1),
        metavar="RATE",
        help=f"Use this learning rate of Adam (default {DEFAULT.learning_rate}; classic 0.0002).",
    )
    a(
        "--beta1",
        type=number(float, 0, 0.9999),
        metavar="B",
        help=f"Use this beta1 of Adam (default {DEFAULT.beta1}).",
    )
    a(
        "--validation_fraction",
        type=number(float, 0, 0.9),
        metavar="FRACTION",
        help="Hold out this fraction of the training images, to scale the scores and find "
        f"the threshold (default {DEFAULT.validation_fraction}).",
    )
    # the seed of a step's random numbers holds it eight times over
    a(
        "--seed",
        type=number(int, 0, 2**28 - 1),
        metavar="N",
        help=f"Draw all random numbers from this seed (default {DEFAULT.seed}).",
    )
    a(
        "--strategy",
        choices=STRATEGIES,
        default="none",
        help="Train and score on all GPUs (mirrored), or on the machines in TF_CONFIG "
        "(multiworker) (default none).",
    )
    a(
        "--precision",
        choices=("auto", "float32", "mixed_bfloat16"),
        default="auto",
        help="Compute in this precision (default auto: bfloat16 where it is faster).",
    )

    group = p.add_argument_group("scoring")
    a = group.add_argument
    a(
        "--test_dir",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="Score these files, and the images in these folders (default: the data set's own test "
        "images, or test_data).",
    )
    a(
        "--search",
        choices=("gradient", "encoder", "hybrid"),
        help="Find z by backpropagation (gradient), by the encoder, or by backpropagation from "
        "the encoder's z on (hybrid) (default: encoder, if there is one).",
    )
    a(
        "--test_epoch",
        type=number(int, 0, 100_000),
        metavar="STEPS",
        help="Search z for so many steps (default: gradient 50, hybrid 20).",
    )
    a(
        "--test_learning_rate",
        type=number(float, 1e-8, 10),
        default=0.1,
        metavar="RATE",
        help="Search z at this learning rate (default 0.1).",
    )
    a(
        "--test_batch_size",
        type=number(int, 1, 65536),
        default=256,
        metavar="N",
        help="Score N images at once (default 256).",
    )
    a(
        "--test_size",
        type=count,
        metavar="N",
        help="Score only N images, evenly spaced (default: all).",
    )

    group = p.add_argument_group("decision")
    a = group.add_argument
    a(
        "--target_fpr",
        type=number(float, 1e-9, 0.5),
        metavar="FRACTION",
        help="Set the threshold so that this fraction of normal images is called anomalous "
        "(default 0.05).",
    )
    a(
        "--threshold",
        type=number(float, -1e30, 1e30),
        metavar="SCORE",
        help="Call images anomalous that score above this.",
    )
    a(
        "--threshold_from",
        choices=("held_out", "youden", "f1"),
        help="Find the threshold from held-out normal images, or from the test's labels by "
        "Youden's J or the best F1 (default held_out).",
    )
    a(
        "--labels",
        metavar="FILE.csv",
        help="Read labels from a table with the columns file, label and, if any, kind.",
    )
    a(
        "--mask_dir",
        metavar="DIR",
        help="Measure pixels by the masks in this folder, named NAME or NAME_mask, white where "
        "anomalous (default: the data set's ground_truth, if there is one).",
    )
    a(
        "--save_maps",
        action=Switch,
        default=False,
        help="Save the anomaly map of every image (default no).",
    )
    a(
        "--report",
        action=Switch,
        default=True,
        help="Make pictures, plots and the page (default yes); scores.csv and metrics.json always.",
    )
    a(
        "--json",
        action=Switch,
        default=False,
        help="Write a line of JSON for each image, then one that sums up, to standard output, and "
        "all other lines to standard error (default no).",
    )
    a(
        "--fail_on_anomaly",
        action=Switch,
        default=False,
        help="Exit with 3 where an image is called anomalous (default no).",
    )

    group = p.add_argument_group("folders")
    a = group.add_argument
    a(
        "--checkpoint_dir",
        default="checkpoints",
        metavar="DIR",
        help="Keep runs in this folder, or use the one run in it (default checkpoints).",
    )
    a(
        "--sample_dir",
        default="samples",
        metavar="DIR",
        help="Write samples to this folder (default samples).",
    )
    a(
        "--test_result_dir",
        metavar="DIR",
        help="Write results to this folder (default: test_result in the folder of test images, or "
        "beside the first of several).",
    )
    a(
        "--log_dir",
        default="logs",
        metavar="DIR",
        help="Write curves for TensorBoard to this folder (default logs).",
    )
    a(
        "--export_dir",
        metavar="DIR",
        help="Write what --export makes to this folder (default: the run's).",
    )

    group = p.add_argument_group("serving")
    group.add_argument(
        "--serve_host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="Listen at this address of the machine, 0.0.0.0: at all, where anybody in the network "
        "can send images (default 127.0.0.1: only programs on this machine).",
    )
    return p


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, 1 for a user's error, 3 as --fail_on_anomaly says, 130 after Ctrl-C.

    Wrong arguments exit with 2.
    """
    p = parser()
    args = p.parse_args(arguments)
    check(p, args)
    options = Options(**vars(args))
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
