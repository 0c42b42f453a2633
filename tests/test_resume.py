"""Scoring that was interrupted, in whatever way, goes on, and ends as if it had not been."""

import json
import os
import shutil
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anogan.cli.options import Options
from anogan.cli.run import Devices, Run
from anogan.cli.score import draw_report, identity, map_writer, origin, prepare
from anogan.data.folders import find_images, image_folder
from anogan.data.masks import Masks
from anogan.errors import UserError
from anogan.evaluation.best import Best, Picture, saved
from anogan.evaluation.outcome import decide
from anogan.evaluation.result_folder import PARTIAL, STAGING
from anogan.evaluation.rows import Row, RowFiles
from anogan.evaluation.scoring import COLUMNS, Scoring
from anogan.image_form import ImageForm
from anogan.method.scoring import Search
from anogan.method.threshold import Threshold
from anogan.report import plots
from anogan.runs import provenance
from utils import ImageError

pytestmark = [pytest.mark.unit, pytest.mark.usefixtures("no_drawings")]


@pytest.fixture(autouse=True)
def the_same_time(monkeypatch):
    """Results say when they were made, and are compared here."""
    monkeypatch.setattr(provenance, "now", lambda: "2026-01-01T00:00:00+00:00")


@pytest.fixture
def test_data(tmp_path, queries):
    """Folders with 12 images, of which one has 16 bits and one is broken, and masks."""
    for i, image in enumerate(queries[0][[*range(6), *range(40, 46)]]):
        kind = "normal" if i < 6 else "odd"
        path = tmp_path / "test" / kind / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = image[..., 0] if i != 1 else image[..., 0].astype(np.uint16) * 257
        Image.fromarray(pixels).save(path)
        if kind == "odd":
            mask = tmp_path / "masks" / kind / f"{i:02d}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.pad(np.full((6, 5), 255, np.uint8), ((4, 6), (i - 5, 16 - i)))).save(
                mask
            )
    (tmp_path / "test" / "normal" / "02.png").write_bytes(b"broken")
    return tmp_path


class Stop(Exception):
    pass


def prepared(here, model, out, search=None, save_maps=True):
    """(Scoring that is to be done, its images, what scores a batch, how many images it has)."""
    images = image_folder(find_images(here / "test"), ImageForm(16, 16, 1), labelled=True)
    masks = Masks(here / "masks", images)
    search, scored = model.search(search), []
    calibration = model.calibrate(search)

    def detect(x):
        scored.append(len(x))
        return model.anomaly_detector(x, search, 3, calibration)

    scoring = Scoring(
        *(here / out, images, model.workers, identity(model, calibration, search, 3), 3),
        pixel_threshold=calibration.pixel_threshold(), masks=masks, best=Best(),
        save_map=map_writer(1.0) if save_maps else None,
    )  # fmt: skip
    return scoring, images, detect, scored


def score(here, model, out, batches=99, search=None, save_maps=True):
    """Scores so many batches of 3 images; returns how many images were."""
    scoring, images, detect, scored = prepared(here, model, out, search, save_maps)
    left = scoring.resume()
    with scoring:
        for number, (indices, batch) in enumerate(images.subset(left).batches(3)):
            if number == batches:
                raise Stop
            scoring.add(left[indices], detect(batch))
        finish(scoring, model, model.search(search), detect)
    return sum(scored)


def finish(scoring, model, search, detect):
    """What follows when all batches are scored."""
    images, staging, masks = scoring.images, scoring.folder.staging, scoring.masks
    about = origin(model, search)
    outcome = decide(images, scoring.gather(), Threshold(), model.calibrate(search), about)
    outcome.write(staging)
    draw_report(staging, model, outcome, scoring.best, detect, masks)
    scoring.folder.publish()


def files_of(folder):
    found = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


