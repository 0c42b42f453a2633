"""How fast: training, latent search, encoder and input pipeline, as ratios within one run.

python benchmarks/throughput.py [--torch] [--faces data/celebA] [--rounds 5]

Every measurement is taken in turn, --rounds times over, so that drift of the machine cancels;
medians are printed, beside this machine's matrix product rate in the same run. --torch adds the
same networks in PyTorch (pip install -r benchmarks/requirements-torch.txt), with the same weights:
both must compute the same function before anything is timed. Writes results/throughput.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

import data  # noqa: E402
import networks  # noqa: E402
from config import preset  # noqa: E402
from model import DCGAN  # noqa: E402
from search import Weights, search_latents  # noqa: E402

SIZES = {"28x28x1": (28, 28, 1), "64x64x3": (64, 64, 3)}
BATCH = 64
SEARCH_BATCH = {"28x28x1": 256, "64x64x3": 64}
SEARCH_STEPS = 5
WEIGHTS = Weights(0.9, 0.1, 0.0, False)  # the paper's


def operations(model) -> dict[str, float]:
    """Multiplications and additions of one image's forward pass through G and D's features."""
    found = {}
    for name in ("generator", "discriminator"):
        total = 0
        for layer in model.averages[name].layers:
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
    """The tool itself with --preset classic."""

    def __init__(self, size, precision="float32"):
        h, w, c = SIZES[size]
        config = preset("classic", height=h, width=w, channels=c)
        self.model = model = DCGAN(config, precision)
        self.size = size
        rng = np.random.default_rng(0)
        self.x = tf.constant(rng.uniform(-1, 1, (BATCH, h, w, c)), tf.float32)
        n = SEARCH_BATCH[size]
        self.queries = tf.constant(rng.uniform(-1, 1, (n, h, w, c)), tf.float32)
        self.z = tf.constant(rng.normal(size=(n, config.z_dim)), tf.float32)
        model.update(self.x)  # builds; the weights are those of one step, BN's averages moved

        @tf.function
        def frozen(x, z):
            g = networks.frozen_generator(model.averages["generator"])
            f = networks.frozen_features(model.averages["discriminator"])
            return search_latents(g, f, x, z, SEARCH_STEPS, 0.1, WEIGHTS)[0]

        @tf.function
        def plain(x, z):
            features = model._features_of
            return search_latents(model._decode, features, x, z, SEARCH_STEPS, 0.1, WEIGHTS)[0]

        self.frozen, self.plain = frozen, plain

    def train(self):
        for _ in range(4):
            loss = self.model.update(self.x)
        float(loss["d_loss"])
        return 4 * BATCH

    def search(self):
        self.frozen(self.queries, self.z).numpy()
        return len(self.z) * SEARCH_STEPS

    def plain_search(self):
        self.plain(self.queries, self.z).numpy()
        return len(self.z) * SEARCH_STEPS


def torch_twin(ours: Ours, autocast: bool):
    """The same networks in PyTorch, channels last, with ours' weights: train() and search()."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(os.cpu_count())
    model = ours.model

    class Up(nn.Module):
        """Transposed convolution cut to TensorFlow's SAME size."""

        def __init__(self, layer):
            super().__init__()
            kernel = torch.tensor(layer.kernel.numpy()).permute(3, 2, 0, 1)
            self.kernel = nn.Parameter(kernel.contiguous())
            self.bias = nn.Parameter(torch.tensor(layer.bias.numpy())) if layer.use_bias else None
            self.size = layer.size

        def forward(self, x):
            y = F.conv_transpose2d(x, self.kernel, self.bias, stride=2)
            # TensorFlow pads its convolution (k - 2 + odd) in all, the smaller half first
            starts = [(5 - 2 + side % 2) // 2 for side in self.size]
            return y[:, :, starts[0] :, starts[1] :][:, :, : self.size[0], : self.size[1]]

    class Down(nn.Module):
        def __init__(self, layer):
            super().__init__()
            kernel = torch.tensor(layer.kernel.numpy()).permute(3, 2, 0, 1)
            self.kernel = nn.Parameter(kernel.contiguous())
            self.bias = nn.Parameter(torch.tensor(layer.bias.numpy()))

        def forward(self, x):
            pads = []
            for side in (x.shape[3], x.shape[2]):
                total = 5 - 2 + side % 2
                pads += [total // 2, total - total // 2]
            return F.conv2d(F.pad(x, pads), self.kernel, self.bias, stride=2)

    def norm(layer):
        made = nn.BatchNorm2d(layer.gamma.shape[0], eps=layer.epsilon)
        made.weight.data = torch.tensor(layer.gamma.numpy())
        made.bias.data = torch.tensor(layer.beta.numpy())
        made.running_mean = torch.tensor(layer.moving_mean.numpy())
        made.running_var = torch.tensor(layer.moving_variance.numpy())
        return made

    def dense(layer):
        made = nn.Linear(*layer.kernel.shape, bias=layer.use_bias)
        made.weight.data = torch.tensor(layer.kernel.numpy()).T.contiguous()
        if layer.use_bias:
            made.bias.data = torch.tensor(layer.bias.numpy())
        return made

    kinds = {
        "ConvTranspose": Up,
        "Conv": Down,
        "BatchNorm": norm,
        "Conv2D": Down,
        "BatchNormalization": norm,
        "Dense": dense,
        "ReLU": lambda layer: nn.ReLU(),
        "LeakyReLU": lambda layer: nn.LeakyReLU(networks.SLOPE),
        "Activation": lambda layer: nn.Tanh(),
    }

    def chain(net):
        made = [(layer, kinds.get(type(layer).__name__)) for layer in net.layers]
        return [(layer.name, kind(layer)) for layer, kind in made if kind]

    h, w, channels = model.averages["generator"].get_layer(networks.FIRST_MAP).target_shape

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            first, *rest = [m for _, m in chain(model.averages["generator"])]
            self.first, self.rest = first, nn.Sequential(*rest)

        def forward(self, z):
            x = self.first(z).view(-1, h, w, channels).permute(0, 3, 1, 2)  # channels last
            return self.rest(x)

    class Discriminator(nn.Module):
        def __init__(self):
            super().__init__()
            *stages, last = [m for _, m in chain(model.averages["discriminator"])]
            self.stages, self.last = nn.Sequential(*stages), last

        def features(self, x):
            return self.stages(x).permute(0, 2, 3, 1).flatten(1)

        def forward(self, x):
            f = self.features(x)
            return self.last(f), f

    last = torch.channels_last
    generator = Generator().to(memory_format=last)
    discriminator = Discriminator().to(memory_format=last)
    as_torch = lambda x: torch.tensor(x.numpy()).permute(0, 3, 1, 2)  # noqa: E731
    queries, x, z = as_torch(ours.queries), as_torch(ours.x), torch.tensor(ours.z.numpy())
    context = lambda: torch.autocast("cpu", torch.bfloat16, enabled=autocast)  # noqa: E731
    rates = model.config.learning_rate, (model.config.beta1, model.config.beta2)
    optimisers = [
        torch.optim.Adam(net.parameters(), rates[0], rates[1]) for net in (generator, discriminator)
    ]

    class Twin:
        def check(self):
            """Raises where the two frameworks do not compute the same function."""
            generator.eval(), discriminator.eval()
            with torch.no_grad():
                g = generator(z[:8])
                f = discriminator.features(g)
            mine = model._decode(ours.z[:8])
            np.testing.assert_allclose(g.permute(0, 2, 3, 1).numpy(), mine, atol=1e-4)
            np.testing.assert_allclose(f.numpy(), model._features_of(mine), rtol=1e-3, atol=1e-3)

        def train(self):
            generator.train(), discriminator.train()
            for _ in range(4):
                with context():
                    g = generator(torch.randn(BATCH, z.shape[1]))
                    real, fake = discriminator(x)[0], discriminator(g)[0]
                    d_loss = F.softplus(-real).mean() + F.softplus(fake).mean()
                    g_loss = F.softplus(-fake).mean()
                nets = list(generator.parameters()), list(discriminator.parameters())
                grads = (
                    torch.autograd.grad(g_loss, nets[0], retain_graph=True),
                    torch.autograd.grad(d_loss, nets[1]),
                )
                for optimiser, net, gradients in zip(optimisers, nets, grads, strict=True):
                    for parameter, gradient in zip(net, gradients, strict=True):
                        parameter.grad = gradient
                    optimiser.step()
            return 4 * BATCH

        def search(self):
            generator.eval(), discriminator.eval()
            for net in (generator, discriminator):
                net.requires_grad_(False)
            latent = z.clone().requires_grad_(True)
            optimiser = torch.optim.Adam([latent], 0.1, (0.9, 0.99))
            with torch.no_grad(), context():
                target = discriminator.features(queries)
            for _ in range(SEARCH_STEPS):
                optimiser.zero_grad()
                with context():
                    g = generator(latent)
                    f = discriminator.features(g)
                residual = (queries - g).abs().sum((1, 2, 3))
                loss = WEIGHTS.residual * residual
                loss = loss + WEIGHTS.discrimination * (target - f).abs().sum(1)
                loss.float().sum().backward()
                optimiser.step()
            for net in (generator, discriminator):
                net.requires_grad_(True)
            return len(z) * SEARCH_STEPS

    return Twin()


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
    images = data.image_folder(folder, None, 64, 64, 3, crop=(108, 108), memory_limit=0)
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
    measurements, counts = {}, {}
    for size in SIZES:
        ours = Ours(size)
        counts[size] = operations(ours.model)
        measurements[f"search {size}: this tool"] = ours.search
        measurements[f"search {size}: plain TensorFlow"] = ours.plain_search
        measurements[f"training {size}: this tool"] = ours.train
        if args.torch:
            for name, autocast in (("float32", False), ("bfloat16 autocast", True)):
                twin = torch_twin(ours, autocast)
                twin.check()
                measurements[f"search {size}: PyTorch {name}"] = twin.search
                measurements[f"training {size}: PyTorch {name}"] = twin.train
        default = DCGAN(
            preset(
                "default", height=ours.x.shape[1], width=ours.x.shape[2], channels=ours.x.shape[3]
            )
        )
        images = np.zeros((1024, *SIZES[size]), np.uint8)
        measurements[f"encoder scoring {size}: this tool, default networks"] = (
            lambda model=default, images=images: len(
                model.anomaly_detector(images, batch_size=256).score
            )
        )
        measurements[f"training {size}: this tool, default networks"] = (
            lambda model=default, x=ours.x: [model.update(x) for _ in range(4)] and 4 * BATCH
        )
    found = {name: [] for name in measurements}
    found |= {"matrix product float32": [], "matrix product bfloat16": []}
    for work in measurements.values():
        work()  # builds graphs
    for _ in range(args.rounds):
        for name, work in measurements.items():
            found[name].append(timed(work))
        found["matrix product float32"].append(matrix_rate(tf.float32))
        found["matrix product bfloat16"].append(matrix_rate(tf.bfloat16))
        if args.faces:
            found.setdefault("input pipeline, 178x218 JPEG", []).append(pipeline_rate(args.faces))
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {"operations": counts, "medians": medians}


def table(result) -> str:
    medians = result["medians"]
    lines = ["| what | images (or img-steps) a second |", "|-|-|"]
    lines += [f"| {name} | {value:,.0f} |" for name, value in medians.items()]
    peak = medians["matrix product float32"]
    lines += ["", "| ratio | |", "|-|-|"]
    for size, count in result["operations"].items():
        mine = medians[f"search {size}: this tool"]
        # forward and the gradient towards the input, through G and D
        share = mine * 2 * sum(count.values()) / 1e9 / peak
        lines.append(f"| search {size}: share of the float32 matrix rate | {share:.2f} |")
        for job in ("search", "training"):
            for other in ("plain TensorFlow", "PyTorch float32", "PyTorch bfloat16 autocast"):
                theirs = medians.get(f"{job} {size}: {other}")
                if theirs:
                    ratio = medians[f"{job} {size}: this tool"] / theirs
                    lines.append(f"| {job} {size}: this tool / {other} | {ratio:.2f} |")
    pipeline = medians.get("input pipeline, 178x218 JPEG")
    if pipeline:
        for kind in ("", ", default networks"):
            ratio = pipeline / medians[f"training 64x64x3: this tool{kind}"]
            lines.append(f"| input pipeline / training step 64x64x3{kind} | {ratio:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", action="store_true", help="add the PyTorch twin")
    parser.add_argument("--faces", type=Path, help="a folder of JPEGs for the input pipeline")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "throughput.json")
    arguments = parser.parse_args()
    result = main(arguments)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
