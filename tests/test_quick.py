"""One quick question: files by name, lines and JSON, exit codes, no report, plain progress."""

import csv
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import main
from anogan.cli.options import Options
from anogan.cli.paths import test_places as places_of
from anogan.data.folders import Selection, find_images
from anogan.data.image_set import ImageSet
from anogan.errors import UserError
from anogan.runs import progress as progress_module
from anogan.runs.quiet import without_startup_lines
from anogan.runs.start_up import not_imported
from utils import to_float


@pytest.fixture
def asked(eager, trained_folder, queries, tmp_path, monkeypatch, capsys):
    """Scores files of two folders, six images in all, from there: call it with further flags."""
    monkeypatch.chdir(tmp_path)
    images, _ = queries
    for i in (0, 1, 2, 40, 41, 42):
        path = tmp_path / ("some" if i < 40 else "more") / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(images[i].squeeze()).save(path)

    def ask(*flags):
        command = ["--dataset", "zeros", "--checkpoint_dir", str(trained_folder)]
        code = main.main([*command, "--anomaly_test", "--no-report", *flags])
        return code, capsys.readouterr()

    return ask


@pytest.mark.cli
def test_one_file_is_scored_and_told(asked, tmp_path):
    code, told = asked("--test_dir", "some/00.png", "--threshold", "1e6")
    assert code == 0
    assert "some/00.png" not in told.out  # its name in scores.csv, too, is within its folder
    assert "\n00.png: score " in told.out and "threshold 1e+06: normal" in told.out
    results = tmp_path / "some" / "test_result"
    left = {p.name for p in results.iterdir()} - {".anogan_files"}
    assert left == {"scores.csv", "metrics.json"}  # no pictures, plots and page


@pytest.mark.cli
def test_files_and_folders_are_scored_together_and_json_has_standard_output(asked, tmp_path):
    code, told = asked(
        *("--test_dir", "more", "some/01.png", "more/41.png", "--json"),
        *("--threshold=-1e6", "--fail_on_anomaly"),
    )
    assert code == 3
    *lines, last = map(json.loads, told.out.splitlines())
    assert [line["file"] for line in lines] == [
        *("more/40.png", "more/41.png", "more/42.png", "some/01.png")
    ]
    assert all(line["is_anomaly"] and line["threshold"] == -1e6 for line in lines)
    assert all(0 < line["p_value"] <= 1 for line in lines)
    assert all(os.path.samefile(line["path"], tmp_path / line["file"]) for line in lines)
    assert last["summary"]["called_anomalous"] == 4
    assert "scoring 4 images" in told.err
    with open(tmp_path / "test_result" / "scores.csv") as file:
        rows = {row["file"]: float(row["score"]) for row in csv.DictReader(file)}
    assert rows == pytest.approx({line["file"]: line["score"] for line in lines}, rel=1e-5)


@pytest.mark.cli
def test_exit_code_tells_of_anomalies_and_of_what_could_not_be_judged(asked, tmp_path):
    assert asked("--test_dir", "some", "--fail_on_anomaly", "--threshold", "1e6")[0] == 0
    (tmp_path / "some" / "broken.png").write_bytes(b"no image")
    code, told = asked("--test_dir", "some", "--fail_on_anomaly", "--threshold", "1e6")
    assert code == 1 and "broken.png" in told.err.splitlines()[-1]
    assert asked("--test_dir", "some", "--fail_on_anomaly", "--threshold=-1e6")[0] == 3


@pytest.mark.cli
def test_only_the_first_images_are_told(asked, monkeypatch):
    from anogan.cli import printing

    monkeypatch.setattr(printing, "PRINTED", 2)
    out = asked("--test_dir", "some")[1].out
    assert out.count(": score ") == 2 and "and 1 more in scores.csv" in out


@pytest.mark.unit
def test_where_results_of_files_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    Image.new("L", (8, 8)).save("a/x.png")

    def places(*paths, **more):
        return places_of(Options(test_dir=paths, **more), None)

    assert places("a").results == Path("a/test_result") and not places("a").chosen
    assert places("a/x.png").results == Path("a/test_result")
    assert places("a/b", "a/x.png").results == Path("a/test_result")
    assert places("a", "a/x.png").chosen == ("a", "a/x.png")
    assert places("a/x.png", test_result_dir="r").results == Path("r")
    assert places(str(tmp_path / "a" / "x.png")).images == tmp_path / "a"


@pytest.mark.unit
def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nosuch.png does not exist: name a file or folder"):
        find_images(tmp_path, Selection(chosen=("nosuch.png",)))


@pytest.mark.unit
def test_a_loaded_model_builds_its_trainer_only_for_training(trained_folder):
    from model import DCGAN

    model = DCGAN.load(trained_folder)
    model.anomaly_detector(np.zeros((1, *model.config.shape), np.uint8))
    assert "trainer" not in vars(model) and model.steps_done == model.config.steps
    before, weights = model.checksum(), model.trainer.nets.generator.get_weights()
    assert model.checksum() == before and model.trainer.optimisers["generator"].iterations > 0
    average = model.averages.ema.generator.get_weights()
    assert any((a != b).any() for a, b in zip(weights, average, strict=True))


@pytest.mark.unit
def test_progress_without_a_terminal_is_plain_lines(capsys, monkeypatch):
    monkeypatch.setattr(progress_module, "LEAST_SECONDS", 0)
    with progress_module.progress(100, "img", "scoring") as bar:
        for _ in range(100):
            bar.update()
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 11 and lines[0].startswith("scoring: 10/100 img")
    assert lines[-2].startswith("scoring: 100/100") and not lines[-1]
    with progress_module.progress(5, "img", "scoring", shown=False) as bar:
        bar.update(5)
    assert not capsys.readouterr().err