@pytest.mark.parametrize("search", [None, Search("gradient", 3, 0.1)])
@pytest.mark.parametrize("pictures_are_there", [True, False])
def test_the_results_are_those_of_a_scoring_without_a_stop(
    trained, test_data, search, pictures_are_there
):
    assert score(test_data, trained, "whole", search=search) == 11
    for batches in (1, 2):
        with pytest.raises(Stop):
            score(test_data, trained, "out", batches, search)
        assert not (test_data / "out" / "scores.csv").exists()
    if pictures_are_there:
        assert score(test_data, trained, "out", search=search) == 3
        assert files_of(test_data / "whole") == files_of(test_data / "out")
        return
    (test_data / "out" / PARTIAL / "pictures0.npz").write_bytes(b"PK damaged")
    assert score(test_data, trained, "out", search=search) == 11  # for their pictures alone
    whole, found = files_of(test_data / "whole"), files_of(test_data / "out")
    assert whole.keys() == found.keys()
    different = {name for name, content in whole.items() if found[name] != content}
    assert different <= {"report.html"}


def test_changed_images_and_masks_and_lost_maps_are_scored_again(trained, test_data):
    with pytest.raises(Stop):
        score(test_data, trained, "out", 3)
    Image.new("L", (16, 16), 77).save(test_data / "test" / "normal" / "00.png")
    (test_data / "test" / "normal" / "01.png").unlink()
    os.utime(test_data / "masks" / "odd" / "06.png", (1, 1))
    (test_data / "out" / STAGING / "maps" / "odd" / "07.png").unlink()
    assert score(test_data, trained, "out") == 10  # of each batch one
    score(test_data, trained, "whole")
    assert files_of(test_data / "whole") == files_of(test_data / "out")


def test_other_settings_start_anew(trained, test_data):
    with pytest.raises(Stop):
        score(test_data, trained, "out", 2)
    other = Search("gradient", 3, 0.1)
    assert score(test_data, trained, "out", search=other) == 11
    score(test_data, trained, "whole", search=other)
    assert files_of(test_data / "whole") == files_of(test_data / "out")


def test_workers_whose_machines_have_copies_of_the_files_see_the_same(
    trained, test_data, monkeypatch
):
    monkeypatch.setattr(trained.workers, "count", 2)
    original = prepared(test_data, trained, "out")[0]
    shutil.copytree(test_data, test_data / "copy")  # with the times of the files
    assert original._states == prepared(test_data / "copy", trained, "out")[0]._states
    monkeypatch.setattr(trained.workers, "count", 1)
    assert original._states != prepared(test_data / "copy", trained, "out")[0]._states


def test_the_picture_of_an_image_that_was_changed_is_not_shown(trained, test_data):
    with pytest.raises(Stop):
        score(test_data, trained, "out", 3)
    Image.new("L", (16, 16), 77).save(test_data / "test" / "normal" / "00.png")
    scoring, images, *_ = prepared(test_data, trained, "out")
    scoring.resume()
    shown = {images.names[i] for i in scoring.best.pictures}
    assert "normal/04.png" in shown and "normal/00.png" not in shown


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"normal/', '["normal/'),
        lambda text: text.replace('"odd/', '"../'),
        lambda text: "[" * 100_000,
        lambda text: "\0" * 99,
        lambda text: text.replace("[[[", "[[[1e999, "),
    ],
)
def test_damaged_rows_are_scored_again(trained, test_data, damage):
    with pytest.raises(Stop):
        score(test_data, trained, "out", 3)
    path = test_data / "out" / PARTIAL / "rows0.jsonl"
    path.write_text(damage(path.read_text()))
    score(test_data, trained, "out")
    score(test_data, trained, "whole")
    assert files_of(test_data / "whole") == files_of(test_data / "out")


def test_a_row_survives_the_way_to_its_file(tmp_path):
    row = Row("a\n\u202e.png", [1, 2], [0.1] * len(COLUMNS), ["x"], [1 / 3], None)
    files = RowFiles(tmp_path, 0, {"a": 0.1}, len(COLUMNS))
    files.open()
    files.add([row, row])
    files.close()
    assert list(files.read(0)) == [row, row]
    assert list(RowFiles(tmp_path, 0, {"a": 0.2}, len(COLUMNS)).read(0)) == []


