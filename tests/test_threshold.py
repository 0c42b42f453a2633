"""Thresholds and measures, against cases worked out by hand and known distributions."""

import numpy as np
import pytest
from scipy.stats import norm

from anogan.evaluation import metrics
from anogan.method import threshold as decide
from anogan.method.threshold import NormalScores, Tail, Threshold

NO_TAIL = Tail(0.0, 0.1, 0.0, 1.0)  # spares the fit

pytestmark = pytest.mark.unit

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SCORES = np.array([0.1, 0.2, 0.3, 0.7, 0.4, 0.6, 0.8, 0.9])


def test_threshold_at_a_rate_the_sample_shows_is_its_quantile():
    normal = NormalScores(np.arange(1, 1001))
    threshold = normal.threshold(0.05)
    assert (normal.scores > threshold).mean() == pytest.approx(0.05)
    assert 950 <= threshold <= 951


@pytest.mark.parametrize("rate", [0.1, 0.05, 0.01, 0.001])
def test_threshold_keeps_the_target_rate_on_unseen_normals(rate):
    rng = np.random.default_rng(0)
    thresholds = [NormalScores(rng.normal(size=500)).threshold(rate) for _ in range(20)]
    observed = np.median(norm.sf(thresholds))
    assert rate / 3 < observed < rate * 3


def test_rarer_targets_give_higher_thresholds_beyond_the_sample():
    normal = NormalScores(np.random.default_rng(1).normal(size=300))
    rates = (0.2, 0.1, 0.05, 0.034, 0.033, 0.02, 1e-3, 1e-5)
    thresholds = [normal.threshold(rate) for rate in rates]
    assert (np.diff(thresholds) >= 0).all()
    assert thresholds[-1] > normal.scores.max()


def test_p_values_fall_with_the_score_and_end_where_the_images_end():
    normal = NormalScores(np.random.default_rng(2).normal(size=400))
    p = normal.p_value(np.linspace(-5, 9, 500))
    assert (np.diff(p) <= 0).all()
    assert p[0] == 1.0 and p[-1] == pytest.approx(1 / 401)  # no figure that 400 cannot show
    for rate in (0.2, 0.05):
        assert normal.p_value([normal.threshold(rate) + 1e-6])[0] == pytest.approx(rate, abs=0.01)


def test_a_normal_image_has_a_p_value_as_low_as_p_with_a_probability_of_at_most_p():
    rng = np.random.default_rng(5)
    for p in (0.05, 0.2):
        drawn = rng.normal(size=(4000, 28))
        below = [NormalScores(row[1:], NO_TAIL).p_value(row[:1])[0] <= p for row in drawn]
        assert np.mean(below) < p + 3 * np.sqrt(p * (1 - p) / 4000)


def test_equal_scores_count_as_high_and_beyond_the_images_fewer_than_one_is_said():
    normal = NormalScores([1, 2, 2, 3, 4])
    assert normal.as_high([2.0])[0] == 4 and normal.p_value([2.0])[0] == pytest.approx(5 / 6)
    assert decide.rarity(4, 5) == "4 of 5 held-out normal images score as high"
    assert decide.rarity(int(normal.as_high([9.0])[0]), 27).startswith("fewer than 1 in 27 ")


def test_a_saved_tail_gives_the_same_threshold():
    scores = np.random.default_rng(3).gumbel(size=200)
    first = NormalScores(scores)
    assert NormalScores(scores, first.tail).threshold(1e-4) == first.threshold(1e-4)


def test_equal_normal_scores_do_not_break_the_fit():
    normal = NormalScores(np.ones(50))
    assert np.isfinite(normal.threshold(0.001)) and normal.p_value([2.0])[0] == 1 / 51


def test_too_few_normal_scores_are_refused():
    with pytest.raises(ValueError, match="too few"):
        NormalScores([1.0, 2.0])


