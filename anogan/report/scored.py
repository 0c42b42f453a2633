"""What is known of a test when all its images are scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from anogan.data.image_set import ImageSet
from anogan.data.masks import Masks
from anogan.evaluation.metrics import LABELS
from anogan.method.scoring import TERMS
from anogan.method.threshold import NormalScores, told
from anogan.report.facts import decided_by
from anogan.report.names import fitting


@dataclass(frozen=True)
class Scored:
    """The images, what was found of each, and the thresholds."""

    images: ImageSet
    masks: Masks | None
    indices: np.ndarray  # (n,) of the images that could be scored, rising
    columns: dict[str, np.ndarray]  # (n,) the score, its terms and what each contributes
    threshold: float | None
    pixel_threshold: float
    normal: NormalScores | None

    @property
    def order(self) -> np.ndarray:
        """Places (n,) in the columns, the most anomalous image first."""
        return np.argsort(-self.columns["score"], kind="stable")

    def known(self, index: int) -> tuple[str, str, str]:
        """File, label and kind of an image, the latter empty where unknown."""
        images = self.images
        label = "" if images.labels is None else LABELS[images.labels[index]]
        kind = "" if images.kinds is None else images.kinds[index]
        return images.names[index], label, kind

    def decided_by(self, place: int) -> str:
        """What made the score at a place in the columns high."""
        return decided_by({name: self.columns[f"{name}_contribution"][place] for name in TERMS})

    def title(self, index: int) -> str:
        """What is to be said of an image above its picture."""
        file, label, kind = map(fitting, self.known(index))
        place = int(np.searchsorted(self.indices, index))
        score = self.columns["score"][place]
        title = f"{file}{f' ({kind or label})' if kind or label else ''}\nanomaly score {score:.4g}"
        if self.threshold is not None:
            title += f", {'anomalous' if score > self.threshold else 'normal'}"
            title += f" (threshold {self.threshold:.4g})"
        if self.normal is not None:
            title += f"; {told(int(self.normal.as_high([score])[0]), len(self.normal.scores))}"
        return f"{title}\n{self.decided_by(place)}"