def test_rows_in_a_folder_that_is_a_link_or_a_file_are_none(tmp_path):
    victim, out = tmp_path / "victim", tmp_path / "out"
    row = Row("a.png", [1, 2], [0.1] * len(COLUMNS), [], None, None)
    make = {
        "link": lambda place: place.symlink_to(victim),
        "dangling": lambda place: place.symlink_to(victim / "no"),
        "file": Path.touch,
        "pipe": os.mkfifo,
    }
    files = RowFiles(victim.parent, 0, {}, len(COLUMNS))
    files.folder = victim
    files.open()
    files.add([row])
    files.close()
    (victim / "thesis.doc").write_text("mine")
    before = files_of(victim)
    for put in make.values():
        out.mkdir()
        put(out / PARTIAL)
        files = RowFiles(out, 0, {}, len(COLUMNS))
        assert files.workers() == []
        files.drop_foreign()
        files.open()
        files.clear()
        files.close()
        assert (out / PARTIAL).is_dir() and files_of(victim) == before
        shutil.rmtree(out)
    for put in (*make.values(), Path.mkdir):
        (out / PARTIAL).mkdir(parents=True)
        put(out / PARTIAL / "rows0.jsonl")
        files = RowFiles(out, 0, {}, len(COLUMNS))
        assert list(files.read(0)) == []
        files.drop_foreign()
        files.open()
        files.add([row])
        files.close()
        assert list(files.read(0)) == [row] and files_of(victim) == before
        shutil.rmtree(out)


def test_pictures_are_read_from_a_file_of_this_tools_alone(tmp_path):
    picture = Picture(0.5, *(np.full((4, 4, 1), i, np.uint8) for i in (1, 2)), np.ones((4, 4), "f"))
    best, path, key = Best(1, 1, 1, None), tmp_path / "pictures0.npz", {"a": 1}
    best.pictures = {0: picture}

    def read(path=path):
        return [name for name, _ in saved(path, key, (4, 4, 1), 2)]

    best.save(path, key, ["x.png"])
    assert read() == ["x.png"]
    (tmp_path / "link.npz").symlink_to(path)
    os.mkfifo(tmp_path / "pipe.npz")
    assert read(tmp_path / "link.npz") == read(tmp_path / "pipe.npz") == []
    arrays = dict(np.load(path))
    about = json.dumps({"key": key, "names": [["x.png"]]})
    for spoilt in ({"about": np.array(about)}, {"query": arrays["query"].astype("U1")}):
        np.savez(path, **(arrays | spoilt))
        assert read() == []
    many = np.zeros((5_000_000, 4, 4, 1), np.uint8)  # a bomb: it takes little room on disk
    np.savez_compressed(path, **(arrays | {"query": many, "reconstruction": many}))
    tracemalloc.start()
    assert read() == [] and tracemalloc.get_traced_memory()[1] < many.nbytes / 4
    tracemalloc.stop()


@pytest.mark.parametrize(
    "place", [PARTIAL, STAGING, f"{STAGING}/maps", f"{STAGING}/maps/odd/06.png"]
)
def test_links_into_other_folders_are_not_followed(trained, test_data, place):
    """As a data set from elsewhere may hold them in its test_result."""
    with pytest.raises(Stop):
        score(test_data, trained, "out", 3)
    path, victim = test_data / "out" / place, test_data / "victim"
    path.rename(victim)
    path.symlink_to(victim)
    before = files_of(victim) if victim.is_dir() else victim.read_bytes()
    score(test_data, trained, "out")
    assert before == (files_of(victim) if victim.is_dir() else victim.read_bytes())
    score(test_data, trained, "whole")
    assert files_of(test_data / "whole") == files_of(test_data / "out")
    assert not any(p.is_symlink() for p in (test_data / "out").rglob("*"))


def test_a_folder_of_maps_that_is_a_link_is_told_before_anything_is_scored(trained, test_data):
    (test_data / "out" / "maps").mkdir(parents=True)
    (test_data / "out" / "maps" / "odd").symlink_to(test_data)
    with pytest.raises(UserError, match="maps/odd is a link"):
        prepared(test_data, trained, "out")
    prepared(test_data, trained, "out", save_maps=False)


