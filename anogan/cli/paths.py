"""Where things are: data sets, runs, test images, masks and results, as the options say."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from anogan.cli.options import Options
from anogan.config import FILE_NAME, Config
from anogan.data.layouts import TESTS, layout
from anogan.data.listing import available, is_image_name
from anogan.errors import UserError

TEST_DIR = "test_data"
FETCHED = ("celebA", "lsun", "elpv", "mvtec", "kolektor", "visa")  # by download.py
CHECKPOINTS = "checkpoints"  # where runs are unless --checkpoint_dir says otherwise
MNIST_RUN = r"mnist(_normal\d|_anomaly\d)?"
# What a data set's folder may be called, but not its run: other runs are, and a run's settings
NOT_OF_A_FOLDER = re.compile(rf"{MNIST_RUN}|{re.escape(FILE_NAME)}", re.IGNORECASE)
CHECKSUM = re.compile(r"_[0-9a-f]{8}$")  # at the end of _with_checksum's names


def dataset_folder(data_dir: str, dataset: str) -> Path:
    """Return the folder of a data set of image files; UserError with help where there is none."""
    folder = Path(data_dir) / dataset
    if folder.is_dir():
        return folder
    if folder.exists() or glob.has_magic(dataset):
        raise UserError(
            f"--dataset {dataset} is no folder: name one folder of images, in {data_dir} or by its "
            "path; pipes, files and patterns are for --test_dir"
        )
    there = ", ".join(available(data_dir)) or "none"
    name, *category = dataset.split(os.sep)
    remedy = "put images there"
    if name in FETCHED:
        more = f" --category {category[0]}" if name == "mvtec" and category else ""
        if name == "lsun" and category and category[0].endswith(("_train", "_val")):
            more = " --category {0} --split {2}".format(*category[0].rpartition("_"))
        more += f" --data_dir {data_dir}" if data_dir != Options.data_dir else ""
        remedy = f"fetch it with: python download.py {name}{more}"
    raise UserError(f"{folder} does not exist: {remedy} (data sets in {data_dir}: {there})")


def training_folder(data_dir: str, dataset: str) -> Path:
    """Return the folder of the normal images to train on."""
    folder = dataset_folder(data_dir, dataset)
    parts = layout(folder)
    return parts.train if parts else folder


def run_name(options: Options) -> str:
    """Return the name of the run's folder below --checkpoint_dir."""
    if options.normal_class is not None:
        return f"mnist_normal{options.normal_class}"
    if options.anomaly_class is not None:
        return f"mnist_anomaly{options.anomaly_class}"
    name = safe_name(options.dataset)
    if options.dataset != "mnist" and NOT_OF_A_FOLDER.fullmatch(name):
        return _with_checksum(options.dataset)
    return name


def dataset_name(data_dir: str, dataset: str) -> str:
    """Return the one name of a data set: its path within --data_dir, or else its whole path."""
    if dataset == "mnist":
        return dataset
    root = os.path.abspath(data_dir)
    path = os.path.abspath(os.path.join(root, dataset))
    if path == root:
        raise UserError(f"--dataset {dataset} is --data_dir itself: name a folder in it")
    # by its name, not by where that may be linked to, which can change
    return os.path.relpath(path, root) if path.startswith(os.path.join(root, "")) else path


def safe_name(path: str) -> str:
    """Return a path as a folder's name, with a checksum unless it is such a name by itself."""
    return path if re.fullmatch(r"[\w-][\w. -]*", path) else _with_checksum(path)


def _with_checksum(path: str) -> str:
    words = re.sub(r"[^\w.-]+", "_", path).strip("._")[-60:]
    return f"{words}_{crc32(os.fsencode(path)):08x}"


def output_name(folder: Path) -> str:
    """Return the name of a run's folder below --sample_dir and --log_dir; no two runs share one."""
    path = os.path.realpath(folder)
    root = os.path.realpath(CHECKPOINTS)
    beside = os.path.dirname(path) == root
    return safe_name(os.path.basename(path)) if beside else _with_checksum(path)


