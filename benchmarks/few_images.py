"""How AUROC falls with few training images.

python benchmarks/few_images.py [--data_dir data] [--sets mnist elpv] [--counts 20 50 100 200]

Trains with the tool's defaults on so many evenly spaced images of the digit 8 or of ELPV's
monocrystalline cells, scores the test images, and appends a line of JSON a run to
results/few_images.jsonl. What is there already is not run again: start the same command anew after
an interruption.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import numpy as np  # noqa: E402
from detection import SETS, auroc  # noqa: E402
from lines import run_once  # noqa: E402

RESULTS = HERE / "results" / "few_images.jsonl"
CLASSES = {"mnist": "8", "elpv": "mono"}


def one_run(data_dir: str, name: str, count: int, seed: int) -> dict:
    """AUROC of a model of so many training images on the test images."""
    from anogan.cli.train import fit_batch
    from model import DCGAN

    data = SETS[name][0](data_dir, CLASSES[name], SETS[name][2], seed)
    places = np.linspace(0, len(data.train) - 1, count).astype(int)
    train = data.train.subset(places)
    config = fit_batch(data.config, train)
    model = DCGAN(config).train(train, progress=False)
    calibration = model.calibrate()
    scores = model.anomaly_detector(data.images, batch_size=256, calibration=calibration).score
    threshold = calibration.normal_scores and calibration.normal_scores.threshold(0.05)
    normal = scores[data.labels == 0]
    return {
        "auroc": auroc(data.labels, scores),
        "expected": calibration.expected,
        "held_out": len(calibration.scores),
        "observed_fpr": None if threshold is None else float(np.mean(normal > threshold)),
    }


def main(args: argparse.Namespace) -> None:
    for seed in args.seeds:
        for name in args.sets:
            for count in args.counts:
                key = {"set": name, "class": CLASSES[name], "images": count, "seed": seed}
                run_once(RESULTS, key, partial(one_run, args.data_dir, name, count, seed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--sets", nargs="*", choices=tuple(CLASSES), default=list(CLASSES))
    parser.add_argument("--counts", type=int, nargs="*", default=[20, 50, 100, 200])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    main(parser.parse_args())
