"""What a run and its scores come to, in words."""

from __future__ import annotations

from typing import Any

UNFINISHED = "the model is not trained to its end: run --train with the same flags to go on"

# of images with a label: the measure that says how many of them are called anomalous
RATES = {"anomalous": "recall", "normal": "false_positive_rate"}


def expectation(auroc: float | None) -> str:
    """Return what synthetic anomalies show of the detector, for the user."""
    if auroc is None:
        return "no synthetic anomalies were tried: the terms have their usual weights"
    return (
        f"expected AUROC {auroc:.3f}: on held-out normal images with synthetic anomalies, half of "
        "them of kinds that were not trained on; real ones may be easier or harder"
    )


def decided_by(contributions: dict[str, float]) -> str:
    """Return the terms that made a score high, the greatest first; {term: what it adds}."""
    high = {name: value for name, value in contributions.items() if value > 0}
    greatest = sorted(high, key=lambda name: -high[name])[:3]
    listed = ", ".join(f"{name.replace('_', ' ')} {high[name]:+.3g}" for name in greatest)
    return f"raised by: {listed}" if listed else "no term raises it"


def found(metrics: dict[str, Any]) -> str:
    """Return what was found, in a sentence, from what metrics.json holds."""
    images = f"{metrics['images']} images"
    if metrics["threshold"] is None:
        return f"{images} are ranked by their score; there is no threshold"
    return (
        f"{metrics['called_anomalous']} of {images} are called anomalous: "
        f"they score above {metrics['threshold']:.4g}"
    )


def sure(metrics: dict[str, Any]) -> list[str]:
    """Return how far that can be trusted, in sentences, what limits it first."""
    lines = [metrics[name] for name in ("shift", "outliers") if name in metrics]
    if metrics["step"] < metrics["total_steps"]:
        lines.append(UNFINISHED)
    if metrics["skipped"]:
        lines.append(f"{metrics['skipped']} files could not be read, and are not judged")
    at = metrics.get("at_threshold", {})
    parts = [f"of {metrics[n]} {n} images {at[k]:.1%} are" for n, k in RATES.items() if k in at]
    if parts:
        lines.append(f"by the labels, {' and '.join(parts)} called anomalous")
    lines.append(f"threshold: {metrics['threshold_is']}")
    if "auroc" in metrics:
        low, high = metrics["auroc_interval"]
        lines.append(f"AUROC {metrics['auroc']:.3f} (95 % interval {low:.3f} to {high:.3f})")
    else:
        lines.append(expectation(metrics["score"]["expected_auroc"]))
    return lines


def facts(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the lines above the report, {name: text}, from what metrics.json holds."""
    step, total, size = metrics["step"], metrics["total_steps"], metrics["size"]
    model = f"trained to step {step} of {total} on {size.rpartition(' x ')[0]} pixels"
    if metrics["run"]:
        model = f"{metrics['run']}, {model}"
    if metrics["window"]:
        model += f", through windows of {metrics['window']}"
    versions = (f"{name} {version}" for name, version in metrics["versions"].items())
    lines = {
        "data set": metrics["dataset"],
        "images": metrics["images"],
        "skipped, unreadable": metrics["skipped"] or None,
        **{text: f"{count} files" for text, count in metrics["warnings"].items()},
        "model": model,
        "warning": UNFINISHED if step < total else None,
        "search": f"{metrics['search']}, {metrics['precision']}",
        "made": f"{metrics['date']} with {', '.join(versions)}",
        "synthetic anomalies": expectation(metrics["score"]["expected_auroc"]),
    }
    if "auroc" in metrics:
        low, high = metrics["auroc_interval"]
        lines["AUROC"] = f"{metrics['auroc']:.4f} (95 % interval {low:.4f} to {high:.4f})"
        lines["average precision"] = f"{metrics['average_precision']:.4f}"
        lines["prevalence of anomalies"] = f"{metrics['prevalence']:.3f}"
    for name, title in (("pixel_auroc", "pixel AUROC"), ("au_pro", "AU-PRO")):
        if name in metrics:
            lines[title] = f"{metrics[name]:.4f}"
    if metrics["threshold"] is not None:
        lines["threshold"] = f"{metrics['threshold']:.4g}, {metrics['threshold_is']}"
    rate = metrics.get("at_threshold", {}).get("false_positive_rate")
    if rate is not None:
        aim = metrics.get("target_fpr")
        aimed = "" if aim is None else f" (aimed at {aim:.3g})"
        lines["observed false positive rate"] = f"{rate:.4f}{aimed}"
    for kind, auroc in metrics.get("auroc_by_kind", {}).items():
        lines[f"AUROC of kind {kind}"] = f"{auroc:.4f}"
    return {name: f"{text}" for name, text in lines.items() if text is not None}
