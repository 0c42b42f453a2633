"""Flags: what may be typed, and what --help shows."""

import subprocess
import sys

import pytest
from commands import ROOT, exit_code

import anogan
from anogan.cli.parser import parse
from anogan.cli.settings import threshold_of
from anogan.config import Config
from anogan.errors import UserError
from anogan.settings import described

pytestmark = pytest.mark.cli


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
    assert parse(words).train is value


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
        (["--dataset", "x", "--serve", "--input_fname_pattern", "*.png"], "add --train or"),
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
    ],
)
def test_wrong_arguments_exit_with_2_and_name_the_flag(words, message, capsys):
    assert exit_code(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, one in described(Config).items() if one.span])
def test_config_refuses_what_its_flag_refuses(name, capsys):
    one = described(Config)[name]
    for value in (one.span[0] - 2, one.span[1] + 1):  # 0 may be a default below
        with pytest.raises(UserError, match=f"{name.rstrip('_')} must be from"):
            Config(**{name: value})
        assert exit_code([f"--{one.flag or name}={value}"]) == 2


def test_a_threshold_may_be_negative_and_written_with_an_exponent():
    for text in ("-1e3", "-.5", "-2", "-1.5E-3"):
        assert parse(["--anomaly_test", "--threshold", text]).threshold == float(text)


def test_the_version_stands_in_one_place(capsys):
    assert exit_code(["--version"]) == 0
    assert capsys.readouterr().out == f"AnoGAN {anogan.__version__}\n"
    assert f"\nversion: {anogan.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {anogan.__version__} - " in (ROOT / "CHANGELOG.md").read_text()


def test_a_file_in_place_of_the_folder_of_runs_is_told(here, capsys):
    (here / "model").touch()
    assert exit_code(["--anomaly_test", "--checkpoint_dir", "model"]) == 2
    assert "--checkpoint_dir model is a file: name the folder" in capsys.readouterr().err


def test_a_tilde_is_the_home_in_every_flag_that_is_a_path(monkeypatch):
    """A shell does not expand it after = (--flag=~/x)."""
    monkeypatch.setenv("HOME", "/home/me")
    common = ["dataset", "data_dir", "checkpoint_dir"]
    of_scoring = ["test_dir", "labels", "mask_dir", "test_result_dir"]
    words = [f"--{name}=~/x" for name in [*common, *of_scoring]]
    options = parse(["--anomaly_test", *words])
    expanded = {name: getattr(options, name) for name in [*common, *of_scoring]}
    assert expanded == {**dict.fromkeys(expanded, "/home/me/x"), "test_dir": ["/home/me/x"]}
    options = parse(["--train", "--dataset=x", "--drop=~/x", "--log_dir=~/x", "--sample_dir=~/x"])
    assert {options.drop, options.log_dir, options.sample_dir} == {"/home/me/x"}
    assert parse(["--export=onnx", "--export_dir=~/x"]).export_dir == "/home/me/x"
    assert parse(["--compare", "~/x", "~/y"]).compare == ["/home/me/x", "/home/me/y"]
    assert parse(["--dataset=./~/x"]).dataset == "./~/x"


def test_the_rule_of_the_threshold_is_for_all_that_decide():
    for command in ("--anomaly_test", "--export=onnx", "--serve"):
        assert threshold_of(parse([command, "--threshold_from=inliers"])).leaves_outliers_out
    with pytest.raises(SystemExit):
        parse(["--train", "--threshold_from=inliers"])