def test_results_go_through_a_link_only_where_the_user_named_it(trained, test_data):
    run = Run(trained.folder, trained.config, Devices("none", "float32", True))
    places = {"test_dir": [str(test_data / "test")], "data_dir": str(test_data)}
    (test_data / "elsewhere").mkdir()
    (test_data / "test" / "test_result").symlink_to(test_data / "elsewhere")
    with pytest.raises(UserError, match="test_result is a link.*--test_result_dir"):
        prepare(Options(anomaly_test=True, **places), run, sys.stdout)
    given = str(test_data / "test" / "test_result")
    prepare(Options(anomaly_test=True, test_result_dir=given, **places), run, sys.stdout)


def test_new_scores_are_never_beside_an_old_report(trained, test_data, monkeypatch):
    """A kill at any of the renamings leaves out files of one of the two runs, or mixes none."""
    score(test_data, trained, "out")
    old = {name: (test_data / "out" / name).stat().st_ino for name in ("scores.csv", "report.html")}
    replace = os.replace
    for count in range(0, 60, 3):
        done = []

        def kill(source, target, done=done, count=count):
            if STAGING in str(source) and ".tmp" not in str(source):
                done.append(1)
                if len(done) > count:
                    raise KeyboardInterrupt
            return replace(source, target)

        monkeypatch.setattr(os, "replace", kill)
        try:
            score(test_data, trained, "out")
        except KeyboardInterrupt:
            there = {n: (test_data / "out" / n) for n in old if (test_data / "out" / n).exists()}
            assert len({p.stat().st_ino == old[n] for n, p in there.items()}) <= 1
        else:
            break
    monkeypatch.setattr(os, "replace", replace)
    score(test_data, trained, "out")
    score(test_data, trained, "whole")
    assert files_of(test_data / "whole") == files_of(test_data / "out")


def test_images_that_vanish_after_they_were_scored_do_not_end_the_run(
    trained, test_data, monkeypatch
):
    real = Scoring.gather

    def gather(scoring):
        for path in (test_data / "test").rglob("*.png"):
            path.unlink()
        scoring.images._source.images = None
        scoring.best.pictures.clear()
        return real(scoring)

    monkeypatch.setattr(Scoring, "gather", gather)
    score(test_data, trained, "out")
    assert (test_data / "out" / "scores.csv").read_text().count("\n") == 12


def test_pictures_that_cannot_be_kept_cost_a_warning_rows_that_cannot_one_line(
    trained, test_data, monkeypatch, caplog
):
    monkeypatch.setattr(Best, "save", lambda *_: (_ for _ in ()).throw(UserError("x: no room")))
    score(test_data, trained, "out")
    assert caplog.text.count("pictures are not kept so far: x: no room") == 1
    monkeypatch.undo()
    monkeypatch.setattr(plots, "write", lambda *_: {})
    old = files_of(test_data / "out")

    class Full:
        def write(self, _):
            raise OSError(28, "No space left on device")

        writelines = write

        def close(self):
            self.write("")

    real = RowFiles.add

    def add(files, rows):
        if len(list(files.read(0))) >= 3:
            files._file = Full()
        real(files, rows)

    monkeypatch.setattr(RowFiles, "add", add)
    with pytest.raises(UserError, match=r"rows0.jsonl cannot be written \(No space left"):
        score(test_data, trained, "out")
    now = files_of(test_data / "out")
    assert {k: v for k, v in now.items() if k in old and "partial" not in k} == old
    monkeypatch.setattr(RowFiles, "add", real)
    assert score(test_data, trained, "out") == 9
    assert set(files_of(test_data / "out")) >= set(old)
    assert json.loads((test_data / "out" / "metrics.json").read_text())["images"] == 11
    assert not (test_data / "out" / PARTIAL).exists()


def test_a_mask_that_breaks_during_the_scoring_costs_its_own_pixels(
    trained, test_data, monkeypatch, caplog
):
    read = Masks.read

    def breaks(masks, index):
        if index == 9:
            raise ImageError(masks.paths[index], "cannot be read")
        return read(masks, index)

    monkeypatch.setattr(Masks, "read", breaks)
    score(test_data, trained, "out")
    metrics = json.loads((test_data / "out" / "metrics.json").read_text())
    assert metrics["images"] == 11 and metrics["regions"] == 5
    assert "left out of the pixel measures: " in caplog.text and "09.png" in caplog.text
