"""A run's folder is data, maybe damaged or from elsewhere, and belongs to one training run."""

import dataclasses
import errno
import fcntl
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anogan.config import Config, preset
from anogan.errors import UserError
from anogan.method.scoring import Calibration
from anogan.runs import checkpoint as checkpoint_module
from anogan.runs.checkpoint import Checkpoints, has_checkpoint, load_calibrations
from anogan.runs.lock import LOCK, only_one
from anogan.runs.run_images import RunImages
from model import DCGAN

pytestmark = pytest.mark.unit

DATA = ".data-00000-of-00001"


@pytest.fixture(scope="module")
def two_checkpoints(trained_folder, tmp_path_factory):
    """A run with whole checkpoints of steps 600 and 605."""
    folder = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(trained_folder, folder)
    for path in folder.glob("ckpt-0*"):
        path.unlink()
    model = DCGAN.load(folder)
    model.trainer.step.assign(605)
    model.save(folder)
    return folder


@pytest.fixture
def run(two_checkpoints, tmp_path):
    return shutil.copytree(two_checkpoints, tmp_path / "run")


def images_of(run):
    return RunImages.load(run, Config.load(run))


def test_images_of_a_run_with_windows_are_read_again(tmp_path):
    config = preset("default", height=48, width=32, channels=1, window=16, features="none")
    whole = np.ones((3, 48, 32, 1), np.uint8)
    RunImages(whole, 2 * whole).save(tmp_path)
    found = RunImages.load(tmp_path, config)
    for mine, saved in zip((found.held_out, found.seen), (whole, 2 * whole), strict=True):
        np.testing.assert_array_equal(mine, saved)
    RunImages(whole, whole, seen_features=(0.25, None, 2.0)).save(tmp_path)
    assert RunImages.load(tmp_path, config).seen_features == (0.25, None, 2.0)
    for wrong in ((0.25,), (0.25, np.inf, 2.0)):
        RunImages(whole, whole, seen_features=wrong).save(tmp_path)
        with pytest.raises(UserError, match="no distance for each image"):
            RunImages.load(tmp_path, config)
    RunImages(whole, whole, fitted={"a.png": 0.5}).save(tmp_path)
    assert RunImages.load(tmp_path, config).fitted == {"a.png": 0.5}
    RunImages(whole, whole, fitted={"a.png": "far"}).save(tmp_path)
    with pytest.raises(UserError, match="no distance for each name"):
        RunImages.load(tmp_path, config)
    RunImages(whole[:, :16], whole).save(tmp_path)
    with pytest.raises(UserError, match="held_out is"):
        RunImages.load(tmp_path, config)


def checkpoints(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(("ckpt", "aside")))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "no index": lambda f: (f / "ckpt-605.index").unlink(),
    "no data": lambda f: (f / f"ckpt-605{DATA}").unlink(),
    "empty index": lambda f: (f / "ckpt-605.index").write_bytes(b""),
    "short data": lambda f: (f / f"ckpt-605{DATA}").write_bytes(b"short"),
    "a flipped bit": lambda f: flip(f / f"ckpt-605{DATA}"),
    "of another step": lambda f: [
        shutil.copy(f / f"ckpt-600{end}", f / f"ckpt-605{end}") for end in (".index", DATA)
    ],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_last_whole_checkpoint_is_gone_on_from_and_the_unread_one_kept(run, damage, caplog):
    DAMAGE[damage](run)
    unread = {p.name[5:]: p.read_bytes() for p in run.glob("ckpt-605*")}
    model = DCGAN.load(run)
    assert model.steps_done == 600 and "going back to step 600" in caplog.text
    assert checkpoints(run) == sorted(
        [*(f"ckpt-{n}" for n in unread), "ckpt-600.index", f"ckpt-600{DATA}"]
    )  # scoring changes nothing
    model.trainer.step.assign(605)
    model.save(run)
    assert {p.name[6:]: p.read_bytes() for p in run.glob("aside-*")} == unread
    caplog.clear()
    assert DCGAN.load(run).steps_done == 605 and not caplog.text


on_linux = pytest.mark.skipif(not checkpoint_module.OPEN_FOLDERS.is_dir(), reason="needs Linux")


@on_linux
@pytest.mark.parametrize("name", [b"[1]", b"a\\b*?", b"\xff"])
def test_a_run_is_saved_and_read_in_a_folder_of_any_name(run, name, tmp_path, monkeypatch):
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    shutil.move(run, folder)
    model = DCGAN.load(folder)
    assert model.steps_done == 605
    model.trainer.step.assign(606)
    model.save(folder)
    assert DCGAN.load(folder).steps_done == 606
    open_files = len(os.listdir("/proc/self/fd"))
    DCGAN.load(folder)
    assert len(os.listdir("/proc/self/fd")) == open_files
    monkeypatch.setattr(checkpoint_module, "OPEN_FOLDERS", tmp_path / "none")  # as on other systems
    before = sorted(os.listdir(folder))
    for refused in (lambda: DCGAN.load(folder), lambda: model.save(folder)):
        with pytest.raises(UserError, match="name another --checkpoint_dir"):
            refused()
    assert sorted(os.listdir(folder)) == before


