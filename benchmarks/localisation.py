"""Where: pixel AUROC of the anomaly map on real images with synthetic anomalies of known place.

python benchmarks/localisation.py [mnist elpv celebA] [--data_dir data]

Trains a model of normal images with the tool's defaults (kept in --models; a second run scores
only), plants one patch in each unseen normal image (pasted, blurred, erased or scratched), and
compares the anomaly map with the plain residual |x - G(z)| and with PCA's residual. Writes
benchmarks/results/localisation.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from anogan.data import mnist as digits  # noqa: E402
from anogan.data.folders import find_images, image_folder  # noqa: E402
from anogan.evaluation.metrics import PixelMeasures  # noqa: E402
from anogan.image_form import ImageForm  # noqa: E402
from utils import to_float  # noqa: E402

KINDS = ("pasted", "blurred", "erased", "scratched")
COMPONENTS = 32


def mnist(data_dir):
    """Digit 8: training images, unseen ones."""
    train = digits.mnist(data_dir, "train", normal_class=8)
    test = digits.mnist(data_dir, "test", normal_class=8)
    return train, test.subset(test.labels == 0)


def elpv(data_dir):
    """Mono cells."""
    folder = Path(data_dir) / "elpv" / "mono"
    return [
        image_folder(find_images(folder / f), ImageForm(64, 64, 1))
        for f in ("train", "test/normal")
    ]


def celeba(data_dir):
    """Aligned faces; the last tenth is unseen."""
    faces = image_folder(
        find_images(Path(data_dir) / "celebA"), ImageForm(64, 64, 3, crop=(108, 108))
    )
    cut = len(faces) * 9 // 10
    places = np.arange(len(faces))
    return faces.subset(places < cut), faces.subset(places >= cut)


SETS = {"mnist": mnist, "elpv": elpv, "celebA": celeba}


def plant(images, kind, seed=0):
    """(planted, masks): uint8 (n, h, w, c) and bool (n, h, w), where pixels have changed.

    A patch of an eighth to a third of the sides, placed where the image has contents: from
    another image, blurred, set to the image's most frequent value, or a scratch across it.
    """
    rng = np.random.default_rng(seed)
    n, h, w, _ = images.shape
    planted = images.copy()
    for i, image in enumerate(images):
        ph, pw = (int(rng.integers(side // 8, side // 3 + 1)) for side in (h, w))
        contents = np.abs(image.astype(float) - np.median(image)).sum(-1)
        places = np.argwhere(contents >= np.quantile(contents, 0.8))
        row, column = places[rng.integers(len(places))]
        top, left = np.clip([row - ph // 2, column - pw // 2], 0, [h - ph, w - pw])
        part = np.s_[top : top + ph, left : left + pw]
        if kind == "pasted":
            y, x = rng.integers(0, [h - ph + 1, w - pw + 1])
            other = images[(i + int(rng.integers(1, n))) % n]
            planted[i][part] = other[y : y + ph, x : x + pw]
        elif kind == "blurred":
            smooth = gaussian_filter(image.astype(float), (h / 16, w / 16, 0))
            planted[i][part] = smooth[part].astype(np.uint8)
        elif kind == "erased":
            values, counts = np.unique(image.reshape(-1, image.shape[-1]), axis=0, return_counts=1)
            planted[i][part] = values[counts.argmax()]
        else:
            steps = np.linspace(0, 1, 4 * max(ph, pw))
            rows = (top + steps * (ph - 1)).astype(int)
            columns = (left + (steps if rng.random() < 0.5 else 1 - steps) * (pw - 1)).astype(int)
            shade = 255 if image[rows, columns].mean() < 128 else 0
            planted[i][rows, columns] = shade
            planted[i][np.minimum(rows + 1, h - 1), columns] = shade
    change = np.abs(planted.astype(int) - images.astype(int)).max(-1)
    return planted, change > 8


def model_of(name, train, folder):
    from anogan.config import preset
    from anogan.runs.checkpoint import has_checkpoint
    from model import DCGAN

    if (folder / "config.json").exists() and has_checkpoint(folder):
        model = DCGAN.load(folder)
        if model.steps_done >= model.config.total_steps(len(train)):
            return model
    else:
        h, w, c = train.shape
        model = DCGAN(preset("default", dataset=name, height=h, width=w, channels=c))
    return model.train(train, folder)


def maps_of(model, pca, images) -> dict[str, np.ndarray]:
    """Each way's maps (n, h, w)."""
    found = model.anomaly_detector(images, batch_size=128)
    flat = to_float(images).reshape(len(images), -1)
    residual = np.abs(flat - pca.inverse_transform(pca.transform(flat)))
    return {
        "anomaly map": found.anomaly_map,
        "plain residual": found.residual_map,
        "PCA's residual": residual.reshape(images.shape).mean(-1),
    }


def measure(name, args) -> dict:
    train, test = SETS[name](args.data_dir)
    model = model_of(name, train, args.models / name)
    everything = [s.read(np.arange(min(len(s), 4000)))[0] for s in (train, test)]
    pca = PCA(COMPONENTS, random_state=0).fit(
        to_float(everything[0]).reshape(-1, train.shape[0] * train.shape[1] * train.shape[2])
    )
    images = model.images.held_out if args.held_out else everything[1][: args.most]
    found = {}
    for kind in KINDS:
        planted, masks = plant(images, kind)
        for way, maps in maps_of(model, pca, planted).items():
            gathered = PixelMeasures(float(np.quantile(maps, 0.99)))
            for anomaly_map, mask in zip(maps, masks, strict=True):
                gathered.add(anomaly_map, mask)
            found.setdefault(way, {})[kind] = gathered.measures()
    return found


def table(results) -> str:
    lines = ["| |" + "|".join(KINDS) + "|mean|", "|-" * (len(KINDS) + 2) + "|"]
    for name, ways in results.items():
        for way, kinds in ways.items():
            values = [kinds[kind]["pixel_auroc"] for kind in KINDS]
            cells = "|".join(f"{v:.3f}" for v in values)
            lines.append(f"|{name}: {way}|{cells}|{np.mean(values):.3f}|")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(SETS))
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--models", type=Path, default=Path("checkpoints") / "localisation")
    parser.add_argument("--most", type=int, default=400, help="unseen images of each set (400)")
    parser.add_argument(
        "--held_out", action="store_true", help="held-out training images, to choose settings on"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results" / "localisation.json")
    arguments = parser.parse_args()
    path = arguments.results
    gathered = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.names:
        gathered[name] = measure(name, arguments)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(gathered, indent=1) + "\n")
    print(table(gathered))
