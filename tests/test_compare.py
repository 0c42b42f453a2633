"""Two results side by side."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import main
from anogan.errors import UserError
from anogan.evaluation.compare import Result, compared, moved_most
from anogan.evaluation.metrics import auroc_difference, auroc_interval
from anogan.report import differences

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parent.parent
LABELS = np.repeat([0, 1], 30)


def result(folder, scores, threshold=0.5, labels=LABELS, **metrics):
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"dataset": "parts", **metrics}))
    with open(folder / "scores.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "kind", "score", "is_anomaly"])
        for i, (score, label) in enumerate(zip(scores, labels, strict=True)):
            known = ["normal", "anomalous"][label]
            rows.writerow([f"{i:02d}.png", known, known, score, int(score > threshold)])
    return folder


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return LABELS + rng.normal(0, 0.8, 60), LABELS + rng.normal(0, 0.3, 60)


def test_both_are_shown_with_the_difference_and_what_changed_sides(tmp_path, scores):
    a = result(tmp_path / "a", scores[0], step=297, total_steps=600, auroc=0.8)
    b = result(tmp_path / "b", scores[1], step=600, total_steps=600)
    lines = compared(a, b)
    assert any(line.split() == ["step", "297", "of", "600", "600", "of", "600"] for line in lines)
    assert any(line.split() == ["AUROC", "0.8000", "unknown"] for line in lines)
    found = next(line for line in lines if line.startswith("AUROC on 60 of them"))
    difference = roc_auc_score(LABELS, scores[1]) - roc_auc_score(LABELS, scores[0])
    assert f"B - A {difference:+.4f} (95 % interval +" in found
    changed = np.flatnonzero((scores[0] > 0.5) != (scores[1] > 0.5))
    assert f"{len(changed)} of 60 images changed sides:" in lines
    named = [line.split()[0].rstrip(",") for line in lines if line.startswith("  ")]
    assert [name for name in named if name.endswith("png")] == [f"{i:02d}.png" for i in changed]


def test_only_images_of_both_and_of_one_label_are_compared(tmp_path, scores):
    a = result(tmp_path / "a", scores[0])
    other = LABELS.copy()
    other[3] = 1
    b = result(tmp_path / "b", scores[1][:50], labels=other[:50])
    lines = compared(a, b)
    assert "50 images are in both; 10 are in A alone, 0 in B alone" in lines
    assert any(line.startswith("1 of them have another label") for line in lines)
    assert any(line.startswith("AUROC on 49 of them") for line in lines)


def test_a_result_does_not_differ_from_itself(tmp_path, scores):
    a = result(tmp_path / "a", scores[0])
    lines = compared(a, a)
    assert any("B - A +0.0000 (95 % interval +0.0000 to +0.0000" in line for line in lines)
    assert lines[-1] == "0 of 60 images changed sides"


def test_pairing_narrows_the_interval(scores):
    """The same images are drawn for both, so what both find hard cancels."""
    near = scores[0] + np.random.default_rng(1).normal(0, 0.05, 60)
    found = auroc_difference(LABELS, scores[0], near)
    low, high = auroc_interval(LABELS, scores[0])
    assert found.low <= found.second - found.first <= found.high
    assert found.high - found.low < 0.5 * (high - low)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: (a / "scores.csv").unlink(), "no scores.csv"),
        (lambda a: (a / "metrics.json").write_text("[1]"), "metrics.json cannot be read"),
        (lambda a: (a / "scores.csv").write_text("file,label\nx,normal\n"), "columns.*score"),
        (
            lambda a: (a / "scores.csv").write_text("file,label,score\nx,normal,nan\n"),
            "scores.csv cannot be read",
        ),
        (lambda a: (a / "scores.csv").write_bytes(b"\xff\xfe\0"), "scores.csv cannot be read"),
        (
            lambda a: (a / "scores.csv").write_text("file,label,score\nx,normal,1\n"),
            "no image in common",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, scores, spoil, message):
    a, b = result(tmp_path / "a", scores[0]), result(tmp_path / "b", scores[1])
    spoil(a)
    with pytest.raises(UserError, match=message):
        compared(a, b)
    with pytest.raises(UserError, match="is no folder"):
        compared(a / "nowhere", b)


@pytest.mark.parametrize("name", ["metrics.json", "scores.csv"])
@pytest.mark.parametrize(
    "put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()]
)
def test_what_is_no_file_is_not_waited_for(tmp_path, scores, name, put):
    a, b = result(tmp_path / "a", scores[0]), result(tmp_path / "b", scores[1])
    (b / name).unlink()
    put(b / name)
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        compared(a, b)


@pytest.mark.parametrize("change", ["bom", "semicolons", "tabs"])
def test_a_table_that_a_spreadsheet_saved_is_the_same(tmp_path, scores, change):
    a, b = (result(tmp_path / name, scores[0]) for name in "ab")
    text = (b / "scores.csv").read_text()
    if change == "semicolons":
        text = text.replace(",", ";").replace(".", ",").replace(",png", ".png")
    elif change == "tabs":
        text = text.replace(",", "\t")
    encoding = "utf-16" if change == "tabs" else "utf-8-sig"
    (b / "scores.csv").write_text(text, encoding=encoding)
    assert compared(a, b)[2:] == compared(a, a)[2:]
    assert compared(a, b)[-1] == "0 of 60 images changed sides"


def test_the_images_that_differ_most_are_drawn(tmp_path, scores):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(60):
        Image.new("L", (20, 30), 4 * i).save(folder / f"{i:02d}.png")
    a = result(tmp_path / "a", scores[0])
    later = scores[0].copy()
    later[[7, 40]] = 99, -99
    b = result(tmp_path / "b", later, images_in=str(folder))
    first, second, *_ = moved_most(Result.read(a), Result.read(b))
    assert {first.file, second.file} == {"07.png", "40.png"}
    ranks = {one.file: one.ranks for one in (first, second)}
    assert ranks["07.png"] == ((scores[0] > scores[0][7]).sum() + 1, 1)
    assert ranks["40.png"][1] == 60
    line = differences.write(a, b)
    assert line.startswith("the 20 images whose rank differs most are in ")
    sheet = np.asarray(Image.open(b / "differences.png").convert("L")).astype(int)
    shown = [sheet[20:150, x + 60 : x + 100] for x in (8, 176)]  # of the first two cells
    assert {int(np.median(part)) for part in shown} == {4 * 7, 4 * 40}
    assert differences.write(a, a) == "all images have the same rank in both"
    (b / "differences.png").unlink()
    (folder / "07.png").unlink()
    assert differences.write(a, b).startswith("the 19 images")
    c = result(tmp_path / "c", later)
    assert "they are no longer there" in differences.write(a, c)


def test_it_stands_alone_and_needs_no_tensorflow(tmp_path, scores, capsys):
    a, b = result(tmp_path / "a", scores[0]), result(tmp_path / "b", scores[1])
    code = (
        "import sys, main\n"
        f"code = main.main(['--compare', {str(a)!r}, {str(b)!r}])\n"
        "sys.exit(str({'tensorflow', 'keras'} & set(sys.modules) or '') or code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "changed sides" in done.stdout, done.stderr
    for others in (["--train"], ["--export", "onnx"], ["--serve", "0"]):
        with pytest.raises(SystemExit):
            main.main(["--compare", str(a), str(b), *others])
        assert "--compare stands alone" in capsys.readouterr().err
