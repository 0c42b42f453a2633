"""What a run keeps of the images that it is trained on, and of those held out."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np

from anogan.config import Config
from anogan.data.choosing import permutation
from anogan.data.image_set import ImageSet
from anogan.data.near_copies import near_copies
from anogan.features import feature_bank
from anogan.features.feature_bank import Features
from anogan.method.memory_bank import most_images
from anogan.runs.gaussians import Gaussians
from anogan.runs.run_images import RunImages


def updated(
    kept: RunImages,
    images: ImageSet,
    rest: ImageSet,
    held_out: ImageSet,
    config: Config,
    features: Features | None,
) -> RunImages:
    """What a run keeps of all its images, of which `rest` are trained on, from now on.

    features: where they are a part of the score.
    """
    if (states := images.dated()) == kept.states:
        return kept
    recipe = config.recipe
    fitting = max(1, recipe.held_out_bytes // math.prod(config.view))
    count = min(recipe.held_out_kept, fitting)
    some = held_out.some(count, config.seed)
    remembered = min(recipe.seen_kept, most_images(config.shape[:2], recipe.bank))
    drawn = np.sort(permutation(len(rest), config.seed)[:remembered])
    small, places = rest.at(config.shape).read(drawn)
    different = _without_copies(small)
    seen = small[different]
    own = kept.held_out
    if len(some):
        own = some[_without_copies(held_out.at(config.shape).some(count, config.seed), seen)]
        if len(own) < len(some):
            logging.getLogger(__name__).warning(
                "%d of %d held-out images are copies of others or of images trained on: they are "
                "left out of the threshold, which they would make too low",
                len(some) - len(own),
                len(some),
            )
    known: Sequence[Gaussians] = ()
    far: dict[str, float] = {}
    if features and len(rest) > 1:
        known, far = fit_features(rest, features, config)
    copies = near_copies(images)  # left out alone, they would still be near each other
    names = [rest.names[i] for i in places[different]]
    alone = tuple(None if name in copies else far.get(name) for name in names)
    return RunImages(own, seen, states, held_out.names, known, far, alone)


def fit_features(
    images: ImageSet, features: Features, config: Config
) -> tuple[list[Gaussians], dict[str, float]]:
    """Return the Gaussians of some images to train on, {name: how far one is from the others}."""
    most = config.recipe.features.images
    chosen = images.subset(np.sort(permutation(len(images), config.seed)[:most]))
    names: list[str] = []  # without those of broken files

    def batches() -> Iterator[np.ndarray]:
        for indices, batch in chosen.batches(feature_bank.BATCH):
            names.extend(chosen.names[i] for i in indices)
            yield batch

    known, far = feature_bank.fit(features, batches())
    return known, dict(zip(names, far.tolist(), strict=True))


def _without_copies(images: np.ndarray, known: np.ndarray | None = None) -> list[int]:
    """Those of images (n, h, w, c) that are neither before them nor among the known, in order."""
    there = {image.tobytes() for image in (() if known is None else known)}
    own = []
    for i, image in enumerate(images):
        if (content := image.tobytes()) not in there:
            there.add(content)
            own.append(i)
    return own
