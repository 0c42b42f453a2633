"""The anomaly score against the README's formula in plain NumPy, and what a calibration keeps."""

import dataclasses
import json

import numpy as np
import pytest

from anogan.config import preset
from anogan.errors import UserError
from anogan.method.scoring import MAPS, TERMS, Calibration, Search, base_weights, fit_weights
from anogan.method.threshold import Tail
from anogan.recipe import RECIPES

pytestmark = pytest.mark.unit
RNG = np.random.default_rng(0)
FOUND = {name: RNG.normal(3, 2, 7) for name in TERMS}
MEANS = {name: float(i) for i, name in enumerate(TERMS)}
SPREADS = {name: 1.0 + 0.5 * i for i, name in enumerate(TERMS)}


def calibration(config, means=MEANS, spreads=SPREADS):
    weights, maps = base_weights(config), dict.fromkeys(MAPS, 0.5)
    tail = Tail(1.0, 0.5, 0.1, 2.0)
    scores, peaks = (1.0, 2.0), (0.3,)
    return Calibration((0.5, 0.5, 0.0), weights, means, spreads, 0.9, maps, scores, tail, peaks)


def test_default_score_is_the_readmes_formula():
    parts = ((FOUND[n] - MEANS[n]) / SPREADS[n] for n in TERMS)
    r, d, peak, real, fake, pixels, memory, features = parts
    lambda_ = 0.25
    expected = 2 * (1 - lambda_) * r + 2 * lambda_ * d + peak - real - fake / 4
    expected += 1.5 * (pixels + memory + features)
    parts = calibration(preset("default", lambda_=lambda_)).contributions(FOUND)
    assert parts.shape == (7, len(TERMS))
    np.testing.assert_allclose(parts.sum(axis=1), expected)


def test_classic_score_is_the_papers_sum():
    plain = dict.fromkeys(TERMS, 0.0), dict.fromkeys(TERMS, 1.0)
    parts = calibration(preset("classic"), *plain).contributions(FOUND)
    expected = 0.9 * FOUND["residual"] + 0.1 * FOUND["discrimination"]
    np.testing.assert_allclose(parts.sum(axis=1), expected)


def test_small_images_have_weights_of_their_own():
    for size, name in (
        ({"height": 28, "width": 32}, "small images"),
        ({"height": 28, "width": 33}, "default"),
        ({"height": 64, "width": 64, "window": 28}, "default"),
        ({"height": 28, "width": 28, "features": "none"}, "without features"),
    ):
        assert preset("default", **size).recipe == RECIPES[name]
    assert preset("classic", height=28, width=28).recipe == RECIPES["classic"]
    assert len({str(recipe) for recipe in RECIPES.values()}) == len(RECIPES)


def test_a_score_that_is_not_finite_is_an_error_that_names_the_term():
    bad = {**FOUND, "peak": FOUND["peak"] * np.nan}
    with pytest.raises(UserError, match=r"7 of 7 anomaly scores are not finite \(peak\)"):
        calibration(preset("default")).contributions(bad)


def test_a_calibration_survives_its_json():
    whole = calibration(preset("default"))
    assert Calibration.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    joined = dataclasses.replace(whole, banks=(1.0, 2.0), alone=(0.5,))
    assert Calibration.from_json(json.loads(json.dumps(joined.to_json()))) == joined
    with pytest.raises(ValueError, match="not as many values"):
        Calibration.from_json({**joined.to_json(), "banks": [1.0]})
    broken = whole.to_json()
    del broken["means"]["peak"]
    with pytest.raises(LookupError):
        Calibration.from_json(broken)


def test_searches_have_their_steps_and_need_an_encoder():
    default, classic = RECIPES["default"], RECIPES["classic"]
    assert Search.resolve(default, None, None, None) == ("encoder", 0, 0.1)
    assert Search.resolve(classic, None, None, None) == ("gradient", 50, 0.1)
    assert Search.resolve(default, "hybrid", 7, 0.2) == ("hybrid", 7, 0.2)
    assert Search.resolve(default, "gradient", 0, 0.1).steps == 0
    for search, message in (("hybrid", "needs an encoder"), ("guess", "one of gradient")):
        with pytest.raises(UserError, match=message):
            Search.resolve(classic, search, None, None)


def terms(rng, count, **shifts):
    """Standardised terms of so many images, some of them moved."""
    found = rng.normal(size=(count, len(TERMS)))
    for name, shift in shifts.items():
        found[:, TERMS.index(name)] += shift
    return found


def test_a_term_that_tells_nothing_fades_and_the_others_gain():
    rng, base = np.random.default_rng(0), base_weights(preset("default"))
    normal = terms(rng, 4000)  # many, so that chance gives no merit
    planted = [terms(rng, 4000, memory=2.0, realism=-2.0, peak=-1.0), terms(rng, 4000, memory=3.0)]
    weights, expected = fit_weights(base, normal, planted)
    assert weights["peak"] == 0  # it is lower where something is wrong
    assert weights["memory"] > 2 * base["memory"]
    assert weights["realism"] < 1.5 * base["realism"] < 0
    for name in ("residual", "discrimination", "pixels"):
        assert abs(weights[name]) < 0.4 * abs(base[name])
    assert expected > 0.95


def test_where_no_anomaly_could_be_planted_the_usual_weights_stay():
    base, normal = base_weights(preset("default")), terms(np.random.default_rng(0), 20)
    assert fit_weights(base, normal, [normal[:0], normal[:0]]) == (base, None)


def test_weights_do_not_hang_on_terms_that_the_preset_lacks():
    rng, base = np.random.default_rng(0), base_weights(preset("classic"))
    weights, _ = fit_weights(base, terms(rng, 50), [terms(rng, 50, memory=5.0, residual=1.0)])
    assert weights["memory"] == 0 and weights["residual"] > base["residual"]


def test_of_an_images_windows_the_worst_decides():
    known = calibration(preset("default"))
    found = {name: RNG.normal(3, 2, (5, 4)) for name in TERMS}
    scores = known.contributions(found).sum(axis=-1)
    np.testing.assert_allclose(known.scores_of(found), scores.max(axis=1))
    weights = np.array([known.weights[name] for name in TERMS])
    np.testing.assert_allclose(known.worst(found) @ weights, scores.max(axis=1))
