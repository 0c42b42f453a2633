"""Near copies of one image are trained on or held out together."""

import numpy as np
import pytest

from anogan.config import preset
from anogan.data.image_set import ImageSet
from anogan.data.near_copies import near_copies
from anogan.method import kept_images
from anogan.runs.run_images import RunImages

pytestmark = pytest.mark.unit
PARTS, FRAMES = 20, 8


@pytest.fixture
def photographs(digits):
    """Twenty images of one digit, 24 x 24, as unlike as parts of one kind are."""
    images, labels = digits
    some = images[labels == 0][:PARTS, ..., 0]
    return np.kron(some, np.ones((1, 3, 3)))[..., None]


@pytest.fixture
def frames(photographs):
    """Eight frames of each: moved by a pixel, in another light, and with noise."""
    rng = np.random.default_rng(0)
    moved = [
        np.roll(one, rng.integers(-1, 2, 2), (0, 1)) * rng.uniform(0.95, 1.05)
        for one in photographs
        for _ in range(FRAMES)
    ]
    noisy = np.array(moved) + rng.normal(0, 3, np.shape(moved))
    return noisy.clip(0, 255).astype(np.uint8)


NAMINGS = {
    "number": "part_{:02d}_frame_{}.png",
    "word": "part_{:02d}_{}.png",
    "folder": "part_{:02d}/frame {} of it.png",
    "copy": "part-{:02d} ({}).jpg",
}


def named(naming):
    words = ["left", "right", "top", "bottom", "front", "back", "near", "far"]
    last = words if naming == "word" else range(FRAMES)
    return [NAMINGS[naming].format(part, one) for part in range(PARTS) for one in last]


@pytest.mark.parametrize("naming", NAMINGS)
def test_near_copies_are_held_out_together(naming, frames):
    images = ImageSet.from_array(frames, named(naming))
    groups = near_copies(images)
    assert len(groups) == PARTS * FRAMES and len(set(groups.values())) == PARTS
    rest, held_out = images.split(0.1, 0, groups=groups)
    apart = {groups[name] for name in rest.names}, {groups[name] for name in held_out.names}
    assert not apart[0] & apart[1]
    assert len(held_out) % FRAMES == 0 and 2 <= len(apart[1]) <= PARTS // 4


def test_a_new_frame_of_a_known_part_goes_where_the_others_are(frames):
    images = ImageSet.from_array(frames, named("number"))
    groups = near_copies(images)
    old = images.subset(np.arange(len(images)) % FRAMES > 0)
    known, held_out = old.split(0.1, 0, groups=groups)
    decided = dict.fromkeys(known.names, False) | dict.fromkeys(held_out.names, True)
    _, later = images.split(0.1, 5, decided, groups)  # another seed would draw others
    assert {groups[name] for name in later.names} == {groups[name] for name in held_out.names}
    assert len(later) == len(held_out) * FRAMES // (FRAMES - 1)


def test_a_name_alone_makes_no_group(photographs):
    several = np.concatenate([photographs[i::4] for i in range(4)]).astype(np.uint8)
    for names in (
        [f"lot_{i // 5}_{i % 5}.png" for i in range(PARTS)],
        [f"{i:04d}.png" for i in range(PARTS)],
        [f"line {i // 10}/{i:03d}.png" for i in range(PARTS)],
    ):
        assert near_copies(ImageSet.from_array(several, names)) == {}


def test_copies_that_cannot_be_read_are_left_out_of_it(frames, tmp_path):
    from PIL import Image

    from anogan.data.folders import Selection, find_images, image_folder
    from anogan.image_form import ImageForm

    for name, frame in zip(named("number"), frames, strict=True):
        Image.fromarray(frame[..., 0]).save(tmp_path / name)
    (tmp_path / "part_00_frame_0.png").write_bytes(b"none")
    images = image_folder(find_images(tmp_path, Selection()), ImageForm(24, 24, 1))
    assert len(set(near_copies(images).values())) == PARTS


def test_near_copies_say_nothing_of_the_threshold_when_each_is_left_out_alone(
    frames, photographs, monkeypatch
):
    several = np.concatenate([frames, 255 - photographs.astype(np.uint8)])
    names = [*named("number"), *(f"{chr(97 + i)}_0.png" for i in range(PARTS))]
    images = ImageSet.from_array(several, names)
    far = {name: float(i) for i, name in enumerate(names) if i != len(frames) + 1}
    monkeypatch.setattr(kept_images, "fit_features", lambda *_: ([], far))
    config = preset("default", height=48, width=48, channels=1)
    empty = RunImages(several[:0], several[:0])
    kept = kept_images.updated(empty, images, images, images.subset([]), config, object())
    unknown = [*[None] * len(frames), 160.0, None, *map(float, range(162, 180))]
    assert kept.seen_features == tuple(unknown)
