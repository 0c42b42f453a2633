"""Plots of a test: what the scores show, by label where labels are known."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anogan.evaluation.metrics import LABELS
from anogan.evaluation.outcome import Outcome
from anogan.runs.files import write_atomic

# Okabe and Ito's colours, which the colour-blind tell apart; markers differ, too
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
STYLES: dict[str, dict[str, Any]] = {
    "normal": {"color": BLUE, "marker": "o"},
    "anomalous": {"color": ORANGE, "marker": "^"},
    "images": {"color": GREY, "marker": "o"},
    "normal, trained on": {"color": GREEN, "marker": "s"},
}
POINTS = 4000  # of one sort in a plot, at most
TSNE_IMAGES = 300  # of one sort in the t-SNE
TSNE_STEPS = 500  # twice as many lower the divergence by another 3 %
TSNE_CAPTION = (
    "Each point is an image, by the features of the discriminator's last convolution: neighbours\n"
    "look alike to it. The axes, and how far apart groups lie, mean nothing"
)
Groups = dict[str, np.ndarray]  # {of STYLES: places of such images}


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Use Matplotlib's own settings in the block, not the user's, such as LaTeX for text."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically, in the format of the path's ending."""
    packed = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name's letters may not be in the font
        figure.savefig(packed, format=path.suffix[1:], dpi=100)
    write_atomic(path, packed.getvalue())


@own_style()
def write(folder: Path, outcome: Outcome, features: dict[str, np.ndarray]) -> dict[str, Path]:
    """Write every plot that there is data for, as PNG and SVG: {title: PNG file}.

    features: of D, {of STYLES: (m, d)}.
    """
    if not len(outcome.scores):
        return {}
    groups = by_label(outcome.labels, len(outcome.scores))
    written = {}

    def keep(name: str, title: str, figure: Figure) -> None:
        for ending in ("svg", "png"):
            save_figure(figure, Path(folder) / f"{name}.{ending}")
        written[title] = Path(folder) / f"{name}.png"

    keep("histogram", "Anomaly scores", histogram(outcome, groups))
    if len(groups) == 2:
        keep("roc", "ROC curve", roc(outcome))
        keep("precision_recall", "Precision and recall", precision_recall(outcome))
    keep("terms", "Score against the terms that decide most", terms(outcome, groups))
    if sum(map(len, features.values())) >= 10:
        keep("tsne", "t-SNE of the discriminator's features", tsne(features))
    if outcome.rows.losses:
        keep("convergence", "Convergence of the latent search", convergence(outcome))
    return written


def by_label(labels: np.ndarray | None, count: int) -> Groups:
    """Return places of the normal and of the anomalous images, or of all without labels."""
    if labels is None:
        return {"images": np.arange(count)}
    places = {name: np.flatnonzero(labels == i) for i, name in enumerate(LABELS)}
    return {name: some for name, some in places.items() if len(some)}


def _axes(x: str, y: str, width: float = 6.4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def histogram(outcome: Outcome, groups: Groups) -> Figure:
    """Plot scores by label, each sort's bars adding up to one, with the threshold.

    The axis is linear around normal scores and logarithmic far out, so that both can be seen.
    """
    figure, axes = _axes("anomaly score", "fraction of its sort")
    scores, threshold = outcome.scores, outcome.threshold
    normal = None if outcome.normal is None else outcome.normal.scores
    typical = scores if normal is None else normal
    middle = float(np.median(typical))
    width = 3.0 * max(float(np.subtract(*np.quantile(typical, [0.9, 0.1]))), 1e-6)
    known = np.concatenate([scores, typical, [] if threshold is None else [threshold]])
    low, high = known.min(), known.max()
    start, end = np.arcsinh((np.array([low, high]) - middle) / width)
    edges = np.sinh(np.linspace(start, end, 61)) * width + middle
    edges[0], edges[-1] = low, np.nextafter(high, np.inf)

    def bars(values: np.ndarray, name: str, **style: Any) -> None:
        weights, label = np.full(len(values), 1.0 / len(values)), f"{name} ({len(values)})"
        axes.hist(values, edges.tolist(), weights=weights, label=label, **style)

    for name, chosen in groups.items():
        bars(scores[chosen], name, alpha=0.55, color=STYLES[name]["color"])
    if normal is not None:
        bars(normal, "held-out normal", histtype="step", color="black")
    if threshold is not None:
        axes.axvline(threshold, color="black", linestyle="--", label="threshold")
    scale = lambda x: np.arcsinh((x - middle) / width), lambda y: np.sinh(y) * width + middle
    axes.set_xscale("function", functions=scale)
    axes.legend(frameon=False)
    return figure


def roc(outcome: Outcome) -> Figure:
    from sklearn.metrics import roc_curve

    figure, axes = _axes("false positive rate", "true positive rate (recall)", 5.4)
    fpr, tpr, _ = roc_curve(outcome.labels, outcome.scores)
    auroc, (low, high) = outcome.metrics["auroc"], outcome.metrics["auroc_interval"]
    axes.plot(fpr, tpr, color=BLUE, label=f"AUROC {auroc:.3f} (95 %: {low:.3f} to {high:.3f})")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
    _mark_threshold(axes, outcome, "false_positive_rate", "recall")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="lower right")
    return figure


