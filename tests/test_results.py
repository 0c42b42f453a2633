"""What scoring keeps in memory."""

import csv
import dataclasses
import html

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from anogan.cli.score import draw_report, map_writer, origin
from anogan.data.image_set import ImageSet
from anogan.evaluation.best import Best
from anogan.evaluation.outcome import decide
from anogan.evaluation.scoring import Scoring
from anogan.method.scoring import MAPS, TERMS
from anogan.method.threshold import NormalScores, Threshold
from anogan.report.facts import decided_by
from utils import to_float

pytestmark = pytest.mark.unit


def test_pictures_that_are_kept_do_not_keep_their_batches(trained, queries, tmp_path):
    batch = to_float(queries[0][:20])
    found = trained.anomaly_detector(batch)
    best = Best()
    best.offer(range(20), found)
    assert len(best.pictures) == 20
    shown = batch, found.reconstruction, found.anomaly_map
    for _, *arrays in best.pictures.values():
        for mine, whole in zip(arrays, shown, strict=True):
            assert mine.shape == whole.shape[1:] and not np.shares_memory(mine, whole)


SHOWN = "score", "image", "reconstruction", "anomaly_map"


def test_the_pictures_worth_showing_are_kept_in_order(trained, queries):
    found = trained.anomaly_detector(queries[0])
    best = Best(3, 2, 2, float(np.median(found.score)))
    for start in range(0, 80, 20):
        part = slice(start, start + 20)
        some = found._replace(**{name: getattr(found, name)[part] for name in SHOWN})
        best.offer(list(range(80)[part]), some)
        assert len(best.pictures) <= 7
    groups, order = best.groups(range(80), found.score), np.argsort(-found.score, kind="stable")
    assert groups["most"] == order[:3].tolist()
    assert set(groups["least"]) == set(order[-2:])
    assert set(best.pictures) == {i for group in groups.values() for i in group}
    np.testing.assert_array_equal(best.pictures[order[0]].query, queries[0][order[0]])


def test_of_equal_scores_the_first_image_is_shown_in_whatever_order_they_come():
    best = Best(2, 1, 0, None)
    assert best.groups([5, 3, 4], [1.0, 1.0, 1.0])["most"] == [3, 4]


def scored(folder, model, images, labels=None, rule=None, save_maps=False):
    """The metrics of a test of these images, written into a folder."""
    detection, calibration = model.anomaly_detector(images), model.calibrate()
    listed, best = ImageSet.from_array(images, None, labels), Best()
    save_map = map_writer(1.0) if save_maps else None
    scoring = Scoring(folder, listed, model.workers, {}, len(images), save_map=save_map, best=best)
    scoring.resume()
    with scoring:
        scoring.add(np.arange(len(images)), detection)
        rows = scoring.gather()
    outcome = decide(listed, rows, rule or Threshold(), calibration, origin(model, model.search()))
    outcome.write(scoring.folder.staging)
    draw_report(scoring.folder.staging, model, outcome, best, model.anomaly_detector, None)
    scoring.folder.publish()
    return outcome.metrics


