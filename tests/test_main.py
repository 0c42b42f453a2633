"""The command line: what a user types, sees, and finds afterwards."""

import contextlib
import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from anogan.cli import paths, score, train
from anogan.cli import run as command_line
from anogan.cli.options import Options
from anogan.config import Config
from anogan.data.folders import find_images
from anogan.errors import UserError
from anogan.evaluation.results import Results
from anogan.report import plots
from anogan.runs.distributed import handled
from anogan.runs.lock import LOCK, only_one

pytestmark = pytest.mark.cli

ROOT = Path(__file__).parent.parent
NETS = ["--gf_dim=4", "--df_dim=4", "--z_dim=4", "--output_height=16", "--batch_size=16"]


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(image).squeeze()).save(path)


@pytest.fixture
def here(tmp_path, monkeypatch, zeros, digits):
    """A working folder with data/zeros and labelled images in test_data."""
    monkeypatch.chdir(tmp_path)
    for i, image in enumerate(zeros[:60]):
        save(tmp_path / "data" / "zeros" / f"{i:03d}.png", image)
    others = digits[0][digits[1] == 1]
    for i in range(6):
        save(tmp_path / "test_data" / "normal" / f"{i}.png", zeros[-1 - i])
        save(tmp_path / "test_data" / "ones" / f"{i}.png", others[i])
    return tmp_path


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def exit_code(arguments):
    with pytest.raises(SystemExit) as stopped:
        main.main(arguments)
    return stopped.value.code


def test_help_and_argument_errors_import_nothing_slow():
    code = (
        "import sys, main\n"
        "for words in (['--help'], ['--epoch', 'x']):\n"
        "    try: main.main(words)\n"
        "    except SystemExit: pass\n"
        "slow = {'tensorflow', 'keras', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(slow) if slow else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_flag_has_its_default_or_meaning_in_help(capsys):
    assert exit_code(["--help"]) == 0
    text = capsys.readouterr().out
    for flag in ("--test_epoch", "--generate_test_images", "--lambda", "--precision", "--log_dir"):
        assert flag in text
    assert "python main.py --dataset mnist --normal_class 8 --train --anomaly_test" in text


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--train"], True),
        (["--train=true"], True),
        (["--train=False"], False),
        (["--no-train"], False),
        (["--train", "--no-train"], False),
        ([], False),
    ],
)
def test_switches_take_all_usual_forms(words, value):
    assert main.parser().parse_args(words).train is value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trian"], "--trian"),
        (["--epoch", "many"], "--epoch"),
        (["--batch_size", "0"], "--batch_size"),
        (["--output_height", "300"], "--output_height"),
        (["--output_height", "300", "--window", "8"], "--window must be 0 or from 16 to 256"),
        (["--dataset", "mnist", "--window", "16"], "--window is for larger images"),
        (["--train=perhaps"], "--train"),
        (["--normal_class", "3"], "mnist"),
        (["--dataset", "mnist", "--normal_class", "3", "--anomaly_class", "4"], "exclude"),
        (["--dataset", "mnist", "--input_height", "32"], "28"),
        (["--dataset", "x", "--train", "--input_height", "32"], "--crop"),
        (["--dataset", "x", "--anomaly_test", "--target_fpr", "0"], "--target_fpr"),
        (["--dataset", "x", "--anomaly_test", "--threshold", "1", "--target_fpr", ".1"], "exclude"),
        (["--dataset", "x", "--labels", "y.csv"], "--anomaly_test"),
        (["--dataset", "x", "--train", "--threshold", "0"], "--threshold"),
        (["--dataset", "x", "--train", "--test_dir", "y"], "--test_dir"),
        (["--dataset", "x", "--anomaly_test", "--threshold", "nan"], "finite"),
        (["--dataset", "x", "--train", "--epoch", "inf"], "finite"),
        (["--dataset", "x", "--train", "--learning_rate", "nan"], "finite"),
        (["--dataset", "x", "--train", "--seed", "300000000"], "--seed"),
        (["--dataset", "x", "--anomaly_test", "--search", "encoder", "--test_epoch", "0"], "steps"),
        (["--dataset", "x", "--anomaly_test", "--test_dir", ""], "--test_dir"),
        (["--seed", "1" * 400], "at most 268435455, not a number of 400 digits"),
        (["--serve", "1" * 400], "at most 65535"),
        (["--anomaly_test", "--test_batch_size", "1" * 400], "at most 65536"),
        (["--generate_test_images", "2000000000"], "at most 10000"),
        (["--anomaly_test", "--search=gradient", "--test_epoch", "3000000000"], "at most 100000"),
        (["--anomaly_test", "--threshold=-1.7e308"], "at least -1e+30"),
        (["--train", "--log_dir", "a\udcff"], "--log_dir is not in UTF-8"),
        (["--anomaly_test", "--checkpoint_dir", "a\udcff"], "--checkpoint_dir is not in UTF-8"),
        (["--train", "--dataset", "a\udcff"], "--dataset is not in UTF-8"),
        (["--export=onnx", "--export_dir", "a\udcff"], "--export_dir is not in UTF-8"),
        (["--compare", "a", "b", "--generate_test_images", "3"], "--generate_test_images out"),
        (["--compare", "a", "b", "--no-report"], "--"),
        (["--anomaly_test", "--epoch", "9"], "--epoch does nothing here: leave it out, or add"),
        (["--anomaly_test", "--batch_size", "3"], "--batch_size"),
        (["--visualize", "--learning_rate", "0.5"], "--learning_rate"),
        (["--anomaly_test", "--preset", "classic"], "--preset"),
        (["--anomaly_test", "--log_dir", "x"], "--log_dir"),
        (["--anomaly_test", "--generate_test_images", "7"], "or add --visualize"),
        (["--anomaly_test", "--sample_dir", "x"], "--sample_dir"),
        (["--train", "--test_learning_rate", "9"], "--test_learning_rate"),
        (["--serve", "--test_batch_size", "9"], "--test_batch_size"),
        (["--anomaly_test", "--search=encoder", "--test_learning_rate=9"], "takes no steps"),
    ],
)
def test_wrong_arguments_exit_with_2_and_name_the_flag(words, message, capsys):
    assert exit_code(words) == 2
    assert message in capsys.readouterr().err


