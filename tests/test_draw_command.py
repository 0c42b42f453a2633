"""The commands that draw: samples and --visualize."""

import pytest
from PIL import Image

import main

pytestmark = [pytest.mark.cli, pytest.mark.usefixtures("eager")]


def test_visualize_draws_samples_and_an_interpolation(run, capsys):
    assert main.main(["--dataset", "zeros", "--visualize"]) == 0
    for name in ("samples", "interpolation"):
        assert Image.open(run / "samples" / "zeros" / f"{name}.png").size > (56, 56)
    assert capsys.readouterr().out.endswith("pictures in samples/zeros\n")


def test_pictures_of_the_users_in_the_samples_stay(run, capsys, caplog):
    folder = run / "samples" / "zeros"
    (folder / "samples.png").write_text("MY OWN")
    for _ in range(2):
        assert main.main(["--dataset", "zeros", "--generate_test_images", "4"]) == 0
        assert capsys.readouterr().out.endswith("samples in samples/zeros/samples (2).png\n")
    assert (folder / "samples.png").read_text() == "MY OWN"
    with Image.open(folder / "samples (2).png") as drawn:
        drawn.load()
    assert "samples/zeros/samples.png was made or changed by somebody else" in caplog.text
    assert not (folder / "samples (3).png").exists()
