"""What a run and its scores come to, in words."""

from __future__ import annotations

from typing import Any

from anogan.config import Config

UNFINISHED = "the model is not trained to its end: run --train with the same flags to go on"


def is_finished(metrics: dict[str, Any]) -> bool:
    """Whether the model that was tested is trained to its end, as far as is known."""
    return metrics["step"] >= metrics["total_steps"]


def told_expected(auroc: float | None) -> str:
    """What synthetic anomalies say of the detector, for the user."""
    if auroc is None:
        return "no synthetic anomalies were tried: the terms have their usual weights"
    return (
        f"expected AUROC {auroc:.3f}: on held-out normal images with synthetic anomalies of kinds "
        "that were not trained on; real ones may be easier or harder"
    )


def decided_by(contributions: dict[str, float]) -> str:
    """The terms that made a score high, the greatest first; {term: what it adds to the score}."""
    high = {name: value for name, value in contributions.items() if value > 0}
    greatest = sorted(high, key=lambda name: -high[name])[:3]
    told = ", ".join(f"{name.replace('_', ' ')} {high[name]:+.3g}" for name in greatest)
    return f"above the mean: {told}" if told else "no term is above the mean of normal images"


def facts(metrics: dict[str, Any], config: Config, progress: str) -> dict[str, str]:
    """The lines above the report: {name: text}; progress: see DCGAN.progress."""
    facts = {"data set": metrics["dataset"], "images": f"{metrics['images']}"}
    if metrics["skipped"]:
        facts["skipped, unreadable"] = f"{metrics['skipped']}"
    for text, count in metrics["warnings"].items():
        facts[text] = f"{count} files"
    facts["model"] = f"trained to step {progress} on {config.height} x {config.width} pixels"
    if metrics["run"]:
        facts["model"] = f"{metrics['run']}, {facts['model']}"
    if config.window:
        facts["model"] += f", through windows of {config.window}"
    if not is_finished(metrics):
        facts["warning"] = UNFINISHED
    versions = (f"{name} {version}" for name, version in metrics["versions"].items())
    facts["search"] = f"{metrics['search']}, {metrics['precision']}"
    facts["made"] = f"{metrics['date']} with {', '.join(versions)}"
    facts["synthetic anomalies"] = told_expected(metrics["score"]["expected_auroc"])
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
