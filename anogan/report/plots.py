"""Plots of a test: what the scores say, by label where labels are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from anogan.report.pictures import own_style, save_figure

# Okabe and Ito's colours, which the colour-blind tell apart; markers differ, too
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
STYLES: dict[str, dict[str, Any]] = {
    "normal": {"color": BLUE, "marker": "o"},
    "anomalous": {"color": ORANGE, "marker": "^"},
    "images": {"color": GREY, "marker": "o"},
    "normal, trained on": {"color": GREEN, "marker": "s"},
}
MOST_POINTS = 4000  # points of one sort in a plot
MOST_IN_TSNE = 300  # images of one sort in the t-SNE
TSNE_STEPS = 500  # twice as many lower the divergence by another 3 %
TSNE_CAPTION = (
    "Each point is an image, by the features of the discriminator's last convolution: neighbours\n"
    "look alike to it. The axes, and how far apart groups lie, mean nothing"
)


@own_style()
def write(folder: Path, test: dict) -> dict[str, Path]:
    """Writes every plot that the test has the data for, as PNG and SVG: {title: PNG file}.

    test: scores (n,); terms: {name: (n,)} of two; labels (n,) or None; threshold or None; normal:
    scores of held-out normal images or None; features: {sort: (m, d)}; losses: (steps, m) of
    the search with loss_labels (m,) or None; metrics: what metrics.measures found.
    """
    groups = by_label(test["labels"], len(test["scores"]))
    both = len(groups) == 2
    figures = {"histogram": ("Anomaly scores", histogram(test, groups))}
    if both:
        figures["roc"] = ("ROC curve", roc(test))
        figures["precision_recall"] = ("Precision and recall", precision_recall(test))
    figures["terms"] = ("Score against the terms that decide most", terms(test, groups))
    if sum(len(f) for f in test["features"].values()) >= 10:
        figures["tsne"] = ("t-SNE of the discriminator's features", tsne(test["features"]))
    if test["losses"] is not None:
        figures["convergence"] = ("Convergence of the latent search", convergence(test))
    written = {}
    for name, (title, figure) in figures.items():
        for ending in ("svg", "png"):
            save_figure(figure, Path(folder) / f"{name}.{ending}")
        written[title] = Path(folder) / f"{name}.png"
    return written


def by_label(labels: np.ndarray | None, count: int) -> dict[str, np.ndarray]:
    """Places of the normal and of the anomalous images, or of all where labels are unknown."""
    if labels is None:
        return {"images": np.arange(count)}
    found = {name: np.flatnonzero(labels == i) for i, name in enumerate(("normal", "anomalous"))}
    return {name: places for name, places in found.items() if len(places)}


def _axes(x: str, y: str, width: float = 6.4) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _thin(places: np.ndarray) -> np.ndarray:
    return places[:: max(1, -(-len(places) // MOST_POINTS))]


def histogram(test: dict[str, Any], groups: dict[str, np.ndarray]) -> Figure:
    """Scores by label, each sort's bars adding up to one, with the threshold.

    The axis is linear around normal scores and logarithmic far out, so that both can be seen.
    """
    figure, axes = _axes("anomaly score", "fraction of its sort")
    normal = test["normal"]
    typical = test["scores"] if normal is None else normal
    middle = float(np.median(typical))
    width = 3.0 * max(float(np.subtract(*np.quantile(typical, [0.9, 0.1]))), 1e-6)
    known = [test["scores"], *([] if normal is None else [normal])]
    known += [] if test["threshold"] is None else [[test["threshold"]]]
    low, high = (f([f(values) for values in known]) for f in (np.min, np.max))
    start, end = np.arcsinh((np.array([low, high]) - middle) / width)
    places = np.linspace(start, end, 61)
    edges = np.sinh(places) * width + middle
    edges[0], edges[-1] = low, np.nextafter(high, np.inf)
    bins = edges.tolist()
    for name, chosen in groups.items():
        values, label = test["scores"][chosen], f"{name} ({len(chosen)})"
        fraction = np.full(len(chosen), 1.0 / len(chosen))
        axes.hist(
            values, bins, weights=fraction, alpha=0.55, color=STYLES[name]["color"], label=label
        )
    if normal is not None:
        fraction = np.full(len(normal), 1.0 / len(normal))
        label = f"held-out normal ({len(normal)})"
        axes.hist(normal, bins, weights=fraction, histtype="step", color="black", label=label)
    if test["threshold"] is not None:
        axes.axvline(test["threshold"], color="black", linestyle="--", label="threshold")
    axes.set_xscale(
        "function",
        functions=(
            lambda x: np.arcsinh((x - middle) / width),
            lambda y: np.sinh(y) * width + middle,
        ),
    )
    axes.legend(frameon=False)
    return figure


def roc(test: dict[str, Any]) -> Figure:
    from sklearn.metrics import roc_curve

    figure, axes = _axes("false positive rate", "true positive rate (recall)", 5.4)
    fpr, tpr, _ = roc_curve(test["labels"], test["scores"])
    auroc, (low, high) = test["metrics"]["auroc"], test["metrics"]["auroc_interval"]
    axes.plot(fpr, tpr, color=BLUE, label=f"AUROC {auroc:.3f} (95 %: {low:.3f} to {high:.3f})")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
    at = test["metrics"].get("at_threshold")
    if at:
        axes.plot(
            at["false_positive_rate"], at["recall"], "o", color=ORANGE, label="at the threshold"
        )
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="lower right")
    return figure


def precision_recall(test: dict[str, Any]) -> Figure:
    from sklearn.metrics import precision_recall_curve

    figure, axes = _axes("recall", "precision", 5.4)
    precision, recall, _ = precision_recall_curve(test["labels"], test["scores"])
    found = test["metrics"]
    label = f"average precision {found['average_precision']:.3f}"
    axes.plot(recall, precision, color=BLUE, label=label)
    axes.axhline(
        found["prevalence"], color=GREY, linestyle=":", label=f"chance {found['prevalence']:.3f}"
    )
    at = found.get("at_threshold")
    if at:
        axes.plot(at["recall"], at["precision"], "o", color=ORANGE, label="at the threshold")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="lower left")
    return figure


def terms(test: dict[str, Any], groups: dict[str, np.ndarray]) -> Figure:
    """The score against each of the two terms that decide most."""
    figure = Figure(figsize=(8.4, 4.2), layout="constrained")
    for axes, (term, values) in zip(
        figure.subplots(1, 2, sharey=True), test["terms"].items(), strict=True
    ):
        for name, places in groups.items():
            some = _thin(places)
            axes.scatter(
                values[some],
                test["scores"][some],
                s=9,
                alpha=0.5,
                linewidths=0,
                rasterized=True,
                label=name,
                **STYLES[name],
            )
        if test["threshold"] is not None:
            axes.axhline(test["threshold"], color="black", linestyle="--", linewidth=1)
        axes.set(xlabel=term.replace("_", " "))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set(ylabel="anomaly score (threshold dashed)")
    figure.axes[0].legend(frameon=False)
    return figure


def tsne(features: dict[str, np.ndarray], seed: int = 0) -> Figure:
    """Two-dimensional t-SNE (van der Maaten and Hinton 2008) of {sort: (m, d) features}."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    kept = {name: f[:MOST_IN_TSNE] for name, f in features.items() if len(f)}
    x = np.concatenate(list(kept.values())).astype(np.float32)
    perplexity = min(30, (len(x) - 1) / 3)
    with threadpool_limits(1):  # for so few points, threads that wait for each other are slower
        x = PCA(min(50, *x.shape), random_state=seed).fit_transform(x)
        way = TSNE(perplexity=perplexity, init="pca", max_iter=TSNE_STEPS, random_state=seed)
        placed = way.fit_transform(x)
    figure, axes = _axes("", "")
    start = 0
    for name, f in kept.items():
        points = placed[start : start + len(f)]
        start += len(f)
        label, style = f"{name} ({len(f)})", STYLES[name]
        axes.scatter(
            points[:, 0], points[:, 1], s=12, alpha=0.7, linewidths=0, label=label, **style
        )
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(TSNE_CAPTION, fontsize="small")
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def convergence(test: dict[str, Any]) -> Figure:
    """Median and quartiles of the search's loss over its steps, by label."""
    figure, axes = _axes("step of the latent search", "loss that is minimised")
    losses = test["losses"]
    for name, places in by_label(test["loss_labels"], losses.shape[1]).items():
        low, middle, high = np.quantile(losses[:, places], [0.25, 0.5, 0.75], axis=1)
        color = STYLES[name]["color"]
        steps = np.arange(len(losses))
        axes.plot(steps, middle, color=color, label=f"{name} (median, quartiles)")
        axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return figure