@on_linux
def test_curves_go_into_a_folder_of_any_name_with_settings_that_are_no_text(run, zeros, tmp_path):
    model = DCGAN.load(run)
    model.config = dataclasses.replace(model.config, dataset=os.fsdecode(b"\xff"))
    folder = tmp_path / os.fsdecode(b"[1] \xff")
    model.train(zeros[:-50], log_dir=folder, progress=False)  # there is nothing left to do
    [written] = folder.iterdir()
    assert b"settings" in written.read_bytes()


def test_where_none_is_whole_nothing_starts_anew(run):
    for path in run.glob("ckpt-*.index"):
        path.write_bytes(path.read_bytes()[:50])
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    assert has_checkpoint(run)
    with pytest.raises(UserError, match="ckpt-605 cannot be restored.*another --checkpoint_dir"):
        DCGAN.load(run)
    assert before == {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}


def test_a_model_saved_over_another_run_keeps_its_checkpoints(run):
    model = DCGAN(Config.load(run))
    model.images = DCGAN.load(run).images
    model.save(run)
    assert DCGAN.load(run).steps_done == 0
    assert {p.name for p in run.glob("aside-60*")} == {
        f"aside-{step}{end}" for step in (600, 605) for end in (".index", DATA)
    }


def test_saving_keeps_the_two_newest_and_touches_nothing_outside(run, tmp_path):
    """TensorFlow's own list, as a run from elsewhere may bring it, names files of others."""
    foreign = tmp_path / "foreign.index", tmp_path / "foreign.data-00000-of-00001"
    for path in foreign:
        path.write_text("not ours")
    listed = [f'all_model_checkpoint_paths: "{tmp_path}/foreign"', 'model_checkpoint_path: "x"']
    (run / "checkpoint").write_text("\n".join(listed))
    os.symlink(foreign[0], run / "ckpt-3.index")
    mine = run / "ckpt-mine.index"
    mine.write_text("not ours either")
    model = DCGAN.load(run)
    for step in (606, 607):
        model.trainer.step.assign(step)
        model.save(run)
    assert [path.read_text() for path in foreign] == ["not ours"] * 2 and mine.exists()
    steps = {name.split(".")[0] for name in checkpoints(run)}
    assert steps == {"ckpt-606", "ckpt-607", "ckpt-mine"}


