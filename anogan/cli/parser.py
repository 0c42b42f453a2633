"""main.py's command line: argparse's parser, made from the fields of Options."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_type_hints

from anogan import __version__
from anogan.cli.flags import PATHS, check
from anogan.cli.options import GROUPS, Options, spelt
from anogan.settings import Setting

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

LONG = 30  # digits
NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)  # also -1e3


class Switch(argparse.Action):
    """--flag, --flag=true, --flag=false and --no-flag."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any):
        negative = [f"--no-{s[2:]}" for s in option_strings]
        kwargs |= {"nargs": "?", "metavar": "yes|no"}
        super().__init__([*option_strings, *negative], dest, **kwargs)

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


def number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """Return an argparse type: an int or float from low to high, which are finite."""

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
    """Return the parser of all flags; those of Config's settings default to None: not given."""
    p = argparse.ArgumentParser(
        prog="main.py",
        description="AnoGAN: unsupervised anomaly detection in images.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p._negative_number_matcher = NEGATIVE  # of values; argparse's own takes -1e3 for a flag
    p.add_argument(
        "--version",
        action="version",
        version=f"AnoGAN {__version__}",
        help="Show the version and exit.",
    )
    group: argparse._ActionsContainer = p
    kinds = get_type_hints(Options)
    for f in dataclasses.fields(Options):
        if f.name in GROUPS:
            group = p.add_argument_group(GROUPS[f.name])
        kind, *_ = get_args(kinds[f.name]) or (kinds[f.name],)
        group.add_argument(spelt(f.name), dest=f.name, default=f.default, **_argument(f, kind))
    return p


def _argument(f: dataclasses.Field, kind: type) -> dict[str, Any]:
    """Return what argparse needs to know of a field: help, and which values it takes."""
    one: Setting = f.metadata[Setting]
    found: dict[str, Any] = {"help": one.help.format(default=f.default)}
    if kind is bool:
        return found | {"action": Switch}
    if one.choices:
        found |= {"choices": one.choices, "type": kind}
    elif one.span:
        found["type"] = number(kind, *one.span)
    elif f.name in PATHS:
        found["type"] = os.path.expanduser  # which a shell does not do after =
    return found | one.argument


def parse(arguments: list[str] | None = None) -> Options:
    """Return what the command line says; wrong arguments end the program with exit code 2."""
    p = parser()
    args = p.parse_args(arguments)
    check(p, args)
    return Options(**vars(args))
