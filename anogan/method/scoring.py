"""The anomaly score: its terms, its formula, and what held-out normal images say of them.

Nothing here measures a term: that is inference.py, and memory_bank.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from anogan.config import Config
from anogan.errors import UserError
from anogan.method.threshold import NormalScores, Tail, Threshold
from anogan.recipe import SEARCHES, Recipe, TermWeights

_MAP_OF = {term.name: term.metadata["map"] for term in fields(TermWeights)}
BANKS = {"memory", "features"}  # terms that come of comparing with training images
# Of the score, as they are named in scores.csv and metrics.json
TERMS = tuple(_MAP_OF)
# {part of the anomaly map: the terms that say the same of the image}
MAPS = {
    part: tuple(name for name in TERMS if _MAP_OF[name] == part)
    for part in dict.fromkeys(filter(None, _MAP_OF.values()))
}


class Detection(NamedTuple):
    """What the anomaly detector finds, one row an image.

    Of an image that is seen through windows, terms, z and losses are those of the window with the
    highest score.
    """

    score: np.ndarray  # (n,) anomaly score, higher is more anomalous
    terms: dict[str, np.ndarray]  # {one of TERMS: (n,)}, see TermWeights; 0 where there is none
    contributions: np.ndarray  # (n, len(TERMS)) what each term adds to the score, in TERMS' order
    z: np.ndarray  # (n, z_dim) the best latent seen
    image: np.ndarray  # (n, h, w, c) as the networks see it, in [-1, 1]
    reconstruction: np.ndarray  # (n, h, w, c) G(z) in [-1, 1]
    residual_map: np.ndarray  # (n, h, w) |x - G(z)|, mean over channels, in [0, 2]
    anomaly_map: np.ndarray  # (n, h, w) where the image is abnormal, 0 and up
    losses: np.ndarray | None  # (n, steps + 1) what the search minimised; None without a search
    # of the score among held-out normal images; None where there are too few, see threshold.py
    is_anomaly: np.ndarray | None = None  # (n,) bool, above the threshold for 5 % false positives
    p_value: np.ndarray | None = None  # (n,)


class Search(NamedTuple):
    """How z is found: one of SEARCHES, and the gradient search's steps and learning rate."""

    kind: str
    steps: int
    learning_rate: float

    @classmethod
    def resolve(
        cls, recipe: Recipe, kind: str | None, steps: int | None, learning_rate: float | None
    ) -> Search:
        """What was asked for, with the recipe's defaults; UserError where it has none such."""
        kind = kind or ("encoder" if recipe.encoder else "gradient")
        if kind not in SEARCHES:
            raise UserError(f"search must be one of {', '.join(SEARCHES)}, not {kind}")
        if kind != "gradient" and not recipe.encoder:
            raise UserError(
                f"search {kind} needs an encoder, and this model has none: use gradient"
            )
        usual = {"gradient": recipe.gradient_steps, "encoder": 0, "hybrid": recipe.hybrid_steps}
        none_given = steps is None or kind == "encoder"
        rate = recipe.search_rate if learning_rate is None else float(learning_rate)
        return cls(kind, usual[kind] if none_given else int(steps or 0), rate)

    def __str__(self) -> str:
        return f"{self.kind}, {self.steps} steps" if self.steps else self.kind


