"""The classic networks in PyTorch, channels last, with the weights of ours: the twin to race with.

Convolutions pad two on each side, as PyTorch users write them, where TensorFlow pads even sizes by
one before and two after. So the twin works on mirrored images with mirrored kernels, which makes
it the same function without a separate padding.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from anogan.method import networks

LAST = torch.channels_last


def _kernel(layer):
    return nn.Parameter(torch.tensor(layer.kernel.numpy()[::-1, ::-1].transpose(3, 2, 0, 1).copy()))


def _bias(layer):
    return nn.Parameter(torch.tensor(layer.bias.numpy()))


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
    made.weight.data = torch.tensor(layer.gamma.numpy())
    made.bias.data = torch.tensor(layer.beta.numpy())
    made.running_mean = torch.tensor(layer.moving_mean.numpy())
    made.running_var = torch.tensor(layer.moving_variance.numpy())
    return made


def _dense(layer):
    made = nn.Linear(*layer.kernel.shape, bias=layer.use_bias)
    made.weight.data = torch.tensor(layer.kernel.numpy()).T.contiguous()
    if layer.use_bias:
        made.bias.data = torch.tensor(layer.bias.numpy())
    return made


KINDS = {
    "ConvTranspose": _up,
    "Conv": _down,
    "BatchNorm": _norm,
    "ReLU": lambda layer: nn.ReLU(),
    "LeakyReLU": lambda layer: nn.LeakyReLU(networks.SLOPE),
    "Activation": lambda layer: nn.Tanh(),
}


def _chain(net):
    found = [layer for layer in net.layers if type(layer).__name__ in KINDS]
    return nn.Sequential(*[KINDS[type(layer).__name__](layer) for layer in found])


def _mirrored_rows(kernel, shape):
    """Rows of a dense layer's kernel that belong to a map of this shape, the map mirrored."""
    return kernel.reshape(*shape, -1).flip(0, 1).reshape(kernel.shape)


class Generator(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.shape = net.get_layer(networks.FIRST_MAP).target_shape
        [first] = [layer for layer in net.layers if type(layer).__name__ == "Dense"]
        self.first, self.rest = _dense(first), _chain(net)
        self.first.weight.data = _mirrored_rows(self.first.weight.data, self.shape)

    def forward(self, z):
        return self.rest(self.first(z).view(-1, *self.shape).permute(0, 3, 1, 2))


class Discriminator(nn.Module):
    def __init__(self, net):
        super().__init__()
        [last] = [layer for layer in net.layers if type(layer).__name__ == "Dense"]
        self.shape = net.layers[-3].output.shape[1:]
        self.stages, self.last = _chain(net), _dense(last)
        rows = _mirrored_rows(self.last.weight.data.T, self.shape)
        self.last.weight.data = rows.T.contiguous()

    def features(self, x):
        return self.stages(x).permute(0, 2, 3, 1).flatten(1)

    def forward(self, x):
        return self.last(self.features(x))


class Twin:
    """Training and latent search, eager, as PyTorch users write them."""

    def __init__(self, model, x, queries, z, weights, autocast: bool):
        """model: a DCGAN of the classic preset; x: a batch to train on; queries, z: of the search.

        x, queries: (b, h, w, c) in [-1, 1]; weights: of the search; autocast: to bfloat16.
        """
        torch.set_num_threads(os.cpu_count())
        self.model, self.weights, self.autocast = model, weights, autocast
        nets = model.trainer.ema
        self.generator = Generator(nets.generator).to(memory_format=LAST)
        self.discriminator = Discriminator(nets.discriminator).to(memory_format=LAST)
        self.x, self.queries = (self._mirrored(np.asarray(a)) for a in (x, queries))
        self.z = torch.tensor(np.asarray(z))
        rate, betas = model.config.learning_rate, (model.config.beta1, model.config.recipe.beta2)
        self.optimisers = [
            torch.optim.Adam(net.parameters(), rate, betas, fused=True)
            for net in (self.generator, self.discriminator)
        ]

    @staticmethod
    def _mirrored(images):
        """(b, h, w, c) -> (b, c, h, w), mirrored; its own inverse but for the axes."""
        x = torch.tensor(images[:, ::-1, ::-1].transpose(0, 3, 1, 2).copy())
        return x.contiguous(memory_format=LAST)

    def _context(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.autocast)

    def check(self) -> None:
        """Raises where the two frameworks do not compute the same function, in float32."""
        model, some = self.model, self.z[:8]
        self.generator.eval(), self.discriminator.eval()
        with torch.no_grad():
            g = self.generator(some)
            f, logits = self.discriminator.features(g), self.discriminator(g)
        mine = model.inference.decode(some.numpy())
        mirrored = g.permute(0, 2, 3, 1).flip(1, 2).numpy()
        np.testing.assert_allclose(mirrored, mine, atol=1e-4)
        theirs = f.reshape(len(f), *self.discriminator.shape).flip(1, 2).reshape(f.shape)
        np.testing.assert_allclose(
            theirs.numpy(), model.inference.features_of(mine), rtol=1e-3, atol=1e-3
        )
        expected = model.trainer.ema.discriminator(mine, training=False)[0]
        np.testing.assert_allclose(logits.numpy(), expected, rtol=1e-3, atol=1e-3)

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
            loss = self.weights.residual * (self.queries - g.float()).abs().sum((1, 2, 3))
            loss = loss + self.weights.discrimination * (target - f.float()).abs().sum(1)
            loss.sum().backward()
            optimiser.step()
        for net in (self.generator, self.discriminator):
            net.requires_grad_(True)
        return len(self.z) * steps
