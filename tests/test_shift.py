"""Are normal images called anomalous far more often than promised, and is it said?"""

import numpy as np
import pytest

from anogan.evaluation.shift import of_outliers, shift
from anogan.method.threshold import NormalScores, Threshold

pytestmark = pytest.mark.unit


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def line(rng, scores, labels=None, held_out=200):
    normal = NormalScores(rng.normal(size=held_out))
    return shift(normal, labels, scores, normal.threshold(0.05), 0.05)


def test_far_more_normal_images_above_the_threshold_than_promised_is_said(rng):
    labels = np.repeat([0, 1], 100)
    scores = rng.normal(size=200) + 1.2 * (labels == 0) + 4 * labels
    above = int((scores[:100] > 1.6).sum())
    assert above > 20 and " of 100 normal images are called anomalous" in line(rng, scores, labels)
    assert "than the 5.0% aimed at: they look unlike" in line(rng, scores, labels)


def test_chance_says_nothing_and_few_held_out_images_are_named_as_the_likely_cause(rng):
    labels = np.repeat([0, 1], 100)
    for held_out in (20, 50, 400):
        lines = [line(rng, rng.normal(size=200) + 3 * labels, labels, held_out) for _ in range(40)]
        said = [one for one in lines if one]
        assert len(said) <= {20: 10, 50: 5, 400: 1}[held_out]
        unexplained = [one for one in said if "the threshold is rough" not in one]
        assert len(unexplained) <= 3


@pytest.mark.parametrize("defects", [0.0, 0.3, 0.6, 0.8])
def test_ordinary_folders_without_labels_say_nothing_whatever_share_is_defects(rng, defects):
    for _ in range(10):
        scores = rng.normal(size=100)
        scores[: int(100 * defects)] += 5
        assert line(rng, scores) is None


def test_a_folder_that_lies_elsewhere_as_a_whole_is_said(rng):
    scores = rng.normal(size=100) + 2.5
    assert "nearly all of 100 images score above the middle" in line(rng, scores)
    scores[:40] += 5  # with defects, too
    assert "another light" in line(rng, scores)
    assert line(rng, scores[:10]) is None  # too few to tell
    defects = np.ones(100, int)
    assert line(rng, scores, defects) is None  # the labels say that all are anomalous


def test_what_would_be_decided_without_odd_held_out_images_or_with_them_is_said(rng):
    clean, scores = rng.normal(size=40), rng.normal(size=60) + np.repeat([0, 5], 30)
    odd, rule, robust = NormalScores([*clean, 60.0]), Threshold(), Threshold(rule="inliers")
    for told, done, other in ((rule, "without", clean), (robust, "with", odd.scores)):
        value, line = NormalScores(other).threshold(0.05), of_outliers(odd, scores, told)
        assert "1 of 41 held-out normal images score far above all others" in line
        assert f"{done} them it would be {value:.4g}, and {(scores > value).sum()} of 60" in line
    assert of_outliers(NormalScores(clean), scores, rule) is None
    assert of_outliers(NormalScores([*clean[:4], 60.0]), scores, rule) is None  # too few are left
