"""A preset's method: the structure and the constants that no flag sets, saved with the run.

A run is trained on and scored with its own recipe, whatever the defaults here have become since.
What is code (layers, formulas, the kinds of synthetic anomalies) is not in it: a change of that is
a new version of a run's format, see config.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar, get_args, get_type_hints

from anogan.errors import UserError

Group = TypeVar("Group", bound="_Checked")
SEARCHES = ("gradient", "encoder", "hybrid")  # how z is found
KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def _ranged(default: Any, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


def _term(weight: float, part: str | None) -> Any:
    """A term's base weight; part: of the anomaly map, which says the same of the image's places."""
    return field(default=weight, metadata={"range": (-1e3, 1e3), "map": part})


class _Checked:
    """A dataclass whose values are of the types and within the ranges of its fields."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for each in fields(self):  # type: ignore[arg-type]
            kinds = get_args(hints[each.name]) or (hints[each.name],)
            value = getattr(self, each.name)
            values = value if isinstance(value, tuple) else (value,)
            if issubclass(kinds[0], _Checked) and isinstance(value, kinds[0]):
                continue
            if len(values) != len(kinds):
                raise UserError(f"{each.name} must be {len(kinds)} values, not {value!r:.40}")
            for one, kind in zip(values, kinds, strict=True):
                _check(each.name, one, kind, *each.metadata.get("range", (-math.inf, math.inf)))

    @classmethod
    def from_json(cls: type[Group], stored: Any, name: str = "recipe") -> Group:
        """UserError where a setting is missing, unknown, or of another type or range."""
        hints = get_type_hints(cls)
        if not isinstance(stored, dict):
            raise UserError(f"{name} must hold settings, not {stored!r:.40}")
        for wrong in sorted(stored.keys() ^ hints.keys()):
            raise UserError(f"{name} {'has no' if wrong in hints else 'knows no'} {wrong!r:.40}")
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        for key, kind in hints.items():
            if isinstance(kind, type) and issubclass(kind, _Checked):
                values[key] = kind.from_json(values[key], f"{name}.{key}")
        return cls(**values)


def _check(name: str, value: Any, kind: Any, low: float, high: float) -> None:
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise UserError(f"{name} must be {KINDS.get(kind, kind.__name__)}, not {value!r:.40}")
    if not low <= value <= high:
        raise UserError(f"{name} must be from {low:g} to {high:g}, not {value}")


@dataclass(frozen=True)
class TermWeights(_Checked):
    """Base weights of the score's terms, in the order of scores.csv: a new term is a line here.

    What measures a term is Inference.measure_batch, or a bank of Detector. 0: there is no such
    term. The first two are multiplied by 1 - lambda and lambda (Schlegl et al. 2017, equation 7).
    """

    residual: float = _term(2.0, "residual_part")  # residual loss
    discrimination: float = _term(2.0, "residual_part")  # discrimination loss
    peak: float = _term(1.0, "residual_part")  # highest value of the networks' own anomaly map
    realism: float = _term(-1.0, None)  # D's logit for the image itself, higher is more normal
    reconstruction_realism: float = _term(-0.25, None)  # D's logit for G(z)
    pixels: float = _term(1.5, "pixel_part")  # D's most abnormal pixel: its logit, negative
    memory: float = _term(1.5, "memory_part")  # distance from the memory bank, at the worst places
    features: float = _term(1.5, "features_part")  # likewise in a pretrained network's features


@dataclass(frozen=True)
class BankRecipe(_Checked):
    """The memory bank's descriptors; pairs are of the fine and the coarse ones."""

    bins: int = _ranged(8, 2, 64)  # of orientations
    cells: tuple[int, int] = _ranged((16, 8), 1, 256)  # along the shorter side
    smallest_cells: tuple[int, int] = _ranged((4, 6), 1, 256)  # pixels
    # so many cells cover each pixel along a side: the coarse ones lie half over another
    overlaps: tuple[int, int] = _ranged((1, 2), 1, 8)
    no_gradient: float = _ranged(0.05, 1e-6, 2)  # in [-1, 1] a pixel: of flatter ones it is noise
    sharpness: float = _ranged(0.5, 0, 100)  # of its part, where that of orientations has length 1
    blurred: float = _ranged(0.05, 1e-6, 2)  # what is less sharp than this, in [-1, 1], is alike
    two_shades: float = _ranged(0.65, 1e-6, 100)  # spread of sharpness that only shows edges
    highest: float = _ranged(0.05, 0, 1)  # fraction of the places whose mean is an image's value
    usual: float = _ranged(0.5, 0, 1)  # of a place's usual distance, taken off: some always differ


