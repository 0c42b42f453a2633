"""Which images are seen whole, and which through windows."""

import re

import numpy as np
import pytest
from PIL import Image

from anogan.config import Config
from anogan.data.scale import Scale, alike, choose, typical_size, windowed
from anogan.errors import UserError

pytestmark = pytest.mark.unit
RNG = np.random.default_rng(0)


def folder(path, height, width, common):
    """Twenty images, of which a part is common to all."""
    same = RNG.uniform(0, 255, (8, 8))
    paths = []
    for i in range(20):
        mixed = common * same + (1 - common) * RNG.uniform(0, 255, (8, 8))
        image = Image.fromarray(mixed.astype(np.uint8)).resize((width, height), 0)
        paths.append(path / f"{i}.png")
        image.save(paths[-1])
    return paths


@pytest.mark.parametrize(
    ("height", "width", "common", "expected"),
    [
        (64, 64, 0.0, Scale(64, 64, 0)),
        (100, 100, 0.0, Scale(64, 64, 0)),
        (128, 128, 0.0, Scale(128, 128, 64)),  # no places in common, as of textures
        (128, 160, 0.7, Scale(64, 64, 0)),
        (630, 250, 0.7, Scale(320, 127, 64)),  # small defects would be lost
        (640, 640, 0.0, Scale(320, 320, 64)),
        (640, 128, 0.7, Scale(320, 64, 64)),  # five times longer than wide: no strip yet
        (40, 310, 0.0, Scale(64, 64, 0)),
        (40, 640, 0.0, Scale(64, 1024, 64)),  # windows along strips, their short side whole
        (60, 1500, 0.7, Scale(64, 1600, 64)),
        (660, 70, 0.0, Scale(603, 64, 64)),
        (200, 5000, 0.7, Scale(64, 1600, 64)),
        (10, 3000, 0.7, Scale(64, 1600, 64)),
    ],
)
def test_large_images_and_textures_are_seen_through_windows(
    tmp_path, height, width, common, expected
):
    assert choose(folder(tmp_path, height, width, common), None, 1) == expected


def test_windows_that_are_asked_for_see_images_at_their_own_size_or_enlarged():
    assert windowed(700, 900, 64) == Scale(700, 900, 64)
    assert windowed(60, 1500, 64) == Scale(64, 1600, 64)
    with pytest.raises(UserError, match="^--window 64 on images of 50 x 40 .* smaller, leave it"):
        windowed(50, 40, 64)
    for size in ((4000, 6000), (100, 5000), (1100, 1100)):
        with pytest.raises(UserError, match="^--window 64 .* Add --output_height") as told:
            windowed(*size, 64)
        height, width = map(int, re.findall(r"--output_\w+ (\d+)", str(told.value)))
        assert Config(height=height, width=width, window=64)
        assert height / width == pytest.approx(size[0] / size[1], rel=0.3)


@pytest.mark.parametrize("size, expected", [((28, 28), (28, 28)), ((9, 20), (16, 20))])
def test_small_images_are_not_enlarged_for_nothing(tmp_path, size, expected):
    assert choose(folder(tmp_path, *size, 0.5), None, 1) == Scale(*expected, 0)


def test_the_crop_is_what_is_looked_at(tmp_path):
    assert choose(folder(tmp_path, 700, 700, 0.0), (60, 60), 1) == Scale(64, 64, 0)


def test_a_crop_that_no_image_has_room_for_is_left_to_the_reading_of_images(tmp_path):
    paths = folder(tmp_path, 100, 100, 0.0)
    assert choose(paths, (200, 200), 1) == Scale(64, 64, 0)


def test_broken_files_do_not_count(tmp_path):
    paths = folder(tmp_path, 128, 128, 0.0)
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert choose([tmp_path / "broken.png", *paths], None, 1) == Scale(128, 128, 64)
    assert typical_size([tmp_path / "broken.png"]) == (64, 64)
    assert choose([tmp_path / "broken.png"], None, 1) == Scale(64, 64, 0)


def test_alike_is_what_the_mean_explains():
    common = RNG.normal(size=(32, 32, 1))
    unlike = [100 + 20 * RNG.normal(size=(32, 32, 1)) for _ in range(8)]  # 1 / 8 by chance
    half = [100 + 20 * (common + RNG.normal(size=(32, 32, 1))) for _ in range(30)]
    assert alike(unlike) == pytest.approx(0, abs=0.05)
    assert alike(half) == pytest.approx(0.5, abs=0.1)
    brighter = [image * (1 + i / 10) for i, image in enumerate(half)]
    assert alike(brighter) == pytest.approx(alike(half), abs=0.01)
    assert alike([common] * 5) == pytest.approx(1)


@pytest.mark.slow
def test_a_strip_is_searched_along_its_length(tmp_path, monkeypatch, capsys):
    from anogan.cli import train
    from anogan.cli.parser import parse
    from anogan.runs.run_images import RunImages
    from model import DCGAN

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "belt").mkdir(parents=True)
    strips = RNG.integers(100, 140, (24, 60, 360)).astype(np.uint8)
    for i, strip in enumerate(strips):
        Image.fromarray(strip).save(tmp_path / "data" / "belt" / f"{i}.png")
    words = ["--dataset=belt", "--train", "--features=none", "--z_dim=4", "--gf_dim=4"]
    plan = train.prepare(parse([*words, "--df_dim=4"]))
    model, images = DCGAN(plan.config), plan.images.read(np.arange(24))[0]
    model.images = RunImages(images[:8], images[8:])
    train.print_start(plan, model)
    assert "at 64 x 384 x 1, through windows of 64 along the strips" in capsys.readouterr().out
    strips[0, 30:40, 290:300] = 255
    Image.fromarray(strips[0]).save(tmp_path / "spot.png")
    found = model.anomaly_detector([tmp_path / "spot.png", tmp_path / "data" / "belt" / "1.png"])
    assert found.score[0] > found.score[1]
    row, column = np.unravel_index(found.anomaly_map[0].argmax(), found.anomaly_map[0].shape)
    assert abs(column * 360 / 384 - 295) < 15 and abs(row * 60 / 64 - 35) < 15
