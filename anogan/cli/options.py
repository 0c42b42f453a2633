"""The command line's options, typed: a field for each flag, in the order of --help."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from anogan.config import CLASSIC, LARGEST_SET, Config
from anogan.recipe import RECIPES, SEARCHES
from anogan.runs.distributed import STRATEGIES
from anogan.settings import Setting, described, setting

USUAL = RECIPES["default"]


def of_config(name: str) -> Any:
    """Return a field for the flag of one of Config's settings; None: not given."""
    one = described(Config)[name]
    help = one.help.format(default=getattr(Config, name), classic=CLASSIC.get(name))
    return field(default=None, metadata={Setting: dataclasses.replace(one, help=help)})


@dataclass(frozen=True)
class Options:
    """What flags say; None: not given."""

    # what to do
    train: bool = setting(False, "Train a model, or go on training it.")
    anomaly_test: bool = setting(False, "Score images with the trained model.")
    compare: Sequence[str] | None = setting(
        None,
        "Print the results in two folders side by side, and which images changed sides.",
        metavar=("RESULT_A", "RESULT_B"),
        nargs=2,
    )
    visualize: bool = setting(False, "Draw samples and an interpolation in z.")
    generate_test_images: int = setting(
        64, "Draw so many samples (default {default}).", (1, 10_000), "N"
    )
    export: str | None = setting(
        None,
        "Write the trained model, from image to decision, as one file for ONNX Runtime or "
        "TensorFlow Lite, or as a folder for TensorFlow.",
        choices=("onnx", "tflite", "saved_model"),
    )
    serve: int | None = setting(
        None,
        "Show a page on this machine (default port 8000; 0: any that is free) on which "
        "images are dropped and scored, and answer POST /score.",
        (0, 65535),
        "PORT",
        nargs="?",
        const=8000,
    )

    # images
    dataset: str = setting(
        "celebA", "Train on the images in data/NAME (default {default}).", metavar="NAME"
    )
    data_dir: str = setting(
        "data", "Look for data sets in this folder (default {default}).", metavar="DIR"
    )
    input_fname_pattern: str | None = setting(
        None,
        "Take the files with such names as images (default: all image types).",
        metavar="PATTERN",
    )
    train_size: int | None = of_config("train_size")
    drop: str | None = setting(
        None,
        "Train without the images that this file names, one a line, such as suspicious.txt.",
        metavar="FILE",
    )
    normal_class: int | None = of_config("normal_class")
    anomaly_class: int | None = of_config("anomaly_class")
    crop: bool | None = setting(
        None, "Cut out the centre of each image before it is resized (default no)."
    )
    input_height: int | None = of_config("crop_height")
    input_width: int | None = of_config("crop_width")
    output_height: int | None = of_config("height")
    output_width: int | None = of_config("width")
    window: int | None = of_config("window")
    channels: int | None = of_config("channels")
    features: str | None = of_config("features")

    # networks
    preset: str | None = of_config("preset")
    z_dim: int | None = of_config("z_dim")
    gf_dim: int | None = of_config("gf_dim")
    df_dim: int | None = of_config("df_dim")
    lambda_: float | None = of_config("lambda_")

    # training
    epochs: float | None = of_config("epochs")
    batch_size: int | None = of_config("batch_size")
    learning_rate: float | None = of_config("learning_rate")
    beta1: float | None = of_config("beta1")
    validation_fraction: float | None = of_config("validation_fraction")
    seed: int | None = of_config("seed")
    strategy: str = setting(
        "none",
        "Train and score on all GPUs (mirrored), or on the machines in TF_CONFIG "
        "(multiworker) (default {default}).",
        choices=STRATEGIES,
    )
    precision: str = setting(
        "auto",
        "Compute in this precision (default {default}: bfloat16 where it is faster).",
        choices=("auto", "float32", "mixed_bfloat16"),
    )

    # scoring
    test_dir: Sequence[str] | None = setting(
        None,
        "Score these files, and the images in these folders (default: the data set's own test "
        "images, or test_data).",
        metavar="PATH",
        nargs="+",
        action="extend",
    )
    search: str | None = setting(
        None,
        "Find z by backpropagation (gradient), by the encoder, or by backpropagation from "
        "the encoder's z on (hybrid) (default: encoder, if there is one).",
        choices=SEARCHES,
    )
    test_epoch: int | None = setting(
        None,
        f"Search z for so many steps (default: gradient {USUAL.gradient_steps}, hybrid "
        f"{USUAL.hybrid_steps}).",
        (0, 100_000),
        "STEPS",
    )
    test_learning_rate: float | None = setting(
        None,
        f"Search z at this learning rate (default {USUAL.search_rate}).",
        (1e-8, 10),
        "RATE",
    )
    test_batch_size: int = setting(
        256, "Score N images at once (default {default}).", (1, 65536), "N"
    )
    test_size: int | None = setting(
        None, "Score only N images, evenly spaced (default: all).", (1, LARGEST_SET), "N"
    )

    # decision
    target_fpr: float | None = setting(
        None,
        "Set the threshold so that this fraction of normal images is called anomalous "
        "(default 0.05).",
        (1e-9, 0.5),
        "FRACTION",
    )
    threshold: float | None = setting(
        None, "Call images anomalous that score above this.", (-1e30, 1e30), "SCORE"
    )
    threshold_from: str | None = setting(
        None,
        "Find the threshold from held-out normal images, from those without outliers (inliers), "
        "or from the test's labels by Youden's J or the best F1 (default held_out).",
        choices=("held_out", "inliers", "youden", "f1"),
    )
    labels: str | None = setting(
        None,
        "Read labels from a table with the columns file, label and, if any, kind.",
        metavar="FILE.csv",
    )
    mask_dir: str | None = setting(
        None,
        "Measure pixels by the masks in this folder, named NAME or NAME_mask, white where "
        "anomalous (default: the data set's ground_truth, if there is one).",
        metavar="DIR",
    )
    save_maps: bool = setting(False, "Save the anomaly map of every image (default no).")
    report: bool = setting(
        True,
        "Make pictures, plots and the page (default yes); scores.csv and metrics.json always.",
    )
    json: bool = setting(
        False,
        "Write a line of JSON for each image, then one that sums up, to standard output, and "
        "all other lines to standard error (default no).",
    )
    fail_on_anomaly: bool = setting(
        False, "Exit with 3 where an image is called anomalous (default no)."
    )

    # folders
    checkpoint_dir: str = setting(
        "checkpoints",
        "Keep runs in this folder, or use the one run in it (default {default}).",
        metavar="DIR",
    )
    sample_dir: str = setting(
        "samples", "Write samples to this folder (default {default}).", metavar="DIR"
    )
    test_result_dir: str | None = setting(
        None,
        "Write results to this folder (default: test_result in the folder of test images, or "
        "beside the first of several).",
        metavar="DIR",
    )
    log_dir: str = setting(
        "logs", "Write curves for TensorBoard to this folder (default {default}).", metavar="DIR"
    )
    export_dir: str | None = setting(
        None, "Write what --export makes to this folder (default: the run's).", metavar="DIR"
    )

    # serving
    serve_host: str = setting(
        "127.0.0.1",
        "Listen at this address of the machine, 0.0.0.0: at all, where anybody in the network "
        "can send images (default {default}: only programs on this machine).",
        metavar="ADDRESS",
    )
    serve_allow: Sequence[str] | None = setting(
        None,
        "Answer under this host's name or address, too, and let its pages send images: for a "
        "proxy or a forwarded port. May be given more than once.",
        metavar="HOST",
        action="append",
    )


def spelt(name: str) -> str:
    """Return a field's flag as it is typed."""
    return f"--{described(Options)[name].flag or name}"


# The field with which a group of flags begins in --help
GROUPS = {
    "train": "what to do (without any: draw samples from the trained model)",
    "dataset": "images",
    "preset": "networks",
    "epochs": "training",
    "test_dir": "scoring",
    "target_fpr": "decision",
    "checkpoint_dir": "folders",
    "serve_host": "serving",
}
