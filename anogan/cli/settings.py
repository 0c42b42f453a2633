"""What flags say of a run's configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from anogan.cli.options import Options
from anogan.config import FREE, Config
from anogan.errors import UserError


def settings(options: Options) -> dict[str, Any]:
    """The settings of Config that flags gave."""
    names = {f.name for f in dataclasses.fields(Config)}
    given = {k: v for k, v in vars(options).items() if k in names and v is not None}
    given.pop("crop", None)
    if options.dataset == "mnist":
        return given
    if options.crop:
        given["crop_height"] = options.input_height or 108
        given["crop_width"] = options.input_width or given["crop_height"]
    elif options.crop is False:
        given["crop_height"] = given["crop_width"] = 0
    elif options.input_height:  # scoring: the trained crop, said once more
        given["crop_height"] = options.input_height
    if options.input_fname_pattern and options.train:
        given["pattern"] = options.input_fname_pattern
    return given


def sizes(options: Options) -> dict[str, Any]:
    """Height and width, as far as flags gave them."""
    given: dict[str, Any] = {}
    if options.output_height:
        given["height"] = options.output_height
    if options.output_width or options.output_height:
        given["width"] = options.output_width or options.output_height
    return given


def contradictions(options: Options, config: Config, free: Collection[str] = ()) -> None:
    """UserError for a flag that says other than the trained run."""
    for name, value in {**settings(options), **sizes(options)}.items():
        mine = getattr(config, name)
        if name not in FREE and name not in free and value != mine:
            raise UserError(
                f"this run was trained with {name.rstrip('_')} {mine}, not {value}: leave the flag "
                "out, or train another run under another --checkpoint_dir"
            )


def require_same(expected: Config, found: Config) -> None:
    """UserError where a run was replaced by another one while this process started."""
    if any(
        getattr(found, f.name) != getattr(expected, f.name)
        for f in dataclasses.fields(Config)
        if f.name not in FREE
    ):
        raise UserError("the run was replaced by another meanwhile: give the same command again")
