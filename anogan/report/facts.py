"""What a run and its scores come to, in words."""

from __future__ import annotations

from typing import Any

UNFINISHED = "the model is not trained to its end: run --train with the same flags to go on"


def expectation(auroc: float | None) -> str:
    """Return what synthetic anomalies show of the detector, for the user."""
    if auroc is None:
        return "no synthetic anomalies were tried: the terms have their usual weights"
    return (
        f"expected AUROC {auroc:.3f}: on held-out normal images with synthetic anomalies of kinds "
        "that were not trained on; real ones may be easier or harder"
    )


def decided_by(contributions: dict[str, float]) -> str:
    """Return the terms that made a score high, the greatest first; {term: what it adds}."""
    high = {name: value for name, value in contributions.items() if value > 0}
    greatest = sorted(high, key=lambda name: -high[name])[:3]
    listed = ", ".join(f"{name.replace('_', ' ')} {high[name]:+.3g}" for name in greatest)
    return f"above the mean: {listed}" if listed else "no term is above the mean of normal images"


def facts(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the lines above the report, {name: text}, from what metrics.json holds."""
    facts = {"data set": metrics["dataset"], "images": f"{metrics['images']}"}
    if metrics["skipped"]:
        facts["skipped, unreadable"] = f"{metrics['skipped']}"
    for text, count in metrics["warnings"].items():
        facts[text] = f"{count} files"
    step, total, size = metrics["step"], metrics["total_steps"], metrics["size"]
    progress = f"{step} of {total}" if total else f"{step}"
    facts["model"] = f"trained to step {progress} on {size.rpartition(' x ')[0]} pixels"
    if metrics["run"]:
        facts["model"] = f"{metrics['run']}, {facts['model']}"
    if metrics["window"]:
        facts["model"] += f", through windows of {metrics['window']}"
    if total and step < total:
        facts["warning"] = UNFINISHED
    versions = (f"{name} {version}" for name, version in metrics["versions"].items())
    facts["search"] = f"{metrics['search']}, {metrics['precision']}"
    facts["made"] = f"{metrics['date']} with {', '.join(versions)}"
    facts["synthetic anomalies"] = expectation(metrics["score"]["expected_auroc"])
    if "auroc" in metrics:
        low, high = metrics["auroc_interval"]
        facts["AUROC"] = f"{metrics['auroc']:.4f} (95 % interval {low:.4f} to {high:.4f})"
        facts["average precision"] = f"{metrics['average_precision']:.4f}"
        facts["prevalence of anomalies"] = f"{metrics['prevalence']:.3f}"
    for name, title in (("pixel_auroc", "pixel AUROC"), ("au_pro", "AU-PRO")):
        if name in metrics:
            facts[title] = f"{metrics[name]:.4f}"
    if metrics["threshold"] is not None:
        facts["threshold"] = f"{metrics['threshold']:.4g}, {metrics['threshold_is']}"
    rate = metrics.get("at_threshold", {}).get("false_positive_rate")
    if rate is not None:
        wanted = metrics.get("target_fpr")
        aim = "" if wanted is None else f" (aimed at {wanted:.3g})"
        facts["observed false positive rate"] = f"{rate:.4f}{aim}"
    for kind, auroc in metrics.get("auroc_by_kind", {}).items():
        facts[f"AUROC of kind {kind}"] = f"{auroc:.4f}"
    return facts
