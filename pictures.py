"""Figures: what G draws, and what it drew at first, with their scores."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from utils import save_image, tile, to_float, to_uint8, write_atomic


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure atomically, in the format of the path's ending."""
    packed = io.BytesIO()
    figure.savefig(packed, format=path.suffix[1:], dpi=100)
    write_atomic(path, packed.getvalue())


def show_image(axis, image, title: str) -> None:
    """An image (h, w, c) in [-1, 1] on a Matplotlib axis."""
    axis.imshow(to_uint8(image).squeeze(), cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize="small")
    axis.set_axis_off()


def detection_panel(path: Path, title: str, query, reconstruction, residual_map, top: float):
    """Query, reconstruction and heat map side by side.

    query, reconstruction (h, w, c) in [-1, 1]; residual_map (h, w), shown on the scale from 0
    to top that all panels of a result share.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    show_image(axes[0], query, "query")
    show_image(axes[1], reconstruction, "reconstruction G(z)")
    shown = axes[2].imshow(residual_map, cmap="inferno", vmin=0, vmax=top)
    axes[2].set_title("difference |x - G(z)|", fontsize="small")
    axes[2].set_axis_off()
    figure.colorbar(shown, ax=axes[2], shrink=0.8)
    figure.suptitle(title.replace("$", r"\$"))
    save_figure(figure, path)


def samples(path: Path, model, count: int, seed: int | None) -> None:
    """A grid of samples from G."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((count, model.config.z_dim), np.float32)
    save_image(path, tile(to_uint8(model.generate(z))))


def interpolation(path: Path, model, rows: int = 8, columns: int = 10) -> None:
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


def early_and_now(path: Path, model, shown: int = 8) -> tuple[float, float]:
    """For fixed latents G's first image above its present one, each with its anomaly score.

    Returns the mean score of the first images and of the present ones, over all fixed latents.
    """
    first, present = to_float(model.first_images), model.generate(model.fixed_latents())
    both = [model.anomaly_detector(images).score for images in (first, present)]
    figure = Figure(figsize=(1.4 * shown, 3.6), layout="constrained")
    axes = figure.subplots(2, shown)
    for row, images, scores in zip(axes, (first, present), both, strict=True):
        for axis, image, score in zip(row, images, scores, strict=False):
            show_image(axis, image, f"{score:.3g}")
    figure.suptitle("the same latents before training (above) and now; anomaly scores")
    save_figure(figure, path)
    return float(both[0].mean()), float(both[1].mean())
