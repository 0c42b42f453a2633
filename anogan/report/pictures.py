"""Pictures of one image: beside its reconstruction and under its anomaly map."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage

from anogan.report.text import font_file
from anogan.runs.files import write_atomic
from utils import save_image, to_float

COLOURS = "inferno"
MAP_TOP = 2.0  # the brightest colour of an anomaly map, in pixel thresholds
OUTLINE = (0, 255, 255)
TRUE = "cyan"  # outline of the true mask
PAD, LINE = 12, 20  # pixels around the parts of a panel, and of a line of text
SCALE_WIDTH = 70  # pixels, of a panel's scale with its numbers
SMALLEST_VIEW = 160  # pixels: smaller originals are enlarged, so that lines on them are thin


class View(NamedTuple):
    """What is shown of one image, each in the original's aspect: uint8 (h, w, 3)."""

    original: np.ndarray
    overlay: np.ndarray  # the anomaly map over it, with outlines: see `view`
    reconstruction: np.ndarray


def view(
    original: np.ndarray,
    reconstruction: np.ndarray,
    anomaly_map: np.ndarray,
    threshold: float,
    mask: np.ndarray | None = None,
) -> View:
    """Show an original (h, w, 1 or 3) beside what was made of it at the model's size.

    reconstruction (H, W, c), uint8; anomaly_map (H, W). The part of it over the pixel threshold
    is outlined in white, what the true mask, bool of any size, marks in cyan.
    """
    h, w = original.shape[:2]
    if max(h, w) < SMALLEST_VIEW:  # whole pixels, so that they stay to be seen as such
        factor = -(-SMALLEST_VIEW // max(h, w))
        original = original.repeat(factor, axis=0).repeat(factor, axis=1)
    size = original.shape[1::-1]
    heat = np.asarray(Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR))
    overlay = shown_map(to_float(original), heat, threshold)
    _outline(overlay, heat > threshold, "white")
    if mask is not None and mask.any():
        # the mean over each pixel, so that a thin mark is not lost
        marked = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
        _outline(overlay, np.asarray(marked) > min(0.5, np.asarray(marked).max() / 2), TRUE)
    drawn = Image.fromarray(np.broadcast_to(reconstruction, (*anomaly_map.shape, 3)))
    reconstructed = np.asarray(drawn.resize(size, Image.Resampling.BICUBIC))
    return View(np.broadcast_to(original, overlay.shape), overlay, reconstructed)


def _outline(image: np.ndarray, part: np.ndarray, colour: str) -> None:
    """Draw a line around a part, bool (h, w), of an image (h, w, 3)."""
    width = max(1, round(max(part.shape) / 200))
    ring = ndimage.binary_dilation(part, iterations=width) & ~part
    image[ring] = ImageColor.getrgb(colour)


def detection_panel(
    path: Path, title: str, shown: View, anomaly_map: np.ndarray, threshold: float, legend: str
) -> None:
    """Write original, the map over it, reconstruction, and the map as the model sees it.

    anomaly_map (h, w), on the scale from 0 to twice the pixel threshold that is the same in all
    panels of a model. legend: what the outlines are.
    """
    h, w = shown.original.shape[:2]  # in whose aspect the map is shown
    heat = Image.fromarray(_coloured(anomaly_map, threshold)).resize((w, h), Image.Resampling.BOX)
    columns = {
        "original": shown.original,
        "anomaly map over it": shown.overlay,
        "reconstruction G(z)": shown.reconstruction,
        "anomaly map": np.asarray(heat),
    }
    heading, small = (ImageFont.truetype(str(font_file()), size) for size in (14, 12))
    above = PAD + round(1.3 * heading.size * (title.count("\n") + 1)) + 2 * PAD
    top = above + LINE
    needed = max(map(heading.getlength, title.splitlines()))
    width = max(4 * (w + PAD) + PAD + SCALE_WIDTH, round(needed) + 2 * PAD)
    panel = Image.new("RGB", (width, top + h + LINE + 2 * PAD), "white")
    draw = ImageDraw.Draw(panel)
    draw.multiline_text((width / 2, PAD), title, "black", heading, "ma", 4, "center")
    left = (width - SCALE_WIDTH - 4 * (w + PAD) + PAD) // 2
    for name, image in columns.items():
        draw.text((left + w / 2, above), name, "black", small, "ma")
        panel.paste(Image.fromarray(image), (left, top))
        left += w + PAD
    _draw_scale(panel, draw, (left, top, left + 10, top + h), threshold, small)
    draw.text((PAD, top + h + PAD), legend, "black", small)
    save_image(path, np.asarray(panel))


def _draw_scale(
    panel: Image.Image,
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    threshold: float,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Draw the colours of an anomaly map, from MAP_TOP thresholds down to 0."""
    left, top, right, bottom = box
    values = np.linspace(MAP_TOP * threshold, 0, bottom - top)[:, None]
    colours = _coloured(values.repeat(right - left, axis=1), threshold)
    panel.paste(Image.fromarray(colours), (left, top))
    for part, anchor in ((0.0, "ls"), (0.5, "lm"), (1.0, "lt")):
        place = right + 4, bottom - round(part * (bottom - top))
        draw.text(place, f"{part * MAP_TOP * threshold:.3g}", "black", font, anchor)


def _coloured(anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """Return (h, w) as uint8 (h, w, 3)."""
    strength = np.clip(anomaly_map / (MAP_TOP * threshold), 0.0, 1.0)
    return matplotlib.colormaps[COLOURS](strength, bytes=True)[..., :3]


def shown_map(query: np.ndarray, anomaly_map: np.ndarray, threshold: float) -> np.ndarray:
    """Lay the map over the query: uint8 (h, w, 3), on the scale of detection_panel."""
    strength = np.clip(anomaly_map / (MAP_TOP * threshold), 0.0, 1.0)[..., None]
    colours = matplotlib.colormaps[COLOURS](strength[..., 0])[..., :3]
    grey = (np.asarray(query, np.float32).mean(-1, keepdims=True) + 1.0) / 2.0
    opacity = 0.25 + 0.75 * strength
    return np.round(255 * (opacity * colours + (1.0 - opacity) * grey)).astype(np.uint8)


def save_map(stem: Path, query: np.ndarray, anomaly_map: np.ndarray, threshold: float) -> None:
    """Write STEM.npy (float32), STEM.png (16 bits, up to MAP_TOP thresholds), STEM_overlay.png.

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
