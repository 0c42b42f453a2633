"""What a run keeps of the images that it is trained on, and of those held out."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np

from anogan.config import Config
from anogan.data.image_set import ImageSet
from anogan.runs.run_images import RunImages


def updated(
    kept: RunImages, images: ImageSet, rest: ImageSet, held_out: ImageSet, config: Config
) -> RunImages:
    """What a run keeps of all its images, of which `rest` are trained on, from now on."""
    if (states := images.dated()) == kept.states:
        return kept
    some = held_out.some(config.recipe.held_out_kept, config.seed)
    seen = _without_copies(rest.some(config.recipe.seen_kept, config.seed))
    own = kept.held_out
    if len(some):
        own = _without_copies(some, seen)
        if len(own) < len(some):
            logging.getLogger(__name__).warning(
                "%d of %d held-out images are copies of others or of images trained on: they are "
                "left out of the threshold, which they would make too low",
                len(some) - len(own),
                len(some),
            )
    return dataclasses.replace(
        kept, held_out=own, seen=seen, states=states, held_out_names=held_out.names
    )


def _without_copies(images: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Those of images (n, h, w, c) that are neither before them nor among the known, in order."""
    there = {image.tobytes() for image in (() if known is None else known)}
    own = []
    for i, image in enumerate(images):
        if (content := image.tobytes()) not in there:
            there.add(content)
            own.append(i)
    return images[own]
