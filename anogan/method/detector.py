"""The anomaly detector: all terms of the score, their calibration, and what is decided by them."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from anogan.errors import UserError
from anogan.features.feature_bank import FeatureBank
from anogan.method.inference import Compare, Inference, Pool
from anogan.method.memory_bank import MemoryBank, bank_alone
from anogan.method.scoring import (
    BANKS,
    MAPS,
    TERMS,
    Calibration,
    Detection,
    Search,
    base_weights,
    fit_weights,
)
from anogan.method.synthetic import plant_anomalies, plant_unseen
from anogan.method.threshold import FEW, FEWEST, NormalScores, Threshold
from utils import to_float

JUDGES = plant_unseen, plant_anomalies
PLANTED_EACH = 3  # times: more in the same few images tell no more


class Detector:
    """Networks and the images they compare with, neither of which it changes."""

    def __init__(
        self,
        inference: Inference,
        seen: np.ndarray,
        feature_bank: FeatureBank | None = None,
        seen_features: Sequence[float | None] = (),
    ):
        """seen: normal images (n, H, W, c), uint8, for the memory bank.

        feature_bank: where there are features in the score; seen_features: see RunImages.
        UserError for fewer than two images.
        """
        self.inference, self.seen = inference, seen
        self.seen_features = np.array(seen_features, float)  # None becomes NaN
        self.config, self.weights = inference.config, base_weights(inference.config)
        enough = len(seen) >= 2
        self.memory = (
            MemoryBank.of(seen, self.config.recipe.bank)
            if self.weights["memory"] and enough
            else None
        )
        self.feature_bank = feature_bank if self.weights["features"] else None
        if (self.weights["memory"] and not enough) or (
            self.weights["features"] and feature_bank is None
        ):
            lacking = "their features are" if enough else "at least 2 are"
            raise UserError(
                f"of {len(seen)} different training images no score can be made, {lacking} "
                "needed: train the model first"
            )
        self._pool: Pool | None = None

    def size_in_bytes(self) -> int:
        """Of all numbers that scores are made with: weights and banks."""
        weights = [w for net in self.inference.nets.trained().values() for w in net.weights]
        known = sum(bank.numbers() for bank in (self.memory, self.feature_bank) if bank)
        return 4 * (known + sum(int(np.prod(w.shape)) for w in weights))

    def terms(
        self,
        images: np.ndarray,
        search: Search,
        weights: tuple[float, float, float],
        batch_size: int | None = None,
        only: Collection[str] = (),
    ) -> dict[str, Any]:
        """See Inference.terms; 0 are those terms and maps that the recipe does without."""
        banks: dict[str, Compare] = {}
        if memory := self.memory:
            banks["memory"] = lambda views, _: memory.compare(self.inference.scaled(views))
        if self.feature_bank:
            banks["features"] = self.feature_bank.compare
        wanted = {k: v for k, v in banks.items() if not only or {k, f"{k}_part"} & set(only)}
        size = batch_size or self.inference.together(len(images))
        pool = self._starts() if search.kind == "gradient" else None
        found = self.inference.terms(images, search, weights, pool, size, only, wanted)
        for name in TERMS:
            if not self.weights[name] and (not only or name in only):
                found.setdefault(name, np.zeros((len(images), len(self.inference.windows))))
        for name, terms in MAPS.items():
            if not any(self.weights[term] for term in terms) and (not only or name in only):
                found.setdefault(name, np.zeros((len(images), *self.config.shape[:2]), np.float32))
        return found

    def _starts(self) -> Pool:
        """Fixed latents and their images, where a search from none else begins."""
        if self._pool is None:
            z = self.inference.fixed_latents(self.config.recipe.search_pool)
            self._pool = tf.constant(z), tf.constant(self.inference.generate(z))
        return self._pool

    def detect(
        self,
        images: np.ndarray,
        search: Search,
        calibration: Calibration,
        batch_size: int | None = None,
    ) -> Detection:
        """images (n, H, W, c), uint8 or float in [-1, 1]; calibration: of this search."""
        found = self.terms(images, search, calibration.search_weights, batch_size)
        windows = {name: found.pop(name) for name in TERMS}
        worst = calibration.worst_windows(windows)
        parts = calibration.contributions(windows)[worst]
        losses, score, normal = found["losses"], parts.sum(axis=1), calibration.normal_scores
        return Detection(
            score=score,
            terms={name: values[worst] for name, values in windows.items()},
            contributions=parts,
            z=found["z"][worst],
            losses=None if losses is None else losses[worst],
            image=found["image"],
            reconstruction=found["reconstruction"],
            residual_map=found["residual_map"],
            anomaly_map=calibration.anomaly_map(found),
            is_anomaly=score > normal.threshold(Threshold.target_fpr) if normal else None,
            p_value=normal.p_value(score) if normal else None,
        )

    def calibrate(self, held_out: np.ndarray, search: Search) -> Calibration:
        """From held-out normal images (n, H, W, c), uint8."""
        standardised = self.config.recipe.standardised and len(held_out) > 1
        if self.config.recipe.standardised and not standardised:
            logging.getLogger(__name__).warning(
                "%d images were held out from training, and at least 2 are needed to bring the "
                "terms of the score to one scale: without, those of pixels drown the others",
                len(held_out),
            )
        search_weights = self._search_weights(held_out if standardised else None)

        size = self.inference.together(len(held_out))  # one for all: another is another graph

        def terms_of(images: np.ndarray, *only: str) -> dict[str, Any]:
            return self.terms(images, search, search_weights, size, only)

        found = terms_of(held_out, *TERMS, *MAPS)
        means, spreads = dict.fromkeys(TERMS, 0.0), dict.fromkeys(TERMS, 1.0)
        known = Calibration(
            search_weights=search_weights,
            weights=self.weights,
            means=means,
            spreads=spreads,
            expected=None,
            maps={name: float(name == "residual_part") for name in MAPS},
            scores=(),
            tail=None,
            peaks=(),
        )
        if standardised:
            for name in TERMS:
                mean, std = float(np.mean(found[name])), float(np.std(found[name]))
                # not finer than a twentieth of the mean: so few images can agree by chance
                means[name], spreads[name] = mean, max(std, 0.05 * abs(mean), 1e-6)
            planted = [known.worst(terms_of(x, *TERMS)) for x in self.planted(held_out)]
            weights, expected = fit_weights(
                self.weights, known.worst(found), planted, self.config.recipe.merit_power
            )
            known = dataclasses.replace(known, weights=weights, expected=expected)
            known = dataclasses.replace(known, maps=known.map_weights(found, self.weights))
        scores, (banks, alone) = known.scores_of(found), self._by_banks(known, found)
        normal = NormalScores(scores, None, banks, alone) if len(scores) >= FEWEST else None
        return dataclasses.replace(
            known,
            scores=tuple(scores.tolist()),
            tail=normal.tail if normal else None,
            peaks=tuple(known.anomaly_map(found).max(axis=(1, 2)).astype(float).tolist()),
            banks=tuple(banks.tolist()),
            alone=tuple(alone.tolist()),
        )

    def _by_banks(
        self, known: Calibration, found: dict[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What banks add to scores of held-out (n,) and of training images (m,), left out in turn.

        found: of the held-out images. Both are empty where no training images are needed, or where
        fewer than held-out ones are known by both banks.
        """
        usable, count = np.isfinite(self.seen_features), len(found["memory"])
        if not (self.memory and self.feature_bank and count in FEW and usable.sum() >= count):
            return np.zeros(0), np.zeros(0)
        memory = bank_alone(self.seen, self.config.recipe.bank, self.config.seed)
        alone = {"memory": memory[usable], "features": self.seen_features[usable]}
        # banks see whole images: their terms are the same in all windows
        held_out = {name: found[name][:, 0] for name in BANKS}
        return known.by_banks(held_out), known.by_banks(alone)

    def planted(self, images: np.ndarray) -> list[np.ndarray]:
        """Normal images (n, H, W, c), uint8, with anomalies not trained on, and with large ones."""
        count = min(self.config.recipe.planted, PLANTED_EACH * len(images))
        some = to_float(images[np.arange(count) % len(images)])
        found = [plant(tf.constant(some), (self.config.seed, 1)) for plant in JUDGES]
        return [p.numpy()[m.numpy().any(axis=(1, 2, 3))] for p, m in found]

    def _search_weights(self, held_out: np.ndarray | None) -> tuple[float, float, float]:
        """Of R, D and ||z||^2: the paper's, or in fractions of the normal images' spread."""
        lambda_ = self.config.lambda_
        if held_out is None:
            return 1 - lambda_, lambda_, 0.0
        pixels, features = self.inference.squared_spreads(held_out)
        return (1 - lambda_) / pixels, lambda_ / features, self.config.recipe.search_prior
