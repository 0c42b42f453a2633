"""Which images are seen whole, and which through windows."""

import numpy as np
import pytest
from PIL import Image

from anogan.data.scale import Scale, alike, choose, typical_size

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
        (40, 640, 0.0, Scale(64, 64, 0)),
        (660, 70, 0.0, Scale(320, 64, 64)),
    ],
)
def test_large_images_and_textures_are_seen_through_windows(
    tmp_path, height, width, common, expected
):
    assert choose(folder(tmp_path, height, width, common), None, 1) == expected


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
