"""Odd training images, and lists of names to train without."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from anogan.config import preset
from anogan.data.drop_list import as_line, dropped, keep_dropped, listed, without
from anogan.data.folders import Selection, find_images, image_folder
from anogan.data.image_set import ImageSet
from anogan.data.listing import Listing
from anogan.errors import UserError
from anogan.image_form import ImageForm
from anogan.method import suspicious
from anogan.method.memory_bank import bank_alone, most_images
from anogan.method.scoring import Search
from anogan.method.suspicious import most
from anogan.recipe import BankRecipe
from anogan.report import oddest
from anogan.report.sheet import Cell, contact_sheet

pytestmark = pytest.mark.unit


def test_planted_images_are_among_the_oddest(digits):
    images, labels = digits
    zeros, others = images[labels == 0][:114], images[labels != 0][::60][:6]
    x = np.concatenate([zeros, others]).repeat(2, axis=1).repeat(2, axis=2)
    scores = bank_alone(x, BankRecipe())
    assert (np.argsort(-scores)[:12] >= 114).sum() >= 3


def test_the_discriminators_part_of_the_ranking_is_the_scores_term(trained, zeros):
    detector, images = trained.detector, zeros[:70]
    search = trained.search()
    found = detector.terms(images, search, (0.5, 0.5, 0.0), only=["pixels"])["pixels"].max(axis=1)
    np.testing.assert_allclose(detector.inference.abnormal_pixels(images), found, rtol=1e-4)


def test_of_long_strips_so_many_are_ranked_as_a_bank_has_room_for():
    def count(height, width, kind):
        config = preset("default", height=height, width=width, channels=1, window=64)
        return most(SimpleNamespace(config=config), Search(kind, 20 * (kind == "hybrid"), 0.1))

    assert count(64, 64, "encoder") == 1000 and count(64, 64, "hybrid") == 200
    assert count(64, 1600, "encoder") == most_images((64, 1600), BankRecipe()) < 200
    assert count(64, 1600, "hybrid") == count(64, 1600, "encoder")


def test_distances_that_the_fit_found_rank_the_images_of_their_names(monkeypatch):
    names = [f"{i}.png" for i in range(5)]
    images = ImageSet.from_array(np.zeros((5, 64, 64, 1), np.uint8))
    monkeypatch.setattr(images, "names", names)
    monkeypatch.setattr(suspicious, "most", lambda *_: 5)
    monkeypatch.setattr(suspicious, "outlier_scores", lambda *values: values[-1])
    fitted = {name: float(i) for i, name in reversed(list(enumerate(names)))}
    indices, scores = suspicious.rank(None, None, None, images, fitted)
    assert indices.tolist() == scores.tolist() == [4, 3, 2, 1, 0]
    del fitted["3.png"]
    _, scores = suspicious.rank(None, None, None, images, fitted)
    assert np.isnan(scores).sum() == 1


def test_few_held_out_images_bear_few_synthetic_anomalies(trained, zeros):
    sizes = [[len(p) for p in trained.detector.planted(zeros[:n])] for n in (4, 60)]
    assert max(sizes[0]) <= 12 and max(sizes[1]) <= 128
    assert min(sizes[1]) > 60


def test_lists_are_read_as_people_write_them(tmp_path):
    names = ["a.png", "b/c d.png", "#1.png", "ä.png", "same.png"]
    path = tmp_path / "list.txt"
    path.write_text("a.png\t3.5\r\n\nb\\\\c d.png\n#1.png\na\u0308.png\n# a note\n", "utf-8")
    found, strangers = listed(path, names, tmp_path)
    assert found == set(names[:4]) and strangers == ["# a note"]
    path.write_bytes("data/b/c d.png".encode("utf-16"))
    assert listed(path, names, tmp_path / "data") == ({"b/c d.png"}, [])


@pytest.fixture
def images(zeros, tmp_path):
    """A function that saves images under names, and the ImageSet of these."""

    def made(*names):
        for name, image in zip(names, zeros, strict=False):
            Image.fromarray(image[..., 0]).save(tmp_path / "set" / name, "png")
        return image_folder(find_images(tmp_path / "set", Selection("*")), ImageForm(16, 16, 1))

    (tmp_path / "set").mkdir()
    return made


def odd_names():
    kinds = "\x0b", "\n", "\r\n", "\x1c", "\x1e", "\x85", "\u2028", "\t", "\ufeff", "\\n", '"', " "
    return [f"{before}{kind}10.png" for kind in kinds for before in ("", "zz")]


def test_a_written_list_names_exactly_its_images_whatever_they_are_called(images, tmp_path):
    odd = [*odd_names(), '"10.png"', "10.png\t3.5", "b\\10.png", "zz ", "ä.png", "a\u0308.png"]
    found = images(*odd, "10.png", "n10.png", "3.5")
    assert {*odd, "10.png", "n10.png", "3.5"} == set(found.names)
    scores = np.ones(len(odd))
    for part in (odd, odd[:1], ["10.png"]):
        indices = np.array([found.names.index(name) for name in part])
        indices = np.repeat(indices, 20)[: 10 * len(part)] if len(part) == 1 else indices
        text = "".join(f"{as_line(found.names[i])}\t{1:.4f}\n" for i in indices)
        (tmp_path / "list.txt").write_text(text, newline="")
        assert listed(tmp_path / "list.txt", found.names, tmp_path / "set") == (set(part), [])
    path, _, count = oddest.write(tmp_path, found, np.arange(len(odd)), scores)
    assert listed(path, found.names, tmp_path / "set") == (set(found.names[:count]), [])


def test_a_damaged_line_is_told_and_none_other_is_taken_for_it(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text('"zz\\n010\n010.png\x0b\x1c\t1.0\n\xa0b.png \n', "utf-8")
    found = without(Listing(tmp_path, ["010.png", "a.png", "b.png"]), path)
    assert found.dropped == {"b.png"}
    assert '2 of its lines name none or are damaged: "zz\\n010, 010.png\x0b' in found.notes()[0]


def ranked(images, folder, first=0):
    return oddest.write(folder, images, np.roll(np.arange(20), -first), np.ones(20))[:2]


def test_lists_and_sheets_that_the_user_has_edited_or_made_stay(images, tmp_path, caplog):
    found, folder = images(*(f"{i:02d}.png" for i in range(20))), tmp_path / "samples"
    path, sheet = ranked(found, folder)
    assert ranked(found, folder, 3) == (path, sheet) and not caplog.text  # nobody has edited it
    assert path.read_text() == "03.png\t1.0000\n04.png\t1.0000\n"
    path.write_text("04.png\n")
    second = folder / "suspicious (2).txt"
    for first in (5, 7):
        assert ranked(found, folder, first) == (second, sheet)
        assert path.read_text() == "04.png\n"
        assert second.read_text().startswith(f"{first:02d}.png")
    assert f"{path} was made or changed by somebody else and stays: {second}" in caplog.text
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("suspicious.txt", "suspicious.png"):
        (mine / name).write_text("MY OWN")
    for _ in range(2):
        assert [p.name for p in ranked(found, mine)] == ["suspicious (2).txt", "suspicious (2).png"]
    assert (mine / "suspicious.txt").read_text() == "MY OWN"
    assert (mine / "suspicious.png").read_text() == "MY OWN"


def test_the_sheet_has_a_name_and_a_score_under_each_image(images, tmp_path):
    found = images(*(f"{i:02d}.png" for i in range(20)))
    _, sheet = ranked(found, tmp_path / "samples")
    original = [found.original(i, 160) for i in range(2)]
    wanted = [Cell(original[i], f"{i:02d}.png", 1.0, "") for i in range(2)]
    assert (np.asarray(Image.open(sheet)) == contact_sheet(wanted, None)).all()


def test_what_a_run_has_dropped_stays_left_out_and_may_be_named_again(tmp_path):
    run, path = tmp_path / "run", tmp_path / "list.txt"
    names = [f"{i}.png" for i in range(9)]
    listing = Listing(tmp_path, names)
    path.write_text("1.png\n2.png\n")
    left_out = without(listing, path).dropped
    keep_dropped(run, left_out)
    again = without(listing, None, dropped(run))
    assert again.names == ["0.png", *names[3:]] and again.dropped == left_out
    assert again.notes() == ["left out 2 images that this run has dropped before (--drop)"]
    again = without(listing, path, dropped(run))
    assert again.dropped == left_out and again.notes() == [f"left out 2 images that {path} names"]
    path.write_text("7.png\n")  # one more, which may be new
    again = without(Listing(tmp_path, names[2:]), path, dropped(run))
    assert again.dropped == {"1.png", "2.png", "7.png"}
    assert len(again.names) == 5 and len(again.notes()) == 2
    with pytest.raises(UserError, match="this run has dropped all images"):
        without(Listing(tmp_path, ["1.png"]), None, dropped(run))
    keep_dropped(run, set())
    assert dropped(run) == ()


@pytest.mark.parametrize("text", ["", "{}", "3", '["a", 3]', "[" * 10**5, None])
def test_a_damaged_list_of_what_a_run_has_dropped_is_one_line(tmp_path, text):
    path = tmp_path / "dropped.json"
    path.write_text(text) if text is not None else os.mkfifo(path)
    with pytest.raises(UserError, match=r"dropped.json cannot be read .*another --checkpoint_dir"):
        dropped(tmp_path)