def table(folder):
    with open(folder / "scores.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_outliers_that_are_left_out_count_for_no_decision(trained, queries, monkeypatch, tmp_path):
    """Neither in scores.csv, nor for p-values, metrics.json, exports, the page, and in Python."""
    from anogan.deploy.inference_graph import graph_and_facts
    from anogan.deploy.serve import Service

    known, rule = trained.calibrate(), Threshold(rule="inliers")
    scores, peaks = (*known.scores, 900.0), (*known.peaks, 70.0)
    alone = dataclasses.replace(known, banks=(), alone=(), tail=NormalScores(known.scores).tail)
    odd = dataclasses.replace(alone, scores=scores, peaks=peaks, tail=NormalScores(scores).tail)
    monkeypatch.setattr(trained, "calibrate", lambda search=None: odd)
    expected = alone.normal_scores.threshold(0.05)
    assert odd.normal_scores.threshold(0.05) > 3 * expected
    metrics = scored(tmp_path, trained, queries[0], rule=rule)
    assert (
        metrics["threshold"] == expected and "are left out of the threshold" in metrics["outliers"]
    )
    rows = table(tmp_path)
    called = [float(row["score"]) > expected for row in rows]
    assert [row["is_anomaly"] == "1" for row in rows] == called
    assert min(float(row["p_value"]) for row in rows) == pytest.approx(1 / len(scores), rel=1e-3)
    counted = odd.suiting(rule)
    assert counted.pixel_threshold() == known.pixel_threshold()
    _, facts = graph_and_facts(trained.config, trained.detector, counted, rule, 1)
    assert float(facts["threshold"]) == expected and "outliers left out" in facts["threshold_is"]
    assert Service(trained.config, counted, lambda images: None, rule).threshold == expected
    found = trained.anomaly_detector(queries[0], calibration=odd.without_outliers())
    assert list(found.is_anomaly) == called and odd.suiting(Threshold()) is odd


def test_each_score_can_be_computed_from_its_row(trained, queries, tmp_path):
    metrics = scored(tmp_path, trained, queries[0][::4])
    formula = metrics["score"]
    for row in table(tmp_path):
        score = float(row["score"])
        parts = [float(row[f"{name}_contribution"]) for name in TERMS]
        assert sum(parts) == pytest.approx(score, rel=1e-4, abs=1e-4)
        plain = sum(
            t["weight"] * (float(row[name]) - t["mean"]) / t["spread"]
            for name, t in formula["terms"].items()
        )
        assert plain == pytest.approx(score, rel=1e-3, abs=1e-3)
    page = (tmp_path / "report.html").read_text()
    assert f"trained to step {trained.steps_done} of 600 on 16 x 16 pixels" in page
    assert f"expected AUROC {formula['expected_auroc']:.3f}" in page


def test_map_shows_the_parts_as_far_as_they_make_the_score(trained, queries):
    calibration, x = trained.calibrate(), to_float(queries[0][:4])
    found = trained.anomaly_detector(queries[0][:4])
    parts = trained.detector.terms(x, trained.search(), calibration.search_weights, 4)
    expected = sum(calibration.maps[name] * parts[name] for name in MAPS)
    np.testing.assert_allclose(found.anomaly_map, expected, rtol=1e-4, atol=1e-5)
    sigma = trained.config.recipe.map_blur * 16
    smooth = [
        gaussian_filter(m, sigma, mode="nearest", radius=max(1, round(3 * sigma)))
        for m in np.abs(x - found.reconstruction).mean(-1)
    ]
    np.testing.assert_allclose(parts["residual_part"], smooth, atol=1e-4)
    memory = trained.detector.memory.compare(x)[1]
    np.testing.assert_allclose(parts["memory_part"], memory, atol=1e-5)


def test_pictures_say_what_decided(trained, queries, tmp_path):
    scored(tmp_path, trained, queries[0])
    highest = max(table(tmp_path), key=lambda row: float(row["score"]))
    parts = {name: float(highest[f"{name}_contribution"]) for name in TERMS}
    told = decided_by(parts)
    assert told.startswith(f"raised by: {max(parts, key=parts.get)}".replace("_", " "))
    assert told in html.unescape((tmp_path / "report.html").read_text())
    assert decided_by(dict.fromkeys(TERMS, -1.0)) == "no term raises it"


def test_threshold_from_labels_of_one_sort_is_none_and_says_why(trained, zeros, tmp_path):
    rule = Threshold(rule="youden")
    metrics = scored(tmp_path, trained, zeros[-9:], np.zeros(9, int), rule)
    assert metrics["threshold"] is None and "one sort" in metrics["threshold_is"]
    assert "is_anomaly" not in table(tmp_path)[0]


def test_a_rate_that_so_few_images_cannot_show_is_called_extrapolated(trained):
    normal = trained.calibrate().normal_scores
    count = len(normal.sample)
    fine, coarse = Threshold(target_fpr=0.5 / count), Threshold(target_fpr=1 / count)
    assert fine.too_fine_for(normal) and not coarse.too_fine_for(normal)
    assert f"no rate below 1 in {count}" in fine.choose(normal, None, None)[1]
    assert "extrapolated" not in coarse.choose(normal, None, None)[1]
    assert not Threshold(value=1.0, target_fpr=1e-9).too_fine_for(normal)


def test_maps_of_an_earlier_run_do_not_stay_beside_new_results(trained, zeros, tmp_path):
    scored(tmp_path, trained, zeros[-4:], save_maps=True)
    assert len(list((tmp_path / "maps").glob("*.npy"))) == 4
    (tmp_path / "maps" / "mine.txt").write_text("notes")
    scored(tmp_path, trained, zeros[-2:], save_maps=True)
    assert len(list((tmp_path / "maps").glob("*.npy"))) == 2
    scored(tmp_path, trained, zeros[-2:])
    assert [p.name for p in (tmp_path / "maps").iterdir()] == ["mine.txt"]
