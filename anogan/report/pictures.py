"""Figures: what G draws, and what it drew at first, with their scores."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from anogan.files import write_atomic
from utils import save_image, tile, to_float, to_uint8

if TYPE_CHECKING:
    from model import DCGAN

COLOURS = "inferno"
MAP_TOP = 2.0  # the brightest colour of an anomaly map, in pixel thresholds
OUTLINE = (0, 255, 255)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure atomically, in the format of the path's ending."""
    packed = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name's letters may not be in the font
        figure.savefig(packed, format=path.suffix[1:], dpi=100)
    write_atomic(path, packed.getvalue())


def show_image(axis: Axes, image: np.ndarray, title: str) -> None:
    """An image (h, w, c) in [-1, 1] on a Matplotlib axis."""
    axis.imshow(to_uint8(image).squeeze(), cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize="small")
    axis.set_axis_off()


def detection_panel(
    path: Path, title: str, images: dict, anomaly_map: np.ndarray, threshold: float
) -> None:
    """Query and reconstructions, the query with the part over the pixel threshold, anomaly map.

    images: {title: (h, w, c) in [-1, 1]}, the query first; anomaly_map (h, w), shown on the scale
    from 0 to twice the pixel threshold that is the same in all panels of a model.
    """
    count = len(images) + 2
    # placed by hand: several times as fast as a layout engine
    figure = Figure(figsize=(2.75 * count, 3.6))
    *places, outline, heat = figure.subplots(1, count)
    figure.subplots_adjust(0.01, 0.02, 0.95, 0.74, wspace=0.05)
    for axis, (name, image) in zip(places, images.items(), strict=True):
        show_image(axis, image, name)
    shown = heat.imshow(anomaly_map, cmap=COLOURS, vmin=0, vmax=MAP_TOP * threshold)
    heat.set_title("anomaly map", fontsize="small")
    heat.set_axis_off()
    figure.colorbar(shown, cax=figure.add_axes((0.955, 0.06, 0.01, 0.64)))
    show_image(outline, next(iter(images.values())), "outline over the pixel threshold")
    if anomaly_map.max() > threshold:
        outline.contour(anomaly_map, [threshold], colors="#D55E00", linewidths=1.5)
    figure.suptitle(title, fontsize="medium", parse_math=False)  # $ is a dollar
    save_figure(figure, path)


def shown_map(query: np.ndarray, anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """The anomaly map laid over the query, uint8 (h, w, 3), on the scale of detection_panel."""
    strength = np.clip(anomaly_map / (MAP_TOP * threshold), 0.0, 1.0)[..., None]
    colours = matplotlib.colormaps[COLOURS](strength[..., 0])[..., :3]
    grey = (np.asarray(query, np.float32).mean(-1, keepdims=True) + 1.0) / 2.0
    opacity = 0.25 + 0.75 * strength
    return np.round(255 * (opacity * colours + (1.0 - opacity) * grey)).astype(np.uint8)


def save_map(stem: Path, query: np.ndarray, anomaly_map: np.ndarray, threshold: float) -> None:
    """STEM.npy (float32), STEM.png (16 bits, 65535 is MAP_TOP thresholds), STEM_overlay.png.

    The overlay outlines the part over the pixel threshold. The stem may hold dots.
    """
    packed = io.BytesIO()
    np.save(packed, np.asarray(anomaly_map, np.float32))
    write_atomic(stem.with_name(stem.name + ".npy"), packed.getvalue())
    levels = np.clip(anomaly_map / (MAP_TOP * threshold), 0.0, 1.0) * 65535
    packed = io.BytesIO()
    Image.fromarray(np.round(levels).astype(np.uint16)).save(packed, "PNG")
    write_atomic(stem.with_name(stem.name + ".png"), packed.getvalue())
    overlay, over = shown_map(query, anomaly_map, threshold), anomaly_map > threshold
    overlay[over & ~ndimage.binary_erosion(over)] = OUTLINE
    save_image(stem.with_name(stem.name + "_overlay.png"), overlay)


def samples(path: Path, model: DCGAN, count: int, seed: int | None) -> None:
    """A grid of samples from G."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((count, model.config.z_dim), np.float32)
    save_image(path, tile(to_uint8(model.generate(z))))


def interpolation(path: Path, model: DCGAN, rows: int = 8, columns: int = 10) -> None:
    """Rows of images along great circles between two latents each (White 2016, section 2.1)."""
    ends = model.fixed_latents(2 * rows)
    ends /= np.linalg.norm(ends, axis=1, keepdims=True)
    a, b = ends[:rows, None], ends[rows:, None]
    angle = np.arccos(np.clip((a * b).sum(-1, keepdims=True), -0.999, 0.999))
    t = np.linspace(0, 1, columns, dtype=np.float32)[None, :, None]
    z = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    z *= np.sqrt(model.config.z_dim)  # the length of a typical latent
    images = model.generate(z.reshape(-1, z.shape[-1]))
    save_image(path, tile(to_uint8(images), columns=columns))


def early_and_now(path: Path, model: DCGAN, shown: int = 8) -> tuple[float, float]:
    """For fixed latents G's first image above its present one, each with its anomaly score.

    Returns the mean score of the first images and of the present ones, over all fixed latents.
    """
    now = to_uint8(model.generate(model.fixed_latents()))  # as exact as the first ones are kept
    assert model.images.first is not None  # training draws them
    first, present = to_float(model.images.first), to_float(now)
    both = [model.anomaly_detector(images).score for images in (first, present)]
    figure = Figure(figsize=(1.4 * shown, 3.6), layout="constrained")
    axes = figure.subplots(2, shown)
    for row, images, scores in zip(axes, (first, present), both, strict=True):
        for axis, image, score in zip(row, images, scores, strict=False):
            show_image(axis, image, f"{score:.3g}")
    figure.suptitle("the same latents before training (above) and now; anomaly scores")
    save_figure(figure, path)
    return float(both[0].mean()), float(both[1].mean())
