"""Labels by sub-folder: which images its name calls normal, and which anomalous."""

from __future__ import annotations

import numpy as np

from anogan.data.listing import Listing
from anogan.errors import UserError

NORMAL_FOLDERS = {"normal", "good"}
# Sub-folders of these names hold what must not be trained on.
OTHER_FOLDERS = {
    *("test", "val", "validation", "ground_truth", "mask", "masks"),
    *("defect", "defects", "defective", "anomaly", "anomalies", "anomalous", "abnormal", "bad"),
}


def is_normal(name: str) -> bool:
    """Whether a folder of that name holds normal images."""
    return name.lower() in NORMAL_FOLDERS


def is_other(name: str) -> bool:
    """Whether a folder of that name holds what must not be trained on."""
    return name.lower() in OTHER_FOLDERS


def labels_of(listing: Listing) -> tuple[np.ndarray | None, list[str] | None]:
    """(labels (n,), kinds) of images that lie in sub-folders of which one is called normal.

    0 for those in it, 1 for those in all others; the kind is the sub-folder's name. (None, None)
    where none is. UserError for an image in no sub-folder: it would count as one or the other and
    falsify the AUROC.
    """
    kinds = [name.split("/")[0] if "/" in name else "" for name in listing.names]
    normal = [is_normal(kind) for kind in kinds]
    if not any(normal):
        return None, None
    if "" in kinds:
        loose = listing.names[kinds.index("")]
        raise UserError(
            f"{listing.folder / loose} lies beside the labelled sub-folders: "
            "move it into normal, or into any other sub-folder if it is anomalous"
        )
    return np.where(normal, 0, 1), kinds
