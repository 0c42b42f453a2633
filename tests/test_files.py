"""What this tool wrote is known, replaced as a whole, and nothing else is touched."""

import json
import os
import shutil

import pytest
from PIL import Image

from anogan.data.listing import list_images
from anogan.errors import UserError
from anogan.evaluation.result_folder import FOLDERS, STAGING, ResultFolder
from anogan.runs import files as files_module
from anogan.runs.files import LONGEST, MARKER, own_lines, printable, read_own, record, written

pytestmark = pytest.mark.unit


def publish(folder, **files):
    """A run's output with files of these names ("__" for "/", "_png" for ".png") and texts."""
    output = ResultFolder(folder)
    output.begin()
    for name, text in files.items():
        path = output.staging / name.replace("__", "/").replace("_png", ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    output.publish()


def files(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {MARKER}


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(path)


def test_a_new_run_replaces_the_files_of_the_last_one_and_those_alone(tmp_path):
    picture(tmp_path / "pictures" / "mine.png")
    publish(tmp_path, pictures__a_png="1", maps__b_png="1", plots__c_png="1")
    publish(tmp_path, pictures__a_png="2")
    assert files(tmp_path) == {"pictures/mine.png", "pictures/a.png"}
    assert (tmp_path / "pictures" / "a.png").read_text() == "2"
    assert not (tmp_path / "maps").exists()
    assert written(tmp_path) == {"pictures/a.png"}


def test_the_marker_is_read_once_however_many_files_are_recorded(tmp_path, monkeypatch):
    """Reading it for each of 200,000 images' maps would never end."""
    reads, real = [], files_module.written
    monkeypatch.setattr(files_module, "written", lambda folder: reads.append(1) or real(folder))
    record(tmp_path, *(f"maps/{i}.npy" for i in range(50)))
    assert len(reads) == 1 and len(real(tmp_path)) == 50


def test_somebody_elses_file_of_the_same_name_is_kept(tmp_path):
    picture(tmp_path / "maps" / "a.png")
    (tmp_path / "maps" / "b.png").symlink_to("nowhere")
    before = (tmp_path / "maps" / "a.png").read_bytes()
    publish(tmp_path, maps__a_png="ours", maps__b_png="ours")
    assert (tmp_path / "maps" / "a.png").read_bytes() == before
    assert (tmp_path / "maps" / "b.png").is_symlink()
    for name in "ab":
        assert (tmp_path / "maps" / f"{name} (2).png").read_text() == "ours"
        with pytest.raises(UserError, match=f"{name}.png was not written by this tool"):
            ResultFolder(tmp_path, [f"maps/{name}.png"])
        ResultFolder(tmp_path, [f"maps/{name} (2).png"])


def test_until_it_is_published_the_last_runs_files_stay(tmp_path):
    publish(tmp_path, maps__a_png="1", maps__b_png="1")
    output = ResultFolder(tmp_path)
    output.begin()
    (output.staging / "maps").mkdir(parents=True)
    (output.staging / "maps" / "a.png").write_text("2")
    assert (tmp_path / "maps" / "a.png").read_text() == "1"
    assert written(tmp_path) == {"maps/a.png", "maps/b.png"}
    publish(tmp_path, maps__c_png="3")
    assert files(tmp_path) == {"maps/c.png"} and not (tmp_path / STAGING).exists()


def test_a_kill_while_publishing_leaves_no_file_of_unknown_origin(tmp_path, monkeypatch):
    publish(tmp_path, maps__a_png="1")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, maps__b_png="2")
    assert written(tmp_path) == {"maps/a.png", "maps/b.png"}


def test_a_marker_from_elsewhere_reaches_no_file_outside(tmp_path):
    folder, outside = tmp_path / "out", tmp_path / "mine.txt"
    outside.write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "theirs.txt").write_text("x")
    folder.mkdir()
    (folder / "maps").mkdir()
    (folder / "maps" / "odd").symlink_to(tmp_path / "other")
    names = ["../mine.txt", str(outside), "maps/odd/theirs.txt", "", 3, "a\0b"]
    (folder / MARKER).write_text("\n".join(map(json.dumps, names)) + '\n"cut sho')
    publish(folder, maps__a_png="1")
    assert outside.exists() and (tmp_path / "other" / "theirs.txt").exists()


def in_place_of(path, what, outside):
    """Puts something at a path that is no file of its own; outside: to which links lead."""
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"link": outside, "dangling": outside / "no", "endless": "/dev/zero"}[what])


NO_FILES = "link", "dangling", "endless", "pipe"


@pytest.mark.parametrize("what", NO_FILES)
def test_a_marker_that_is_no_file_is_neither_read_nor_followed(tmp_path, what):
    outside = tmp_path / "bashrc"
    outside.write_text('"mine"\n')
    in_place_of(tmp_path / MARKER, what, outside)
    assert written(tmp_path) == set()
    record(tmp_path, "$(touch evil).png")
    assert written(tmp_path) == {"$(touch evil).png"}
    assert not (tmp_path / MARKER).is_symlink() and outside.read_text() == '"mine"\n'
    assert {p.name for p in tmp_path.iterdir()} == {MARKER, "bashrc"}


def test_a_marker_that_is_damaged_costs_the_damaged_lines_alone(tmp_path):
    (tmp_path / MARKER).write_bytes(b'"a.png"\n' + b"[" * 100_000 + b'\n\xff\n"zer')
    record(tmp_path, "b.png")
    assert written(tmp_path) == {"a.png", "b.png"}


