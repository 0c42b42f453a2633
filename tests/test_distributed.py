"""Several devices and machines give what one gives: logical CPUs, and processes on loopback."""

import contextlib
import csv
import json
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import free_ports, start

import main
from anogan.errors import UserError
from anogan.evaluation.metrics import PixelMeasures
from anogan.runs import distributed

pytestmark = pytest.mark.cli

ROOT = Path(__file__).resolve().parent.parent
TWO_CPUS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""
MAIN = """
import main
from anogan.method import training
from anogan.runs.start_up import leave
training.SAVE_SECONDS = 1.0
leave(main.main())
"""
CURVES = """
import sys
import numpy as np
from anogan.config import preset
from anogan.data.image_set import ImageSet
from model import DCGAN
from anogan.runs.distributed import Workers

images, out, *strategies = sys.argv[1:]
small = dict(height=16, width=16, channels=1, z_dim=8, gf_dim=8, df_dim=8, batch_size=16)
images, found = ImageSet.from_array(np.load(images)), {}
for strategy in strategies:
    workers = Workers(strategy)
    for kind in ("default", "classic"):
        model = DCGAN(preset(kind, **small, steps=1, features="none"), workers=workers)
        model.train(images, progress=False)
        rest, _ = images.split(model.config.validation_fraction, model.config.seed)
        batches, curve = model.trainer.batches(rest), []
        for _ in range(20):
            curve.append([float(v) for v in model.trainer.update(next(batches)).values()])
        weights = np.concatenate([np.ravel(v.numpy()) for v in model.trainer.variables()])
        numbers = dict(curve=curve, weights=weights, replicas=workers.replicas)
        found |= {f"{strategy} {kind} {name}": values for name, values in numbers.items()}
if workers.chief:
    np.savez(out, **found)
workers.part()
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory, zeros, digits):
    """A folder with images to train on, to score, one of them broken, and zeros as an array."""
    root = tmp_path_factory.mktemp("team")
    images, labels = digits
    groups = {
        "data/zeros": zeros[:-50],
        "test_data/normal": zeros[-30:],
        "test_data/odd": images[labels != 0][::60][:21],
    }
    for name, group in groups.items():
        (root / name).mkdir(parents=True)
        for i, image in enumerate(group):
            Image.fromarray(image[..., 0]).save(root / name / f"{i:03d}.png")
    (root / "test_data" / "odd" / "0070.png").write_bytes(b"no image")
    deep = groups["test_data/odd"][-1, ..., 0].astype(np.uint16) * 257  # in the last one's share
    Image.fromarray(deep).save(root / "test_data" / "odd" / "020.png")
    np.save(root / "zeros.npy", zeros)
    return root


def finish(cwd, *processes):
    """(exit code, lines) of each process."""
    try:
        codes = [p.wait(900) for p in processes]
    finally:
        for p in processes:
            p.kill()
    return [(code, (cwd / f"worker{i}.log").read_text()) for i, code in enumerate(codes)]


def team(cwd, code, arguments, others=None):
    """Two workers; the second one may have arguments of its own."""
    ports = free_ports()
    first = start(cwd, code, arguments, 0, ports)
    return finish(cwd, first, start(cwd, code, others or arguments, 1, ports))


@pytest.fixture(scope="module")
def curves(folders, tmp_path_factory):
    """{strategy kind curve, weights or replicas: numbers} of trainings of a few steps."""
    place, found = tmp_path_factory.mktemp("curves"), {}
    here, there = ([folders / "zeros.npy", place / f"{name}.npz"] for name in ("here", "there"))
    ended = finish(place, start(place, TWO_CPUS + CURVES, [*here, "none", "mirrored"]))
    ended += team(place, CURVES, [*there, "multiworker"])
    assert all(code == 0 for code, _ in ended), ended
    for _, path in (here, there):
        with np.load(path) as arrays:
            found |= arrays
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["default", "classic"])
@pytest.mark.parametrize("strategy", ["mirrored", "multiworker"])
def test_two_devices_train_as_one_with_the_same_global_batch(curves, strategy, kind):
    one, two = (
        {name: curves[f"{of} {kind} {name}"] for name in ("curve", "weights", "replicas")}
        for of in ("none", strategy)
    )
    assert (one["replicas"], two["replicas"]) == (1, 2)
    assert np.ptp(one["curve"][:, 0]) > 0.1
    np.testing.assert_allclose(two["curve"], one["curve"], rtol=5e-4, atol=5e-4)
    # Adam makes a step of a gradient's rounding error where a weight has no influence.
    close = np.isclose(two["weights"], one["weights"], rtol=1e-3, atol=1e-4)
    assert close.mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("search", ["encoder", "gradient"])
def test_two_workers_write_the_files_that_one_writes(folders, trained_folder, tmp_path, search):
    flags = ["--dataset", "zeros", "--checkpoint_dir", trained_folder.parent, "--anomaly_test"]
    flags += ["--test_dir", folders / "test_data", "--test_batch_size", 8, "--save_maps"]
    flags += ["--search", search, *(["--test_epoch", 4] if search == "gradient" else [])]
    calls = [[*flags, "--test_result_dir", tmp_path / n] for n in ("one", "two")]
    assert main.main(list(map(str, calls[0]))) == 0
    both = team(tmp_path, MAIN, [*calls[1], "--strategy", "multiworker"])
    assert [code for code, _ in both] == [0, 0], both
    one, two = (
        {p.relative_to(tmp_path / n).as_posix(): p for p in (tmp_path / n).rglob("*.*")}
        for n in ("one", "two")
    )
    assert set(one) == set(two)
    assert "in 1 of 52 files, the first: odd/020.png" in both[0][1]
    assert "skipped 1 unreadable" in both[0][1] and "AUROC" not in both[1][1]
    for name in one:
        if name == "metrics.json":
            mine, theirs = (json.loads(of[name].read_text()) for of in (one, two))
            assert {**mine, "date": ""} == {**theirs, "date": ""}
        elif not name.endswith((".svg", ".html")):
            assert one[name].read_bytes() == two[name].read_bytes(), name


@pytest.mark.slow
def test_two_local_devices_score_as_one(folders, trained_folder, tmp_path):
    flags = ["--dataset", "zeros", "--checkpoint_dir", trained_folder.parent, "--anomaly_test"]
    flags += ["--test_dir", folders / "test_data", "--test_batch_size", 8]
    flags += ["--search", "gradient", "--test_epoch", 4, "--no-report", "--test_result_dir"]
    assert main.main(list(map(str, [*flags, tmp_path / "one"]))) == 0
    two = [*flags, tmp_path / "two", "--strategy", "mirrored"]
    [(code, lines)] = finish(tmp_path, start(tmp_path, TWO_CPUS + MAIN, two))
    assert code == 0, lines
    one, two = (
        list(csv.DictReader((tmp_path / n / "scores.csv").open(newline=""))) for n in ("one", "two")
    )
    assert len(one) == len(two) == 51
    exact = {"file", "label", "kind", "is_anomaly", "p_value"}  # others may round the sixth digit
    for mine, theirs in zip(one, two, strict=True):
        for name, value in mine.items():
            if name in exact:
                assert theirs[name] == value
            else:
                assert float(theirs[name]) == pytest.approx(float(value), rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_worker_comes_back_and_both_go_on_from_the_checkpoint(folders, tmp_path, victim):
    shutil.copytree(folders / "data", tmp_path / "data")
    flags = ["--dataset", "zeros", "--train", "--epoch", 50, "--batch_size", 16, "--z_dim", 8]
    flags += ["--gf_dim", 8, "--df_dim", 8, "--output_height", 16, "--features", "none"]
    flags += ["--strategy", "multiworker"]
    ports, run = free_ports(), tmp_path / "checkpoints" / "zeros"
    team = [start(tmp_path, MAIN, flags, i, ports) for i in (0, 1)]
    try:
        deadline = time.monotonic() + 120
        while not any(p.name != "ckpt-0.index" for p in run.glob("ckpt-*.index")):
            assert time.monotonic() < deadline and all(p.poll() is None for p in team)
            time.sleep(0.1)
        team[victim].send_signal(signal.SIGKILL)
        team[victim].wait()
        before = len((tmp_path / f"worker{1 - victim}.log").read_text())
        team[victim] = start(tmp_path, MAIN, flags, victim, ports)
    except BaseException:
        for p in team:
            p.kill()
        raise
    found = finish(tmp_path, *team)
    assert [code for code, _ in found] == [0, 0], found
    assert "another worker was lost" in found[1 - victim][1][before:]
    assert "going on from step" in found[0][1] and "going on from step 0 " not in found[0][1]
    [total] = re.findall(r"trained to step (\d+)", found[0][1])
    assert (run / f"ckpt-{total}.index").exists()


@pytest.mark.slow
def test_workers_with_different_images_and_precision_are_refused_on_both_sides(folders, tmp_path):
    for i, count in enumerate((60, 64)):
        shutil.copytree(folders / "data", tmp_path / str(i))
        for path in sorted((tmp_path / str(i) / "zeros").glob("*.png"))[count:]:
            path.unlink()
    flags = ["--dataset", "zeros", "--train", "--gf_dim", 4, "--df_dim", 4, "--z_dim", 4]
    flags += ["--batch_size", 16, "--output_height", 16, "--features", "none"]
    flags += ["--strategy", "multiworker", "--data_dir"]
    first = [*flags, tmp_path / "0", "--precision", "float32"]
    second = [*flags, tmp_path / "1", "--precision", "mixed_bfloat16"]
    found = team(tmp_path, MAIN, first, second)
    for code, lines in found:
        assert (
            code == 1
            and "error: worker 1 differs from worker 0 in images, held-out images, precision:"
            in lines
        )
        assert "Traceback" not in lines


def test_a_batch_that_cannot_be_shared_out_is_refused_with_a_remedy(folders, tmp_path):
    flags = ["--dataset", "zeros", "--train", "--batch_size", 18, "--strategy", "mirrored"]
    flags += ["--data_dir", folders / "data", "--output_height", 16, "--features", "none"]
    [(code, lines)] = finish(tmp_path, start(tmp_path, TWO_CPUS + MAIN, flags))
    assert code == 1 and "--batch_size 18" in lines and "multiple of 4" in lines
    assert "Traceback" not in lines


@pytest.mark.slow
def test_a_taken_port_is_one_line(folders, tmp_path):
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        flags = ["--dataset", "zeros", "--train", "--strategy", "multiworker"]
        flags += ["--data_dir", folders / "data", "--output_height", 16]
        ports = taken.getsockname()[1], *free_ports()[:1]
        [(code, lines)] = finish(tmp_path, start(tmp_path, MAIN, flags, 0, ports))
    assert code == 1 and "error: the workers of TF_CONFIG cannot be reached: " in lines
    assert "Traceback" not in lines


def test_a_worker_that_ends_first_is_not_lost_but_one_that_never_came_is(monkeypatch):
    import tensorflow as tf

    gone = tf.errors.UnavailableError(None, None, "another worker was here")
    kinds = tf.errors.UnavailableError, ValueError
    for answers, fails in (([None, gone], False), ([gone], True), ([None, ValueError()], True)):
        team, answers = distributed.Workers(), iter(answers)

        def wait(answers=answers):
            if error := next(answers):
                raise error

        monkeypatch.setattr(team, "wait", wait)
        with pytest.raises(kinds) if fails else contextlib.nullcontext():
            team.part()
        assert next(answers, "asked for all") == "asked for all"


def config_of(workers, **task):
    return json.dumps({"cluster": {"worker": workers}, "task": task})


TWO = ["localhost:1", "localhost:2"]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["localhost:1"]}}',
        config_of(TWO, type="worker", index=2),
        config_of(TWO, type="worker", index="x"),
        config_of(TWO, type="chief", index=0),
        config_of(["localhost"], type="worker", index=0),
        config_of(["localhost:0"], type="worker", index=0),
    ],
)
def test_a_bad_tf_config_is_one_line_with_an_example(monkeypatch, text):
    if text is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError, match="TF_CONFIG.*host0:12345") as error:
        distributed.task()
    assert "\n" not in str(error.value)


def test_tf_config_tells_index_and_count(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config_of(TWO, type="worker", index=1))
    assert distributed.task() == (1, 2)


@pytest.mark.parametrize(
    "names, used, said",
    [
        ([], 1, "computing on . CPU cores"),
        (["T4"], 1, "computing on T4"),
        (["T4", "L4"], 1, "computing on T4; 1 more idle, --strategy mirrored uses all"),
        (["T4", "L4"], 2, "computing on T4, L4"),
    ],
)
def test_the_first_line_says_which_devices_compute(monkeypatch, tmp_path, names, used, said):
    import tensorflow as tf

    monkeypatch.setattr(distributed, "NVIDIA", tmp_path / "none")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: names)
    details = lambda name: {"device_name": name}  # noqa: E731
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details)
    assert re.fullmatch(said, distributed.describe_devices(used))


def test_a_gpu_that_tensorflow_cannot_use_is_told_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(distributed, "NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert re.search(r"cannot use the GPU: pip install .*cuda", distributed.describe_devices())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")  # that is the user's wish
    assert "GPU" not in distributed.describe_devices()


@pytest.mark.parametrize("count, unit", [(0, 4), (3, 4), (17, 4), (1000, 64), (64, 64)])
@pytest.mark.parametrize("members", [1, 2, 3, 16])
def test_shares_of_the_files_are_all_files_in_order_and_begin_at_batches(count, unit, members):
    alone = distributed.Workers()
    found = []
    for alone.index in range(members):
        alone.count = members
        found.append(alone.share(count, unit))
    assert [i for share in found for i in share] == list(range(count))
    assert all(share.start % unit == 0 for share in found if share)
    units = [-(-len(share) // unit) for share in found]
    assert max(units) - min(units) <= 1
    assert units[0] == max(units)


def test_pixel_measures_of_two_parts_add_up():
    rng = np.random.default_rng(0)
    maps, masks = rng.uniform(0, 2, (6, 9, 9)), rng.uniform(size=(6, 9, 9)) < 0.1
    whole, *parts = (PixelMeasures(0.5) for _ in range(3))
    for i, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
        whole.add(anomaly_map, mask)
        parts[i % 2].add(anomaly_map, mask)
    parts[0] += parts[1]
    assert parts[0].measures() == pytest.approx(whole.measures())