@pytest.mark.parametrize("name", ["config.json", "images.npz", "images.json", "ckpt-605.index"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_of_its_own_is_not_read(run, tmp_path, name, kind, caplog):
    path = run / name
    if kind == "link":
        shutil.move(path, tmp_path / name)
        os.symlink(tmp_path / name, path)
    else:
        path.unlink()
        os.mkfifo(path) if kind == "pipe" else path.mkdir()
    if name.startswith("ckpt"):
        assert DCGAN.load(run).steps_done == 600 and "no file of its own" in caplog.text
        return
    with pytest.raises(UserError, match=f"{name}.*no file of its own"):
        images_of(run)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_loading_runs_no_code(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = np.array([Evil()], object)
    np.savez(run / "images.npz", held_out=evil, seen=evil, allow_pickle=True)
    with pytest.raises(UserError, match="images.npz cannot be restored"):
        images_of(run)
    (run / "images.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="images.npz cannot be restored"):
        images_of(run)
    assert not (tmp_path / "ran").exists()


def test_images_that_unpack_to_more_than_they_may_are_not_unpacked(run):
    with np.load(run / "images.npz") as arrays:
        held = dict(arrays)
    for name, wrong in {
        "held_out": np.zeros((4097, 16, 16, 1), np.uint8),
        "seen": held["seen"].astype(np.float32),
    }.items():
        np.savez_compressed(run / "images.npz", **{**held, name: wrong})
        with pytest.raises(UserError, match=f"images.npz cannot be restored.*{name}"):
            images_of(run)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("recipe", None), ("recipe", {}), ("recipe", []), ("recipe", "classic"),
        ("height", "16"), ("height", 16.5), ("height", True), ("gf_dim", None), ("seed", -1),
        ("steps", 10**40), ("epochs", float("nan")), ("learning_rate", float("inf")),
        ("lambda_", []), ("dataset", 3), ("dataset", "a\0b"), ("dataset", "\ud800"),
        ("preset", {}), ("preset", "other"), ("normal_class", 77), ("crop_height", -4),
        ("code", "import os"), ("version", "3"), ("version", 0), ("version", 99),
    ],
)  # fmt: skip
def test_settings_of_another_type_are_one_line_that_names_the_file(tmp_path, name, value):
    Config().save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(UserError, match="config.json") as told:
        Config.load(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("encoder", 1), ("ema_decay", "0.9"), ("ema_decay", 1.5), ("kl_weight", float("nan")),
        ("r1_every", 2.5), ("r1_every", True), ("search_betas", [0.9]), ("search_betas", 0.9),
        ("log_variance", [0, "4"]), ("weights", None), ("weights", {"residual": 1.0}),
        ("weights.peak", None), ("bank.bins", 0), ("bank.cells", [16, 8, 4]), ("bank.code", 3),
        ("synthetic_anomalies", False), ("code", 3),
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_be_is_one_line_that_names_the_file(tmp_path, place, value):
    Config().save(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    *groups, name = place.split(".")
    group = stored["recipe"][groups[0]] if groups else stored["recipe"]
    group[name] = value
    path.write_text(json.dumps(stored))
    with pytest.raises(UserError, match=f"config.json: .*{name}") as error:
        Config.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "3", '["ab"]', "{", "null", '{"version":'])
def test_json_that_is_none_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        Config.load(tmp_path)


@pytest.mark.parametrize(
    "listed",
    [[], {}, {"held_out": "abc"}, {"held_out": [3]}, {"images": []}, {"images": {"a": ["b"]}},
     {"images": {"a": 3}}, {"held_out": {"a": 1}}, None],
)  # fmt: skip
def test_a_list_of_images_of_another_form_is_one_line(run, listed):
    whole = {"held_out": [], "images": {}}
    (run / "images.json").unlink()
    if listed is not None:
        content = {**whole, **listed} if listed else listed
        (run / "images.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="images.json cannot be restored"):
        images_of(run)


@pytest.mark.parametrize("value", [float("nan"), "0.5", None, True])
def test_a_calibration_with_a_wrong_number_is_made_anew(run, value, caplog):
    path = run / "calibration.json"
    stored = json.loads(path.read_text())
    next(iter(stored.values()))["means"]["residual"] = value
    path.write_text(json.dumps(stored))
    assert load_calibrations(run, Calibration.from_json) == {} and "calibrating anew" in caplog.text


def test_a_lock_is_one_processs_and_goes_with_it_also_if_it_is_killed(tmp_path):
    code = (
        "import sys, time; from anogan.runs.lock import only_one\n"
        "with only_one(sys.argv[1], ''): print('in', flush=True); time.sleep(600)"
    )
    lock = tmp_path / "folder" / LOCK
    command = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        try:
            assert first.stdout.readline() == b"in\n"
            with pytest.raises(UserError, match="busy"), only_one(lock, "busy"):
                pass
        finally:
            first.kill()
    with only_one(lock, "busy"):
        with pytest.raises(UserError, match="busy"), only_one(lock, "busy"):
            pass
        assert lock.exists()
    assert not lock.exists()


def test_a_lock_whose_file_its_last_holder_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    lock, flock, times = tmp_path / LOCK, fcntl.flock, []

    def late(file, operation):
        times.append(operation)
        if len(times) == 1:  # the last holder ends after the file was opened
            lock.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with only_one(lock, "busy"):
        assert len(times) == 2 and lock.exists()
        with pytest.raises(UserError, match="busy"), only_one(lock, "busy"):
            pass


def test_where_there_are_no_locks_the_work_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    def missing(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", missing)
    with only_one(tmp_path / LOCK, "busy"):
        assert f"{tmp_path / LOCK} cannot be locked (No locks available)" in caplog.text


def test_a_lock_that_cannot_be_had_for_other_reasons_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    os.symlink(tmp_path / "elsewhere", tmp_path / LOCK)
    for folder in (tmp_path / "file", tmp_path):
        with pytest.raises(UserError, match="cannot be written"), only_one(folder / LOCK, "busy"):
            pass
    assert not (tmp_path / "elsewhere").exists()


def test_scoring_reads_what_is_there_while_training_replaces_it(run, monkeypatch):
    model = DCGAN(Config.load(run))
    reader = Checkpoints(run, model.trainer.parts())
    read = reader._read

    def replaced(step, names):
        if step == 605:  # a save and its sweep come in between
            for end in (".index", DATA):
                os.rename(run / f"ckpt-605{end}", run / f"ckpt-{step}{end}.gone")
                os.rename(run / f"ckpt-600{end}", run / f"ckpt-600{end}.gone")
            later = DCGAN(Config.load(run))
            later.trainer.step.assign(610)
            Checkpoints(run, later.trainer.parts()).save()
        read(step, names)

    monkeypatch.setattr(reader, "_read", replaced)
    reader.restore()
    assert model.steps_done == 610
