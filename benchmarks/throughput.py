"""How fast: training, latent search, encoder and input pipeline, as ratios within one run.

python benchmarks/throughput.py [--torch] [--faces data/celebA] [--rounds 5]

Every measurement is taken in turn, --rounds times over, so that drift of the machine cancels;
medians are printed, beside the highest matrix product rates seen in the same run. The tool computes
in --precision, by default what main.py's auto chooses here; "plain TensorFlow" is the same networks
in the same precision with TensorFlow's and Keras' own layers. --torch adds the same networks in
PyTorch (pip install -r benchmarks/requirements-torch.txt), with the same weights: both must compute
the same function before anything is timed; in bfloat16 only where --precision is that. Writes
results/throughput.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from unittest import mock

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from anogan.runs.start_up import import_tensorflow  # noqa: E402

import_tensorflow()  # with what the tool sets up before

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import ops  # noqa: E402
from anogan.config import preset  # noqa: E402
from anogan.data.folders import find_images, image_folder  # noqa: E402
from anogan.image_form import ImageForm  # noqa: E402
from anogan.method import networks  # noqa: E402
from anogan.method.latent_search import Weights, search_latents  # noqa: E402
from anogan.runs.distributed import resolve_precision  # noqa: E402
from model import DCGAN  # noqa: E402

SIZES = {"28x28x1": (28, 28, 1), "64x64x3": (64, 64, 3)}
WIDTHS = 64, 16  # channels next to the image: of the classic preset, of the default one
BATCH = 64
SEARCH_BATCH = {"28x28x1": 256, "64x64x3": 64}
TRAIN_STEPS, SEARCH_STEPS = 4, 20
WEIGHTS = Weights(0.9, 0.1, 0.0, False)  # the paper's
BETAS = 0.9, 0.99  # of the search's Adam
PYTORCH = {"PyTorch float32": False, "PyTorch bfloat16 autocast": True}
PLAIN = "plain TensorFlow"


def operations(model) -> dict[str, float]:
    """Multiplications and additions of one image's forward pass through G and D's features."""
    found = {}
    nets = model.trainer.ema.trained()
    for name in ("generator", "discriminator"):
        total = 0
        for layer in nets[name].layers:
            if isinstance(layer, networks.ConvTranspose):
                h, w = layer.input.shape[1:3]
                total += 2 * h * w * int(np.prod(layer.kernel.shape))
            elif hasattr(layer, "kernel") and len(layer.kernel.shape) == 4:
                h, w = layer.output.shape[1:3]
                total += 2 * h * w * int(np.prod(layer.kernel.shape))
            elif hasattr(layer, "kernel") and name == "generator":
                total += 2 * int(np.prod(layer.kernel.shape))
        found[name] = total
    return found


class Ours:
    """The tool itself, networks of --preset classic."""

    def __init__(self, size, precision: str, width: int = 64):
        h, w, c = SIZES[size]
        config = preset("classic", height=h, width=w, channels=c, gf_dim=width, df_dim=width)
        self.model = model = DCGAN(config, precision)
        rng = np.random.default_rng(0)
        self.x = tf.constant(rng.uniform(-1, 1, (BATCH, h, w, c)), tf.float32)
        n = SEARCH_BATCH[size]
        self.queries = tf.constant(rng.uniform(-1, 1, (n, h, w, c)), tf.float32)
        self.z = tf.constant(rng.normal(size=(n, config.z_dim)), tf.float32)
        model.trainer.update(self.x)  # builds; the weights are those of one step, BN's means moved
        self._search = tf.function(self._search_graph)

    def _nets(self):
        nets = self.model.trainer.ema
        return (
            networks.frozen_generator(nets.generator),
            networks.frozen_features(nets.discriminator),
        )

    def _search_graph(self, x, z):
        return search_latents(*self._nets(), x, z, SEARCH_STEPS, 0.1, WEIGHTS, BETAS)[0]

    def train(self):
        for _ in range(TRAIN_STEPS):
            loss = self.model.trainer.update(self.x)
        float(loss["d_loss"])
        return TRAIN_STEPS * BATCH

    def search(self):
        self._search(self.queries, self.z).numpy()
        return len(self.z) * SEARCH_STEPS


class Plain(Ours):
    """The same networks as one writes them down: TensorFlow's and Keras' own layers."""

    def __init__(self, size, precision: str, width: int = 64):
        with self.layers():
            super().__init__(size, precision, width)
            self.train(), self.search()  # traced with these layers

    def _nets(self):
        return self.model.inference.decode, self.model.inference.features_of

    @staticmethod
    def layers():
        def transpose(x, kernel, size):
            shape = (tf.shape(x)[0], *size, kernel.shape[2])
            return tf.nn.conv2d_transpose(x, kernel, shape, 2)

        stack = contextlib.ExitStack()
        plain = lambda x, kernel: tf.nn.conv2d(x, kernel, 2, "SAME")  # noqa: E731
        stack.enter_context(mock.patch.multiple(ops, convolution=plain, conv_transpose=transpose))
        normal = keras.layers.BatchNormalization
        stack.enter_context(mock.patch.object(networks, "BatchNorm", normal))
        return stack


def twin_of(ours: Ours, size, width, autocast: bool):
    """The same networks in PyTorch, with ours' weights, once both are seen to be one function."""
    from torch_remote import RemoteTwin

    exact = Ours(size, "float32", width)
    theirs = ours.model.trainer.ema.trained()
    for name, net in exact.model.trainer.ema.trained().items():
        net.set_weights(theirs[name].get_weights())
    twin = RemoteTwin(exact.model, ours.x, ours.queries, ours.z, WEIGHTS, autocast)
    twin.check()
    return twin