@pytest.mark.unit
def test_startup_lines_go_and_errors_stay(capfd):
    with without_startup_lines():
        os.write(2, b"I0000 00:00:1795680019.25 1 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"E0000 00:00:1.1 1 cuda_platform.cc:52] failed call to cuInit: ERROR (303)\n")
        os.write(
            2,
            b"WARNING: All log messages before absl::InitializeLog() is called are written to "
            b"STDERR\n",
        )
        os.write(2, b"F0000 00:00:1.1 1 cpu.cc:1] compiled to use AVX, not available\n")
    os.write(2, b"I0000 later\n")
    assert capfd.readouterr().err.splitlines() == [
        *("F0000 00:00:1.1 1 cpu.cc:1] compiled to use AVX, not available", "I0000 later")
    ]


@pytest.mark.unit
def test_hidden_modules_are_back_afterwards(monkeypatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with not_imported("this", "logging"):
        assert sys.modules["logging"] is logging
        with pytest.raises(ImportError):
            import this  # noqa: F401
    assert "this" not in sys.modules


@pytest.mark.unit
@pytest.mark.parametrize(("code", "reader", "told"), [(3, True, 3), (0, True, 0), (0, False, 1)])
def test_a_process_is_left_with_all_said_and_done_and_its_exit_code(code, reader, told):
    script = (
        "import atexit, os; from anogan.runs.start_up import leave;"
        "atexit.register(os.write, 2, b'at its end');"
        f"print('said'); leave({code})"
    )
    root = Path(main.__file__).parent
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=root,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered,
    )  # fmt: skip
    if not reader:
        process.stdout.close()
    out, error = process.communicate()
    assert (process.returncode, error) == (told, b"at its end")
    assert out == b"said\n" or not reader


@pytest.mark.cli
@pytest.mark.slow
def test_models_import_alone_says_nothing():
    root = Path(main.__file__).parent
    command = [sys.executable, "-c", "from model import DCGAN"]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert not found.stdout + found.stderr


@pytest.mark.cli
@pytest.mark.slow
def test_a_process_imports_no_more_than_it_needs():
    code = (
        "import sys; from anogan.cli import deploy, draw, load, score, train;"
        "from anogan.runs.start_up import UNUSED, import_tensorflow;"
        "import_tensorflow(*UNUSED); import model;"
        "print([m for m in ('matplotlib', 'pandas', 'sklearn', 'scipy.stats', 'jinja2',"
        " 'tensorboard') if sys.modules.get(m)])"
    )
    root = Path(main.__file__).parent
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n" and not found.stderr


def test_a_second_memory_is_no_cause_for_alarm(zeros, caplog):
    import model  # noqa: F401  # which silences it
    from anogan.method.memory_bank import MemoryBank
    from anogan.recipe import BankRecipe

    for count in range(8):
        MemoryBank.of(zeros[: 4 + count], BankRecipe()).compare(to_float(zeros[:2]))
    assert "retracing" not in caplog.text


@pytest.mark.unit
def test_keras_has_its_standard_settings_whatever_the_users_file_says(tmp_path):
    settings = {
        "floatx": "float16", "epsilon": 1e-3, "backend": "torch",
        "image_data_format": "channels_first",
    }  # fmt: skip
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    code = (
        "import os; from anogan.runs.start_up import UNUSED, import_tensorflow;"
        "import_tensorflow(*UNUSED); import keras; c = keras.config;"
        "print(c.backend(), c.floatx(), c.epsilon(), c.image_data_format(),"
        " os.environ['KERAS_BACKEND'], 'KERAS_HOME' in os.environ)"
    )
    variables = {**os.environ, "HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    variables.pop("KERAS_HOME", None)
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(main.__file__).parent, env=variables,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == "tensorflow float32 1e-07 channels_last torch False\n", found.stderr


@pytest.mark.unit
def test_figures_do_not_follow_the_users_matplotlibrc(tmp_path):
    import matplotlib

    from anogan.evaluation.outcome import Outcome
    from anogan.evaluation.rows import Rows
    from anogan.evaluation.scoring import COLUMNS
    from anogan.method.threshold import NormalScores
    from anogan.report import plots

    images = ImageSet.from_array(np.zeros((20, 2, 2, 1), np.uint8))
    rows = Rows(np.arange(20), dict.fromkeys(COLUMNS, np.arange(20.0)), {}, None)
    outcome = Outcome(images, rows, NormalScores(np.arange(9.0)), -1e30, 0.5, {})
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30}):
        plots.write(tmp_path, outcome, {})
        assert matplotlib.rcParams["text.usetex"]
    drawn = (tmp_path / "terms.svg").read_text()
    plots.write(tmp_path, outcome, {})
    assert len(drawn) == len((tmp_path / "terms.svg").read_text())


@pytest.mark.usefixtures("eager")
def test_a_calibration_is_announced_where_it_has_to_be_found_and_only_there(
    trained_folder, queries, tmp_path, capsys
):
    run = shutil.copytree(trained_folder, tmp_path / "run")
    Image.fromarray(queries[0][0].squeeze()).save(tmp_path / "a.png")
    words = ["--checkpoint_dir", str(run), "--anomaly_test", "--test_dir", str(tmp_path / "a.png")]
    words += ["--no-report", "--search", "gradient", "--test_epoch", "1"]
    for times in (1, 0):
        assert main.main(words) == 0
        printed = capsys.readouterr().out
        assert printed.count("(--search gradient, 1 steps each)") == times
