"""What a run and its scores come to, in words."""

from __future__ import annotations

from typing import Any

from anogan.config import Config


def told_trust(trust: float | None) -> str:
    """The trust in the networks and what it means, for the user."""
    if trust is None:
        return "not measured: the score is the networks' alone"
    if trust >= 1:
        return "1 of 1: they reconstruct held-out normal images as well as those trained on"
    return (
        f"{trust:.2f} of 1: they reconstruct held-out normal images worse than those trained on, "
        f"so PCA's residual makes {'all' if trust <= 0 else 'part'} of the score"
    )


def facts(metrics: dict[str, Any], config: Config, steps_done: int) -> dict[str, str]:
    """The lines above the report: {name: text}."""
    facts = {"images": f"{metrics['images']}"}
    if metrics["skipped"]:
        facts["skipped, unreadable"] = f"{metrics['skipped']}"
    for text, count in metrics["remarks"].items():
        facts[text] = f"{count} files"
    facts["model"] = f"trained {steps_done} steps on {config.height} x {config.width} pixels"
    facts["trust in the networks"] = told_trust(metrics["score"]["trust"])
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