def test_normalised_score_is_half_at_the_threshold_and_low_for_normals():
    normal = NormalScores(np.random.default_rng(4).normal(size=500))
    threshold = normal.threshold(0.05)
    unit = normal.unit(threshold)
    values = decide.normalise([threshold, np.median(normal.scores), 1e9, -1e9], threshold, unit)
    assert values[0] == 0.5 and values[1] == pytest.approx(0.05, abs=0.01)
    assert 0 <= values[3] < 1e-9 and 1 - 1e-9 < values[2] <= 1


def test_youden_threshold_is_the_hand_computed_one():
    # above 0.35: 4 of 4 anomalies, 1 of 4 normals: J = 0.75, the best
    assert decide.threshold_from_labels(LABELS, SCORES, "youden") == pytest.approx(0.35)


def test_f1_threshold_is_the_hand_computed_one():
    labels = np.array([0, 0, 0, 1, 0, 1, 1])
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    # above 3.5: precision 3/4, recall 1: F1 6/7; above 5.5: 1 and 2/3: 4/5
    assert decide.threshold_from_labels(labels, scores, "f1") == pytest.approx(3.5)


def test_label_thresholds_never_part_equal_scores():
    labels, scores = np.array([0, 1, 0, 1]), np.array([1.0, 2.0, 2.0, 2.0])
    assert decide.threshold_from_labels(labels, scores, "youden") == pytest.approx(1.5)


def test_measures_at_the_threshold_are_the_hand_computed_ones():
    found = metrics.measures(LABELS, SCORES, ["n"] * 4 + ["a", "a", "b", "b"], 0.5)
    at = found["at_threshold"]
    assert (at["true_positives"], at["false_negatives"]) == (3, 1)
    assert (at["true_negatives"], at["false_positives"]) == (3, 1)
    for name in ("precision", "recall", "sensitivity", "specificity", "f1"):
        assert at[name] == pytest.approx(0.75)
    assert at["false_positive_rate"] == pytest.approx(0.25)
    assert found["auroc"] == pytest.approx(14 / 16)
    assert found["auroc_by_kind"] == {"a": pytest.approx(6 / 8), "b": 1.0}
    assert found["prevalence"] == 0.5


def test_a_score_at_the_threshold_is_normal():
    assert metrics.at_threshold([0, 1], [1.0, 1.0], 1.0)["true_positives"] == 0


def test_labels_of_one_sort_give_what_can_be_said():
    found = metrics.measures([0, 0, 0], [1.0, 2.0, 3.0], None, 2.5)
    assert "auroc" not in found and "recall" not in found["at_threshold"]
    assert found["at_threshold"]["false_positive_rate"] == pytest.approx(1 / 3)


def test_auroc_interval_holds_the_auroc_and_narrows_with_more_images():
    rng = np.random.default_rng(5)
    widths = []
    for n in (50, 2000):
        labels = np.repeat([0, 1], n)
        scores = rng.normal(size=2 * n) + labels
        low, high = metrics.auroc_interval(labels, scores)
        assert low < metrics.measures(labels, scores)["auroc"] < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 4


def test_auroc_interval_resamples_as_scikit_learn_would_score():
    from sklearn.metrics import roc_auc_score

    labels, scores = LABELS, np.round(SCORES, 1)
    low, high = metrics.auroc_interval(labels, scores)
    rng = np.random.default_rng(9)
    drawn = [
        roc_auc_score(LABELS, np.r_[rng.choice(scores[:4], 4), rng.choice(scores[4:], 4)])
        for _ in range(2000)
    ]
    assert low == pytest.approx(np.quantile(drawn, 0.025), abs=0.07)
    assert high == pytest.approx(np.quantile(drawn, 0.975), abs=0.07)


def test_the_threshold_comes_from_held_out_images_unless_told_otherwise():
    normal = NormalScores(np.arange(1, 1001) / 1000)
    value, how = Threshold().choose(normal, LABELS, SCORES)
    assert value == pytest.approx(0.95, abs=0.002) and "1000 held-out" in how
    assert Threshold(value=0.3).choose(normal, LABELS, SCORES) == (0.3, "given by hand")
    value, how = Threshold(rule="youden").choose(normal, LABELS, SCORES)
    assert value == pytest.approx(0.35) and "labels" in how
    assert Threshold().choose(None, LABELS, SCORES)[0] is None