def precision_recall(outcome: Outcome) -> Figure:
    from sklearn.metrics import precision_recall_curve

    figure, axes = _axes("recall", "precision", 5.4)
    precision, recall, _ = precision_recall_curve(outcome.labels, outcome.scores)
    average, chance = outcome.metrics["average_precision"], outcome.metrics["prevalence"]
    axes.plot(recall, precision, color=BLUE, label=f"average precision {average:.3f}")
    axes.axhline(chance, color=GREY, linestyle=":", label=f"chance {chance:.3f}")
    _mark_threshold(axes, outcome, "recall", "precision")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="lower left")
    return figure


def _mark_threshold(axes: Axes, outcome: Outcome, x: str, y: str) -> None:
    if at := outcome.metrics.get("at_threshold"):
        axes.plot(at[x], at[y], "o", color=ORANGE, label="at the threshold")


def _scatter(axes: Axes, name: str, x: np.ndarray, y: np.ndarray, **style: Any) -> None:
    axes.scatter(x, y, linewidths=0, **{"label": name, **STYLES[name], **style})


def terms(outcome: Outcome, groups: Groups) -> Figure:
    """Plot the score against each of the two terms that decide most."""
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    for axes, term in zip(figure.subplots(1, 2, sharey=True), outcome.heaviest, strict=True):
        for name, places in groups.items():
            some = places[:: max(1, -(-len(places) // POINTS))]
            x, y = outcome.rows.columns[term][some], outcome.scores[some]
            _scatter(axes, name, x, y, s=9, alpha=0.5, rasterized=True)
        if outcome.threshold is not None:
            axes.axhline(outcome.threshold, color="black", linestyle="--", linewidth=1)
        axes.set(xlabel=term.replace("_", " "))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set(ylabel="anomaly score (threshold dashed)")
    figure.axes[0].legend(frameon=False)
    return figure


def tsne(features: dict[str, np.ndarray], seed: int = 0) -> Figure:
    """Plot the t-SNE (van der Maaten and Hinton 2008) of {of STYLES: (m, d) features}."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    kept = {name: f[:TSNE_IMAGES] for name, f in features.items() if len(f)}
    x = np.concatenate(list(kept.values())).astype(np.float32)
    perplexity = min(30, (len(x) - 1) / 3)
    with threadpool_limits(1):  # for so few points, threads that wait for each other are slower
        x = PCA(min(50, *x.shape), random_state=seed).fit_transform(x)
        fit = TSNE(perplexity=perplexity, init="pca", max_iter=TSNE_STEPS, random_state=seed)
        placed = fit.fit_transform(x)
    figure, axes = _axes("", "")
    ends = np.cumsum([len(f) for f in kept.values()])
    for name, points in zip(kept, np.split(placed, ends[:-1]), strict=True):
        _scatter(axes, name, *points.T, s=12, alpha=0.7, label=f"{name} ({len(points)})")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(TSNE_CAPTION, fontsize="small")
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def convergence(outcome: Outcome) -> Figure:
    """Plot median and quartiles of the search's loss over its steps, by label."""
    figure, axes = _axes("step of the latent search", "loss that is minimised")
    searched = sorted(outcome.rows.losses)
    losses = np.array([outcome.rows.losses[i] for i in searched]).T  # (steps + 1, images)
    known = outcome.images.labels
    labels = None if known is None else known[searched]
    for name, places in by_label(labels, len(searched)).items():
        low, middle, high = np.quantile(losses[:, places], [0.25, 0.5, 0.75], axis=1)
        color, steps = STYLES[name]["color"], np.arange(len(losses))
        axes.plot(steps, middle, color=color, label=f"{name} (median, quartiles)")
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return figure
