"""Where processes start: forks, no home to write to, a notebook's settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import main

ROOT = Path(main.__file__).parent
FORKS = """
import multiprocessing
from anogan.config import preset
from anogan.errors import UserError
from model import DCGAN

def drawn():
    config = preset("default", height=16, width=16, z_dim=4, gf_dim=4, df_dim=4, features="none")
    return DCGAN(config).generate([[0.0] * 4]).shape

def ask(kind):
    try:
        return kind, drawn()
    except UserError as error:
        return kind, str(error)

if __name__ == "__main__":
    drawn()
    for kind in ("fork", "spawn"):
        with multiprocessing.get_context(kind).Pool(1) as pool:
            print(*pool.apply(ask, (kind,)), flush=True)
"""
DRAWING = """
import sys
from pathlib import Path
from anogan.report import plots
from matplotlib.figure import Figure
plots.save_figure(Figure(), Path(sys.argv[1]))
"""


def told(tmp_path, code, *arguments, **variables):
    """Run a script as a process of its own, with a time limit; return all that it says."""
    path = tmp_path / "script.py"
    path.write_text(code)
    kept = {k: v for k, v in os.environ.items() if k not in ("MPLCONFIGDIR", "XDG_CACHE_HOME")}
    found = subprocess.run(
        [sys.executable, path, *arguments],
        env=kept | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=200, check=True,
    )  # fmt: skip
    return found.stdout


@pytest.mark.unit
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")
def test_a_fork_names_spawn_and_spawn_works(tmp_path):
    lines = told(tmp_path, FORKS).splitlines()
    lines = [line for line in lines if line.startswith(("fork", "spawn"))]
    assert 'use multiprocessing.get_context("spawn")' in lines[0]
    assert lines[1] == "spawn (1, 16, 16, 3)"


@pytest.mark.unit
def test_without_a_home_figures_are_drawn_in_silence(tmp_path):
    home = tmp_path / "home"
    home.touch()  # root could make the folder
    there = set(os.listdir(tmp_path))
    kept = told(tmp_path, DRAWING, tmp_path / "a.png", HOME=str(home), TMPDIR=str(tmp_path))
    assert kept == "" and set(os.listdir(tmp_path)) == there | {"a.png", "script.py"}


@pytest.mark.unit
def test_a_notebooks_backend_that_is_missing_is_no_matter(tmp_path):
    backend = "module://no_such_package.backend_inline"
    assert told(tmp_path, DRAWING, tmp_path / "a.png", MPLBACKEND=backend) == ""
    assert (tmp_path / "a.png").stat().st_size