@dataclass(frozen=True)
class Calibration:
    """What held-out normal images show of one latent search: all that a score needs besides.

    The formula, for terms T of an image: the sum of weights[T] * (T - means[T]) / spreads[T].
    """

    search_weights: tuple[float, float, float]  # of R, D and ||z||^2 in the search's loss
    weights: dict[str, float]  # of each of TERMS
    means: dict[str, float]  # of each term over held-out images, or 0
    spreads: dict[str, float]  # standard deviations likewise, or 1
    expected: float | None  # AUROC on synthetic anomalies, half of kinds not trained on
    maps: dict[str, float]  # weight of each of MAPS in the anomaly map
    scores: tuple[float, ...]  # of the held-out images
    tail: Tail | None  # fitted to the highest of them; None: they are too few
    peaks: tuple[float, ...]  # the highest value of each one's anomaly map
    # Where training images add to the threshold, what the banks' terms add to the scores:
    banks: tuple[float, ...] = ()  # of the held-out images
    alone: tuple[float, ...] = ()  # of training images, by banks without each

    def standardised(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """{term: (...)} as distances from the mean, in spreads: (..., terms)."""
        parts = [(found[name] - self.means[name]) / self.spreads[name] for name in TERMS]
        return np.stack(parts, axis=-1)

    def contributions(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """What each of TERMS adds to the score: (..., terms); UserError where not finite."""
        weights = np.array([self.weights[name] for name in TERMS])
        parts = self.standardised(found) * weights + 0.0  # no -0
        scores = parts.sum(axis=-1)
        if not np.isfinite(scores).all():
            wrong = [name for name in TERMS if not np.isfinite(found[name]).all()]
            raise UserError(
                f"{np.sum(~np.isfinite(scores))} of {scores.size} anomaly scores are not finite "
                f"({', '.join(wrong)}): train the model again"
            )
        return parts

    def worst_windows(self, found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Indices into (n, windows) of the window of each image that scores highest.

        found: {term: (n, windows)}.
        """
        highest = self.contributions(found).sum(axis=-1).argmax(axis=1)
        return np.arange(len(highest)), highest

    def worst(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """The standardised terms of these: {term: (n, windows)} -> (n, terms)."""
        return self.standardised(found)[self.worst_windows(found)]

    def scores_of(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """{term: (n, windows)} -> (n,) float64."""
        return self.contributions(found).sum(axis=-1).max(axis=1).astype(float)

    def by_banks(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """What the banks' terms add to the score: {term: (n,)} -> (n,) float64."""
        parts = [
            self.weights[name] * (found[name] - self.means[name]) / self.spreads[name]
            for name in sorted(BANKS)
        ]
        return np.sum(parts, axis=0, dtype=float)

    def anomaly_map(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """{name of MAPS: (n, H, W)} -> (n, H, W), 0 and up."""
        parts = [np.float32(self.maps[name]) * found[name] for name in MAPS]
        return np.sum(parts, axis=0)

    def map_weights(self, found: dict[str, np.ndarray], base: dict[str, float]) -> dict[str, float]:
        """Of MAPS: as much as the terms beside them make of the score, in typical peaks.

        found: of held-out normal images.
        """
        shares = {
            name: sum(abs(self.weights[t]) for t in terms) / (sum(abs(base[t]) for t in terms) or 1)
            for name, terms in MAPS.items()
        }
        peaks = {name: float(found[name].max(axis=(1, 2)).mean()) for name in MAPS}
        return {name: shares[name] / max(peaks[name], 1e-6) for name in MAPS}

    @cached_property
    def normal_scores(self) -> NormalScores | None:
        """The scores of held-out normal images; None where there are too few."""
        return NormalScores(self.scores, self.tail, self.banks, self.alone) if self.tail else None

    def without_outliers(self) -> Calibration:
        """This with the threshold, p-values and peaks of held-out images that are no outliers."""
        if self.normal_scores is None:
            return self
        normal = self.normal_scores.inliers()
        kept = np.array(self.scores) <= normal.scores[-1]
        scores, peaks, banks = (
            tuple(np.array(x)[kept].tolist()) if x else ()
            for x in (self.scores, self.peaks, self.banks)
        )
        return replace(self, scores=scores, tail=normal.tail, peaks=peaks, banks=banks)

    def suiting(self, threshold: Threshold) -> Calibration:
        """This as a threshold wants it: with outliers among the held-out images or without."""
        return self.without_outliers() if threshold.leaves_outliers_out else self

    def pixel_threshold(self, target_fpr: float = 0.05) -> float:
        """The anomaly map's value that this fraction of held-out images exceeds anywhere."""
        return float(np.quantile(self.peaks, 1 - target_fpr)) if self.peaks else 0.5

    def formula(self) -> dict[str, Any]:
        """How a score follows from its terms, JSON-ready."""
        columns = {"weight": self.weights, "mean": self.means, "spread": self.spreads}
        terms = {name: {k: v[name] for k, v in columns.items()} for name in TERMS}
        return {"expected_auroc": self.expected, "terms": terms}

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tail": self.tail and list(self.tail)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Calibration:
        """ValueError, TypeError or LookupError where it is none."""
        residual, discrimination, prior = map(_number, stored["search_weights"])
        weights, means, spreads = (
            {name: _number(stored[k][name]) for name in TERMS}
            for k in ("weights", "means", "spreads")
        )
        if min(spreads.values()) <= 0:
            raise ValueError("a spread is not above 0")
        scores, peaks, banks, alone = (
            tuple(map(_number, stored[k])) for k in ("scores", "peaks", "banks", "alone")
        )
        if len(banks) != (len(scores) if alone else 0):
            raise ValueError("not as many values as held-out images")
        return cls(
            search_weights=(residual, discrimination, prior),
            weights=weights,
            means=means,
            spreads=spreads,
            expected=None if stored["expected"] is None else _number(stored["expected"]),
            maps={name: _number(stored["maps"][name]) for name in MAPS},
            scores=scores,
            tail=Tail(*map(_number, stored["tail"])) if stored["tail"] else None,
            peaks=peaks,
            banks=banks,
            alone=alone,
        )


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is no number")
    return float(value)


def base_weights(config: Config) -> dict[str, float]:
    """{term: its weight before it is fitted to the images}; 0 where the recipe has none.

    Where the GAN sees images reduced, what it finds counts less.
    """
    weights = asdict(config.recipe.weights)
    weights["residual"] *= 1 - config.lambda_
    weights["discrimination"] *= config.lambda_
    if not config.has_features:
        return {**weights, "features": 0.0}
    for name in weights.keys() - BANKS:
        weights[name] *= config.reduction**config.recipe.reduced_power
    return weights


def fit_weights(
    base: dict[str, float], normal: np.ndarray, planted: Sequence[np.ndarray], power: float = 1.0
) -> tuple[dict[str, float], float | None]:
    """(weights of the terms, AUROC with them) that suit planted anomalies of some sorts.

    normal, planted: standardised terms (n, terms), and (m, terms) of each sort. A term's weight in
    base is multiplied by its merit, the mean of 2 AUROC - 1 by the term alone, or 0 where that is
    negative, to some power, over the mean of all merits: so a term that does not depend on what is
    planted fades.
    One number a term from some hundred images; a regression of the terms on the same images fitted
    their noise (benchmarks/README.md). Without planted anomalies base stays, and the AUROC is None.
    """
    planted = [some for some in planted if len(some)]
    scale = np.array([base[name] for name in TERMS])
    merits = np.zeros(len(TERMS))
    for some in planted:
        for i, sign in enumerate(np.sign(scale)):
            merits[i] += 2.0 * auroc(sign * normal[:, i], sign * some[:, i]) - 1.0
    merits = np.where(scale != 0, np.maximum(merits, 0.0) ** power, 0.0)
    usual = merits[scale != 0].mean() if merits.any() else 0.0
    weights = scale * (merits / usual) + 0.0 if usual else scale
    scores = normal @ weights, *(some @ weights for some in planted)
    expected = auroc(scores[0], np.concatenate(scores[1:])) if planted else None
    return dict(zip(TERMS, weights.tolist(), strict=True)), expected


def auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """Of scores (n,) and (m,); ties count half."""
    from scipy.stats import rankdata  # slow, and for calibration alone

    ranks = rankdata(np.concatenate([normal, anomalous]))[len(normal) :].sum()
    count = len(anomalous)
    return float((ranks - count * (count + 1) / 2) / (len(normal) * count))
