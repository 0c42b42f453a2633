"""What flags say of a run's settings, of the threshold and of the search."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from anogan.cli.options import Options, spelt
from anogan.config import CROP, FREE, Config
from anogan.errors import UserError
from anogan.method.scoring import Search
from anogan.method.threshold import Threshold


def given_settings(options: Options) -> dict[str, Any]:
    """Return the settings of Config that flags gave."""
    names = {f.name for f in dataclasses.fields(Config)}
    given = {k: v for k, v in vars(options).items() if k in names and v is not None}
    if options.output_height:
        given["height"] = options.output_height
    if width := options.output_width or options.output_height:
        given["width"] = width
    if options.dataset == "mnist":
        return given
    if options.crop:
        given["crop_height"] = options.input_height or CROP
        given["crop_width"] = options.input_width or given["crop_height"]
    elif options.crop is False:
        given["crop_height"] = given["crop_width"] = 0
    else:  # scoring: the trained crop, said once more
        crop = {"crop_height": options.input_height, "crop_width": options.input_width}
        given |= {name: value for name, value in crop.items() if value}
    if options.input_fname_pattern and options.train:
        given["pattern"] = options.input_fname_pattern
    return given


def require_settings(options: Options, config: Config, free: Collection[str]) -> None:
    """Raise UserError for a flag that says other than the trained run, `free` ones apart."""
    for name, value in given_settings(options).items():
        mine = getattr(config, name)
        if name not in FREE and name not in free and value != mine:
            raise UserError(
                f"this run was trained with {name.rstrip('_')} {mine}, not {value}: leave "
                f"{_flag(options, name)} out, or train another run under another --checkpoint_dir"
            )


def _flag(options: Options, name: str) -> str:
    """Return the flag that gave a setting, which may be another's."""
    if name.startswith("crop") and options.crop is False:
        return "--no-crop"
    given = {
        "height": "output_height",
        "width": "output_width" if options.output_width else "output_height",
        "crop_height": "input_height" if options.input_height else "crop",
        "crop_width": "input_width" if options.input_width else "crop",
        "pattern": "input_fname_pattern",
    }
    return spelt(given.get(name, name))


def threshold_of(options: Options) -> Threshold:
    """Return how the flags want images decided on."""
    return Threshold(
        options.threshold,
        Threshold.target_fpr if options.target_fpr is None else options.target_fpr,
        options.threshold_from or Threshold.rule,
    )


def search_of(options: Options, config: Config) -> Search:
    """Return how the flags want z found; UserError where the model has no encoder for it."""
    flags = options.search, options.test_epoch, options.test_learning_rate
    search = Search.resolve(config.recipe, *flags)
    for flag in ("test_epoch", "test_learning_rate"):
        if search.kind == "encoder" and getattr(options, flag) is not None:
            raise UserError(
                f"--search encoder, this run's default, takes no steps: leave --{flag} out, or add "
                "--search hybrid or gradient"
            )
    return search
