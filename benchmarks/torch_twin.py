"""The classic networks in PyTorch, channels last, with the weights of ours: the twin to race with.

Convolutions pad two on each side, as PyTorch users write them, where TensorFlow pads even sizes by
one before and two after. So the twin works on mirrored images with mirrored kernels, which makes
it the same function without a separate padding.

It runs in a process of its own, for PyTorch's triton crashes where TensorFlow is loaded: `serve`
there, RemoteTwin in benchmarks/torch_remote.py here.
"""

from __future__ import annotations

import os
import pickle
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

LAST = torch.channels_last


def _kernel(layer):
    return nn.Parameter(torch.tensor(layer.kernel[::-1, ::-1].transpose(3, 2, 0, 1).copy()))


def _bias(layer):
    return nn.Parameter(torch.tensor(layer.bias))


def _up(layer):
    n, m = layer.kernel.shape[2:]
    odd = [side % 2 for side in layer.size]
    made = nn.ConvTranspose2d(
        m, n, 5, 2, padding=2, output_padding=[1 - o for o in odd], bias=layer.use_bias
    )
    made.weight = _kernel(layer)
    if layer.use_bias:
        made.bias = _bias(layer)
    return made


def _down(layer):
    made = nn.Conv2d(*layer.kernel.shape[2:], 5, 2, padding=2)
    made.weight, made.bias = _kernel(layer), _bias(layer)
    return made


def _norm(layer):
    made = nn.BatchNorm2d(layer.gamma.shape[0], eps=layer.epsilon, momentum=1 - layer.momentum)
    made.weight.data = torch.tensor(layer.gamma)
    made.bias.data = torch.tensor(layer.beta)
    made.running_mean = torch.tensor(layer.moving_mean)
    made.running_var = torch.tensor(layer.moving_variance)
    return made


def _dense(layer):
    made = nn.Linear(*layer.kernel.shape, bias=layer.use_bias)
    made.weight.data = torch.tensor(layer.kernel).T.contiguous()
    if layer.use_bias:
        made.bias.data = torch.tensor(layer.bias)
    return made


KINDS = {
    "ConvTranspose": _up,
    "Conv": _down,
    "BatchNorm": _norm,
    "ReLU": lambda layer: nn.ReLU(),
    "LeakyReLU": lambda layer: nn.LeakyReLU(layer.negative_slope),
    "Activation": lambda layer: nn.Tanh(),
}


def _chain(net):
    return nn.Sequential(*[KINDS[layer.kind](layer) for layer in net.layers if layer.kind in KINDS])


def _mirrored_rows(kernel, shape):
    """Rows of a dense layer's kernel that belong to a map of this shape, the map mirrored."""
    return kernel.reshape(*shape, -1).flip(0, 1).reshape(kernel.shape)


