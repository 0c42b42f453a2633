"""Fetch data sets: python download.py {mnist,celebA,mvtec,...} ... [--data_dir data]"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from anogan.datasets.fetch import DownloadError
from anogan.datasets.industrial import MVTEC_CATEGORIES, fetch_kolektor, fetch_mvtec, fetch_visa
from anogan.datasets.sources import (
    LSUN_CATEGORIES,
    fetch_celeba,
    fetch_elpv,
    fetch_lsun,
    fetch_mnist,
)
from anogan.errors import UserError
from anogan.runs.files import printable
from anogan.runs.lock import only_one

# Name: what it is, and what fetches it. That takes the data folder and --from_file (lsun and mvtec
# also their own options) and returns a line to show.
DATASETS: dict[str, tuple[str, Callable[..., str]]] = {
    "mnist": ("digits, 55 MB", fetch_mnist),
    "celebA": ("faces, 1.4 GB, from Google Drive", fetch_celeba),
    "lsun": ("scenes", fetch_lsun),
    "elpv": ("solar cells, 91 MB, with pip", fetch_elpv),
    "mvtec": ("MVTec AD, 15 kinds of parts and textures, 100 to 700 MB each", fetch_mvtec),
    "kolektor": ("KolektorSDD, cracks in commutators, 102 MB", fetch_kolektor),
    "visa": ("VisA, 12 kinds of parts, 1.9 GB", fetch_visa),
}
CATEGORIES = {"lsun": LSUN_CATEGORIES, "mvtec": (*MVTEC_CATEGORIES, "all")}
EPILOG = """\
examples:
  python download.py mnist celebA          both, to data/mnist and data/celebA
  python download.py celebA --from_file ~/Downloads/img_align_celeba.zip
  python download.py lsun --category church_outdoor --split train
  python download.py elpv kolektor visa --data_dir /big/disk
  python download.py mvtec --category bottle

An interrupted command, given again, goes on where it stopped."""


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments as a namespace. Wrong ones end the program with exit code 2."""
    parser = argparse.ArgumentParser(
        description="Fetch data sets.",
        epilog=EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    what = parser.add_argument_group("what, and from where to where")
    text = "one or more of"
    text += "".join(f"\n{name:8}  {content}" for name, (content, _) in DATASETS.items())
    what.add_argument("datasets", nargs="+", choices=DATASETS, metavar="DATASET", help=text)
    text = "archive of DATASET fetched by hand, in place of the network (mnist: or a folder)"
    what.add_argument("--from_file", type=_path, metavar="PATH", help=text)
    text = "folder for the data sets, each in its own (default: %(default)s)"
    what.add_argument("--data_dir", type=_path, default=Path("data"), metavar="PATH", help=text)
    text = "".join(f"\n{name}: {_listed(names)}" for name, names in CATEGORIES.items())
    text = f"default: bedroom of lsun, bottle of mvtec, or what its archive holds{text}"
    what.add_argument("--category", metavar="NAME", help=text)
    text = "train: 2 GB (church_outdoor) to 43 GB (bedroom), and twice that room to unpack;\n"
    text += "val: 300 images, a few MB, to try things with; test: 10,000 images of all\n"
    text += "categories together (default: val)"
    lsun = parser.add_argument_group("lsun only")
    lsun.add_argument("--split", choices=("train", "val", "test"), help=text)
    args = parser.parse_args(argv)
    if args.from_file and len(args.datasets) > 1:
        parser.error("--from_file goes with one DATASET")
    if args.split and "lsun" not in args.datasets:
        parser.error("--split goes with lsun")
    if args.category and not CATEGORIES.keys() & set(args.datasets):
        parser.error(f"--category goes with {' or '.join(CATEGORIES)}")
    for name, known in CATEGORIES.items():
        if args.category and name in args.datasets and args.category not in known:
            parser.error(f"{name} has no --category {args.category}: {', '.join(known)}")
    return args


def _path(text: str) -> Path:
    """Return the path that an argument names, ~ as the home folder: no shell expands --flag=~/x."""
    return Path(os.path.expanduser(text))


def _listed(names: Sequence[str]) -> str:
    """Names as lines that fit a help text."""
    return textwrap.fill(", ".join(names), 70)


def _options(name: str, args: argparse.Namespace) -> dict[str, str]:
    """The options that are only of one data set, as far as they were given."""
    given = {"category": args.category} if name in CATEGORIES else {}
    given |= {"split": args.split} if name == "lsun" else {}
    return {key: value for key, value in given.items() if value}


@contextlib.contextmanager
def _only(data_dir: Path, name: str) -> Iterator[None]:
    """This process is the only one that fetches a data set; UserError where another one does."""
    if data_dir.exists() and not data_dir.is_dir():
        raise UserError(f"{data_dir} is a file: choose another --data_dir")
    if data_dir.is_dir() and not os.access(data_dir, os.W_OK):  # it may be there already
        yield
        return
    busy = f"another download of it is at work in {data_dir}: wait until it ends"
    with only_one(data_dir / f".{name}.lock", busy):
        yield


def _reason(error: OSError, args: argparse.Namespace) -> str:
    """What is wrong with a file, and the remedy."""
    path = error.filename or args.data_dir
    what = f"{error.strerror or error}: {path}"
    if args.from_file and str(path) == str(args.from_file):
        return f"--from_file cannot be read: {what}"
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return f"{what}; {'make room, or ' if is_full else ''}choose another --data_dir"


def main(argv: Sequence[str] | None = None) -> int:
    """Fetch each data set; 0 if all are there, 1 if one failed, 130 after Ctrl-C."""
    args = parse_arguments(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # it may lack the letters of a folder's name
        sys.stdout.reconfigure(errors="backslashreplace")
    failed = False
    for name in args.datasets:
        try:
            is_usable = Path.exists if name == "mnist" else Path.is_file
            if args.from_file and not is_usable(args.from_file):
                is_folder = args.from_file.is_dir()
                why = "a folder: name the archive in it" if is_folder else "there is no such file"
                raise DownloadError(f"--from_file {args.from_file}: {why}")
            _, fetch = DATASETS[name]
            with _only(args.data_dir, name):
                line = fetch(args.data_dir, args.from_file, **_options(name, args))
            print(f"{name}: {printable(line)}", flush=True)
            continue
        except (DownloadError, UserError) as error:
            reason = str(error)
        except ImportError as error:
            reason = f"{error}; run: python -m pip install -r requirements.txt"
        except OSError as error:
            reason = _reason(error, args)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on where this stopped", file=sys.stderr)
            return 130
        print(f"error: {name}: {printable(reason)}", file=sys.stderr)
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
