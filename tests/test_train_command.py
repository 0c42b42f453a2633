"""The command --train."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import NETS, ROOT, save
from PIL import Image

import main
from anogan.cli import score, train
from anogan.cli.options import Options
from anogan.cli.parser import parse
from anogan.config import Config
from anogan.data.folders import find_images
from anogan.errors import UserError
from anogan.runs.lock import LOCK, only_one

pytestmark = pytest.mark.cli


@pytest.mark.usefixtures("eager", "no_drawings")
def test_mvtecs_layout_is_trained_and_scored_with_no_other_flag(bottle, capsys):
    words = ["--dataset", "bottle", "--train", "--anomaly_test", "--epoch", "1", *NETS]
    assert main.main(words) == 0
    out = capsys.readouterr().out
    assert "training on 60 images from data/bottle/train/good" in out
    assert "layout of MVTec AD: scoring data/bottle/test" in out
    metrics = json.loads((bottle / "test_result" / "metrics.json").read_text())
    assert (metrics["normal"], metrics["anomalous"], metrics["regions"]) == (5, 5, 5)
    assert list(metrics["auroc_by_kind"]) == ["crack"] and 0 <= metrics["au_pro"] <= 1
    assert main.main(["--dataset", "bottle", "--anomaly_test", "--test_dir", "data/bottle"]) == 0
    again = json.loads((bottle / "test_result" / "metrics.json").read_text())
    assert again | {"date": metrics["date"]} == metrics


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (("data/zeros/good/a.png", "data/zeros/hole/b.png"), "zeros/good"),
        (("data/zeros/train/a.png", "data/zeros/test/b.png", "data/zeros/train/x/c.png"), "train"),
        (("data/zeros/line/defect/a.png",), "of their own"),
        (("data/zeros/masks/a.png",), "of their own"),
        (("data/zeros/normal/a.png",), "zeros/normal"),
        (("data/zeros/b/train/good/a.png", "data/zeros/b/test/bad/a.png"), "--dataset zeros/b\n"),
    ],
)
def test_sub_folders_that_look_labelled_are_not_trained_on(here, zeros, spoil, message, capsys):
    for name in spoil:
        save(here / name, zeros[0])
    assert main.main(["--dataset", "zeros", "--train", *NETS]) == 1
    error = capsys.readouterr().err
    assert "hardly all normal" in error and message in error
    assert not (here / "checkpoints").exists()


def test_normal_images_in_sub_folders_of_other_names_are_all_trained_on(tmp_path, zeros):

    for name in ("a/good/1.png", "a/normal/2.png", "b/good/3.png"):
        save(tmp_path / name, zeros[0])
    assert len(find_images(tmp_path, training="set").names) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--test_dir", "nowhere"], "nowhere"),
        (["--labels", "no.csv"], "no.csv"),
        (["--mask_dir", "no_masks"], "no_masks"),
        (["--mask_dir", "test_data"], "images and masks"),
        (["--threshold_from", "f1", "--test_dir", "data/zeros"], "labels of both sorts"),
        (["--test_result_dir", "data/zeros/000.png"], "000.png"),
        (["--sample_dir", "data/zeros/000.png"], "000.png"),
    ],
)
def test_what_scoring_needs_is_looked_at_before_the_training(here, words, message, capsys):
    assert main.main(["--dataset", "zeros", "--train", "--anomaly_test", *words, *NETS]) == 1
    assert message in capsys.readouterr().err
    assert not (here / "checkpoints").exists()


@pytest.mark.usefixtures("eager")
def test_samples_and_curves_that_cannot_be_written_do_not_end_the_training(
    here, monkeypatch, capsys, caplog
):
    from anogan.method import training

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "save_image", full)
    monkeypatch.setattr(training.tf.summary, "scalar", full)
    assert main.main(["--dataset", "zeros", "--train", "--epoch", "0.5", *NETS]) == 0
    assert caplog.text.count("No space left") == 2
    assert "trained to step" in capsys.readouterr().out


@pytest.mark.usefixtures("eager")
def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_last_one_stays(
    run, monkeypatch, capsys
):
    import tensorflow as tf

    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    save = tf.train.Checkpoint.write
    monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    assert main.main(["--dataset", "zeros", "--train", "--epoch", "2.3"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left" in error and "make room" in error
    monkeypatch.setattr(tf.train.Checkpoint, "write", save)
    assert main.main(["--dataset", "zeros", "--train", "--epoch", "2.3"]) == 0
    assert "going on from step 6 " in capsys.readouterr().out


def test_a_second_training_is_told_and_scoring_beside_one_names_its_step(run, capsys):
    with only_one(run / "checkpoints" / "zeros" / LOCK, "busy"):
        assert main.main(["--dataset", "zeros", "--train", "--epoch", "9"]) == 1
        said = capsys.readouterr().err
        assert "error: another training run is at work in checkpoints/zeros: wait" in said
        assert main.main(["--dataset", "zeros"]) == 0
    assert "the model in checkpoints/zeros as of step 6 of 6\n" in capsys.readouterr().out


def test_train_leaves_checkpoint_samples_and_curves(run):
    assert (run / "checkpoints" / "zeros" / "config.json").exists()
    grids = sorted((run / "samples" / "zeros").glob("train_*.png"))
    assert [grids[0].name, grids[-1].name] == ["train_0000000.png", "train_0000006.png"]
    assert list((run / "logs" / "zeros").glob("events*"))


def test_curves_have_keras_names_the_settings_and_held_out_measures(run):
    import tensorflow as tf

    path = next((run / "logs" / "zeros").glob("events*"))
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    events = map(tf.compat.v1.Event.FromString, records)
    found = {v.tag: v for event in events for v in event.summary.value}
    losses = {"d_loss", "g_loss", "reconstruction_loss", "kl_loss", "learning_rate"}
    measures = {"val_reconstruction_loss", "val_auc"}
    assert losses | measures | {"images_per_second", "samples", "settings"} == set(found)
    assert b"| batch_size | 16 |" in found["settings"].tensor.string_val[0]
    assert 0 <= tf.make_ndarray(found["val_auc"].tensor) <= 1
    assert tf.make_ndarray(found["val_reconstruction_loss"].tensor) > 0


def test_the_oddest_training_images_are_listed_and_can_be_dropped(run, capsys):
    folder = run / "samples" / "zeros"
    lines = (folder / "suspicious.txt").read_text().splitlines()
    names = [line.split("\t")[0] for line in lines]
    scores = [float(line.split("\t")[1]) for line in lines]
    assert len(set(names)) == 6 and scores == sorted(scores, reverse=True)
    with Image.open(folder / "suspicious.png") as sheet:
        assert sheet.width * sheet.height >= 6 * 16 * 16
    words = ["--dataset", "zeros", "--train", "--drop", str(folder / "suspicious.txt")]
    assert main.main(words) == 1
    error = capsys.readouterr().err
    assert "already trained on 6 of the images" in error and "--checkpoint_dir" in error
    options = Options(dataset="zeros", train=True, drop=str(folder / "suspicious.txt"))
    images = train.prepare(dataclasses.replace(options, checkpoint_dir="others")).images
    assert not set(names) & set(images.names) and len(images) == 54
    assert images.left_out == [f"left out 6 images that {options.drop} names"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nobody.png\n", "names no image in data/zeros"),
        ("\n".join(f"{i:03d}.png" for i in range(60)), "names all images in data/zeros"),
        (None, "cannot be read"),
    ],
)
def test_a_list_to_drop_that_cannot_be_used_is_one_line(here, content, message, capsys):
    if content is not None:
        (here / "list.txt").write_text(content)
    assert main.main(["--dataset", "zeros", "--train", "--drop", "list.txt"]) == 1
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_batch_is_no_larger_than_the_images(here, caplog):
    options = Options(dataset="zeros", train=True, output_height=16)
    plan = train.prepare(dataclasses.replace(options, batch_size=64))
    config, images = plan.config, plan.images
    assert config.batch_size == 60
    assert "60 training images are too few for a batch of 64" in caplog.text
    assert "only 60 training images" in caplog.text
    assert train.fit_batch(config, images) == config
    assert train.fit_batch(config, images.subset(range(5))).batch_size == 4


@pytest.mark.usefixtures("eager")
def test_same_command_goes_on_and_other_batch_sizes_find_the_model(run, capsys):
    words = ["--dataset", "zeros", "--train", "--batch_size", "8", "--epoch", "1"]
    assert main.main(words) == 0
    assert "from step 6" in capsys.readouterr().out
    assert main.main(["--dataset", "zeros", "--train"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def start(here, *words):
    command = [sys.executable, str(ROOT / "main.py"), "--dataset", "zeros", "--train", *words]
    return subprocess.Popen(
        command,
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored under nohup
    )


def wait_for(condition, process):
    end = time.monotonic() + 300
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()  # what it said can be read to the end then
            pytest.fail(process.stdout.read().decode())
        time.sleep(0.05)


@pytest.mark.usefixtures("eager")
def test_a_run_that_its_own_folder_names_goes_on_with_its_own_images(run, zeros, capsys):
    save(run / "data" / "celebA" / "a.png", zeros[0])  # the default of --dataset
    words = ["--checkpoint_dir", "checkpoints/zeros", "--train", "--epoch", "3"]
    assert main.main(words) == 0
    assert "training on 60 images from data/zeros" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_killed_runs_go_on_where_they_were(here, stop):
    """Ctrl-C saves the step; a kill loses what came after the last save, and nothing else."""
    grids = here / "samples" / "zeros"
    words = [*NETS, "--features", "none", "--epoch", "40"]
    process = start(here, *words)
    wait_for(lambda: len(list(grids.glob("*.png"))) >= 2, process)
    process.send_signal(stop)
    out = process.communicate(timeout=200)[0].decode()
    assert process.returncode == 130 and "Traceback" not in out
    process = start(here, *words)
    wait_for(lambda: len(list(grids.glob("*.png"))) >= 4, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=200)
    process = start(here, *words)
    out = process.communicate(timeout=200)[0].decode()
    assert process.returncode == 0, out
    assert "going on from step" in out and "trained to step 130" in out


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="not on this system")
def test_a_closed_terminal_saves_the_training(here):
    """The shell and the system may both send SIGHUP, and no line can be written any more."""
    grids = here / "samples" / "zeros"
    command = [sys.executable, str(ROOT / "main.py"), "--dataset", "zeros", "--train", *NETS]
    command += ["--features", "none", "--epoch", "100000"]
    ours, theirs = os.openpty()
    with open(here / "errors", "wb") as errors:
        process = subprocess.Popen(
            command, cwd=here, stdout=theirs, stderr=errors, preexec_fn=default_hangup
        )
    os.close(theirs)
    end = time.monotonic() + 300
    while not (grids.exists() and any((here / "checkpoints").rglob("*.index"))):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    time.sleep(1)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    assert process.wait(200) == 130
    assert "Traceback" not in (here / "errors").read_text()
    process = start(here, *NETS, "--features", "none", "--epoch", "1")
    out = process.communicate(timeout=200)[0].decode()
    assert int(re.search(r"step (\d+)", out)[1]) > 0, out


def default_hangup():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup


def test_values_of_all_training_images_make_the_range_that_scoring_uses(tmp_path, monkeypatch):

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "PROBED", 2)  # the first and the last
    ramp = np.linspace(-1000, 400, 256, dtype=np.float32).reshape(16, 16)
    for i in range(20):  # one alone holds the lowest and the highest value
        save(tmp_path / "data" / "ct" / f"{i:02d}.tiff", ramp * (2 if i == 7 else 1))
    save(tmp_path / "test_data" / "a.tiff", ramp * 2)
    save(tmp_path / "test_data" / "b.tiff", ramp * 4)
    words = ["--dataset", "ct", "--train", "--anomaly_test", *NETS]
    plan = train.prepare(parse(words))
    plan.config.save(tmp_path)
    assert Config.load(tmp_path) == plan.config
    assert plan.config.value_range == (-2000, 800) and plan.config.channels == 1
    trained_on, scored = plan.images, score.prepare(parse(words), plan, sys.stdout).images
    assert (scored.read([0])[0] == trained_on.read([7])[0]).all()
    values = np.rint((ramp + 2000) * 255 / 2800)
    assert (trained_on.read([0])[0][0, ..., 0] == values).all()
    assert not trained_on.warnings and not trained_on.skipped
    scored.read([0, 1])
    [(text, names)] = scored.warnings.items()
    assert "outside the run's range, -2000 to 800" in text and list(names) == ["b.tiff"]


def textured(rng, spot):
    """Noise of 48 x 72 pixels; with a spot of black and white, where."""
    image, mask = rng.integers(90, 170, (48, 72)).astype(np.uint8), np.zeros((48, 72), np.uint8)
    if spot:
        top, left = rng.integers(2, 38), rng.integers(2, 62)
        image[top : top + 8, left : left + 8] = np.tile([[0, 255], [255, 0]], (4, 4))
        mask[top : top + 8, left : left + 8] = 255
    return image, mask


@pytest.mark.slow
@pytest.mark.usefixtures("no_drawings")
def test_large_images_are_trained_on_and_scored_through_windows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng, root = np.random.default_rng(0), tmp_path / "data" / "cloth"
    for i in range(40):
        save(root / "train" / "good" / f"{i:02d}.png", textured(rng, False)[0])
    for i in range(8):
        save(root / "test" / "good" / f"{i}.png", textured(rng, False)[0])
        image, mask = textured(rng, True)
        save(root / "test" / "spot" / f"{i}.png", image)
        save(root / "ground_truth" / "spot" / f"{i}_mask.png", mask)
    nets = [word for word in NETS if "output" not in word]
    words = ["--dataset", "cloth", "--train", "--window", "24", "--epoch", "4", *nets]
    assert main.main([*words, "--anomaly_test", "--save_maps"]) == 0
    out = capsys.readouterr().out
    assert "48 x 72 x 1, through windows of 24" in out and "expected AUROC" in out
    results = root / "test_result"
    [maps] = [np.load(path) for path in results.rglob("maps/spot/0.npy")] or [None]
    assert maps.shape == (48, 72)
    metrics = json.loads((next(iter(results.rglob("metrics.json")))).read_text())
    assert metrics["auroc"] > 0.9 and metrics["pixel_auroc"] > 0.8
    assert "through windows of 24" in (next(iter(results.rglob("report.html")))).read_text()
    assert main.main(["--dataset", "cloth", "--anomaly_test", "--window", "16"]) == 1
    assert "trained with window 24, not 16" in capsys.readouterr().err


def test_a_run_goes_on_without_the_images_that_it_was_told_to_drop(run, monkeypatch, capsys):
    from model import DCGAN

    names = ["003.png", "007.png", "011.png"]
    (run / "list.txt").write_text("\n".join(names))
    words = ["--dataset", "zeros", "--train", "--epoch", "2"]
    clean = [*words, *NETS, "--drop", "list.txt", "--checkpoint_dir", "clean"]

    def stop(*_):
        raise UserError("enough")

    with monkeypatch.context() as patched:
        patched.setattr(DCGAN, "train", stop)
        assert main.main(clean) == 1
    kept = run / "clean" / "zeros" / "dropped.json"
    assert json.loads(kept.read_text()) == names
    images = run / "checkpoints" / "zeros" / "images.json"
    listed = json.loads(images.read_text())
    for name in names:
        del listed["images"][name]
    listed["held_out"] = [name for name in listed["held_out"] if name not in names]
    images.write_text(json.dumps(listed))
    shutil.copy(kept, images.parent)
    for more in ([], ["--drop", "list.txt"], []):
        capsys.readouterr()
        assert main.main([*words, *more]) == 0
        out = capsys.readouterr().out
        assert "training on 57 images" in out and " new" not in out and "nothing to do" in out
        assert "left out 3 images that " in out
        assert ("this run has dropped before" in out) is not bool(more)
    (images.parent / "dropped.json").write_text("{}")
    assert main.main(words) == 1
    assert "dropped.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "dropped.json"])
def test_a_run_that_another_training_has_changed_before_the_lock_is_not_gone_on_with(
    here, first_run, name, monkeypatch, capsys
):
    """Also where there was none before: its settings would be taken, the flags dropped."""
    found, folder = train.fit_batch, here / "checkpoints" / "zeros"
    if name == "dropped.json":
        shutil.copytree(first_run / "checkpoints", here / "checkpoints")

    def other_training_ends(*arguments):
        if name == "config.json":
            shutil.copytree(first_run / "checkpoints", here / "checkpoints")
        else:
            (folder / name).write_text('["000.png"]')
        return found(*arguments)

    monkeypatch.setattr(train, "fit_batch", other_training_ends)
    before = {p: p.read_bytes() for p in (first_run / "checkpoints" / "zeros").glob("c*")}
    assert main.main(["--dataset", "zeros", "--train", "--epoch", "4", *NETS]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "another training run was at work in checkpoints/zeros" in error and "--check" in error
    assert {p: (folder / p.name).read_bytes() for p in before} == before
    assert not (folder / LOCK).exists()