def test_a_held_out_image_far_above_the_others_is_a_stray():
    rng = np.random.default_rng(0)
    for scores in (rng.normal(size=500), rng.exponential(size=500), np.arange(5.0)):
        assert NormalScores(scores).outliers() == 0
        assert NormalScores([*scores, scores.max() * 10]).outliers() == 1


def test_inliers_are_what_is_left_when_no_score_is_far_above_the_others():
    scores = np.random.default_rng(0).normal(size=30)
    kept = NormalScores([300.0, *scores, 40.0]).inliers()
    np.testing.assert_array_equal(kept.scores, np.sort(scores))
    rule = Threshold(rule="inliers")
    assert rule.by_rate and rule.leaves_outliers_out and not rule.uses_labels
    assert "from 30 held-out normal images, outliers left out" in rule.choose(kept, None, None)[1]
    assert not Threshold(1.0, rule="inliers").leaves_outliers_out


def few(seed, held_out=20, trained_on=170):
    """Scores of held-out images, what the banks add to them, and to those of training images."""
    rng = np.random.default_rng(seed)
    banks, alone = rng.gumbel(size=held_out), rng.gumbel(size=trained_on)
    return 1.5 * banks + rng.normal(0, 0.5, held_out), banks, alone


@pytest.mark.parametrize("by_banks", [30.0, 20.0])
def test_with_training_images_one_odd_held_out_image_hardly_moves_the_threshold(by_banks):
    moved = []
    for seed in range(5):
        scores, banks, alone = few(seed)
        odd, of_banks = scores.copy(), banks.copy()
        odd[3], of_banks[3] = scores[3] + 30.0, banks[3] + by_banks
        pairs = (
            (NormalScores(scores), NormalScores(odd)),
            (
                NormalScores(scores, None, banks, alone),
                NormalScores(odd, None, of_banks, alone),
            ),
        )
        moved.append([b.threshold(0.05) - a.threshold(0.05) for a, b in pairs])
    before, now = np.mean(moved, axis=0)
    assert before > 5 and abs(now) < before / 5


def test_with_training_images_the_threshold_varies_less_and_keeps_its_rate():
    thresholds = []
    for seed in range(40):
        scores, banks, alone = few(seed)
        both = NormalScores(scores), NormalScores(scores, None, banks, alone)
        thresholds.append([normal.threshold(0.05) for normal in both])
    unseen = few(99, held_out=10_000)[0]
    rates = (unseen > np.array(thresholds)[..., None]).mean(axis=-1)
    assert rates[:, 1].std() < 0.6 * rates[:, 0].std()
    assert rates[:, 1].mean() == pytest.approx(0.05, abs=0.015)


def test_training_images_add_to_the_threshold_alone_and_are_named():
    scores, banks, alone = few(0)
    both = NormalScores(scores, None, banks, alone)
    np.testing.assert_array_equal(both.p_value(scores), NormalScores(scores).p_value(scores))
    how = Threshold().choose(both, None, None)[1]
    expected = "from 20 held-out normal images and 170 training images, each left out in turn"
    assert expected in how
    assert not Threshold(target_fpr=1 / 150).too_fine_for(both)
    assert Threshold(target_fpr=1 / 150).too_fine_for(NormalScores(scores))


def test_inliers_are_joined_with_training_images_anew():
    scores, banks, alone = few(1)
    odd = NormalScores([90.0, *scores], None, [60.0, *banks], alone).inliers()
    clean = NormalScores(scores, None, banks, alone)
    np.testing.assert_allclose(odd.sample, clean.sample)
    assert odd.threshold(0.05) == pytest.approx(clean.threshold(0.05))
