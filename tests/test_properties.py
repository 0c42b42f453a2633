"""Whatever is typed or read, by Hypothesis: an answer, or an error of one line."""

import csv
import io
import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anogan.cli.parser import parse, parser
from anogan.config import FILE_NAME, Config
from anogan.data.drop_list import listed
from anogan.data.image_set import ImageSet
from anogan.data.labels import labelled
from anogan.data.table import cell, from_cell
from anogan.errors import UserError
from anogan.evaluation.compare import compared
from anogan.evaluation.names import MAP_ENDINGS, map_stems, picture_name
from anogan.runs.files import printable, written

pytestmark = pytest.mark.unit

some = settings(
    max_examples=150,
    derandomize=True,  # the same examples in each run
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VALUES = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.integers(300, 500).map(lambda n: "9" * n),
    st.floats().map(str),
    st.sampled_from(
        ["0", "-1", "1e400", "1e-400", "nan", "a\0b", "../x", "--", "-", "mnist", "28"]
    ),
)
NAMES = (
    (st.text(st.characters(codec="utf-8")) | st.binary().map(os.fsdecode))
    .map(lambda name: name.replace("/", "").replace("\0", "")[:12])
    .filter(lambda name: name not in ("", ".", ".."))
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def flags():
    """Lists of main.py's own flags with values of all sorts."""
    names = [a.option_strings[-1] for a in parser()._actions if a.dest not in ("help", "version")]
    one = st.tuples(st.sampled_from(names), st.lists(VALUES, max_size=2))
    return st.lists(one, max_size=5).map(lambda found: [w for name, v in found for w in (name, *v)])


def one_line(function, *arguments):
    """What a call gives; None after a UserError, which is of one line."""
    try:
        return function(*arguments)
    except UserError as error:
        assert "\n" not in printable(error) and len(str(error)) < 2000
        return None


@some
@given(flags())
def test_any_arguments_are_taken_or_refused_with_exit_code_2(capsys, words):
    try:
        parse(words)
    except SystemExit as end:
        assert end.code == 2
        assert "error: " in capsys.readouterr().err


@some
@given(st.text())
def test_any_text_survives_a_table_and_is_no_formula_there(text):
    assert from_cell(cell(text)) == text
    assert not cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert "\n" not in printable(text) and printable(text).isprintable() is True


@some
@given(st.lists(NAMES, min_size=1, max_size=5, unique=True))
def test_files_of_any_images_have_names_of_their_own(names):
    files = [stem + ending for stem in map_stems(names) for ending in MAP_ENDINGS]
    assert len(set(files)) == len(files)
    shown = [picture_name("most", 1, name) for name in names]
    assert all(name.isascii() and "/" not in name and len(name) < 80 for name in shown)


@some
@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.data())
def test_labels_that_are_written_as_scores_are_read_back(tmp_path, names, data):
    words = data.draw(st.lists(st.sampled_from(["good", "defect"]), min_size=len(names)))
    text = io.StringIO()
    csv.writer(text).writerows([("file", "label"), *zip(map(cell, names), words, strict=False)])
    (tmp_path / "labels.csv").write_bytes(text.getvalue().encode("utf-8", "replace"))
    images = ImageSet.from_array(np.zeros((len(names), 16, 16, 1), np.uint8), names)
    found = one_line(labelled, images, tmp_path / "labels.csv", tmp_path)
    if found is not None:
        assert list(found.labels) == [word == "defect" for word in words[: len(names)]]


@some
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: f"file,label\n{t}".encode()))
def test_any_file_of_labels_is_read_or_refused(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    images = ImageSet.from_array(np.zeros((1, 16, 16, 1), np.uint8), ["a.png"])
    one_line(labelled, images, tmp_path / "labels.csv", tmp_path)
    one_line(listed, tmp_path / "labels.csv", ["a.png"], tmp_path)


@some
@given(JSON | st.dictionaries(st.sampled_from([*vars(Config()), "x"]), JSON))
def test_any_settings_are_read_or_refused(tmp_path, value):
    (tmp_path / FILE_NAME).write_text(json.dumps(value))
    one_line(Config.load, tmp_path)


@some
@given(
    st.binary(max_size=100) | st.lists(JSON).map(lambda v: "\n".join(map(json.dumps, v)).encode())
)
def test_any_marker_names_only_what_lies_inside(tmp_path, content):
    (tmp_path / ".anogan_files").write_bytes(content)
    assert all(
        not name.startswith("/") and ".." not in name.split("/") for name in written(tmp_path)
    )


@some
@given(st.text(max_size=100), JSON)
def test_any_results_are_compared_or_refused(tmp_path, rows, metrics):
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    text = f"file,label,score\n{rows}".encode("utf-8", "replace")
    (tmp_path / "scores.csv").write_bytes(text)
    one_line(compared, str(tmp_path), str(tmp_path))
