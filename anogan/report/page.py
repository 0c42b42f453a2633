"""report.html: one self-contained page of a test, to hand to a colleague."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from anogan.evaluation.outcome import Outcome
from anogan.report.facts import decided_by, facts, found, sure
from anogan.runs.files import printable, write_atomic

TEMPLATES = Path(__file__).parent / "templates"
MOST_ROWS = 50_000  # images in the table; of more, the most anomalous


def webp(image: np.ndarray) -> bytes:
    """Return uint8 (h, w, 3) as WebP."""
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
    outcome: Outcome,
    gallery: dict[int, Sequence[bytes]],
    plots: dict[str, Path],
    has_masks: bool = False,
) -> None:
    """Write the page.

    gallery: original, anomaly map over it and reconstruction as WebP, by the image's place in the
    outcome. plots: {title: PNG file}. has_masks: whether true masks are outlined. The table shows
    the first MOST_ROWS; all scores and labels are in the page, so that its counts are those of all
    images. File names are data: control characters in them are escaped, as on a terminal, the
    template escapes what is HTML, and the script writes them as text.
    """
    order, threshold, normal = outcome.order, outcome.threshold, outcome.normal
    scores, labels, kinds = outcome.scores[order], outcome.labels, outcome.images.kinds
    known = [tuple(map(printable, outcome.known(i))) for i in outcome.rows.indices[order]]
    as_high = None if normal is None else normal.as_high(scores).tolist()
    rank, terms = np.argsort(order), outcome.heaviest
    cards = [
        {
            **dict(zip(("file", "label", "kind"), known[rank[place]], strict=True)),
            "row": int(rank[place]),
            "score": f"{outcome.scores[place]:.4g}",
            "is_anomaly": threshold is not None and outcome.scores[place] > threshold,
            "rarity": outcome.rarity(place),
            "decided_by": decided_by(outcome.contributions(place)),
            "pictures": [data_uri("webp", picture) for picture in gallery[place]],
        }
        for place in sorted(gallery, key=lambda place: rank[place])
    ]
    columns = {"score": scores, **{name: outcome.rows.columns[name][order] for name in terms}}
    listed = {
        "file": [file for file, _, _ in known[:MOST_ROWS]],
        "label": None if labels is None else [label for _, label, _ in known[:MOST_ROWS]],
        "kind": None if kinds is None else [kind for _, _, kind in known[:MOST_ROWS]],
        "as_high": as_high and as_high[:MOST_ROWS],
        **{name: [float(f"{v:.5g}") for v in some[:MOST_ROWS]] for name, some in columns.items()},
    }
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    page = environment.get_template("report.html").render(
        title=printable(f"Anomaly test of {outcome.metrics['dataset']}"),
        found=found(outcome.metrics),
        sure=[printable(line) for line in sure(outcome.metrics)],
        facts={printable(name): printable(text) for name, text in facts(outcome.metrics).items()},
        plots={t: data_uri("png", Path(p).read_bytes()) for t, p in plots.items()},
        cards=cards,
        threshold=None if threshold is None else f"{threshold:.4g}",
        has_masks=has_masks,
        count=len(scores),
        shown=min(len(scores), MOST_ROWS),
        data={
            "rows": listed,
            "terms": terms,
            "threshold": threshold,
            "scores": _packed(np.asarray(scores, "<f8")),
            "anomalous": None if labels is None else _packed(labels[order].astype(np.uint8)),
        },
    )
    write_atomic(Path(path), page)
