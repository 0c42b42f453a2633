"""Other GANs on MVTec AD, as published: what detection.py prints beside this tool's figures.

Image AUROC but for AnoGAN. Of AnoGAN and f-AnoGAN no AUROC on MVTec AD was found that could be
traced to its source, nor any of these four on VisA: what is not here is left empty.
"""

import statistics
from collections.abc import Mapping, Sequence, Set

# anomalib's implementation, seed 42, 256 px: its models/ganomaly README, "Image-Level AUC",
# github.com/openvinotoolkit/anomalib
GANOMALY = {
    "carpet": 0.203, "grid": 0.404, "leather": 0.413, "tile": 0.408, "wood": 0.744,
    "bottle": 0.251, "cable": 0.457, "capsule": 0.682, "hazelnut": 0.537, "metal_nut": 0.270,
    "pill": 0.472, "screw": 0.231, "toothbrush": 0.372, "transistor": 0.440, "zipper": 0.434,
}  # fmt: skip
# The mean of 15 categories: Liang et al. 2023, IEEE Transactions on Image Processing,
# doi.org/10.1109/TIP.2023.3293772 (arXiv 2203.00259)
OCR_GAN_MEAN = 0.983
# Rates of normal and of anomalous images that are called so: Bergmann et al. 2019, CVPR, table 2,
# as cited with its source in the README of LeapMind's MLF-SC. Their mean, the balanced accuracy,
# is the AUROC of the decision at that one threshold. Objects were not found.
ANOGAN_RATES = {
    "carpet": (0.82, 0.16), "grid": (0.90, 0.12), "leather": (0.91, 0.12), "tile": (0.97, 0.05),
    "wood": (0.89, 0.47),
}  # fmt: skip


def mvtec_table(measured: Mapping[str, Sequence[str]]) -> str:
    """Markdown of this tool's (image AUROC, pixel AUROC, AU-PRO) by category, beside the others'.

    measured: by category, and last of all what begins with "mean". The others' means are of the
    same categories, or left empty.
    """
    rows = [
        "| MVTec AD | this tool: image AUROC | pixel AUROC | AU-PRO | GANomaly: image AUROC "
        "| OCR-GAN: image AUROC | AnoGAN: balanced accuracy |",
        "|-" * 7 + "|",
    ]
    anogan = {name: statistics.mean(rates) for name, rates in ANOGAN_RATES.items()}
    categories = {name for name in measured if not name.startswith("mean")}
    for name, own in measured.items():
        of = categories if name.startswith("mean") else {name}
        ocr_gan = f"{OCR_GAN_MEAN:.3f}" if of == GANOMALY.keys() else ""
        others = [_mean(GANOMALY, of), ocr_gan, _mean(anogan, of)]
        rows.append("|" + "|".join([name, *own, *others]) + "|")
    return "\n".join(rows)


def _mean(figures: Mapping[str, float], names: Set[str]) -> str:
    """The mean of some figures; nothing where one of them is not known."""
    return f"{statistics.mean(figures[n] for n in names):.3f}" if names <= figures.keys() else ""
