"""Benchmarks: tables that are of several categories, and TensorFlow as the tool sets it up."""

import ast
from pathlib import Path

import pytest

import main

BENCHMARKS = Path(main.__file__).parent / "benchmarks"

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_tensorflow_is_set_up_before_it_is_loaded(path):
    """Without oneDNN, which anogan asks it for, it computes half as fast on some processors."""
    loaded = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            loaded.append(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            loaded += [name.name.split(".")[0] for name in node.names]
    slow = [i for i, name in enumerate(loaded) if name in ("keras", "tensorflow", "ops")]
    assert not slow or "anogan" in loaded[: slow[0]]


@pytest.fixture
def detection(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import detection

    return detection


def line(name, category, seed, auroc, **more):
    measures = {"auroc": auroc, "pixel_auroc": 0.9, "au_pro": 0.8, "ms_per_image": 5.0}
    return {
        "set": name,
        "class": category,
        "part": "all",
        "seed": seed,
        "peers": {"PCA-32": 0.5, "5-NN on HOG": 0.6},
        "train_seconds": 100.0,
        "without": {},
        "searches": {"encoder": measures | more},
    }


def rows_of(detection, lines, category):
    """The cells of a category in the table beside the others' figures."""
    last = detection.tables(lines).split("\n\n")[-1].splitlines()
    return [row.split("|")[1:-1] for row in last if row.startswith(f"|{category}|")]


def test_mvtec_stands_beside_published_figures_of_the_same_categories(detection):
    lines = [line("mvtec", "grid", 0, 0.7), line("mvtec", "tile", 0, 0.8)]
    assert rows_of(detection, lines, "grid") == [
        ["grid", "0.700", "0.900", "0.800", "0.404", "", "0.510"]
    ]
    assert rows_of(detection, lines, "mean of 2") == [
        ["mean of 2", "0.750", "0.900", "0.800", "0.406", "", "0.510"]
    ]
    lines.append(line("mvtec", "bottle", 0, 0.6))
    assert rows_of(detection, lines, "mean of 3")[0][5:] == ["", ""]
    from published import GANOMALY

    lines = [line("mvtec", category, 0, 0.7) for category in GANOMALY]
    assert rows_of(detection, lines, "mean of 15")[0][4:] == ["0.421", "0.983", ""]


def test_mean_is_of_seeds_that_have_all_categories(detection):
    lines = [line("visa", c, 0, 0.7) for c in ("candle", "pcb1")] + [line("visa", "pcb1", 1, 0.9)]
    count, means = detection.mean_of_classes(lines, "visa")
    assert count == 2 and [m["searches"]["encoder"]["auroc"] for m in means] == [0.7]


def test_categories_are_those_that_are_there(detection, tmp_path):
    for part in ("grid/train/good", "grid/test/good", "tile/train/good", "wood"):
        (tmp_path / "mvtec" / part).mkdir(parents=True)
    assert detection.categories(str(tmp_path), "mvtec") == ["grid"]
    assert detection.categories(str(tmp_path), "visa") == []


TWIN = """
import pickle, sys
given = pickle.load(sys.stdin.buffer)
while True:
    method, argument = pickle.load(sys.stdin.buffer)
    kinds = [layer.kind for layer in given["generator"].layers]
    loaded = {"tensorflow", "keras", "anogan"} & sys.modules.keys()
    pickle.dump((method, argument, kinds, loaded), sys.stdout.buffer)
    sys.stdout.flush()
"""


@pytest.mark.slow
def test_pytorchs_twin_is_described_without_tensorflow(detection, tmp_path):
    import numpy as np
    import torch_remote

    from anogan.config import preset
    from anogan.method.latent_search import Weights
    from model import DCGAN

    (tmp_path / "twin.py").write_text(TWIN)
    x = np.zeros((2, 16, 16, 1), np.float32)
    model = DCGAN(preset("classic", height=16, width=16, channels=1, gf_dim=4, df_dim=4))
    z, weights = np.zeros((2, model.config.z_dim)), Weights(0.9, 0.1, 0.0, False)
    twin = torch_remote.RemoteTwin(model, x, x, z, weights, False, tmp_path / "twin.py")
    kinds = [type(layer).__name__ for layer in model.trainer.ema.generator.layers]
    assert twin.ask("search", 3) == ("search", 3, kinds, set())
    twin.process.kill()
