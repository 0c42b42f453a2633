"""Pixel masks of known anomalies, and how well anomaly maps find them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from data import ImageSet
from errors import UserError
from utils import find_images, read_mask

BINS = 4096  # of the histograms that stand for all pixels: memory does not grow with the images
PRO_LIMIT = 0.3  # of the false positive rate (Bergmann et al. 2021)
SUFFIX = "_mask"  # that a mask's file name may end in
STRIP = 2**17  # pixels of a resized map at a time: they stay in the processor's cache


class Masks:
    """The masks of a folder: white where an image is anomalous, named as the image is."""

    def __init__(self, folder, images: ImageSet, crop: tuple[int, int] | None = None):
        """crop: (height, width) of the centre of the files that the images show; none: all."""
        self.folder, self.images, self.crop = Path(folder), images, crop
        self.paths = {}
        for path in find_images(self.folder, None):
            place = path.relative_to(self.folder).with_suffix("")
            self.paths[place.with_name(place.name.removesuffix(SUFFIX)).as_posix()] = path

    def require(self) -> None:
        """UserError where an image that is labelled anomalous has no mask."""
        images = self.images
        for i, name in enumerate(images.names):
            if images.labels is not None and images.labels[i] and self._path(name) is None:
                raise UserError(
                    f"{self.folder} has no mask for {name}: "
                    f"add {Path(name).with_suffix('.png')}, or leave --mask_dir out"
                )

    def _path(self, name):
        return self.paths.get(Path(name).with_suffix("").as_posix())

    def read(self, index) -> np.ndarray:
        """bool (h, w): where image `index`, or the centre that was cropped, is anomalous.

        At the mask's resolution; all False, at the image's, where there is no mask. Raises
        ImageError.
        """
        index = int(index)
        height, width = self.images.size(index)
        path = self._path(self.images.names[index])
        mask = np.zeros((height, width), bool) if path is None else read_mask(path)
        if self.crop is None:
            return mask
        h, w = self.crop
        top, left = (height - h) // 2, (width - w) // 2
        down, across = mask.shape[0] / height, mask.shape[1] / width
        return mask[_scaled(top, top + h, down), _scaled(left, left + w, across)]


def _scaled(start: int, stop: int, scale: float) -> slice:
    start, stop = round(start * scale), round(stop * scale)
    return slice(start, max(stop, start + 1))


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
        """anomaly_map: float (h, w), 0 and up; mask: bool (H, W), True where it is anomalous.

        The map is resized to H x W, bilinear; a region is what hangs together in the mask, corners
        included.
        """
        inside = []
        for rows, bins in self._bins(anomaly_map, *mask.shape):
            inside.append(bins[mask[rows]])
            self.normal += np.bincount(bins.ravel(), minlength=BINS)
        inside = np.concatenate(inside)
        if not len(inside):
            return
        anomalous = np.bincount(inside, minlength=BINS)
        self.normal -= anomalous
        self.anomalous += anomalous
        regions, count = ndimage.label(mask, np.ones((3, 3)))
        region = regions[mask] - 1
        share = 1 / np.bincount(region)
        self.regions += np.bincount(inside, share[region], minlength=BINS)
        self.region_count += count

    def _bins(self, anomaly_map, height, width):
        """Yields strips of the map at height x width: which rows they are, and all pixels' bins."""
        small = Image.fromarray(np.asarray(anomaly_map, np.float32))
        step = max(1, STRIP // width)
        for top in range(0, height, step):
            bottom = min(top + step, height)
            box = (0, top * small.height / height, small.width, bottom * small.height / height)
            size = width, bottom - top
            strip = np.asarray(small.resize(size, Image.Resampling.BILINEAR, box))
            bins = (strip * (BINS / (strip + self.unit))).astype(np.intp)
            yield slice(top, bottom), np.minimum(bins, BINS - 1)

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