@dataclass(frozen=True)
class FeatureRecipe(_Checked):
    """The Gaussians of a pretrained network's features."""

    blocks: tuple[int, int, int] = _ranged((4, 10, 14), 0, 1000)  # of the network: whose maps
    most_places: int = _ranged(40, 1, 10**4)  # a side: from so many on a quarter of the finest map
    images: int = _ranged(400, 2, 10**5)  # training images at most
    shrinkage: float = _ranged(100.0, 0, 1e6)  # the pooled covariance counts as so many images
    ridge: float = _ranged(0.01, 1e-6, 100)  # of the features' variance, added to each
    highest: float = _ranged(0.01, 0, 1)  # fraction of the places whose mean is an image's value


@dataclass(frozen=True)
class Recipe(_Checked):
    """What makes the method beside Config's own settings; see RECIPES."""

    # networks
    encoder: bool = True  # E, with which G learns to reconstruct, and which finds z at once
    linear_skip: bool = True  # of G and E: a PCA of the training images
    synthetic_anomalies: bool = True  # D is a U-Net that finds their pixels
    d_batch_norm: bool = False
    norm_momentum: float = _ranged(0.95, 0, 1)  # of the moving means in batch norm, a step
    init_stddev: float = _ranged(
        0.0, 0, 1
    )  # of the first weights; 0: Glorot's in G, He's elsewhere
    slope: float = _ranged(0.2, 0, 1)  # of LeakyReLU below zero

    # training
    beta2: float = _ranged(0.99, 0, 0.999999)  # of Adam
    ema_decay: float = _ranged(0.995, 0, 0.999999)  # of all weights, a step; 0: no EMA
    kl_weight: float = _ranged(8.0, 0, 1e6)  # of the latent's prior in E's loss
    log_variance: tuple[float, float] = _ranged((-8.0, 4.0), -100, 100)  # of E's z is within these
    pixel_weight: float = _ranged(5.0, 0, 1e6)  # of D's pixels in its loss
    anomalous_pixel_weight: float = _ranged(4.0, 0, 1e6)  # they are few, so each counts more
    r1_weight: float = _ranged(1.0, 0, 1e6)  # of the gradient penalty
    r1_every: int = _ranged(16, 1, 10**6)  # steps (Karras et al. 2020, section 3.1)

    # latent search
    gradient_steps: int = _ranged(50, 0, 10**6)  # if none are given
    hybrid_steps: int = _ranged(20, 0, 10**6)
    search_rate: float = _ranged(0.1, 0, 1e6)  # learning rate, if none is given
    search_betas: tuple[float, float] = _ranged((0.9, 0.99), 0, 0.999999)  # of Adam
    search_prior: float = _ranged(0.002, 0, 1e6)  # weight of ||z||^2 beside standardised losses
    search_pool: int = _ranged(512, 1, 65536)  # fixed samples among which it looks for its start

    # score
    squared: bool = True  # distances of images and features, not absolute
    standardised: bool = True  # terms and losses by held-out normal images, weights fitted to them
    map_blur: float = _ranged(1 / 28, 1e-3, 1)  # stddev for the residual map, in shorter sides
    pixel_blur: float = _ranged(1.0, 1e-3, 100)  # stddev for the pixel logits, in their own pixels
    held_out_kept: int = _ranged(512, 1, 4096)  # at most so many held-out images are kept,
    held_out_bytes: int = _ranged(2**24, 1, 2**34)  # and no more than fit into so many bytes
    seen_kept: int = _ranged(512, 2, 4096)  # and so many training images, to compare with
    spread_windows: int = _ranged(512, 2, 65536)  # of held-out images: how far apart two are
    merit_power: float = _ranged(3.0, 0, 10)  # of how a term detects them, in its weight
    reduced_power: float = _ranged(3.0, 0, 10)  # of how small the GAN sees images, in its terms'
    planted: int = _ranged(128, 1, 65536)  # synthetic anomalies of each sort, to fit the weights
    weights: TermWeights = TermWeights()
    bank: BankRecipe = BankRecipe()
    features: FeatureRecipe = FeatureRecipe()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights.pixels and not self.synthetic_anomalies:
            raise UserError("weights.pixels must be 0 without synthetic_anomalies")


RECIPES = {
    "default": Recipe(),
    # the default with --features none
    "without features": Recipe(
        weights=TermWeights(1.0, 1.0, 0.5, -0.5, -0.25, 0.5, 2.0, 0.0), merit_power=1.0
    ),
    # the default for images that are small themselves, as digits: chosen on MNIST's training images
    "small images": Recipe(
        weights=TermWeights(1.0, 1.0, 0.5, -0.5, -0.25, 0.25, 2.0, 1.0), merit_power=1.0
    ),
    # Radford et al. 2016 and Schlegl et al. 2017
    "classic": Recipe(
        encoder=False,
        linear_skip=False,
        synthetic_anomalies=False,
        d_batch_norm=True,
        norm_momentum=0.9,
        init_stddev=0.02,
        beta2=0.999,
        ema_decay=0.0,
        r1_weight=0.0,
        squared=False,
        standardised=False,
        weights=TermWeights(1.0, 1.0, *(0.0,) * 6),
    ),
}
