"""The figure to beat: AUROC of PCA's reconstruction error on one-class MNIST.

python benchmarks/pca.py [--data_dir data] [--normal_class 8]
"""

import argparse
import sys
from pathlib import Path

from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).parent.parent))

import data  # noqa: E402


def pca_auroc(data_dir: str, digit: int, components: int = 32) -> float:
    """Fitted to the digit's training images; that digit against the rest of all test images."""
    train, test = (data.mnist(data_dir, split, normal_class=digit) for split in ("train", "test"))
    x, queries = (s.read(range(len(s)))[0].reshape(len(s), -1) / 255.0 for s in (train, test))
    pca = PCA(components, random_state=0).fit(x)
    error = ((queries - pca.inverse_transform(pca.transform(queries))) ** 2).sum(axis=1)
    return roc_auc_score(test.labels, error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--normal_class", type=int, nargs="*", default=list(range(10)))
    arguments = parser.parse_args()
    for digit in arguments.normal_class:
        print(f"digit {digit}: AUROC {pca_auroc(arguments.data_dir, digit):.4f}", flush=True)
