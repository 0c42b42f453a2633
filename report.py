"""report.html: one self-contained page of a test, to hand to a colleague."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from utils import write_atomic

TEMPLATES = Path(__file__).parent / "templates"
THUMBNAIL = 96  # pixels, the longer side of a gallery picture at most
MOST_ROWS = 50_000  # images in the table; of more, the most anomalous


def thumbnail(image: np.ndarray) -> bytes:
    """uint8 (h, w, c) as WebP, not larger than THUMBNAIL."""
    picture = Image.fromarray(image.squeeze())
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    packed = io.BytesIO()
    picture.save(packed, "WEBP", quality=85)
    return packed.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def write(path: Path, title: str, facts: dict, rows: dict, gallery, plots, decision) -> None:
    """Writes the page.

    facts: {name: text} of the run. rows: columns of equal length, the most anomalous first:
    file, label, kind (or None), score, residual, discrimination, share. gallery: (row, query,
    reconstruction, map) of the images that are shown, each picture as thumbnail() gives it.
    plots: {title: PNG file}. decision: threshold, unit, target_fpr and rule, or None.
    File names are data: the template escapes them, and the script writes them as text.
    """
    count = len(rows["score"])
    shown = {k: None if v is None else list(v)[:MOST_ROWS] for k, v in rows.items()}
    for name in ("score", "residual", "discrimination", "share"):
        if shown[name] is not None:
            shown[name] = [float(f"{v:.5g}") for v in shown[name]]
    pictures = [
        {"row": int(row), "pictures": [data_uri("webp", p) for p in three]}
        for row, *three in gallery
        if row < MOST_ROWS
    ]
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    page = environment.get_template("report.html").render(
        title=title,
        facts=facts,
        plots={t: data_uri("png", Path(p).read_bytes()) for t, p in plots.items()},
        count=count,
        shown=len(shown["score"]),
        data={"rows": shown, "gallery": pictures, "decision": decision},
    )
    write_atomic(Path(path), page)
