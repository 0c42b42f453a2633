"""How good scores and anomaly maps are, where labels or masks are known. New metrics go here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

LABELS = ("normal", "anomalous")
BOOTSTRAP = 1000  # resamples for the interval of the AUROC
BINS = 4096  # of the histograms that stand for all pixels: memory does not grow with the images
PRO_LIMIT = 0.3  # of the false positive rate (Bergmann et al. 2021)
STRIP = 2**17  # pixels of a resized map at a time: they stay in the processor's cache


def measures(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    kinds: Sequence[str] | None = None,
    threshold: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure scores against labels (n,), 0 normal and 1 anomalous; JSON-ready.

    AUROC with a 95 % bootstrap interval, average precision, AUROC by kind of anomaly, and at
    the threshold (a score above it is called anomalous) the confusion matrix and what follows
    from it. With labels of one sort only, what follows from these.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, float)
    normal, anomalous = int((labels == 0).sum()), int((labels == 1).sum())
    measured: dict[str, Any] = {"normal": normal, "anomalous": anomalous}
    measured["prevalence"] = float(np.mean(labels == 1))
    if normal and anomalous:
        from sklearn.metrics import average_precision_score, roc_auc_score

        measured["auroc"] = float(roc_auc_score(labels, scores))
        measured["auroc_interval"] = auroc_interval(labels, scores, seed)
        measured["average_precision"] = float(average_precision_score(labels, scores))
        sorts = np.asarray(["anomalous"] * len(labels) if kinds is None else kinds, dtype=str)
        measured["auroc_by_kind"] = {
            str(kind): float(roc_auc_score(labels[chosen], scores[chosen]))
            for kind in sorted(set(sorts[labels == 1]))
            for chosen in [(labels == 0) | ((sorts == kind) & (labels == 1))]
        }
    if threshold is not None:
        measured["at_threshold"] = at_threshold(labels, scores, threshold)
    return measured


def at_threshold(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> dict[str, Any]:
    """Return confusion matrix, precision, recall (sensitivity), specificity, F1 and FPR."""
    truth, called = np.asarray(labels) == 1, np.asarray(scores) > threshold
    pairs = (truth & called, ~truth & called, ~truth & ~called, truth & ~called)
    tp, fp, tn, fn = (int(pair.sum()) for pair in pairs)
    measured: dict[str, Any] = {
        "threshold": float(threshold),
        "true_positives": tp,
        "false_positives": fp,
        "true_negatives": tn,
        "false_negatives": fn,
        "precision": tp / (tp + fp) if tp + fp else 0.0,
    }
    if tp + fn:
        recall = tp / (tp + fn)
        measured |= {"recall": recall, "sensitivity": recall, "f1": 2 * tp / (2 * tp + fp + fn)}
    if tn + fp:
        measured |= {"specificity": tn / (tn + fp), "false_positive_rate": fp / (tn + fp)}
    return measured


def auroc_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, seed: int = 0, level: float = 0.95
) -> list[float]:
    """Return the bootstrap percentile interval of the AUROC, each label drawn by itself."""
    return _interval(_resampled(np.asarray(labels), [np.asarray(scores, float)], seed)[0], level)


class Difference(NamedTuple):
    """Two AUROCs on the same images, and an interval of the second less the first."""

    first: float
    second: float
    low: float
    high: float


def auroc_difference(
    labels: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Compare two scores (n,) of the same images, by a paired bootstrap percentile interval."""
    from sklearn.metrics import roc_auc_score

    labels, both = np.asarray(labels), [np.asarray(scores, float) for scores in (first, second)]
    one, other = _resampled(labels, both, seed)
    aurocs = (float(roc_auc_score(labels, scores)) for scores in both)
    return Difference(*aurocs, *_interval(other - one, level))


def _interval(drawn: np.ndarray, level: float) -> list[float]:
    tail = (1 - level) / 2
    return [float(q) for q in np.quantile(drawn, [tail, 1 - tail])]