def test_a_threshold_may_be_negative_and_written_with_an_exponent():
    for text in ("-1e3", "-.5", "-2", "-1.5E-3"):
        assert main.parser().parse_args(["--threshold", text]).threshold == float(text)


def test_closed_streams_are_no_bug(here):
    """As by 2>&- and >&- in a shell."""
    words = ["--dataset", "zeros", "--checkpoint_dir", "nosuch"]
    script = 'exec "$0" "$@" 2>&-'
    command = ["sh", "-c", script, sys.executable, str(ROOT / "main.py"), *words]
    assert subprocess.run(command, cwd=here, check=False).returncode == 1
    command[2] = 'exec "$0" "$@" >&-'
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no trained model in nosuch" in done.stderr
    command += ["--anomaly_test", "--json"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(
        "error: --json writes to standard output"
    )
    assert len(done.stderr.splitlines()) == 1


def test_files_do_not_get_the_numbers_of_closed_streams(here):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from anogan.runs.start_up import open_streams\n"
        "open_streams()\n"
        "file = open('file', 'w'); print('x', file=sys.stderr); os.write(2, b'x')\n"
        "sys.exit(file.fileno() < 3)"
    )
    command = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", code, str(ROOT)]
    assert subprocess.run(command, cwd=here, check=False).returncode == 0
    assert not (here / "file").read_text()


