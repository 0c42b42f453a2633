"""The command --anomaly_test."""

import json
import shutil

import numpy as np
import pytest
from commands import NETS, rows, save
from PIL import Image

import anogan
import main
from anogan.runs.lock import LOCK, only_one

pytestmark = [pytest.mark.cli, pytest.mark.usefixtures("eager")]
undrawn = pytest.mark.usefixtures("no_drawings")


@pytest.mark.slow
def test_results_are_never_taken_for_images(run, capsys):
    """Neither earlier ones, whatever their name, nor samples, nor masks that lie inside."""
    words = ["--dataset", "zeros", "--anomaly_test", "--test_result_dir"]
    assert main.main([*words, "test_data/first", "--save_maps"]) == 0
    for i in range(6):
        save(run / "test_data" / "masks" / "ones" / f"{i}.png", np.full((16, 16), 255, np.uint8))
    assert main.main([*words, "out2", "--mask_dir", "test_data/masks", "--no-report"]) == 0
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


@undrawn
def test_files_that_are_no_images_are_counted_by_type(run, zeros, capsys):
    for name in ("a.dcm", "b.DCM", "notes.txt", "README.md", ".hidden"):
        (run / "test_data" / "ones" / name).write_bytes(b"x")
    Image.fromarray(zeros[0].squeeze()).save(run / "test_data" / "ones" / "c.jfif", "JPEG")
    assert main.main(["--dataset", "zeros", "--anomaly_test"]) == 0
    out = capsys.readouterr().out
    assert "left out 3 files that are no images: .dcm, .txt" in out
    assert "ones/c.jfif" in {r["file"] for r in rows(run / "test_data/test_result/scores.csv")}


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


@undrawn
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
    assert metrics["versions"]["anogan"].startswith(anogan.__version__)
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
    assert len(list((folder / "pictures").glob("most_*.png"))) == 10
    assert len(list((folder / "pictures").glob("least_*.png"))) == 10
    assert Image.open(folder / "contact_sheet.png").size > (16, 16)


@undrawn
def test_unlabelled_images_get_scores_and_no_metrics(run, capsys):
    for i in range(3):
        save(run / "mine" / f"{i}.png", np.full((20, 30), 40 * i, np.uint8))
    assert main.main(["--dataset", "zeros", "--anomaly_test", "--test_dir", "mine"]) == 0
    table = rows(run / "mine" / "test_result" / "scores.csv")
    assert [r["file"] for r in table] == ["0.png", "1.png", "2.png"]
    assert {r["label"] for r in table} == {""}
    out = capsys.readouterr().out
    assert "\nAUROC" not in out and "of 3 images are called anomalous" in out


@undrawn
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


@undrawn
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


@undrawn
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


@undrawn
def test_maps_of_images_that_differ_in_the_ending_alone_do_not_overwrite_each_other(run, zeros):
    for i, ending in enumerate(("png", "bmp")):
        save(run / "mine" / f"a.{ending}", zeros[i])
    save(run / "mine" / "b.1.png", zeros[2])
    words = ["--dataset", "zeros", "--anomaly_test", "--test_dir", "mine", "--save_maps"]
    assert main.main(words) == 0
    names = {p.name for p in (run / "mine" / "test_result" / "maps").glob("*.npy")}
    assert names == {"a.png.npy", "a.bmp.npy", "b.1.npy"}


@undrawn
def test_a_model_without_held_out_images_scores_and_says_that_it_has_no_threshold(
    here, capsys, caplog
):
    words = ["--dataset", "zeros", "--epoch", "1", "--validation_fraction", "0", *NETS]
    assert main.main([*words, "--train", "--anomaly_test"]) == 0
    assert "no threshold" in capsys.readouterr().out
    assert "0 images were held out from training, and at least 2 are needed" in caplog.text
    table = rows(here / "test_data" / "test_result" / "scores.csv")
    assert len(table) == 12 and "is_anomaly" not in table[0]


