"""Do the fast ways to score agree with a plain float32 reference? On MNIST, 8 against the rest.

python benchmarks/agreement.py [--data_dir data] [--images 1000]

Trains with the default settings, then scores official test images with the tool in float32 and in
mixed_bfloat16, and with a reference: the Keras networks as trained, no batch-norm folding, an eager
gradient tape a step, Adam of Keras on z. Prints rank correlation and AUROC; and when images
converge: after which fraction of the search's steps an image's loss is within 1 % of its last, on
average, and for how many that is so halfway. Writes results/agreement.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from anogan.runs.start_up import import_tensorflow  # noqa: E402

import_tensorflow()  # with what the tool sets up before

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from anogan.config import preset  # noqa: E402
from anogan.data.mnist import mnist  # noqa: E402
from anogan.method.scoring import SEARCHES, TERMS  # noqa: E402
from model import DCGAN  # noqa: E402
from utils import to_float  # noqa: E402


def reference(model: DCGAN, images, search: str) -> np.ndarray:
    """Scores (n,) by the straightforward way."""
    parts = [to_float(images[i : i + 100]) for i in range(0, len(images), 100)]
    return np.concatenate([_reference(model, tf.constant(x), search) for x in parts])


def _reference(model, x, search):
    nets, size = model.trainer.ema, model.config.z_dim
    generator, discriminator = nets.generator, nets.discriminator
    search, calibration = model.search(search), model.keep_calibration(search)
    weights = calibration.search_weights
    recipe, steps = model.config.recipe, search.steps
    if search.kind == "gradient":
        pool = model.fixed_latents(recipe.search_pool)
        drawn = model.generate(pool).reshape(len(pool), -1)
        flat = x.numpy().reshape(len(x), -1)
        nearest = [int(((drawn - row) ** 2).sum(1).argmin()) for row in flat]
        z = tf.Variable(pool[nearest])
    else:
        z = tf.Variable(nets.encoder(x, training=False)[:, :size])
    rate = keras.optimizers.schedules.CosineDecay(search.learning_rate, max(steps, 1))
    adam = keras.optimizers.Adam(rate, *recipe.search_betas, epsilon=1e-8)
    target = discriminator(x, training=False)[1]
    best, best_loss = z.numpy(), np.full(len(x), np.inf)
    for i in range(steps + 1):
        with tf.GradientTape() as tape:
            g = generator(z, training=False)
            residual = tf.reduce_sum((x - g) ** 2, [1, 2, 3])
            discrimination = tf.reduce_sum((target - discriminator(g, training=False)[1]) ** 2, 1)
            prior = tf.reduce_sum(z**2, 1)
            loss = weights[0] * residual + weights[1] * discrimination + weights[2] * prior
        better = loss.numpy() < best_loss
        best = np.where(better[:, None], z.numpy(), best)
        best_loss = np.minimum(best_loss, loss.numpy())
        if i < steps:
            adam.apply_gradients([(tape.gradient(loss, z), z)])
    found = model.inference.measure(x, tf.constant(best))
    detector = model.detector
    banks = {"memory": detector.memory, "features": detector.feature_bank}  # digits: seen as read
    found |= {name: bank.compare(x)[0] for name, bank in banks.items() if bank}
    found = {name: np.array(found.get(name, np.zeros(len(x)))) for name in TERMS}
    return calibration.contributions(found).sum(axis=1)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data_dir", type=Path, default=Path("data"))
    p.add_argument("--images", type=int, default=1000)
    args = p.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        config = preset("default", dataset="mnist", normal_class=8, height=28, width=28, channels=1)
        DCGAN(config).train(mnist(args.data_dir, "train", 8, None, 28, 28), Path(folder))
        test = mnist(args.data_dir, "test", 8, None, 28, 28)
        images, _ = test.read(np.linspace(0, len(test) - 1, args.images).astype(int))
        labels = test.labels[np.linspace(0, len(test) - 1, args.images).astype(int)]
        models = {name: DCGAN.load(folder, name) for name in ("float32", "mixed_bfloat16")}
        head = "search | precision | rank correlation | AUROC | reference's | steps | halfway"
        print(f"| {head} |\n|-|-|-|-|-|-|-|")
        for search in SEARCHES:
            plain = reference(models["float32"], images, search)
            for name, model in models.items():
                detection = model.anomaly_detector(images, search)
                scores = detection.score
                found = {
                    "rank_correlation": float(spearmanr(scores, plain)[0]),
                    "auroc": float(roc_auc_score(labels, scores)),
                    "reference_auroc": float(roc_auc_score(labels, plain)),
                }
                if detection.losses is not None:
                    steps = model.search(search).steps
                    best = np.minimum.accumulate(detection.losses, axis=1)
                    near = best <= 1.01 * best[:, -1:]  # of what the search ends with
                    found["steps_to_converge"] = float(near.argmax(1).mean() / steps)
                    found["converged_halfway"] = float(near[:, steps // 2].mean())
                results[f"{search} {name}"] = found
                numbers = " | ".join(f"{v:.5f}" for v in found.values())
                print(f"| {search} | {name} | {numbers} |", flush=True)
    (HERE / "results" / "agreement.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
