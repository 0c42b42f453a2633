"""Names and texts from outside: on the terminal, in tables, as names of files, on pictures."""

import csv
import logging
import os
import random
import warnings

import numpy as np
import pytest

import main
from anogan.cli.printing import print_line
from anogan.data.image_set import ImageSet
from anogan.data.labels import labelled
from anogan.data.table import cell, from_cell
from anogan.errors import UserError
from anogan.evaluation.names import LONGEST, MAP_ENDINGS, map_stems, picture_name
from anogan.report.pictures import detection_panel, view
from anogan.report.text import fitting
from anogan.runs.files import printable

pytestmark = pytest.mark.unit

EVIL = "a\x1b[2J\nerror: forged\r\u202egnp.exe\u2028\x9b31m\x7f.png"
FORMULAS = [
    "=1+1.png",
    "+1.png",
    "-1.png",
    "@A1.png",
    "\t=1.png",
    "\r=1.png",
    "a;=1.png",
    "＝1.png",
]


def test_a_name_can_neither_steer_the_terminal_nor_forge_a_line(capsys, monkeypatch):
    def fails(_):
        logging.getLogger("anogan.x").warning("skipped %s", EVIL)
        print_line(EVIL)
        raise UserError(EVIL)

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(main, "run", fails)
    assert main.main([]) == 1
    monkeypatch.setattr(main, "run", lambda _: os.stat("missing\n\x1b"))
    assert main.main([]) == 1
    monkeypatch.setattr(main, "run", lambda _: (_ for _ in ()).throw(OSError(28, "Full")))
    assert main.main([]) == 1
    out, err = capsys.readouterr()
    lines = [*out.splitlines(), *err.splitlines()]
    assert len(lines) == 5 and all(line.isprintable() for line in lines)
    assert lines[0] == printable(EVIL) and r"a\x1b[2J\nerror: forged\r\u202egnp" in lines[0]
    assert lines[3].startswith(r"error: missing\n\x1b: No such file") and lines[4] == "error: Full"


def test_letters_of_any_script_are_shown_as_they_are():
    for name in ("größe.png", "中文.png", "ελληνικά", "עברית", "a b 😀.png"):
        assert printable(name) == name


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_begins_as_a_formula_and_each_reads_back(name):
    for text in (name, f"'{name}", f"''{name}"):
        parts = cell(text).replace(";", "\n").replace("\t", "\n").splitlines()
        assert not any(part.startswith(tuple("=+-@＝")) for part in parts)
        assert from_cell(cell(text)) == text


def test_any_text_survives_the_way_through_a_cell():
    rng = random.Random(0)
    for _ in range(20_000):
        text = "".join(rng.choices("'=+-@\t\r\n;a＝ ,\"", k=rng.randrange(8)))
        assert from_cell(cell(text)) == text


def test_a_table_of_scores_is_read_back_as_labels(tmp_path):
    names = sorted({*FORMULAS, *(f"'{n}" for n in FORMULAS), EVIL, "b.png", "'b.png"})
    with open(tmp_path / "scores.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "label", "kind", "score"))
        rows.writerows((cell(n), "anomalous", cell(f"={i}"), 1) for i, n in enumerate(names))
    images = ImageSet.from_array(np.zeros((len(names), 2, 2, 1), np.uint8), names)
    found = labelled(images, tmp_path / "scores.csv", tmp_path)
    assert found.kinds == tuple(f"={i}" for i in range(len(names)))


# names of files


def test_pictures_get_short_safe_names_whatever_the_image_is_called():
    for name in (
        "中" * 85,
        "x" * 255,
        EVIL,
        "../../etc/passwd",
        "a/b/.hidden",
        "CON",
        "...",
        "é.png",
    ):
        short = picture_name("most", 1, name)
        assert len(short.encode()) < 80 and short.isascii()
        assert set(short.removesuffix(".png")).isdisjoint("/\\.: \n")
    assert picture_name("most", 1, "ones/003.png") == "most_01_ones_003.png"


def files_of(stems):
    return [f"{stem}{ending}" for stem in stems for ending in MAP_ENDINGS]


def test_maps_have_their_images_names_where_these_fit_and_differ():
    names = ["ones/3.png", "a.png", "a.bmp", "b.1.png", "c_overlay.png", "c.png", "d.x/e"]
    plain = ["ones/3", "a.png", "a.bmp", "b.1", "c_overlay.png", "c.png", "d.x/e"]
    assert map_stems(names) == [f"maps/{name}" for name in plain]


def test_no_two_maps_share_a_file_nor_does_one_lie_where_a_folder_must():
    long = ["x" * 251 + end for end in (".png", ".bmp")] + [
        f"{'中' * 80}/{i}.png" for i in range(3)
    ]
    names = [*long, "a.png", "a.npy/b.png", "a_overlay.png", "a.png.png", "b", "b.png", "b.png.npy"]
    stems = map_stems(names)
    files = files_of(stems)
    assert len(set(files)) == len(files)
    folders = {f.rpartition("/")[0] for f in files}
    assert not folders & set(files)
    assert all(len(part.encode()) <= 255 for f in files for part in f.split("/"))
    assert all(len(stem.encode()) <= LONGEST + 5 for stem in stems)


def test_a_heading_holds_one_short_line_of_a_name():
    assert "\n" not in fitting(EVIL) and len(fitting("x" * 9999)) < 110


def test_a_picture_of_any_name_is_drawn_without_a_word(tmp_path):
    shown = view(
        np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4)), 1.0
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for i, name in enumerate(["$\\frac{$", "$x$ a_b^c", "中文😀", fitting(EVIL), "$\\alpha$"]):
            path = tmp_path / f"{i}.png"
            detection_panel(path, f"{name}\nscore", shown, np.zeros((4, 4)), 1.0, "")
            assert path.stat().st_size
    assert not [w for w in said if "Glyph" in str(w.message)]