@undrawn
def test_labels_of_one_sort_are_scored_and_decided(run, capsys):
    shutil.rmtree(run / "test_data" / "ones")
    assert main.main(["--dataset", "zeros", "--anomaly_test"]) == 0
    metrics = json.loads((run / "test_data" / "test_result" / "metrics.json").read_text())
    assert "auroc" not in metrics and "false_positive_rate" in metrics["at_threshold"]
    assert main.main(["--dataset", "zeros", "--anomaly_test", "--threshold_from", "f1"]) == 1
    assert "--threshold_from f1 needs labels of both sorts" in capsys.readouterr().err


@undrawn
def test_masks_give_pixel_measures_and_maps_are_saved(run, capsys, caplog):
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
    (run / "masks" / "ones" / "3.png").unlink()  # of six one: it is left out of what is measured
    assert main.main(words) == 0
    assert "no mask for ones/3.png" in capsys.readouterr().out
    assert json.loads((folder / "metrics.json").read_text())["regions"] == 10
    assert "pixel measures" not in caplog.text  # it is named once, not again as it is scored
    (run / "masks" / "ones" / "4.png").unlink()
    shutil.rmtree(folder)
    assert main.main(words) == 1
    assert "no mask for ones/3.png" in capsys.readouterr().err and not folder.exists()


@undrawn
def test_interrupted_scoring_goes_on_with_the_rows_it_has(run, monkeypatch, capsys):
    from model import DCGAN

    words = ["--dataset", "zeros", "--anomaly_test", "--test_batch_size", "4"]
    gradient = ["--search", "gradient", "--test_epoch", "1"]
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
    assert main.main([*words, "--test_result_dir", "whole", *gradient]) == 130
    assert "going on" not in capsys.readouterr().out


def test_the_report_shows_images_that_are_read_larger_than_the_gan_sees_them(zeros):
    from types import SimpleNamespace

    from anogan.cli.score import features
    from anogan.config import preset
    from anogan.data.image_set import ImageSet
    from anogan.runs.run_images import RunImages
    from model import DCGAN

    sizes = {"height": 16, "width": 16, "channels": 1, "view_height": 32, "view_width": 32}
    model = DCGAN(preset("default", features="none", z_dim=4, gf_dim=4, df_dim=4, **sizes))
    large = np.kron(zeros[:6], np.ones((1, 2, 2, 1), np.uint8))
    model.images = RunImages(large, zeros[:9])
    images, rows = ImageSet.from_array(large), SimpleNamespace(indices=np.arange(6))
    found = features(model, SimpleNamespace(images=images, rows=rows, labels=None))
    assert [len(one) for one in found.values()] == [6, 9]


@pytest.mark.parametrize(
    "words, message",
    [
        (["--test_epoch", "200"], "--search encoder, this run's default, takes no steps"),
        (["--search", "encoder", "--test_learning_rate", "0.1"], "leave --test_learning_rate out"),
        (["--input_width", "54"], "trained with crop_width 0, not 54: leave --input_width out"),
    ],
)
def test_a_flag_that_would_do_nothing_for_the_run_is_an_error(run, words, message, capsys):
    assert main.main(["--dataset", "zeros", "--anomaly_test", *words]) == 1
    assert message in capsys.readouterr().err


@undrawn
def test_masks_beside_the_images_of_several_folders_are_no_images(run, zeros, capsys):
    for day in ("day1", "day2"):
        save(run / day / "7.png", zeros[0])
        save(run / day / "7_GT.png", np.full((16, 16), 255, np.uint8))
    words = ["--dataset", "zeros", "--anomaly_test", "--test_dir", "day1", "day2"]
    assert main.main([*words, "--test_result_dir", "out"]) == 0
    assert [r["file"] for r in rows(run / "out" / "scores.csv")] == ["day1/7.png", "day2/7.png"]
    assert "day1: 1 files beside the images are masks" in capsys.readouterr().out
