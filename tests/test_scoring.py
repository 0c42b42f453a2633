"""The anomaly score against the README's formula in plain NumPy, and what a calibration keeps."""

import json

import numpy as np
import pytest

from anogan.config import preset
from anogan.errors import UserError
from anogan.scoring import TERMS, Calibration, Way, term_weights
from anogan.threshold import Tail

pytestmark = pytest.mark.unit
RNG = np.random.default_rng(0)
FOUND = {name: RNG.normal(3, 2, 7) for name in TERMS}
MEANS = {name: float(i) for i, name in enumerate(TERMS)}
SPREADS = {name: 1.0 + 0.5 * i for i, name in enumerate(TERMS)}


def calibration(config, trust, means=MEANS, spreads=SPREADS):
    weights = term_weights(config, trust)
    tail = Tail(1.0, 0.5, 0.1, 2.0)
    return Calibration((0.5, 0.5, 0.0), weights, means, spreads, trust, (1.0, 2.0), tail, (0.3,))


@pytest.mark.parametrize("trust", [0.0, 0.3, 1.0])
def test_default_score_is_the_readmes_formula(trust):
    r, d, peak, linear, real, fake = ((FOUND[n] - MEANS[n]) / SPREADS[n] for n in TERMS)
    lambda_ = 0.25
    expected = trust * ((1 - lambda_) * r + lambda_ * d + peak / 2 - real / 2 - fake / 4)
    expected += 2 * (1 - trust) * linear
    parts = calibration(preset("default", lambda_=lambda_), trust).contributions(FOUND)
    assert parts.shape == (7, len(TERMS))
    np.testing.assert_allclose(parts.sum(axis=1), expected)


def test_classic_score_is_the_papers_sum():
    plain = dict.fromkeys(TERMS, 0.0), dict.fromkeys(TERMS, 1.0)
    parts = calibration(preset("classic"), 1.0, *plain).contributions(FOUND)
    expected = 0.9 * FOUND["residual"] + 0.1 * FOUND["discrimination"]
    np.testing.assert_allclose(parts.sum(axis=1), expected)


def test_a_score_that_is_not_finite_is_an_error_that_names_the_term():
    bad = {**FOUND, "peak": FOUND["peak"] * np.nan}
    with pytest.raises(UserError, match=r"7 of 7 anomaly scores are not finite \(peak\)"):
        calibration(preset("default"), 0.5).contributions(bad)


def test_a_calibration_survives_its_json():
    whole = calibration(preset("default"), 0.5)
    assert Calibration.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    broken = whole.to_json()
    del broken["means"]["peak"]
    with pytest.raises(LookupError):
        Calibration.from_json(broken)


def test_ways_to_search_have_their_steps_and_need_an_encoder():
    assert Way.chosen(None, None, 0.1, True) == ("encoder", 0, 0.1)
    assert Way.chosen(None, None, 0.1, False) == ("gradient", 50, 0.1)
    assert Way.chosen("hybrid", 7, 0.2, True) == ("hybrid", 7, 0.2)
    assert Way.chosen("gradient", 0, 0.1, True).steps == 0
    for search, message in (("hybrid", "needs an encoder"), ("guess", "one of gradient")):
        with pytest.raises(UserError, match=message):
            Way.chosen(search, None, 0.1, False)