class Generator(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.shape = net.shape
        [first] = [layer for layer in net.layers if layer.kind == "Dense"]
        self.first, self.rest = _dense(first), _chain(net)
        self.first.weight.data = _mirrored_rows(self.first.weight.data, self.shape)

    def forward(self, z):
        return self.rest(self.first(z).view(-1, *self.shape).permute(0, 3, 1, 2))


class Discriminator(nn.Module):
    def __init__(self, net):
        super().__init__()
        [last] = [layer for layer in net.layers if layer.kind == "Dense"]
        self.shape = net.shape
        self.stages, self.last = _chain(net), _dense(last)
        rows = _mirrored_rows(self.last.weight.data.T, self.shape)
        self.last.weight.data = rows.T.contiguous()

    def features(self, x):
        return self.stages(x).permute(0, 2, 3, 1).flatten(1)

    def forward(self, x):
        return self.last(self.features(x))


class Twin:
    """Training and latent search, eager, as PyTorch users write them."""

    def __init__(self, generator, discriminator, x, queries, z, weights, adam, autocast: bool):
        """generator, discriminator: as torch_remote.described returns them, of the classic preset.

        x: a batch to train on; queries, z: of the search; x, queries: (b, h, w, c) in [-1, 1];
        weights: (residual, discrimination) of the search; adam: (rate, betas) of the training;
        autocast: to bfloat16.
        """
        torch.set_num_threads(os.cpu_count())
        self.weights, self.autocast = weights, autocast
        self.generator = Generator(generator).to(memory_format=LAST)
        self.discriminator = Discriminator(discriminator).to(memory_format=LAST)
        self.x, self.queries = self._mirrored(x), self._mirrored(queries)
        self.z = torch.tensor(z)
        self.optimisers = [
            torch.optim.Adam(net.parameters(), *adam, fused=True)
            for net in (self.generator, self.discriminator)
        ]

    @staticmethod
    def _mirrored(images):
        """(b, h, w, c) -> (b, c, h, w), mirrored; its own inverse but for the axes."""
        x = torch.tensor(images[:, ::-1, ::-1].transpose(0, 3, 1, 2).copy())
        return x.contiguous(memory_format=LAST)

    def _context(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.autocast)

    def outputs(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return G's images of the first latents, D's features and logits of these, as ours are."""
        self.generator.eval(), self.discriminator.eval()
        with torch.no_grad():
            g = self.generator(self.z[:count])
            f, logits = self.discriminator.features(g), self.discriminator(g)
        f = f.reshape(len(f), *self.discriminator.shape).flip(1, 2).reshape(f.shape)
        return g.permute(0, 2, 3, 1).flip(1, 2).numpy(), f.numpy(), logits.numpy()

    def train(self, steps: int) -> int:
        """So many steps of the DCGAN; images times steps."""
        self.generator.train(), self.discriminator.train()
        nets = [list(net.parameters()) for net in (self.generator, self.discriminator)]
        for _ in range(steps):
            with self._context():
                g = self.generator(torch.randn(len(self.x), self.z.shape[1]))
                real, fake = self.discriminator(self.x), self.discriminator(g)
            real, fake = real.float(), fake.float()
            d_loss = F.softplus(-real).mean() + F.softplus(fake).mean()
            g_loss = F.softplus(-fake).mean()
            gradients = (
                torch.autograd.grad(g_loss, nets[0], retain_graph=True),
                torch.autograd.grad(d_loss, nets[1]),
            )
            for optimiser, net, found in zip(self.optimisers, nets, gradients, strict=True):
                for parameter, gradient in zip(net, found, strict=True):
                    parameter.grad = gradient
                optimiser.step()
        return len(self.x) * steps

    def search(self, steps: int) -> int:
        """So many steps of Adam on the latents of all queries; images times steps."""
        for net in (self.generator, self.discriminator):
            net.eval().requires_grad_(False)
        latent = self.z.clone().requires_grad_(True)
        optimiser = torch.optim.Adam([latent], 0.1, (0.9, 0.99), fused=True)
        with torch.no_grad(), self._context():
            target = self.discriminator.features(self.queries).float()
        for _ in range(steps):
            optimiser.zero_grad()
            with self._context():
                g = self.generator(latent)
                f = self.discriminator.features(g)
            loss = self.weights[0] * (self.queries - g.float()).abs().sum((1, 2, 3))
            loss = loss + self.weights[1] * (target - f.float()).abs().sum(1)
            loss.sum().backward()
            optimiser.step()
        for net in (self.generator, self.discriminator):
            net.requires_grad_(True)
        return len(self.z) * steps


def serve() -> None:
    """Make the twin that standard input describes, then answer what is asked of it until the end.

    Pickles: the twin's arguments, then (method, argument) each time; answers go to what was
    standard output.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    twin = Twin(**pickle.load(sys.stdin.buffer))
    while True:
        try:
            method, argument = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(getattr(twin, method)(argument), answers)
        answers.flush()


if __name__ == "__main__":
    serve()