def matrix_rate(dtype) -> float:
    """GFLOP/s of a 2048 x 2048 matrix product in TensorFlow."""
    a = tf.cast(tf.random.normal((2048, 2048)), dtype)
    product = tf.function(lambda: tf.reduce_sum(tf.cast(tf.matmul(a, a), tf.float32)))
    product()
    started = time.perf_counter()
    for _ in range(4):
        product().numpy()
    return 4 * 2 * 2048**3 / (time.perf_counter() - started) / 1e9


def pipeline_rate(folder: Path) -> float:
    """images/s that ImageSet.stream delivers: JPEG files, crop 108, resize 64."""
    images = image_folder(find_images(folder), ImageForm(64, 64, 3, (108, 108)), memory_limit=0)
    batches = iter(images.stream(BATCH))
    next(batches)
    started = time.perf_counter()
    for _ in range(20):
        next(batches)
    return 20 * BATCH / (time.perf_counter() - started)


def timed(work) -> float:
    """Units a second of a function that returns how many it did."""
    started = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - started)


def main(args) -> dict:
    precision = resolve_precision(args.precision)
    measurements, counts = {}, {}
    for width in WIDTHS:
        for size in SIZES:
            nets = f"{size}, {width} channels"
            ours = Ours(size, precision, width)
            counts[nets] = operations(ours.model)
            racers = {"this tool": ours, PLAIN: Plain(size, precision, width)}
            for name, racer in racers.items():
                measurements[f"search {nets}: {name}"] = racer.search
                measurements[f"training {nets}: {name}"] = racer.train
            for name, autocast in PYTORCH.items() if args.torch else ():
                if autocast and "bfloat16" not in precision:  # PyTorch is slower in it, too
                    continue
                twin = twin_of(ours, size, width, autocast)
                measurements[f"search {nets}: {name}"] = partial(twin.search, SEARCH_STEPS)
                measurements[f"training {nets}: {name}"] = partial(twin.train, TRAIN_STEPS)
    for size, (h, w, c) in SIZES.items():
        images = np.random.default_rng(0).integers(0, 256, (256, h, w, c), np.uint8)
        model = DCGAN(preset("default", height=h, width=w, channels=c, steps=1), precision)
        model.train(images, progress=False)  # it has seen images, else it would not score
        x = tf.constant(np.random.default_rng(0).uniform(-1, 1, (BATCH, h, w, c)), tf.float32)
        measurements[f"encoder scoring {size}: this tool, default"] = (
            lambda model=model, images=images: len(
                model.anomaly_detector(images, batch_size=256).score
            )
        )
        measurements[f"training {size}: this tool, default"] = lambda model=model, x=x: (
            float([model.trainer.update(x) for _ in range(16)][-1]["d_loss"]) and 16 * BATCH
        )
    found = {name: [] for name in measurements}
    found |= {"matrix product float32": [], "matrix product bfloat16": []}
    for work in measurements.values():
        work()  # builds graphs
    for i in range(args.rounds):
        for j, (name, work) in enumerate(measurements.items()):
            found[name].append(timed(work))
            if j % 4 == 0:
                found["matrix product float32"].append(matrix_rate(tf.float32))
                found["matrix product bfloat16"].append(matrix_rate(tf.bfloat16))
        if args.faces:
            found.setdefault("input pipeline, 178x218 JPEG", []).append(pipeline_rate(args.faces))
        print(f"round {i + 1} of {args.rounds}", file=sys.stderr, flush=True)
    medians = {
        name: max(values) if name.startswith("matrix") else statistics.median(values)
        for name, values in found.items()
    }
    return {"precision": precision, "operations": counts, "medians": medians}


def table(result) -> str:
    medians = result["medians"]
    lines = ["| what | images (or img-steps) a second |", "|-|-|"]
    lines += [f"| {name} | {value:,.0f} |" for name, value in medians.items()]
    kind = "bfloat16" if "bfloat16" in result["precision"] else "float32"
    peak = medians[f"matrix product {kind}"]
    lines += ["", "| ratio | |", "|-|-|"]
    for nets, count in result["operations"].items():
        mine = medians[f"search {nets}: this tool"]
        # forward and the gradient towards the input, through G and D
        fraction = mine * 2 * sum(count.values()) / 1e9 / peak
        forward = ", ".join(f"{name} {ops / 1e6:,.0f}" for name, ops in count.items())
        lines.append(f"| {nets}: million operations an image forward | {forward} |")
        lines.append(f"| search {nets}: fraction of the {kind} matrix rate | {fraction:.2f} |")
        for job in ("search", "training"):
            for other in (PLAIN, *PYTORCH):
                theirs = medians.get(f"{job} {nets}: {other}")
                if theirs:
                    ratio = medians[f"{job} {nets}: this tool"] / theirs
                    lines.append(f"| {job} {nets}: this tool / {other} | {ratio:.2f} |")
    pipeline = medians.get("input pipeline, 178x218 JPEG")
    if pipeline:
        for nets in (f"64x64x3, {WIDTHS[0]} channels: this tool", "64x64x3: this tool, default"):
            ratio = pipeline / medians[f"training {nets}"]
            lines.append(f"| input pipeline / training {nets} | {ratio:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", action="store_true", help="add the PyTorch twin")
    parser.add_argument("--faces", type=Path, help="a folder of JPEGs for the input pipeline")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "throughput.json")
    arguments = parser.parse_args()
    result = main(arguments)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
