"""Odd training images, and lists of names to train without."""

import numpy as np
import pytest

from anogan.suspicious import listed, memory_alone

pytestmark = pytest.mark.unit


def test_planted_images_are_among_the_oddest(digits):
    images, labels = digits
    zeros, others = images[labels == 0][:114], images[labels != 0][::60][:6]
    scores = memory_alone(np.concatenate([zeros, others]).repeat(2, axis=1).repeat(2, axis=2))
    assert (np.argsort(-scores)[:12] >= 114).sum() >= 3


def test_lists_are_read_as_people_write_them(tmp_path):
    names = ["a.png", "b/c d.png", "#1.png", "ä.png", "same.png"]
    path = tmp_path / "list.txt"
    path.write_text("a.png\t3.5\r\n\nb\\\\c d.png\n#1.png\na\u0308.png\n# a note\n", "utf-8")
    found, strangers = listed(path, names, tmp_path)
    assert found == set(names[:4]) and strangers == ["# a note"]
    path.write_bytes("data/b/c d.png".encode("utf-16"))
    assert listed(path, names, tmp_path / "data") == ({"b/c d.png"}, [])
