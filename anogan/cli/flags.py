"""Which flags of main.py go together; wrong ones end the program with exit code 2."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import re

from anogan.cli.options import spelt
from anogan.config import LARGEST_WINDOW
from anogan.runs.files import printable

PATHS = (
    *("dataset", "data_dir", "test_dir", "labels", "mask_dir", "checkpoint_dir", "sample_dir"),
    *("test_result_dir", "log_dir", "export_dir", "drop", "compare"),
)
OF_TENSORFLOW = "dataset", "checkpoint_dir", "log_dir", "export_dir"  # it reads and writes there
COMMANDS = "train", "anomaly_test", "compare", "visualize", "export", "serve"  # none: draw
# Flags, and the commands for which they count
USED_BY = (
    (("preset", "epochs", "batch_size", "learning_rate", "beta1", "log_dir"), ("train",)),
    (
        ("test_dir", "test_size", "test_batch_size", "labels", "mask_dir")
        + ("save_maps", "report", "test_result_dir", "json", "fail_on_anomaly"),
        ("anomaly_test",),
    ),
    (("search", "target_fpr", "threshold", "threshold_from"), ("anomaly_test", "export", "serve")),
    (("test_epoch", "test_learning_rate"), ("anomaly_test", "serve")),
    (("input_fname_pattern",), ("train", "anomaly_test")),
    (("export_dir",), ("export",)),
    (("serve_host", "serve_allow"), ("serve",)),
    (("generate_test_images",), ("draw", "visualize")),
    (("sample_dir", "seed"), ("draw", "train", "visualize")),
)


def check(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with exit code 2 where flags do not go together, which each by itself cannot show."""
    is_mnist = args.dataset == "mnist"
    if args.normal_class is not None and args.anomaly_class is not None:
        p.error("--normal_class and --anomaly_class exclude each other: give one")
    if not is_mnist and (args.normal_class is not None or args.anomaly_class is not None):
        p.error("--normal_class and --anomaly_class are for --dataset mnist")
    if is_mnist and (args.crop or args.input_fname_pattern):
        p.error("--crop and --input_fname_pattern are not for --dataset mnist")
    if args.drop is not None and (is_mnist or not args.train):
        p.error("--drop is for training on a folder of images: add --train and --dataset NAME")
    if is_mnist and args.window:
        p.error("--window is for larger images than mnist's 28 x 28: leave it out")
    for flag in ("output_height", "output_width"):
        if (getattr(args, flag) or 0) > LARGEST_WINDOW and not args.window:
            p.error(
                f"--{flag} must be at most {LARGEST_WINDOW} where images are seen whole: "
                "add --window 64"
            )
    if args.window and not 16 <= args.window <= LARGEST_WINDOW:
        p.error(f"--window must be 0 or from 16 to {LARGEST_WINDOW}, not {args.window}")
    if is_mnist and not {args.input_height, args.input_width} <= {None, 28}:
        p.error("mnist images are 28 x 28: leave --input_height and --input_width out")
    if args.train and not is_mnist and not args.crop and (args.input_height or args.input_width):
        p.error("--input_height and --input_width are the size of the centre crop: add --crop")
    by_labels = args.threshold_from in ("youden", "f1")
    if args.threshold is not None and (args.target_fpr is not None or args.threshold_from):
        p.error("--threshold and --target_fpr or --threshold_from exclude each other: give one")
    if args.target_fpr is not None and by_labels:
        p.error("--target_fpr is for the threshold from held-out images, not from labels")
    if is_mnist and not args.test_dir and (args.labels or args.mask_dir):
        p.error("--labels and --mask_dir are for image folders: name yours with --test_dir")
    check_used(p, args)
    for flag in (*PATHS, "serve_host"):
        if getattr(args, flag) == "" or (flag == "test_dir" and "" in (args.test_dir or ())):
            p.error(f"--{flag} is empty: name a folder or file, or leave it out")
    if not args.train and os.path.isfile(args.checkpoint_dir):
        name = printable(args.checkpoint_dir)
        p.error(f"--checkpoint_dir {name} is a file: name the folder of a run, or of runs")
    for flag in OF_TENSORFLOW:
        if not is_utf8(getattr(args, flag) or ""):
            p.error(f"--{flag} is not in UTF-8, which TensorFlow needs: give it another name")
    if args.export and args.search not in (None, "encoder"):
        p.error(f"--export writes the encoder's way to score: leave --search {args.search} out")
    if by_labels and (args.export or args.serve is not None):
        p.error(
            f"--threshold_from {args.threshold_from} needs labels, which --export and --serve have "
            "not: give --threshold"
        )
    if args.serve is not None and args.strategy != "none":
        p.error("--serve scores one image at a time: leave --strategy out")
    for name in args.serve_allow or ():
        if not is_host(name):
            p.error(
                f"--serve_allow {printable(name)}: give a host's name or address alone, such as "
                "parts.example, without http://, port and path"
            )


def check_used(p: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with exit code 2 where a flag would do nothing."""
    asked = {name for name in COMMANDS if given(p, args, name)}
    others = {name for name in vars(args) if given(p, args, name)} - {"compare"}
    if args.compare and others:
        p.error(f"--compare stands alone: leave {', '.join(map(spelt, sorted(others)))} out")
    for flags, commands in USED_BY:
        useless = [f for f in flags if given(p, args, f) and not (asked or {"draw"}) & {*commands}]
        if useless:
            flag = "--no-report" if useless[0] == "report" else spelt(useless[0])
            remedies = " or ".join(f"--{name}" for name in commands if name != "draw")
            p.error(f"{flag} does nothing here: leave it out, or add {remedies}")


def given(p: argparse.ArgumentParser, args: argparse.Namespace, name: str) -> bool:
    """Return whether a flag says other than its default; a port or a number of 0 may."""
    value = getattr(args, name)
    return value is not None and value != p.get_default(name)


def is_host(text: str) -> bool:
    """Return whether a text is a host's address, IPv6 in brackets or not, or may be its name."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
        return True
    return re.fullmatch(r"[\w-]+(\.[\w-]+)*", text, re.ASCII) is not None


def is_utf8(text: str) -> bool:
    """Return whether a name is text: it may hold other bytes, which Python keeps as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