def test_ctrl_c_while_it_loads_ends_it_without_a_word(here):
    """The first module of this tool that is loaded stands for all."""
    (here / "argparse.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    variables = {**os.environ, "PYTHONPATH": str(here)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "--help"], env=variables, capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_a_file_in_place_of_the_folder_of_runs_is_told(here, capsys):
    (here / "model").touch()
    assert exit_code(["--anomaly_test", "--checkpoint_dir", "model"]) == 2
    assert "--checkpoint_dir model is a file: name the folder" in capsys.readouterr().err


def test_when_the_reader_leaves_the_work_goes_on(here):
    """As with | head -1."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from anogan.runs.start_up import leave, open_streams\n"
        "open_streams()\n"
        "for i in range(20000): print('a line', flush=not i % 3)\n"
        "print('b line' * 9999, end=''); open('done', 'w').close(); leave(3)"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    with subprocess.Popen(
        command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(20) == 3
    assert (here / "done").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train"], "python download.py celebA"),
        (["--train"], "zeros"),
        (["--dataset", "mnist", "--train"], "python download.py mnist"),
        (["--dataset", "mvtec/grid", "--train"], "download.py mvtec --category grid (data sets"),
        (["--dataset", "visa/candle", "--train"], "python download.py visa (data sets"),
        (["--dataset", "nowhere", "--train"], "nowhere"),
        (["--dataset", "zeros", "--train", "--train_size", "1"], "at least 2"),
        (["--dataset", "zeros", "--train", "--input_fname_pattern", "*.jpg"], "*.jpg"),
        (["--dataset", "zeros", "--train", "--crop", "--input_height", "20"], "crop"),
        (["--dataset", "zeros", "--anomaly_test"], "--train"),
    ],
)
def test_a_users_error_is_one_line_with_a_remedy_and_exit_code_1(here, words, message, capsys):
    assert main.main(words) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


@pytest.fixture(scope="session")
def first_run(tmp_path_factory, zeros):
    """A folder in which a run was trained by command, for a few steps."""
    folder, before = tmp_path_factory.mktemp("first_run"), Path.cwd()
    for i, image in enumerate(zeros[:60]):
        save(folder / "data" / "zeros" / f"{i:03d}.png", image)
    os.chdir(folder)
    try:
        assert main.main(["--dataset", "zeros", "--train", "--epoch", "2", *NETS]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def run(here, first_run):
    """The trained run, copied to `here`."""
    for name in ("checkpoints", "samples", "logs"):
        shutil.copytree(first_run / name, here / name)
    return here


def test_results_are_never_taken_for_images(run, capsys):
    """Neither earlier ones, whatever their name, nor samples, nor masks that lie inside."""
    words = ["--dataset", "zeros", "--anomaly_test", "--test_result_dir"]
    assert main.main([*words, "test_data/first", "--save_maps"]) == 0
    for i in range(6):
        save(run / "test_data" / "masks" / "ones" / f"{i}.png", np.full((16, 16), 255, np.uint8))
    assert main.main([*words, "out2", "--mask_dir", "test_data/masks"]) == 0
    assert len(rows(run / "out2" / "scores.csv")) == 12
    assert "files of earlier results" in capsys.readouterr().out
    words = ["--dataset", "zeros", "--anomaly_test", "--test_dir", "data/zeros"]
    assert main.main([*words, "--test_result_dir", "data/zeros"]) == 0
    assert len(rows(run / "data" / "zeros" / "scores.csv")) == 60
    assert main.main(["--dataset", "zeros", "--sample_dir", "data/zeros"]) == 0
    assert main.main(["--dataset", "zeros", "--train"]) == 0
    assert "training on 60 images" in capsys.readouterr().out


def test_the_users_own_files_survive_scoring(run):
    mine = [run / "out" / name for name in ("pictures/holiday.png", "plots/notes.txt", "a.png")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
    words = ["--dataset", "zeros", "--anomaly_test", "--test_result_dir", "out"]
    for _ in range(2):
        assert main.main(words) == 0
        assert all(path.read_bytes() == b"mine" for path in mine)
    assert len(list((run / "out" / "pictures").glob("most_*.png"))) == 10


def test_a_file_of_the_users_that_has_a_results_name_is_an_error_before_scoring(run, capsys):
    (run / "out").mkdir()
    (run / "out" / "scores.csv").write_text("player,points\n")
    assert main.main(["--dataset", "zeros", "--anomaly_test", "--test_result_dir", "out"]) == 1
    assert "out/scores.csv was not written by this tool" in capsys.readouterr().err
    assert (run / "out" / "scores.csv").read_text() == "player,points\n"


@pytest.fixture
def bottle(run, zeros, digits):
    """data/bottle in the layout of MVTec AD; its run is that of the zeros."""
    others, root = digits[0][digits[1] == 1], run / "data" / "bottle"
    for i, image in enumerate(zeros[:60]):
        save(root / "train" / "good" / f"{i:03d}.png", image)
    for i in range(5):
        save(root / "test" / "good" / f"{i:03d}.png", zeros[-1 - i])
        save(root / "test" / "crack" / f"{i:03d}.png", others[i])
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, 6:10] = 255
        save(root / "ground_truth" / "crack" / f"{i:03d}_mask.png", mask)
    return root


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
        (("data/zeros/b/train/good/a.png", "data/zeros/b/test/bad/a.png"), "/zeros/b\n"),
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
    assert len(find_images(tmp_path, training=True).names) == 3


def test_runs_have_safe_names_of_their_own(here, zeros):

    def named(*words):
        args = main.parser().parse_args(["--train", *words])
        args.dataset = paths.dataset_name(args)
        folder = paths.run_folder(args)
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


def test_a_run_of_all_digits_is_not_that_of_one_and_former_nested_runs_are_found(here):
    def folder(*words):
        return paths.run_folder(Options(**vars(main.parser().parse_args([*words]))))

    for name in ("mnist", "bottle/train/good"):
        (here / "checkpoints" / name).mkdir(parents=True)
        (here / "checkpoints" / name / "config.json").write_text("{}")
    assert folder("--dataset", "mnist") == Path("checkpoints/mnist")
    one = folder("--dataset", "mnist", "--normal_class", "8")
    assert one == Path("checkpoints/mnist_normal8")
    assert folder("--dataset", "bottle/train/good") == Path("checkpoints/bottle/train/good")
    other = folder("--dataset", "cable/train/good")
    assert other.parent == Path("checkpoints") and other.name.startswith("cable_train_good_")


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


def test_files_that_are_no_images_are_counted_by_type(run, zeros, capsys):
    for name in ("a.dcm", "b.DCM", "notes.txt", "README.md", ".hidden"):
        (run / "test_data" / "ones" / name).write_bytes(b"x")
    Image.fromarray(zeros[0].squeeze()).save(run / "test_data" / "ones" / "c.jfif", "JPEG")
    assert main.main(["--dataset", "zeros", "--anomaly_test"]) == 0
    out = capsys.readouterr().out
    assert "left out 3 files that are no images: .dcm, .txt" in out
    assert "ones/c.jfif" in {r["file"] for r in rows(run / "test_data/test_result/scores.csv")}


def test_a_console_without_a_names_letters_shows_them_escaped(run, zeros):
    save(run / "test_data" / "ones" / "größe\u4e2d.png", zeros[0])
    (run / "test_data" / "ones" / "größe\u4e2d.png").write_bytes(b"broken")
    code = "import sys, main; sys.exit(main.main(['--dataset', 'zeros', '--anomaly_test']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=run,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"gr\\xf6\\xdfe\\u4e2d.png" in done.stdout and b"Traceback" not in done.stderr


def test_samples_and_curves_that_cannot_be_written_do_not_end_the_training(
    here, monkeypatch, capsys, caplog
):
    from anogan.method import training

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "save_image", full)
    monkeypatch.setattr(training.tf.summary, "scalar", full)
    assert main.main(["--dataset", "zeros", "--train", "--epoch", "2", *NETS]) == 0
    assert caplog.text.count("No space left") == 2
    assert "trained to step" in capsys.readouterr().out


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_last_one_stays(
    run, monkeypatch, capsys
):
    import tensorflow as tf

    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    save = tf.train.Checkpoint.write
    monkeypatch.setattr(tf.train.Checkpoint, "write", full)
    assert main.main(["--dataset", "zeros", "--train", "--epoch", "3"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left" in error and "make room" in error
    monkeypatch.setattr(tf.train.Checkpoint, "write", save)
    assert main.main(["--dataset", "zeros", "--train", "--epoch", "3"]) == 0
    assert "going on from step 6 " in capsys.readouterr().out


def test_a_second_training_is_told_and_scoring_beside_one_names_its_step(run, capsys):
    with only_one(run / "checkpoints" / "zeros" / LOCK, "busy"):
        assert main.main(["--dataset", "zeros", "--train", "--epoch", "9"]) == 1
        said = capsys.readouterr().err
        assert "error: another training run is at work in checkpoints/zeros: wait" in said
        assert main.main(["--dataset", "zeros"]) == 0
    assert "the model in checkpoints/zeros as of step 6 of 6\n" in capsys.readouterr().out


def test_a_second_scoring_into_one_folder_is_told_and_leaves_it_alone(run, capsys):
    score = ["--dataset", "zeros", "--anomaly_test", "--test_size", "2", "--no-report"]
    other = run / "results"
    with only_one(other / LOCK, "busy"):
        assert main.main([*score, "--test_result_dir", str(other)]) == 1
        assert [path.name for path in other.iterdir()] == [LOCK]
        said = capsys.readouterr().err
        assert f"error: another scoring is at work in {other}: wait until it ends" in said
    assert main.main([*score, "--test_result_dir", str(other)]) == 0
    assert not (other / LOCK).exists()


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
    config, _ = train.run_config(dataclasses.replace(options, checkpoint_dir="others"))
    images = train.training_images(options, config)
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
    config, changes = train.run_config(dataclasses.replace(options, batch_size=64))
    images = train.training_images(options, config)
    lowered, changed = train.fit_batch(config, changes, images)
    assert lowered.batch_size == 60 and changed == {"batch_size": 60}
    assert "60 training images are too few for a batch of 64" in caplog.text
    assert "only 60 training images" in caplog.text
    same = train.fit_batch(dataclasses.replace(config, batch_size=60), {}, images)
    assert same[0].batch_size == 60 and same[1] == {}
    assert train.fit_batch(config, {}, images.subset(range(5)))[0].batch_size == 4


def test_an_unfinished_model_is_told(run, capsys, caplog):
    config = run / "checkpoints" / "zeros" / "config.json"
    config.write_text(config.read_text().replace('"epochs": 2.0', '"epochs": 4.0'))
    assert main.main(["--dataset", "zeros", "--anomaly_test"]) == 0
    assert "as of step 6 of 13\n" in capsys.readouterr().out
    assert "not trained to its end" in caplog.text
    folder = run / "test_data" / "test_result"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["step"], metrics["total_steps"], metrics["dataset"]) == (6, 13, "zeros")
    assert metrics["run"] == "checkpoints/zeros" and metrics["search"] == "encoder"
    assert {"tensorflow", "keras", "numpy"} <= metrics["versions"].keys()
    page = (folder / "report.html").read_text()
    assert "step 6 of 13" in page and "not trained to its end" in page


def test_scores_csv_names_every_image_and_metrics_follow_from_it(run, capsys):
    (run / "test_data" / "ones" / "broken.png").write_bytes(b"not an image")
    deep = run / "test_data" / "ones" / "0.png"
    save(deep, np.asarray(Image.open(deep)).astype(np.uint16) * 257)
    save(run / "test_data" / "test_result" / "old.png", np.zeros((16, 16), np.uint8))
    assert main.main(["--dataset", "zeros", "--anomaly_test", "--test_batch_size", "5"]) == 0
    folder = run / "test_data" / "test_result"
    table = rows(folder / "scores.csv")
    assert {r["file"] for r in table} == {
        f"{k}/{i}.png" for k in ("normal", "ones") for i in range(6)
    }
    assert all(r["label"] == ("normal" if r["kind"] == "normal" else "anomalous") for r in table)
    metrics = json.loads((folder / "metrics.json").read_text())
    ones = [float(r["score"]) for r in table if r["kind"] == "ones"]
    normal = [float(r["score"]) for r in table if r["kind"] == "normal"]
    by_hand = np.mean([[a > b for b in normal] for a in ones])
    assert metrics["auroc"] == pytest.approx(by_hand)
    assert metrics["auroc_by_kind"] == {"ones": pytest.approx(by_hand)}
    assert metrics["skipped"] == 1
    [(warn, count)] = metrics["warnings"].items()
    assert warn.startswith("more than 8 bits a channel") and count == 1
    assert warn in (folder / "report.html").read_text()
    out = capsys.readouterr().out
    assert f"AUROC {by_hand:.4f}" in out and "skipped 1" in out and "broken.png" in out
    assert f"{warn}: in 1 of 13 files, the first: ones/0.png" in out
    assert not (folder / "scores.partial.csv").exists()
    assert len(list((folder / "pictures").glob("most_*.png"))) == 10
    assert len(list((folder / "pictures").glob("least_*.png"))) == 10
    assert Image.open(folder / "contact_sheet.png").size > (16, 16)


def test_unlabelled_images_get_scores_and_no_metrics(run, capsys):
    for i in range(3):
        save(run / "mine" / f"{i}.png", np.full((20, 30), 40 * i, np.uint8))
    assert main.main(["--dataset", "zeros", "--anomaly_test", "--test_dir", "mine"]) == 0
    table = rows(run / "mine" / "test_result" / "scores.csv")
    assert [r["file"] for r in table] == ["0.png", "1.png", "2.png"]
    assert {r["label"] for r in table} == {""}
    out = capsys.readouterr().out
    assert "\nAUROC" not in out and "of 3 images are called anomalous" in out


def test_a_model_of_mnist_scores_a_folder_that_is_named(run, zeros, capsys):
    config = run / "checkpoints" / "zeros" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dataset": "mnist"}))
    save(run / "mine" / "a.png", zeros[0])
    words = ["--dataset", "mnist", "--checkpoint_dir", "checkpoints/zeros", "--anomaly_test"]
    assert main.main(words) == 1
    assert "python download.py mnist" in capsys.readouterr().err
    assert main.main([*words, "--test_dir", "mine"]) == 0
    assert [r["file"] for r in rows(run / "mine/test_result/scores.csv")] == ["a.png"]


def test_every_image_gets_a_decision_that_follows_from_the_threshold(run, capsys):
    words = ["--dataset", "zeros", "--anomaly_test", "--target_fpr", "0.2"]
    assert main.main(words) == 0
    folder = run / "test_data" / "test_result"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["target_fpr"] == 0.2 and not metrics["uses_labels"]
    for row in rows(folder / "scores.csv"):
        above = float(row["score"]) > metrics["threshold"]
        assert row["is_anomaly"] == str(int(above))
        assert (float(row["normalised_score"]) > 0.5) == above
        assert 0 < float(row["p_value"]) <= 1
    at = metrics["at_threshold"]
    called = sum(r["is_anomaly"] == "1" for r in rows(folder / "scores.csv"))
    assert at["true_positives"] + at["false_positives"] == metrics["called_anomalous"] == called
    assert f"{called} of 12 images are called anomalous" in capsys.readouterr().out


def test_threshold_by_hand_and_from_labels(run):
    words, metrics = ["--dataset", "zeros", "--anomaly_test"], run / "test_data/test_result"
    assert main.main([*words, "--threshold", "-1000"]) == 0
    assert json.loads((metrics / "metrics.json").read_text())["called_anomalous"] == 12
    assert main.main([*words, "--threshold_from", "youden"]) == 0
    found = json.loads((metrics / "metrics.json").read_text())
    assert found["uses_labels"] and "labels" in found["threshold_is"]


def test_scoring_leaves_pictures_plots_and_a_report(run):
    words = ["--dataset", "zeros", "--anomaly_test", "--search", "hybrid", "--test_epoch", "3"]
    assert main.main(words) == 0
    folder = run / "test_data" / "test_result"
    names = {"roc", "precision_recall", "histogram", "terms", "tsne", "convergence"}
    for ending in ("png", "svg"):
        assert {p.stem for p in (folder / "plots").glob(f"*.{ending}")} == names
    assert Image.open(folder / "plots" / "roc.png").size > (300, 300)
    shown = {"_".join(p.name.split("_")[:2]) for p in (folder / "pictures").iterdir()}
    assert shown == {f"{group}_{rank:02d}" for group in ("most", "least") for rank in range(1, 11)}
    assert "normal/0.png" in (folder / "report.html").read_text()


def test_labels_come_from_a_csv_file(run, capsys, caplog):
    shutil.move(run / "test_data" / "normal", run / "mine" / "a")
    shutil.move(run / "test_data" / "ones", run / "mine" / "b")
    lines = [f"mine\\a\\{i}.png;Good;\n" for i in range(6)]
    lines += [f"mine\\b\\{i}.png;Defect;one\n" for i in range(7)]
    (run / "labels.csv").write_text("File;Label;Kind\n" + "".join(lines), encoding="utf-16")
    words = ["--dataset", "zeros", "--anomaly_test", "--test_dir", "mine", "--labels"]
    assert main.main([*words, "labels.csv"]) == 0
    metrics = json.loads((run / "mine" / "test_result" / "metrics.json").read_text())
    assert metrics["normal"] == 6 and list(metrics["auroc_by_kind"]) == ["one"]
    assert "1 of 13 lines name no image in mine" in caplog.text
    (run / "labels.csv").write_text("file,label\n" + "a/0.png,normal\n")
    assert main.main([*words, "labels.csv"]) == 1
    assert "labels.csv has no label for a/1.png" in capsys.readouterr().err
    (run / "labels.csv").write_text("file,label\na/0.png,perhaps\n")
    assert main.main([*words, "labels.csv"]) == 1
    assert "labels.csv, line 2" in capsys.readouterr().err


def test_maps_of_images_that_differ_in_the_ending_alone_do_not_overwrite_each_other(run, zeros):
    for i, ending in enumerate(("png", "bmp")):
        save(run / "mine" / f"a.{ending}", zeros[i])
    save(run / "mine" / "b.1.png", zeros[2])
    words = ["--dataset", "zeros", "--anomaly_test", "--test_dir", "mine", "--save_maps"]
    assert main.main(words) == 0
    names = {p.name for p in (run / "mine" / "test_result" / "maps").glob("*.npy")}
    assert names == {"a.png.npy", "a.bmp.npy", "b.1.npy"}


def test_a_model_without_held_out_images_scores_and_says_that_it_has_no_threshold(here, capsys):
    words = ["--dataset", "zeros", "--epoch", "1", "--validation_fraction", "0", *NETS]
    assert main.main([*words, "--train", "--anomaly_test"]) == 0
    assert "no threshold" in capsys.readouterr().out
    table = rows(here / "test_data" / "test_result" / "scores.csv")
    assert len(table) == 12 and "is_anomaly" not in table[0]


def test_labels_of_one_sort_are_scored_and_decided(run, capsys):
    shutil.rmtree(run / "test_data" / "ones")
    assert main.main(["--dataset", "zeros", "--anomaly_test"]) == 0
    metrics = json.loads((run / "test_data" / "test_result" / "metrics.json").read_text())
    assert "auroc" not in metrics and "false_positive_rate" in metrics["at_threshold"]
    assert main.main(["--dataset", "zeros", "--anomaly_test", "--threshold_from", "f1"]) == 1
    assert "--threshold_from f1 needs labels of both sorts" in capsys.readouterr().err


def test_masks_give_pixel_measures_and_maps_are_saved(run, capsys):
    for i in range(6):
        mask = np.zeros((160, 160), np.uint8)
        mask[40:120, 60:100] = mask[150:153, 10:13] = 255  # one is less than a pixel of the nets
        save(run / "masks" / "ones" / f"{i}.png", mask)
    words = ["--dataset", "zeros", "--anomaly_test", "--mask_dir", "masks", "--save_maps"]
    assert main.main(words) == 0
    assert "6 of 12 images have a mask, all 6 anomalous ones" in capsys.readouterr().out
    folder = run / "test_data" / "test_result"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0 < metrics["pixel_auroc"] < 1 and metrics["regions"] == 12
    assert np.load(folder / "maps" / "ones" / "3.npy").shape == (16, 16)
    (run / "masks" / "ones" / "3.png").unlink()
    shutil.rmtree(folder)
    assert main.main(words) == 1
    assert "no mask for ones/3.png" in capsys.readouterr().err and not folder.exists()


def test_interrupted_scoring_goes_on_with_the_rows_it_has(run, monkeypatch, capsys):
    from model import DCGAN

    monkeypatch.setattr(Results, "_pictures", lambda *_: None)  # they are slow
    monkeypatch.setattr(plots, "write", lambda *_: {})
    words = ["--dataset", "zeros", "--anomaly_test", "--test_batch_size", "4"]
    detect, scored, out = DCGAN.anomaly_detector, [], run / "test_data" / "test_result"

    def stops_at_third(model, images, *arguments):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(len(images))
        return detect(model, images, *arguments)

    monkeypatch.setattr(DCGAN, "anomaly_detector", stops_at_third)
    assert main.main(words) == 130
    assert not (out / "scores.csv").exists()
    scored[:] = [0]
    assert main.main(words) == 0
    assert "going on: 8 of them are scored already" in capsys.readouterr().out
    assert scored == [0, 4] and len(rows(out / "scores.csv")) == 12
    scored[:] = [0]
    assert main.main([*words, "--test_result_dir", "whole"]) == 130
    assert main.main([*words, "--test_result_dir", "whole", "--search", "gradient"]) == 130
    assert "going on" not in capsys.readouterr().out


def test_same_command_goes_on_and_other_batch_sizes_find_the_model(run, capsys):
    words = ["--dataset", "zeros", "--train", "--batch_size", "8", "--epoch", "3"]
    assert main.main(words) == 0
    assert "from step 6" in capsys.readouterr().out
    assert main.main(["--dataset", "zeros", "--train"]) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--z_dim", "5"], ["--output_height", "32"], ["--crop", "--input_height", "12"]]
)
def test_a_flag_that_contradicts_the_run_is_an_error(run, words, capsys):
    for switch in ("--train", "--anomaly_test"):
        assert main.main(["--dataset", "zeros", switch, *words]) == 1
        assert "was trained with" in capsys.readouterr().err


def test_a_run_is_found_by_its_own_folder(run):
    words = ["--checkpoint_dir", "checkpoints/zeros", "--anomaly_test", "--search", "gradient"]
    assert main.main([*words, "--test_epoch", "2"]) == 0
    assert len(rows(run / "test_data" / "test_result" / "scores.csv")) == 12


def test_without_a_switch_samples_are_drawn(run):
    assert main.main(["--dataset", "zeros", "--generate_test_images", "9"]) == 0
    assert Image.open(run / "samples" / "zeros" / "samples.png").size == (56, 56)


def test_main_may_be_called_from_any_thread(run):
    with ThreadPoolExecutor() as pool:
        work = pool.submit(main.main, ["--dataset", "zeros", "--generate_test_images", "9"])
        assert work.result() == 0
    assert (run / "samples" / "zeros" / "samples.png").exists()


@pytest.fixture
def own_handler():
    """A caller's handler of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)

    def mine(*_):
        pass

    signal.signal(signal.SIGTERM, mine)
    yield mine
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("end", [None, UserError("no"), KeyboardInterrupt(), ValueError("a bug")])
def test_the_callers_sigterm_handler_is_in_its_place_after_main(own_handler, monkeypatch, end):
    seen = []

    def work(_):
        seen.append(signal.getsignal(signal.SIGTERM))
        if end:
            raise end

    monkeypatch.setattr(command_line, "run", work)
    with contextlib.suppress(ValueError):
        main.main([])
    assert seen == [signal.default_int_handler]
    assert signal.getsignal(signal.SIGTERM) is own_handler


def test_a_handler_that_python_cannot_put_back_is_left_alone(own_handler, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda _: None)  # as it says of those set in C
    with handled(signal.SIG_DFL, signal.SIGTERM):
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGTERM) is own_handler


