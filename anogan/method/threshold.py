"""From scores to decisions: what normal images score, p-values, and the threshold."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SHOWN = 10  # images above a score make their fraction a figure; below, the fitted tail speaks
SHOWN_JOINED = 5  # the same of a joined sample, which is of many pairs, and smooth
TAIL = 0.1  # fraction of the normal images to which the tail is fitted
STRAY = 8  # interquartile ranges above the middle: of an exponential tail one score in 10,000
FEWEST = 5  # held-out normal images below which there is no automatic threshold
# So many held-out images are few, and training images add to the threshold: see joined
FEW = range(10, 100)


def rarity(as_high: int, held_out: int) -> str:
    """How rare a score is among normal images, no more exactly than so many images can tell."""
    if not as_high:
        return f"fewer than 1 in {held_out} normal images score as high"
    return f"{as_high} of {held_out} held-out normal images score as high"


class Tail(NamedTuple):
    """A generalised Pareto distribution of what exceeds `start` (peaks over threshold)."""

    start: float
    fraction: float  # of the normal images above start
    shape: float
    scale: float


def joined(scores: np.ndarray, banks: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """Return what n held-out and m training images say of normal images' scores: (n + m,), sorted.

    scores: (n,) of held-out images; banks: (n,) what the banks' terms add to each; alone: (m,) the
    same of training images, each by banks without it. What the networks' terms add, which know the
    training images, is predicted from the banks' by a line fitted to the held-out images, with
    each of its residuals. Evenly spaced quantiles of all these pairs stand for them.
    """
    rest, off = scores - banks, banks - banks.mean()
    slope = (off @ rest) / max(off @ off, 1e-12)
    residuals = rest - rest.mean() - slope * off
    known = np.concatenate([banks, alone])
    predicted = known + rest.mean() + slope * (known - banks.mean())
    pairs = predicted[:, None] + residuals
    return np.quantile(pairs, (np.arange(len(known)) + 0.5) / len(known))


class NormalScores:
    """The scores of held-out normal images, and their tail beyond what the sample can show.

    The sample is these, joined with training images where they are given. Down to a fraction of
    SHOWN images of the sample the sample itself speaks. For rarer scores a generalised Pareto
    distribution is fitted to the highest ones (Pickands 1975; Coles 2001, chapter 4).
    """

    def __init__(
        self,
        scores: npt.ArrayLike,
        tail: Tail | None = None,
        banks: npt.ArrayLike = (),
        alone: npt.ArrayLike = (),
    ):
        """scores: (n,); tail: as fitted before; banks, alone: see joined, or nothing.

        ValueError for fewer than FEWEST scores.
        """
        scores, banks, self.alone = (np.asarray(x, float) for x in (scores, banks, alone))
        if len(scores) < FEWEST:
            raise ValueError(f"{len(scores)} scores are too few for a threshold")
        order = np.argsort(scores)
        self.scores, self.banks = scores[order], banks[order] if len(banks) else banks
        self.sample, shown = self.scores, SHOWN
        if len(self.alone):
            self.sample, shown = joined(self.scores, self.banks, self.alone), SHOWN_JOINED
        self.tail = tail or self._fit()
        self.shown = min(shown / len(self.sample), 0.5)  # the smallest fraction the sample can show

    @property
    def images(self) -> str:
        """Those that the threshold comes from, in words."""
        held_out, more = f"{len(self.scores)} held-out normal images", len(self.alone)
        return f"{held_out} and {more} training images, each left out in turn" if more else held_out

    def _fit(self) -> Tail:
        from scipy.stats import genpareto  # slow, and for calibration alone

        n = len(self.sample)
        count = min(max(20, round(TAIL * n)), n // 2)
        start = float(self.sample[n - count - 1])
        excess = self.sample[n - count :] - start
        shape, scale = 0.0, float(excess.mean())  # the exponential distribution
        if count >= 20 and scale > 0:
            shape, _, scale = genpareto.fit(excess, floc=0.0)
            if not -0.5 <= shape <= 0.5:  # so few peaks say no more than that
                shape = float(np.clip(shape, -0.5, 0.5))
                shape, _, scale = genpareto.fit(excess, floc=0.0, f0=shape)
        return Tail(start, count / n, float(shape), max(float(scale), 1e-12))

    def as_high(self, scores: npt.ArrayLike) -> np.ndarray:
        """How many of the held-out normal images score as high or higher: (n,) -> (n,) integers."""
        n = len(self.scores)
        return n - np.searchsorted(self.scores, np.asarray(scores, float), side="left")

    def p_value(self, scores: npt.ArrayLike) -> np.ndarray:
        """Conformal p-values, (n,) -> (n,): (images as high + 1) / (images + 1).

        A normal image has one of at most p with a probability of at most p; none is below what
        so many images can show (Bates et al. 2023, section 2).
        """
        return (self.as_high(scores) + 1) / (len(self.scores) + 1)

    def threshold(self, target_fpr: float) -> float:
        """The score above which this fraction of normal images lies; target_fpr in (0, 1)."""
        counted = float(np.quantile(self.sample, 1 - max(target_fpr, self.shown)))
        if target_fpr >= self.shown:
            return counted
        tail = self.tail
        from scipy.special import boxcox  # slow to import

        rate = min(target_fpr / tail.fraction, 1.0)
        fitted = tail.start - boxcox(rate, -tail.shape) * tail.scale  # as genpareto.isf
        return float(max(fitted, counted))

    def outliers(self) -> int:
        """How many of them score far above all others, and raise the threshold: are they normal?"""
        low, middle, high = np.quantile(self.scores, [0.25, 0.5, 0.75])
        return int((self.scores > middle + STRAY * max(high - low, 1e-12)).sum())

    def inliers(self) -> NormalScores:
        """These without outliers, as long as enough for a threshold are left."""
        kept = self.scores[: len(self.scores) - self.outliers()]
        if len(kept) == len(self.scores) or len(kept) < FEWEST:
            return self
        banks = self.banks[: len(kept)]
        return NormalScores(kept, banks=banks, alone=self.alone).inliers()

    def unit(self, threshold: float) -> float:
        """Of the normalised score: a third of the way from a typical normal score to threshold."""
        spread = max(float(self.scores.std()), 1e-12)
        return max((threshold - float(np.median(self.scores))) / 3.0, spread / 3.0)


def normalise(scores: npt.ArrayLike, threshold: float, unit: float) -> np.ndarray:
    """Scores in [0, 1] with 0.5 at the threshold and 0.05 for a typical normal image."""
    return 1.0 / (1.0 + np.exp(-np.clip((np.asarray(scores) - threshold) / unit, -50, 50)))


def threshold_from_labels(labels: npt.ArrayLike, scores: npt.ArrayLike, rule: str) -> float:
    """The threshold that suits the labels best, by Youden's J ("youden") or F1 ("f1").

    labels (n,): 0 normal, 1 anomalous, both present. It lies midway between the two scores it
    parts. A figure measured at it on the same images is too good: it has seen the labels.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, float)
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    true, false = np.cumsum(labels == 1), np.cumsum(labels == 0)
    if rule == "youden":
        worth = true / true[-1] - false / false[-1]
    elif rule == "f1":
        worth = 2 * true / (true + false + true[-1])
    else:
        raise ValueError(f"rule must be youden or f1, not {rule}")
    ends = np.append(scores[1:] != scores[:-1], True)  # equal scores are called alike
    best = int(np.argmax(np.where(ends, worth, -np.inf)))
    below = scores[best + 1] if best + 1 < len(scores) else scores[best] - 1.0
    return float((scores[best] + below) / 2)


