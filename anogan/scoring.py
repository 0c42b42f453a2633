"""The anomaly score: its terms, its formula, and what held-out normal images say of them.

Nothing here computes a term: that is detector.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from anogan.config import Config
from anogan.errors import UserError
from anogan.threshold import NormalScores, Tail

# Of the score, as they are named in Detection, scores.csv and metrics.json
TERMS = ("residual", "discrimination", "peak", "linear", "realism", "reconstruction_realism")
SEARCHES = ("gradient", "encoder", "hybrid")
STEPS = {"gradient": 50, "encoder": 0, "hybrid": 20}  # of the latent search, if none are given
LEARNING_RATE = 0.1  # of the latent search


class Detection(NamedTuple):
    """What the anomaly detector finds, one row an image; the score's terms come first."""

    score: np.ndarray  # (n,) anomaly score, higher is more anomalous
    residual: np.ndarray  # (n,) residual loss
    discrimination: np.ndarray  # (n,) discrimination loss
    peak: np.ndarray  # (n,) highest value of the networks' own anomaly map
    linear: np.ndarray  # (n,) residual of the linear skips alone, 0 without them
    realism: np.ndarray  # (n,) D's logit for the image itself, higher is more normal
    reconstruction_realism: np.ndarray  # (n,) D's logit for G(z)
    contributions: np.ndarray  # (n, len(TERMS)) what each term adds to the score, in TERMS' order
    z: np.ndarray  # (n, z_dim) the best latent seen
    reconstruction: np.ndarray  # (n, h, w, c) G(z) in [-1, 1]
    residual_map: np.ndarray  # (n, h, w) |x - G(z)|, mean over channels, in [0, 2]
    anomaly_map: np.ndarray  # (n, h, w) where the image is abnormal, 0 and up
    losses: np.ndarray | None  # (n, steps + 1) what the search minimised; None without a search
    linear_reconstruction: np.ndarray | None = None  # (n, h, w, c) of the linear skips alone


class Way(NamedTuple):
    """How z is found: one of SEARCHES, and the gradient search's steps and learning rate."""

    search: str
    steps: int
    learning_rate: float

    @classmethod
    def chosen(
        cls, search: str | None, steps: int | None, learning_rate: float, has_encoder: bool
    ) -> Way:
        """What was asked for, with defaults; UserError where a model has none such."""
        search = search or ("encoder" if has_encoder else "gradient")
        if search not in SEARCHES:
            raise UserError(f"search must be one of {', '.join(SEARCHES)}, not {search}")
        if search != "gradient" and not has_encoder:
            raise UserError(
                f"search {search} needs an encoder, and this model has none: use gradient"
            )
        none_given = steps is None or search == "encoder"
        return cls(search, STEPS[search] if none_given else int(steps or 0), float(learning_rate))


@dataclass(frozen=True)
class Calibration:
    """What held-out normal images tell about one way to find z: all that a score needs besides.

    The formula, for terms T of an image: the sum of weights[T] * (T - means[T]) / spreads[T].
    """

    search_weights: tuple[float, float, float]  # of R, D and ||z||^2 in the search's loss
    weights: dict[str, float]  # of each of TERMS
    means: dict[str, float]  # of each term over held-out images, or 0
    spreads: dict[str, float]  # standard deviations likewise, or 1
    trust: float | None  # in the networks, see `trust_in`; None: not measured
    scores: tuple[float, ...]  # of the held-out images
    tail: Tail | None  # fitted to the highest of them; None: they are too few
    peaks: tuple[float, ...]  # the highest value of each one's anomaly map

    def contributions(self, found: dict[str, np.ndarray]) -> np.ndarray:
        """What each of TERMS adds to the score: (n, len(TERMS)); UserError where not finite."""
        parts = [
            self.weights[name] * (found[name] - self.means[name]) / self.spreads[name]
            + 0.0  # no -0
            for name in TERMS
        ]
        scores = np.sum(parts, axis=0)
        if not np.isfinite(scores).all():
            wrong = [name for name in TERMS if not np.isfinite(found[name]).all()]
            raise UserError(
                f"{np.sum(~np.isfinite(scores))} of {len(scores)} anomaly scores are not finite "
                f"({', '.join(wrong)}): train the model again"
            )
        return np.stack(parts, axis=1)

    @property
    def normal_scores(self) -> NormalScores | None:
        """The scores of held-out normal images; None where there are too few."""
        return NormalScores(self.scores, self.tail) if self.tail else None

    def pixel_threshold(self, target_fpr: float = 0.05) -> float:
        """The anomaly map's value that this fraction of held-out images exceeds anywhere."""
        return float(np.quantile(self.peaks, 1 - target_fpr)) if self.peaks else 0.5

    def formula(self) -> dict[str, Any]:
        """How a score follows from its terms, JSON-ready."""
        columns = {"weight": self.weights, "mean": self.means, "spread": self.spreads}
        terms = {name: {k: v[name] for k, v in columns.items()} for name in TERMS}
        return {"trust": self.trust, "terms": terms}

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "tail": self.tail and list(self.tail)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Calibration:
        """ValueError, TypeError or LookupError where it is none."""
        residual, discrimination, prior = map(float, stored["search_weights"])
        weights, means, spreads = (
            {name: float(stored[k][name]) for name in TERMS}
            for k in ("weights", "means", "spreads")
        )
        return cls(
            search_weights=(residual, discrimination, prior),
            weights=weights,
            means=means,
            spreads=spreads,
            trust=None if stored["trust"] is None else float(stored["trust"]),
            scores=tuple(map(float, stored["scores"])),
            tail=Tail(*map(float, stored["tail"])) if stored["tail"] else None,
            peaks=tuple(map(float, stored["peaks"])),
        )


def term_weights(config: Config, trust: float) -> dict[str, float]:
    """Of each term in the score (Schlegl et al. 2017, equation 7, and what the preset adds).

    trust: the fraction of the networks' terms; what is left falls to the linear skips.
    The constants were chosen on training images: the ablation in benchmarks/README.md. PCA counts
    twice, as residual and discrimination loss do together with the other terms beside them.
    """
    lambda_, extended = config.lambda_, 0.0 if config.is_classic else 1.0
    return {
        "residual": trust * (1 - lambda_),
        "discrimination": trust * lambda_,
        "peak": trust * 0.5 * extended,
        "linear": 2.0 * (1.0 - trust),
        "realism": trust * -0.5 * extended,
        "reconstruction_realism": trust * -0.25 * extended,
    }


def trust_in(seen: np.ndarray, held_out: np.ndarray) -> float:
    """1 where held-out images are reconstructed as well as trained ones, 0 where far worse.

    From the AUROC of one against the other, residuals (n,) and (m,): nothing but normal images.
    At 0.7 no trust is left (the factor of 5; chosen on ELPV, benchmarks/README.md).
    """
    ranks = rankdata(np.concatenate([seen, held_out]))
    above = ranks[len(seen) :].sum() - len(held_out) * (len(held_out) + 1) / 2
    overfit = above / (len(seen) * len(held_out)) - 0.5
    return float(np.clip(1.0 - 5.0 * overfit, 0.0, 1.0))
