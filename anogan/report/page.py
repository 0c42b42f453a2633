"""report.html: one self-contained page of a test, to hand to a colleague."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from anogan.method.threshold import told
from anogan.runs.files import printable, write_atomic

TEMPLATES = Path(__file__).parent / "templates"
MOST_ROWS = 50_000  # images in the table; of more, the most anomalous


class Card(NamedTuple):
    """One image of the gallery; pictures as WebP, see `webp`."""

    row: int  # its place among the rows
    original: bytes
    overlay: bytes  # the anomaly map over it
    reconstruction: bytes
    decided_by: str


def webp(image: np.ndarray) -> bytes:
    """uint8 (h, w, 3) as WebP."""
    packed = io.BytesIO()
    # method 4, which is usual, takes 2.5 times as long for a tenth fewer bytes
    Image.fromarray(image).save(packed, "WEBP", quality=80, method=2)
    return packed.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _readable(texts: Sequence[str] | None) -> list[str] | None:
    return None if texts is None else [printable(text) for text in texts]


def write(
    path: Path,
    title: str,
    facts: dict,
    rows: dict,
    gallery: Iterable[Card],
    plots: dict[str, Path],
    decision: dict[str, float],
    has_masks: bool = False,
) -> None:
    """Writes the page.

    facts: {name: text} of the run. rows: columns of equal length, the most anomalous first:
    file, label, kind (or None), score, residual, discrimination, as_high: how many held-out
    normal images score as high. The table shows the first MOST_ROWS; all scores and labels are
    in the page, so that its counts are those of all images. gallery: of the images that
    are shown, the most anomalous first. plots: {title: PNG file}. decision: threshold and held_out
    (images), as far as there are any. has_masks: whether true masks are outlined.
    File names are data: control characters in them are escaped, as on a terminal, the template
    escapes what is HTML, and the script writes them as text.
    """
    count = len(rows["score"])
    rows = {k: v if k not in ("file", "kind") else _readable(v) for k, v in rows.items()}
    shown: dict[str, Any] = {k: None if v is None else list(v)[:MOST_ROWS] for k, v in rows.items()}
    for name in ("score", "residual", "discrimination"):
        shown[name] = [float(f"{v:.5g}") for v in shown[name]]
    as_high, kinds, labels, scores = rows["as_high"], rows["kind"], rows["label"], rows["score"]
    threshold, held_out = decision.get("threshold"), decision.get("held_out", 0)
    if as_high is not None:
        shown["as_high"] = [int(v) for v in shown["as_high"]]
    anomalous = None if labels is None else np.array([v == "anomalous" for v in labels], np.uint8)
    cards = [
        {
            "row": card.row,
            "file": rows["file"][card.row],
            "kind": kinds[card.row] if kinds else None,
            "label": labels[card.row] if labels else None,
            "score": f"{scores[card.row]:.4g}",
            "is_anomaly": threshold is not None and scores[card.row] > threshold,
            "rarity": None if as_high is None else told(int(as_high[card.row]), int(held_out)),
            "decided_by": card.decided_by,
            "pictures": {
                "original": data_uri("webp", card.original),
                "anomaly map": data_uri("webp", card.overlay),
                "reconstruction": data_uri("webp", card.reconstruction),
            },
        }
        for card in gallery
    ]
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    page = environment.get_template("report.html").render(
        title=printable(title),
        facts={printable(name): printable(text) for name, text in facts.items()},
        plots={t: data_uri("png", Path(p).read_bytes()) for t, p in plots.items()},
        cards=cards,
        threshold=None if threshold is None else f"{threshold:.4g}",
        has_masks=has_masks,
        count=count,
        shown=len(shown["score"]),
        data={
            "rows": shown,
            "decision": decision,
            "scores": _packed(np.asarray(rows["score"], "<f8")),
            "anomalous": None if anomalous is None else _packed(anomalous),
        },
    )
    write_atomic(Path(path), page)
