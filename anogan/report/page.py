"""report.html: one self-contained page of a test, to hand to a colleague."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
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


def write(
    path: Path,
    title: str,
    facts: dict[str, str],
    rows: dict[str, Any],
    gallery: Iterable[Card],
    plots: dict[str, Path],
    decision: dict[str, float],
    has_masks: bool = False,
) -> None:
    """Writes the page.

    facts: {name: text} of the run. rows: columns of equal length, the most anomalous first:
    file, label and kind (or None), score, as_high (how many held-out normal images score as high,
    or None), and terms, {name: column} of some. The table shows the first MOST_ROWS; all scores
    and labels are in the page, so that its counts are those of all images. gallery: of the images
    that are shown, the most anomalous first. plots: {title: PNG file}. decision: threshold and
    held_out (images), as far as there are any. has_masks: whether true masks are outlined.
    File names are data: control characters in them are escaped, as on a terminal, the template
    escapes what is HTML, and the script writes them as text.
    """
    scores, labels, kinds, as_high = (rows[k] for k in ("score", "label", "kind", "as_high"))
    files = [printable(name) for name in rows["file"]]
    kinds = None if kinds is None else [printable(kind) for kind in kinds]
    threshold, held_out = decision.get("threshold"), int(decision.get("held_out", 0))
    numbers = {"score": scores, **rows["terms"]}
    listed = {
        "file": files[:MOST_ROWS],
        "label": labels and labels[:MOST_ROWS],
        "kind": kinds and kinds[:MOST_ROWS],
        "as_high": None if as_high is None else [int(v) for v in as_high[:MOST_ROWS]],
        **{name: [float(f"{v:.5g}") for v in some[:MOST_ROWS]] for name, some in numbers.items()},
    }
    cards = [
        {
            "row": row,
            "file": files[row],
            "kind": kinds[row] if kinds else None,
            "label": labels[row] if labels else None,
            "score": f"{scores[row]:.4g}",
            "is_anomaly": threshold is not None and scores[row] > threshold,
            "rarity": None if as_high is None else told(int(as_high[row]), held_out),
            "decided_by": decided_by,
            "pictures": {
                "original": data_uri("webp", original),
                "anomaly map": data_uri("webp", overlay),
                "reconstruction": data_uri("webp", reconstruction),
            },
        }
        for row, original, overlay, reconstruction, decided_by in gallery
    ]
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    page = environment.get_template("report.html").render(
        title=printable(title),
        facts={printable(name): printable(text) for name, text in facts.items()},
        plots={t: data_uri("png", Path(p).read_bytes()) for t, p in plots.items()},
        cards=cards,
        threshold=None if threshold is None else f"{threshold:.4g}",
        has_masks=has_masks,
        count=len(scores),
        shown=len(listed["score"]),
        data={
            "rows": listed,
            "terms": list(rows["terms"]),
            "decision": decision,
            "scores": _packed(np.asarray(scores, "<f8")),
            "anomalous": labels
            and _packed(np.array([label == "anomalous" for label in labels], np.uint8)),
        },
    )
    write_atomic(Path(path), page)