def find_run(options: Options) -> Path:
    """Find the folder of the trained model that the flags mean; UserError if there is none."""
    folder = run_folder(options)
    if (folder / FILE_NAME).exists():
        return folder
    root = Path(options.checkpoint_dir)
    runs = sorted(p.parent.name for p in root.glob(f"*/{FILE_NAME}"))
    of_mnist = [r for r in runs if re.fullmatch(MNIST_RUN, r) and _dataset_in(root / r) == "mnist"]
    if folder.name == "mnist" and len(of_mnist) == 1:
        return root / of_mnist[0]
    there = f"trained so far: {', '.join(runs)}" if runs else "none is trained so far"
    raise UserError(f"no trained model in {folder} ({there}): train it first with --train")


def run_folder(options: Options) -> Path:
    """Return where the run of these flags has its checkpoints."""
    root = Path(options.checkpoint_dir)
    return root if (root / FILE_NAME).exists() else root / run_name(options)


def _dataset_in(folder: Path) -> str | None:
    """Return the data set of the run in a folder; None where none can be read."""
    try:
        return Config.load(folder).dataset
    except UserError:
        return None


def require_run_of(options: Options, folder: Path, config: Config) -> None:
    """Raise UserError where the run in a folder, found by its name, is of another data set.

    Folders may be renamed; but where the name stands for one data set alone, it must be that.
    """
    both, name = {config.dataset, options.dataset}, folder.name
    certain = "mnist" in both or CHECKSUM.search(name)
    if folder != Path(options.checkpoint_dir) and certain and len(both) > 1:
        raise UserError(
            f"{folder} holds a run of {config.dataset}, not of {options.dataset}: name another "
            "--checkpoint_dir"
        )


class Places(NamedTuple):
    """Where scoring finds the test images and their masks, and leaves the results."""

    images: Path
    masks: Path | None
    results: Path
    has_layout: bool  # of MVTec AD: that is how the places are known
    chosen: tuple[str, ...] = ()  # files and folders in `images`; none: all that is there


def test_places(options: Options, config: Config) -> Places:
    """Return the places that the flags name; else those of the data set's layout, if it has one."""
    if options.test_dir and (len(options.test_dir) > 1 or not may_be_folder(options.test_dir[0])):
        return _chosen_places(options, options.test_dir)
    given = options.test_dir[0] if options.test_dir else None
    if given:
        folder = Path(given)
        parts = layout(folder.parent) if folder.name in TESTS else layout(folder)
    else:
        folder = Path(options.data_dir) / config.dataset
        parts = layout(folder)
    if parts:
        images, masks, beside = parts.test, parts.masks, parts.test.parent
    else:
        images, masks = Path(given or TEST_DIR), None
        beside = images
    masks = Path(options.mask_dir) if options.mask_dir else masks
    results = Path(options.test_result_dir or beside / "test_result")
    return Places(images, masks, results, parts is not None)


def may_be_folder(path: str) -> bool:
    """Return whether there is a folder of that name, or nothing and no image's name."""
    return os.path.isdir(path) or not (os.path.lexists(path) or is_image_name(path))


def _chosen_places(options: Options, given: Sequence[str]) -> Places:
    """Return the places of files and folders named one by one, within what they all lie in."""
    beside = [os.path.dirname(os.path.abspath(path)) for path in given]
    common = os.path.commonpath(beside)
    shown = Path(os.path.relpath(common)) if not os.path.isabs(given[0]) else Path(common)
    chosen = dict.fromkeys(os.path.relpath(os.path.abspath(path), common) for path in given)
    masks = Path(options.mask_dir) if options.mask_dir else None
    results = Path(options.test_result_dir or Path(given[0]).parent / "test_result")
    return Places(shown, masks, results, False, tuple(chosen))


def strictly_inside(folder: str | Path, *others: str | Path | None) -> list:
    """Return those of some folders that lie inside a folder and are not that folder itself."""
    root = os.path.join(os.path.realpath(folder), "")
    return [other for other in others if other and os.path.realpath(other).startswith(root)]