@dataclass(frozen=True)
class Threshold:
    """How to decide: by hand, from held-out normal images, or, if asked for, from the labels."""

    value: float | None = None  # given by hand
    target_fpr: float = 0.05  # of held-out normal images
    # "inliers": of those without outliers; "youden" or "f1" use the labels
    rule: str = "held_out"

    @property
    def uses_labels(self) -> bool:
        """Whether it is found from the labels of the very images that are scored."""
        return self.value is None and self.rule in ("youden", "f1")

    @property
    def by_rate(self) -> bool:
        """Whether it is found from held-out normal images, for target_fpr."""
        return self.value is None and not self.uses_labels

    @property
    def leaves_outliers_out(self) -> bool:
        """Whether outliers among the held-out normal images count for nothing that is decided."""
        return self.by_rate and self.rule == "inliers"

    def too_fine_for(self, normal: NormalScores | None) -> bool:
        """Whether the rate asked for is rarer than so many images can show."""
        return self.by_rate and normal is not None and self.target_fpr < 1 / len(normal.sample)

    def warn_of(self, normal: NormalScores | None) -> None:
        """Warn of a threshold that has to be extrapolated from so many images."""
        if normal and self.too_fine_for(normal):
            logging.getLogger(__name__).warning(
                "--target_fpr %g is finer than %s can show (1 in %d): the threshold is "
                "extrapolated",
                *(self.target_fpr, normal.images, len(normal.sample)),
            )

    def choose(
        self, normal: NormalScores | None, labels: np.ndarray | None, scores: np.ndarray | None
    ) -> tuple[float | None, str]:
        """(threshold, how it was found); None where nothing is known to find it from."""
        if self.value is not None:
            return self.value, "given by hand"
        if self.uses_labels:
            assert labels is not None and scores is not None
            if len(set(labels)) < 2:
                return None, "none: of the images that could be read, all labels are of one sort"
            name = {"youden": "Youden's J", "f1": "the best F1"}[self.rule]
            found = threshold_from_labels(labels, scores, self.rule)
            return found, f"by {name} from the labels of these very images"
        if normal is None:
            return None, "none: too few held-out normal images"
        how = ", outliers left out" if self.leaves_outliers_out else ""
        how += "" if self.target_fpr >= normal.shown else " and a fitted tail"
        if self.too_fine_for(normal):
            how += f", extrapolated: they show no rate below 1 in {len(normal.sample)}"
        return (
            normal.threshold(self.target_fpr),
            f"for {self.target_fpr:.3g} false positives, from {normal.images}{how}",
        )
