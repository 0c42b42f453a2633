"""Scorings of a few images as a user starts them, and what they leave."""

import os
import shutil

import numpy as np
from PIL import Image

from anogan.runs.files import MARKER

ARGUMENTS = [
    *("--dataset", "zeros", "--anomaly_test", "--test_batch_size", "4", "--save_maps"),
    *("--test_dir", "test", "--mask_dir", "masks", "--precision", "float32"),
]
# Panels and plots take most of the time, and nothing depends on them
FEW_PICTURES = """
from anogan.runs import provenance
from anogan.report import plots, showing
showing.panels = lambda *_: None
plots.write = lambda *_: {}
provenance.now = lambda: "2026-01-01T00:00:00+00:00"  # results are compared byte by byte
"""


def make_data(cwd, trained_folder, queries, count=48):
    """A model, images to score, of which one is broken, and masks."""
    shutil.copytree(trained_folder, cwd / "checkpoints" / "zeros")
    for i in range(count):
        kind = "normal" if i % 2 else "odd"
        image = cwd / "test" / kind / f"{i:03d}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(queries[0][i % 2 * 40 + i // 2 % 40, ..., 0]).save(image)
        if kind == "odd":
            mask = cwd / "masks" / kind / f"{i:03d}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.eye(16, k=i % 9, dtype=np.uint8) * 255).save(mask)
    (cwd / "test" / "normal" / "005.png").write_bytes(b"broken")


def results_in(cwd) -> dict[str, bytes]:
    """All files below the results, by name, without the folder's own path."""
    folder = cwd / "test" / "test_result"
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if _is(p)}
    found = {k: v.replace(os.fsencode(os.path.realpath(cwd)), b"") for k, v in found.items()}
    found.pop(MARKER, None)
    return found


def _is(path) -> bool:
    return path.is_file() or path.is_symlink()


def differences(cwd, unbroken) -> str:
    """What a scoring left other than an unbroken one; empty where nothing."""
    mine, theirs = results_in(cwd), results_in(unbroken)
    if mine.keys() != theirs.keys():
        return f"files differ: {mine.keys() ^ theirs.keys()}"
    other = [name for name in theirs if mine[name] != theirs[name]]
    return f"contents differ: {other[:5]}" if other else ""


def mixed(cwd, before) -> str:
    """What is wrong where results of an earlier run were there: parts of two runs."""
    now = results_in(cwd)
    pair = [name for name in ("scores.csv", "report.html") if name in now]
    old = {now[name] == before[name] for name in pair}
    return "scores and report are of two runs" if len(old) > 1 else ""


def used(folder, page=4096) -> int:
    """Bytes that a folder's files take up in pages."""
    sizes = [p.stat().st_size for p in folder.rglob("*") if p.is_file()]
    return sum(-(-n // page) * page for n in sizes) + page * sum(1 for _ in os.walk(folder))