def _resampled(labels: np.ndarray, several: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Return AUROCs of several scores (n,) on the same resamples: (scores, BOOTSTRAP).

    The AUROC is a mean of ranks, so a resample is a weighting of the images by how often each
    was drawn: no sorting again (n log n once, n a resample).
    """
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == label) for label in (0, 1)]
    places = [np.unique(scores, return_inverse=True)[1] for scores in several]
    aurocs = np.empty((len(several), BOOTSTRAP))
    for k in range(BOOTSTRAP):
        drawn = [rng.choice(group, len(group)) for group in groups]
        for row, place in zip(aurocs, places, strict=True):
            top = place.max() + 1
            normal, anomalous = (np.bincount(place[some], minlength=top) for some in drawn)
            below = np.cumsum(normal) - 0.5 * normal  # normal images below, ties half
            row[k] = float(anomalous @ below) / (len(groups[0]) * len(groups[1]))
    return aurocs


class PixelMeasures:
    """Pixel AUROC and AU-PRO of anomaly maps, gathered image by image in fixed memory.

    Map values v are counted in BINS bins of v / (v + unit), which spans all of them.
    """

    def __init__(self, unit: float):
        """unit: a value in the middle of what matters, such as the pixel threshold."""
        self.unit, self.regions = unit, 0
        # of normal and of anomalous pixels, and of the latter so that each region counts as one
        self.counts = np.zeros((3, BINS))

    def add(self, anomaly_map: np.ndarray, mask: np.ndarray) -> None:
        """Add an image: its map, float (h, w), 0 and up, and its mask, bool (H, W).

        The map is resized to H x W, bilinear; a region is what is connected in the mask, corners
        included.
        """
        from scipy import ndimage  # slow, and for masks alone

        parts = []
        for rows, bins in self._bins(anomaly_map, *mask.shape):
            parts.append(bins[mask[rows]])
            self.counts[0] += np.bincount(bins.ravel(), minlength=BINS)
        inside = np.concatenate(parts)
        if not len(inside):
            return
        anomalous = np.bincount(inside, minlength=BINS)
        labelled, count = ndimage.label(mask, np.ones((3, 3)))
        region = labelled[mask] - 1
        weight = 1 / np.bincount(region)
        each = np.bincount(inside, weight[region], minlength=BINS)
        self.counts += [-anomalous, anomalous, each]
        self.regions += count

    def _bins(
        self, anomaly_map: np.ndarray, height: int, width: int
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield strips of the map at height x width: which rows they are, and all pixels' bins."""
        small = Image.fromarray(np.asarray(anomaly_map, np.float32))
        step = max(1, STRIP // width)
        for top in range(0, height, step):
            bottom = min(top + step, height)
            box = (0, top * small.height / height, small.width, bottom * small.height / height)
            size = width, bottom - top
            strip = np.asarray(small.resize(size, Image.Resampling.BILINEAR, box))
            bins = (strip * (BINS / (strip + self.unit))).astype(np.intp)
            yield slice(top, bottom), np.minimum(bins, BINS - 1)

    def __iadd__(self, other: PixelMeasures) -> PixelMeasures:
        """Add what another one of the same unit has gathered."""
        self.counts += other.counts
        self.regions += other.regions
        return self

    def packed(self) -> list[Any]:
        """Return what was gathered, JSON-ready and short where it is little, see `unpacked`."""
        used = np.flatnonzero(self.counts.any(axis=0))
        return [self.regions, used.tolist(), *self.counts[:, used].tolist()]

    @classmethod
    def unpacked(cls, unit: float, stored: list[Any]) -> PixelMeasures:
        """Raise ValueError, TypeError or LookupError for what `packed` did not give."""
        gathered = cls(unit)
        regions, used, normal, anomalous, each = stored
        gathered.regions = int(regions)
        gathered.counts[:, np.asarray(used, int)] = np.array([normal, anomalous, each], float)
        return gathered

    def measures(self) -> dict[str, Any]:
        """Return the measures, JSON-ready; none where no pixel or every pixel is anomalous."""
        normal, anomalous, each = self.counts
        if not (normal.any() and anomalous.any()):
            return {}
        from sklearn.metrics import auc, roc_auc_score

        labels, values = np.repeat([0, 1], BINS), np.tile(np.arange(BINS), 2)
        auroc = roc_auc_score(labels, values, sample_weight=self.counts[:2].ravel())
        fpr = np.append(0.0, np.cumsum(normal[::-1]) / normal.sum())
        overlap = np.append(0.0, np.cumsum(each[::-1]) / self.regions)
        edge = np.interp(PRO_LIMIT, fpr, overlap)
        below = fpr < PRO_LIMIT
        pro = auc(np.append(fpr[below], PRO_LIMIT), np.append(overlap[below], edge)) / PRO_LIMIT
        return {"pixel_auroc": float(auroc), "au_pro": float(pro), "regions": self.regions}