def test_a_file_from_elsewhere_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "a", "wb") as file:
        file.write(b"1\n2\n")
        file.truncate(2**40)  # it has holes and takes no room
    assert list(own_lines(tmp_path / "a")) == [b"1\n", b"2\n"]
    with pytest.raises(OSError, match="larger than"):
        read_own(tmp_path / "a", LONGEST)


@pytest.mark.parametrize("name", [*FOLDERS, "maps/odd"])
def test_a_folder_that_is_a_link_or_somebody_elses_file_is_told_before_the_scoring(tmp_path, name):
    outside, place = tmp_path / "outside", tmp_path / "out" / name
    picture(outside / "histogram.png")
    before = files(outside)
    place.parent.mkdir(parents=True)
    for target in (outside, outside / "nowhere"):
        place.symlink_to(target)
        with pytest.raises(UserError, match=f"{place} is a link"):
            ResultFolder(tmp_path / "out", (), [name])
        place.unlink()
    output = ResultFolder(tmp_path / "out")
    output.begin()
    picture(output.staging / name / "histogram.png")
    place.symlink_to(outside)  # since then
    with pytest.raises(UserError, match=f"{place} is a link"):
        output.publish()
    assert files(outside) == before
    place.unlink()
    place.write_text("mine")
    with pytest.raises(UserError, match=f"{place} was not written by this tool"):
        ResultFolder(tmp_path / "out", (), [name])


def test_a_file_that_will_be_written_is_no_folder_whatever_the_marker_says(tmp_path):
    record(tmp_path, "scores.csv")
    (tmp_path / "scores.csv").mkdir()
    with pytest.raises(UserError, match="scores.csv was not written by this tool"):
        ResultFolder(tmp_path, ["scores.csv"])


def test_what_other_commands_wrote_into_the_same_folder_stays(tmp_path):
    others = {"zeros.onnx", "samples.png", "suspicious.txt", "train_0000100.png"}
    publish(tmp_path, maps__a_png="1")
    record(tmp_path, *others)
    for name in others:
        (tmp_path / name).write_text("x")
    publish(tmp_path, maps__b_png="1")
    assert files(tmp_path) == {*others, "maps/b.png"} == written(tmp_path)


def test_the_last_runs_file_makes_way_for_a_folder(tmp_path):
    publish(tmp_path, maps__a_png="1", maps__b_png="1")
    publish(tmp_path, maps__a_png__a_png="2")
    assert files(tmp_path) == {"maps/a.png/a.png"}


def test_folders_of_the_last_run_may_be_gone(tmp_path):
    publish(tmp_path, maps__a_png="1", plots__a__b_png="1", plots__c__d_png="1")
    shutil.rmtree(tmp_path / "maps")
    shutil.rmtree(tmp_path / "plots" / "a")
    shutil.rmtree(tmp_path / "plots" / "c")
    (tmp_path / "plots" / "c").write_text("mine")
    publish(tmp_path, pictures__a_png="2")
    assert files(tmp_path) == {"plots/c", "pictures/a.png"}


def test_nothing_staged_is_kept_or_published_by_a_link(tmp_path):
    outside = tmp_path / "outside"
    picture(outside / "a.png")
    before = files(outside)
    for link in (STAGING, f"{STAGING}/maps", f"{STAGING}/maps/a.png"):
        output = ResultFolder(tmp_path / "out")
        place = tmp_path / "out" / link
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(outside / "a.png" if link.endswith(".png") else outside)
        assert output.staged() == set()
        output.begin(keep={"a.png", "maps/a.png"})
        assert not os.path.lexists(place)
        output.publish()
        assert files(outside) == before and files(tmp_path / "out") == set()
    in_place_of(tmp_path / "out" / STAGING, "pipe", outside)
    ResultFolder(tmp_path / "out").begin()
    assert not os.path.lexists(tmp_path / "out" / STAGING)


def test_output_of_any_name_and_depth_is_left_out_of_images(tmp_path):
    picture(tmp_path / "good" / "a.png")
    picture(tmp_path / "good" / "out" / "mine.png")
    picture(tmp_path / "good" / "out" / "pictures" / "p.png")
    record(tmp_path / "good" / "out", "pictures/p.png", "scores.csv")
    found = list_images(tmp_path)
    assert found.names == ["good/a.png", "good/out/mine.png"] and found.results == 1
    assert found.notes() == ["left out 1 files of earlier results of this tool"]
    record(tmp_path, "good/a.png")
    assert list_images(tmp_path).names == ["good/out/mine.png"]


def test_printable_shows_all_and_forges_nothing():
    for text in ("Zelle 7.png", "\u00e9\u4e2d\u6587 \u0928.png", r"C:\a", ""):
        assert printable(text) == text
    evil = "a\nb\r\t\x1b[2J\x00\x7f\x9b\u202e\u2028\u200b\ud800"
    assert printable(evil).isprintable()
    assert printable(evil) == r"a\nb\r\t\x1b[2J\x00\x7f\x9b\u202e\u2028\u200b\ud800"


def test_only_what_killed_processes_left_half_written_is_cleared(tmp_path):
    files_module.temporary_in(tmp_path).write_text("half")
    files_module.temporary_in(tmp_path).mkdir()
    (tmp_path / "ckpt-7_temp").mkdir()
    (tmp_path / "mine.tmp").write_text("mine")
    files_module.clear_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.tmp"]
