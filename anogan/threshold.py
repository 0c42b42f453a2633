"""From scores to decisions: what normal images score, the threshold, and how good it is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import genpareto

SHOWN = 10  # images above a score make their share a figure; below, the fitted tail speaks
TAIL = 0.1  # share of the normal images to which the tail is fitted
FEWEST = 5  # held-out normal images below which there is no automatic threshold
BOOTSTRAP = 1000  # resamples for the interval of the AUROC
LABELS = ("normal", "anomalous")
# Of the anomaly score, as they are named in Detection, scores.csv and metrics.json
TERMS = ("residual", "discrimination", "peak", "linear", "realism", "reconstruction_realism")


def told(as_high: int, held_out: int) -> str:
    """How rare a score is among normal images, no more exactly than so many images can tell."""
    if not as_high:
        return f"fewer than 1 in {held_out} normal images score as high"
    return f"{as_high} of {held_out} held-out normal images score as high"


class Tail(NamedTuple):
    """A generalised Pareto distribution of what exceeds `start` (peaks over threshold)."""

    start: float
    share: float  # of the normal images above start
    shape: float
    scale: float


class NormalScores:
    """The scores of held-out normal images, and their tail beyond what the sample can show.

    Down to a share of SHOWN images of the sample the sample itself speaks. For rarer scores a
    generalised Pareto distribution is fitted to the highest ones (Pickands 1975; Coles 2001,
    chapter 4).
    """

    def __init__(self, scores, tail: Tail | None = None):
        """scores: (n,); tail: as fitted before. ValueError for fewer than FEWEST scores."""
        self.scores = np.sort(np.asarray(scores, float))
        if len(self.scores) < FEWEST:
            raise ValueError(f"{len(self.scores)} scores are too few for a threshold")
        self.tail = tail or self._fit()
        self.shown = min(SHOWN / len(self.scores), 0.5)  # the smallest share the sample can show

    def _fit(self) -> Tail:
        n = len(self.scores)
        count = min(max(20, round(TAIL * n)), n // 2)
        start = float(self.scores[n - count - 1])
        excess = self.scores[n - count :] - start
        shape, scale = 0.0, float(excess.mean())  # the exponential distribution
        if count >= 20 and scale > 0:
            shape, _, scale = genpareto.fit(excess, floc=0.0)
            if not -0.5 <= shape <= 0.5:  # so few peaks say no more than that
                shape = float(np.clip(shape, -0.5, 0.5))
                shape, _, scale = genpareto.fit(excess, floc=0.0, f0=shape)
        return Tail(start, count / n, float(shape), max(float(scale), 1e-12))

    def as_high(self, scores) -> np.ndarray:
        """How many of the held-out normal images score as high or higher: (n,) -> (n,) integers."""
        n = len(self.scores)
        return n - np.searchsorted(self.scores, np.asarray(scores, float), side="left")

    def p_value(self, scores) -> np.ndarray:
        """Conformal p-values, (n,) -> (n,): (images as high + 1) / (images + 1).

        A normal image has one of at most p with a probability of at most p; none is below what
        so many images can show (Bates et al. 2023, section 2).
        """
        return (self.as_high(scores) + 1) / (len(self.scores) + 1)

    def threshold(self, target_fpr: float) -> float:
        """The score above which this share of normal images lies; target_fpr in (0, 1)."""
        counted = float(np.quantile(self.scores, 1 - max(target_fpr, self.shown)))
        if target_fpr >= self.shown:
            return counted
        tail = self.tail
        rate = min(target_fpr / tail.share, 1.0)
        fitted = tail.start + genpareto.isf(rate, tail.shape, 0.0, tail.scale)
        return float(max(fitted, counted))

    def unit(self, threshold: float) -> float:
        """Of the normalised score: a third of the way from a typical normal score to threshold."""
        spread = max(float(self.scores.std()), 1e-12)
        return max((threshold - float(np.median(self.scores))) / 3.0, spread / 3.0)


def normalise(scores, threshold: float, unit: float) -> np.ndarray:
    """Scores in [0, 1] with 0.5 at the threshold and 0.05 for a typical normal image."""
    return 1.0 / (1.0 + np.exp(-np.clip((np.asarray(scores) - threshold) / unit, -50, 50)))


def threshold_from_labels(labels, scores, rule: str) -> float:
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


def measures(labels, scores, kinds=None, threshold: float | None = None, seed: int = 0) -> dict:
    """What the scores are worth against labels (n,), 0 normal and 1 anomalous; JSON-ready.

    AUROC with a 95 % bootstrap interval, average precision, AUROC by kind of anomaly, and at
    the threshold (a score above it is called anomalous) the confusion matrix and what follows
    from it. With labels of one sort only, what can be said of it.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, float)
    found = {"normal": int((labels == 0).sum()), "anomalous": int((labels == 1).sum())}
    found["prevalence"] = float(np.mean(labels == 1))
    if found["normal"] and found["anomalous"]:
        from sklearn.metrics import average_precision_score, roc_auc_score

        found["auroc"] = float(roc_auc_score(labels, scores))
        found["auroc_interval"] = auroc_interval(labels, scores, seed)
        found["average_precision"] = float(average_precision_score(labels, scores))
        kinds = np.asarray(["anomalous"] * len(labels) if kinds is None else kinds, dtype=str)
        found["auroc_by_kind"] = {
            str(kind): float(roc_auc_score(labels[chosen], scores[chosen]))
            for kind in sorted(set(kinds[labels == 1]))
            for chosen in [(labels == 0) | ((kinds == kind) & (labels == 1))]
        }
    if threshold is not None:
        found["at_threshold"] = at_threshold(labels, scores, threshold)
    return found


def at_threshold(labels, scores, threshold: float) -> dict:
    """Confusion matrix, precision, recall (sensitivity), specificity, F1, false positive rate."""
    from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

    labels, called = np.asarray(labels), np.asarray(scores) > threshold
    (tn, fp), (fn, tp) = confusion_matrix(labels, called, labels=[0, 1]).tolist()
    found = {
        "threshold": float(threshold),
        "true_positives": tp,
        "false_positives": fp,
        "true_negatives": tn,
        "false_negatives": fn,
        "precision": float(precision_score(labels, called, zero_division=0)),
    }
    if tp + fn:
        recall = float(recall_score(labels, called))
        found |= {"recall": recall, "sensitivity": recall, "f1": float(f1_score(labels, called))}
    if tn + fp:
        found |= {"specificity": tn / (tn + fp), "false_positive_rate": fp / (tn + fp)}
    return found


def auroc_interval(labels, scores, seed: int = 0, level: float = 0.95) -> list[float]:
    """Bootstrap percentile interval of the AUROC, normal and anomalous images drawn apart.

    The AUROC is a mean of ranks, so a resample is a weighting of the images by how often each
    was drawn: no sorting again (n log n once, n a resample).
    """
    rng = np.random.default_rng(seed)
    labels, scores = np.asarray(labels), np.asarray(scores, float)
    _, place = np.unique(scores, return_inverse=True)
    groups = [place[labels == label] for label in (0, 1)]
    top = place.max() + 1
    drawn = []
    for _ in range(BOOTSTRAP):
        normal, anomalous = (
            np.bincount(rng.choice(group, len(group)), minlength=top) for group in groups
        )
        below = np.cumsum(normal) - 0.5 * normal  # normal images below, ties half
        drawn.append(float(anomalous @ below) / (len(groups[0]) * len(groups[1])))
    tail = (1 - level) / 2
    return [float(q) for q in np.quantile(drawn, [tail, 1 - tail])]
