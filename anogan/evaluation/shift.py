"""Does the threshold suit the scored images, and the normal images that it comes from?"""

from __future__ import annotations

import numpy as np

from anogan.method.threshold import NormalScores, Threshold

CHANCE = 0.001  # what is as rare is no chance
ROUGH = 0.01  # what is as likely may come from the few images that the threshold is from
ENOUGH = 20  # images without labels, below which nothing is said of all of them
EDGE = 0.05  # of the scores; an ordinary test folder has at least twice as many normal images
CAUSES = "another light, camera or batch, or near copies among the training images"


def shift(
    normal: NormalScores | None,
    labels: np.ndarray | None,
    scores: np.ndarray,
    threshold: float | None,
    target_fpr: float,
) -> str | None:
    """Return a line where scores (n,) lie elsewhere than those of held-out normal images.

    labels: (n,), 0 normal and 1 anomalous, or None. threshold: for that false positive rate.
    """
    if normal is None:
        return None
    if labels is None:
        return _all_elsewhere(normal, scores)
    normals = scores[labels == 0]
    if threshold is None or not len(normals):
        return None
    return _too_many(normal, normals, threshold, target_fpr)


def of_outliers(normal: NormalScores, scores: np.ndarray, threshold: Threshold) -> str | None:
    """Return what outliers among all held-out images, if there are any, do to the decisions.

    scores: (n,); threshold: by a rate. What would be decided without them where they count, or
    with them where they are left out.
    """
    kept, left_out = normal.inliers(), threshold.leaves_outliers_out
    count, other = len(normal.scores) - len(kept.scores), normal if left_out else kept
    if not count:
        return None
    value = other.threshold(threshold.target_fpr)
    above = int((scores > value).sum())
    done = "are left out of the threshold: with" if left_out else "raise the threshold: without"
    remedy = "" if left_out else " (--threshold_from inliers decides so)"
    return (
        f"{count} of {len(normal.scores)} held-out normal images score far above all others and "
        f"{done} them it would be {value:.4g}, and {above} of {len(scores)} images would be called "
        f"anomalous{remedy}"
    )


def _too_many(
    normal: NormalScores, scores: np.ndarray, threshold: float, target_fpr: float
) -> str | None:
    """Test how many normal images are above the threshold, and name what may be the cause.

    The false positive rate of a threshold from few held-out images may itself be far from the
    target: then their number may be all there is to it (a beta-binomial test says so).
    """
    from scipy.stats import betabinom, binomtest  # slow to import

    count, held_out, above = len(scores), len(normal.scores), int((scores > threshold).sum())
    if above <= 2 * target_fpr * count:
        return None
    if binomtest(above, count, target_fpr, alternative="greater").pvalue >= CHANCE:
        return None
    expected = target_fpr * held_out
    is_rough = betabinom.sf(above - 1, count, expected + 1, held_out - expected) >= ROUGH
    cause = f"the threshold is rough, from {held_out} images, or " if is_rough else ""
    return (
        f"{above} of {count} normal images are called anomalous ({above / count:.0%}), far more "
        f"than the {target_fpr:.1%} aimed at: {cause}they look unlike those trained on ({CAUSES})"
    )


def _all_elsewhere(normal: NormalScores, scores: np.ndarray) -> str | None:
    """Compare the lowest scores, which in a folder with many defects are of normal images."""
    if len(scores) < ENOUGH or np.quantile(scores, EDGE) <= np.median(normal.scores):
        return None
    return (
        f"nearly all of {len(scores)} images score above the middle of the held-out normal images: "
        f"either nearly all are anomalous, or all look unlike those trained on ({CAUSES})"
    )
