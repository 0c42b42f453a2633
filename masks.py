"""Pixel masks of known anomalies, and how well anomaly maps find them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from errors import UserError
from utils import find_images, read_mask

BINS = 4096  # of the histograms that stand for all pixels: memory does not grow with the images
PRO_LIMIT = 0.3  # of the false positive rate (Bergmann et al. 2019, section 4)
SUFFIX = "_mask"  # that a mask's file name may end in


class Masks:
    """The masks of a folder: white where an image is anomalous, named as the image is."""

    def __init__(self, folder, crop: tuple[int, int] | None, shape):
        """crop: as the images were cropped, or None; shape: (h, w, …) that they have now."""
        self.folder, self.crop, self.shape = Path(folder), crop, tuple(shape[:2])
        self.paths = {}
        for path in find_images(self.folder, None):
            place = path.relative_to(self.folder).with_suffix("")
            self.paths[place.with_name(place.name.removesuffix(SUFFIX)).as_posix()] = path

    def require(self, images) -> None:
        """UserError where an image that is labelled anomalous has no mask."""
        for i, name in enumerate(images.names):
            if images.labels is not None and images.labels[i] and self._path(name) is None:
                raise UserError(
                    f"{self.folder} has no mask for {name}: "
                    f"add {Path(name).with_suffix('.png')}, or leave --mask_dir out"
                )

    def _path(self, name):
        return self.paths.get(Path(name).with_suffix("").as_posix())

    def read(self, name: str) -> np.ndarray:
        """bool (h, w); all False where there is none. ImageError for a file that is no image."""
        path = self._path(name)
        if path is None:
            return np.zeros(self.shape, bool)
        mask = Image.fromarray(read_mask(path).astype(np.uint8) * 255)
        if self.crop:
            h, w = self.crop
            left, top = (mask.width - w) // 2, (mask.height - h) // 2
            mask = mask.crop((left, top, left + w, top + h))
        mask = mask.resize(self.shape[::-1], Image.Resampling.BOX)
        return np.asarray(mask) >= 128


class PixelMeasures:
    """Pixel AUROC and PRO of anomaly maps, gathered image by image in fixed memory.

    Map values v are counted in BINS bins of v / (v + unit), which spans all of them.
    """

    def __init__(self, unit: float):
        """unit: a value in the middle of what matters, such as the pixel threshold."""
        self.unit = unit
        self.normal, self.anomalous = np.zeros(BINS), np.zeros(BINS)
        self.regions, self.region_count = np.zeros(BINS), 0

    def add(self, anomaly_map, mask) -> None:
        """anomaly_map: float (h, w); mask: bool (h, w)."""
        level = anomaly_map / (anomaly_map + self.unit)
        bins = np.minimum(level * BINS, BINS - 1).astype(int)
        self.normal += np.bincount(bins[~mask], minlength=BINS)
        self.anomalous += np.bincount(bins[mask], minlength=BINS)
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        for region in range(1, count + 1):
            inside = bins[regions == region]
            self.regions += np.bincount(inside, minlength=BINS) / len(inside)
        self.region_count += count

    def __iadd__(self, other: PixelMeasures) -> PixelMeasures:
        """Takes over what another one of the same unit has gathered."""
        for name in ("normal", "anomalous", "regions", "region_count"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def measures(self) -> dict:
        """JSON-ready; empty where no pixel or every pixel is anomalous."""
        if not (self.normal.any() and self.anomalous.any()):
            return {}
        from sklearn.metrics import auc, roc_auc_score

        values = np.tile(np.arange(BINS), 2)
        weights = np.concatenate([self.normal, self.anomalous])
        auroc = roc_auc_score(np.repeat([0, 1], BINS), values, sample_weight=weights)
        fpr = np.append(0.0, np.cumsum(self.normal[::-1]) / self.normal.sum())
        overlap = np.append(0.0, np.cumsum(self.regions[::-1]) / self.region_count)
        edge = np.interp(PRO_LIMIT, fpr, overlap)
        below = fpr < PRO_LIMIT
        pro = auc(np.append(fpr[below], PRO_LIMIT), np.append(overlap[below], edge)) / PRO_LIMIT
        return {"pixel_auroc": float(auroc), "pro": float(pro), "regions": self.region_count}
