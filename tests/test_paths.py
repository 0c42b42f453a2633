"""Where runs lie, and which run a command means."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from commands import rows, save

import main
from anogan.cli import draw, paths, train
from anogan.cli.options import Options
from anogan.cli.parser import parse
from anogan.cli.settings import require_settings
from anogan.config import Config
from anogan.data.listing import list_chosen, list_images
from anogan.data.text import read_bytes
from anogan.errors import UserError

pytestmark = pytest.mark.cli


def test_runs_have_safe_names_of_their_own(here, zeros):

    def named(*words):
        options = parse(["--train", *words])
        dataset = paths.dataset_name(options.data_dir, options.dataset)
        options = dataclasses.replace(options, dataset=dataset)
        folder = paths.run_folder(options)
        return folder, paths.output_name(folder)

    for name in ("bottle/good", "cable/good", "cable_good"):
        save(here / "data" / name / "a.png", zeros[0])
    elsewhere = here / "photographs"
    save(elsewhere / "a.png", zeros[0])
    found = [
        named("--dataset", name)
        for name in (
            "zeros",
            "bottle/good",
            "cable/good",
            "cable_good",
            str(elsewhere),
            "../x/zeros",
        )
    ]
    found += [named("--dataset", "zeros", "--checkpoint_dir", d) for d in ("exp/a", "exp_a", "b")]
    found.append(named("--dataset", "zeros", "--checkpoint_dir", "."))
    (here / "data" / "linked").symlink_to(elsewhere)
    assert named("--dataset", "linked") == (Path("checkpoints/linked"), "linked")
    assert found[0] == (Path("checkpoints/zeros"), "zeros")
    for names in zip(*found, strict=True):
        assert len(set(names)) == len(found)
    for folder, name in found:
        assert folder.parent in {Path(p) for p in ("checkpoints", "exp/a", "exp_a", "b", ".")}
        assert re.fullmatch(r"[\w-][\w.-]*", folder.name) and re.fullmatch(r"[\w-][\w.-]*", name)
    same = [
        named("--dataset", n)
        for n in ("bottle/good", "./bottle//good/", str(here / "data/bottle/good"))
    ]
    assert len(set(same)) == 1


def test_no_two_data_sets_share_a_run(here):
    def folder(*words):
        return paths.run_folder(parse(words))

    def saved(run, dataset):
        Config(dataset=dataset).save(here / "checkpoints" / run)

    digit = folder("--dataset", "mnist", "--normal_class", "8")
    mine = folder("--dataset", "mnist_normal8")
    others = [folder("--dataset", n) for n in ("mnist_anomaly8", "MNIST", "config.json", "mnist_8")]
    assert len({digit, mine, *others, folder("--dataset", "mnist")}) == 7
    assert digit.name == "mnist_normal8" and others[-1].name == "mnist_8"
    saved("mnist_normal8", "mnist")
    assert folder("--dataset", "mnist_normal8") == mine
    saved("mnist_backup", "mnist_backup")
    mnist = Options(dataset="mnist")
    assert paths.find_run(mnist).name == "mnist_normal8"
    saved("mnist_normal3", "mnist")  # which of the two?
    with pytest.raises(UserError, match="no trained model"):
        paths.find_run(mnist)
    for name in ("a/b", "zeros"):
        place = folder("--dataset", name)
        saved(place.name, "mnist" if name == "zeros" else place.name)
        for switch in ({"train": True}, {"anomaly_test": True}):
            with pytest.raises(UserError, match=f"holds a run of .*, not of {name}"):
                main.run(Options(dataset=name, **switch))
    saved("zeros", "renamed")
    assert train.prepare(Options(dataset="zeros", train=True)).config.dataset == "renamed"


@pytest.mark.parametrize(
    "words",
    [
        ["--z_dim", "5"],
        ["--output_height", "32"],
        ["--output_width", "32"],
        ["--crop"],
        ["--input_height", "12", "--crop"],
    ],
)
def test_a_flag_that_contradicts_the_run_is_an_error_that_names_it(run, words, capsys):
    for switch in ("--train", "--anomaly_test"):
        assert main.main(["--dataset", "zeros", switch, *words]) == 1
        told = capsys.readouterr().err
        assert "was trained with" in told and f"leave {words[0]} out" in told


def test_a_width_that_comes_of_the_height_names_the_flag_of_the_height():
    tall = Config(height=32, width=16)
    with pytest.raises(UserError, match="width 16, not 32: leave --output_height out"):
        require_settings(Options(output_height=32), tall, free=("dataset",))


@pytest.mark.usefixtures("eager", "no_drawings")
def test_a_run_is_found_by_its_own_folder(run):
    words = ["--checkpoint_dir", "checkpoints/zeros", "--anomaly_test", "--search", "gradient"]
    assert main.main([*words, "--test_epoch", "2"]) == 0
    assert len(rows(run / "test_data" / "test_result" / "scores.csv")) == 12


def test_a_model_that_was_replaced_after_the_images_were_prepared_for_it_is_told(
    run, monkeypatch, capsys
):
    path = run / "checkpoints" / "zeros" / "config.json"

    def replaced(_):
        path.write_text(path.read_text().replace('"crop_height": 0', '"crop_height": 12'))

    monkeypatch.setattr(draw, "require_writable", replaced)
    assert main.main(["--dataset", "zeros", "--visualize"]) == 1
    assert "replaced by another meanwhile" in capsys.readouterr().err


@pytest.mark.usefixtures("eager", "no_drawings")
def test_a_model_of_mnist_scores_a_folder_that_is_named(run, zeros, capsys):
    config = run / "checkpoints" / "zeros" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dataset": "mnist"}))
    save(run / "mine" / "a.png", zeros[0])
    words = ["--dataset", "mnist", "--checkpoint_dir", "checkpoints/zeros", "--anomaly_test"]
    assert main.main(words) == 1
    assert "python download.py mnist" in capsys.readouterr().err
    assert main.main([*words, "--test_dir", "mine"]) == 0
    assert [r["file"] for r in rows(run / "mine/test_result/scores.csv")] == ["a.png"]


@pytest.mark.parametrize("name", ["in/*.png", "in/*", "in/part_[0-9].png"])
def test_a_pattern_that_no_shell_expanded_is_named(tmp_path, name):
    with pytest.raises(UserError, match="without quotes"):
        list_chosen(tmp_path, [name], None)
    with pytest.raises(UserError, match="without quotes"):
        list_images(tmp_path / name, None)


@pytest.mark.parametrize("name", ["/dev/stdin", "parts/*", "a.zip"])
def test_a_data_set_that_can_be_no_folder_is_named(tmp_path, name):
    (tmp_path / "a.zip").touch()
    with pytest.raises(UserError, match="name one folder of images") as error:
        paths.dataset_folder(str(tmp_path), name)
    assert "\n" not in str(error.value)


def test_a_pattern_in_place_of_a_list_is_named(tmp_path):
    with pytest.raises(UserError, match="name one file, not a pattern"):
        read_bytes(tmp_path / "labels*.csv")


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="no pipes by number on this system")
def test_a_list_may_come_through_a_pipe_and_be_read_twice():
    """As labels and drop lists from <(command) are."""
    ends = os.pipe()
    os.write(ends[1], b"a.png\n")
    os.close(ends[1])
    path = f"/dev/fd/{ends[0]}"
    assert read_bytes(path) == read_bytes(path) == b"a.png\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_refused_with_what_can_be_given(tmp_path):
    """As <(command) and /dev/stdin are."""
    os.mkfifo(tmp_path / "63")
    with pytest.raises(UserError, match="63 is a pipe or device: name files or folders") as error:
        list_chosen(tmp_path, ["63"], None)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="does not exist: name a file or folder of images"):
        list_chosen(tmp_path, ["nosuch.png"], None)


@pytest.mark.parametrize(
    "data_dir, name, remedy",
    [
        ("data", "celebA", "python download.py celebA ("),
        ("big", "celebA", "python download.py celebA --data_dir big ("),
        ("data", "lsun/church_outdoor_train", "lsun --category church_outdoor --split train ("),
    ],
)
def test_the_remedy_for_a_missing_data_set_fetches_that_one(
    tmp_path, monkeypatch, data_dir, name, remedy
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        paths.dataset_folder(data_dir, name)
    assert remedy in str(error.value)


def test_a_mask_is_one_however_it_is_reached_and_none_that_is_named_as_an_image(tmp_path):
    for name in ("a.png", "a_GT.png", "in/b.png", "in/b_GT.png"):
        save(tmp_path / name, np.zeros((16, 16), np.uint8))
    both = list_chosen(tmp_path, [".", "in"], None)
    assert (both.names, both.masks) == (["a.png", "in/b.png"], ["a_GT.png", "in/b_GT.png"])
    named = list_chosen(tmp_path, ["in", "in/b_GT.png"], None)
    assert (named.names, named.masks) == (["in/b.png", "in/b_GT.png"], [])


@pytest.mark.usefixtures("eager")
def test_flags_that_are_not_for_a_run_of_mnist_are_told_where_its_folder_is_named(run, capsys):
    config = run / "checkpoints" / "zeros" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dataset": "mnist"}))
    (run / "data" / "mnist").mkdir()
    for words, flag in ((["--crop"], "--crop"), (["--input_fname_pattern", "*"], "--input_fname")):
        assert main.main(["--checkpoint_dir", "checkpoints/zeros", "--train", *words]) == 1
        assert f"leave {flag}" in capsys.readouterr().err