def test_visualize_shows_early_beside_present_images(run, capsys):
    assert main.main(["--dataset", "zeros", "--visualize"]) == 0
    for name in ("samples", "interpolation", "early_and_now"):
        assert Image.open(run / "samples" / "zeros" / f"{name}.png").size > (56, 56)
    assert re.search(r"first images \S+, of its present ones \S+", capsys.readouterr().out)


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
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < end, process.stdout.read().decode()
        time.sleep(0.05)


@pytest.mark.parametrize(
    "stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_stopped_and_killed_runs_go_on_where_they_were(here, stop):
    """Ctrl-C saves the step; a kill loses what came after the last save, and nothing else."""
    grids = here / "samples" / "zeros"
    words = [*NETS, "--epoch", "100"]
    process = start(here, *words)
    wait_for(lambda: len(list(grids.glob("*.png"))) >= 2, process)
    process.send_signal(stop)
    out = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130 and "Traceback" not in out
    process = start(here, *words)
    wait_for(lambda: len(list(grids.glob("*.png"))) >= 4, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    process = start(here, *words)
    out = process.communicate(timeout=200)[0].decode()
    assert process.returncode == 0, out
    assert "going on from step" in out and "trained to step 325" in out


def test_values_of_all_training_images_make_the_range_that_scoring_uses(tmp_path, monkeypatch):
    from anogan.config import Config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "PROBED", 2)  # the first and the last
    ramp = np.linspace(-1000, 400, 256, dtype=np.float32).reshape(16, 16)
    for i in range(20):  # one alone holds the lowest and the highest value
        save(tmp_path / "data" / "ct" / f"{i:02d}.tiff", ramp * (2 if i == 7 else 1))
    save(tmp_path / "test_data" / "a.tiff", ramp * 2)
    save(tmp_path / "test_data" / "b.tiff", ramp * 4)
    args = main.parser().parse_args(["--dataset", "ct", "--train", *NETS])
    train.new_config(args).save(tmp_path)
    config = Config.load(tmp_path)
    assert config.value_range == (-2000, 800) and config.channels == 1
    trained_on, scored = (
        train.training_images(args, config),
        score.test_images(args, config, paths.test_places(args, config)),
    )
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

    monkeypatch.setattr(command_line, "fit_batch", other_training_ends)
    before = {p: p.read_bytes() for p in (first_run / "checkpoints" / "zeros").glob("c*")}
    assert main.main(["--dataset", "zeros", "--train", "--epoch", "4", *NETS]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "another training run was at work in checkpoints/zeros" in error and "--check" in error
    assert {p: (folder / p.name).read_bytes() for p in before} == before
    assert not (folder / LOCK).exists()


def test_no_two_data_sets_share_a_run(here):
    def folder(*words):
        return paths.run_folder(Options(**vars(main.parser().parse_args([*words]))))

    def saved(run, dataset):
        Config(dataset=dataset).save(here / "checkpoints" / run)

    digit = folder("--dataset", "mnist", "--normal_class", "8")
    mine = folder("--dataset", "mnist_normal8")
    others = [folder("--dataset", n) for n in ("mnist_anomaly8", "MNIST", "config.json", "mnist_8")]
    assert len({digit, mine, *others, folder("--dataset", "mnist")}) == 7
    assert digit.name == "mnist_normal8" and others[-1].name == "mnist_8"
    saved("mnist_normal8", "mnist")
    assert folder("--dataset", "mnist_normal8") == mine
    saved("mnist_normal8", "mnist_normal8")  # of a former version
    assert folder("--dataset", "mnist_normal8") == digit
    saved("mnist_backup", "mnist_backup")
    mnist = Options(dataset="mnist")
    with pytest.raises(UserError, match="no trained model"):
        paths.find_run(mnist)
    saved("mnist_normal3", "mnist")
    assert paths.find_run(mnist).name == "mnist_normal3"
    for name in ("a/b", "zeros"):
        place = folder("--dataset", name)
        saved(place.name, "mnist" if name == "zeros" else place.name)
        for switch in ({"train": True}, {"anomaly_test": True}):
            with pytest.raises(UserError, match=f"holds a run of .*, not of {name}"):
                command_line.run(Options(dataset=name, **switch))
    saved("zeros", "renamed")
    assert train.run_config(Options(dataset="zeros", train=True))[0].dataset == "renamed"


def test_pictures_of_the_users_in_the_samples_stay(run, capsys, caplog):
    folder = run / "samples" / "zeros"
    (folder / "samples.png").write_text("MY OWN")
    for _ in range(2):
        assert main.main(["--dataset", "zeros", "--generate_test_images", "4"]) == 0
        assert capsys.readouterr().out.endswith("samples in samples/zeros/samples (2).png\n")
    assert (folder / "samples.png").read_text() == "MY OWN"
    with Image.open(folder / "samples (2).png") as drawn:
        drawn.load()
    assert "samples/zeros/samples.png was made or changed by somebody else" in caplog.text
    assert not (folder / "samples (3).png").exists()


def test_a_model_that_was_replaced_after_the_images_were_prepared_for_it_is_told(
    run, monkeypatch, capsys
):
    path = run / "checkpoints" / "zeros" / "config.json"

    def replaced(_):
        path.write_text(path.read_text().replace('"crop_height": 0', '"crop_height": 12'))

    monkeypatch.setattr(command_line, "require_writable", replaced)
    assert main.main(["--dataset", "zeros", "--visualize"]) == 1
    assert "replaced by another meanwhile" in capsys.readouterr().err
