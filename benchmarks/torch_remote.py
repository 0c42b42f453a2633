"""The PyTorch twin of torch_twin.py, in a process without TensorFlow: what races ours with it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from anogan.method import networks

SCRIPT = Path(__file__).with_name("torch_twin.py")
VARIABLES = "kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance"
NUMBERS = "use_bias", "size", "epsilon", "momentum", "negative_slope"


def described(net, shape) -> SimpleNamespace:
    """Return a network's layers, and the shape of its map next to the latents, as plain data."""
    layers = []
    for layer in net.layers:
        known = {name: getattr(layer, name, None) for name in NUMBERS}
        for name in VARIABLES:
            variable = getattr(layer, name, None)
            known[name] = None if variable is None else np.array(variable)
        kind = type(layer).__name__
        layers.append(SimpleNamespace(kind=kind, **known))
    return SimpleNamespace(layers=layers, shape=tuple(shape))


class RemoteTwin:
    """The twin of a model, see Twin; the same methods."""

    def __init__(self, model, x, queries, z, weights, autocast: bool, script: Path = SCRIPT):
        """model: a DCGAN of the classic preset; the others as in Twin."""
        self.model, self.z, config = model, np.asarray(z), model.config
        nets = model.trainer.ema
        g_shape = nets.generator.get_layer(networks.FIRST_MAP).target_shape
        d_shape = nets.discriminator.layers[-3].output.shape[1:]
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._send(
            {
                "generator": described(nets.generator, g_shape),
                "discriminator": described(nets.discriminator, d_shape),
                "x": np.asarray(x),
                "queries": np.asarray(queries),
                "z": self.z,
                "weights": (weights.residual, weights.discrimination),
                "adam": (config.learning_rate, (config.beta1, config.recipe.beta2)),
                "autocast": autocast,
            }
        )

    def _send(self, what) -> None:
        pickle.dump(what, self.process.stdin)
        self.process.stdin.flush()

    def ask(self, method: str, argument: int):
        """Return what a method of the twin returns."""
        self._send((method, argument))
        return pickle.load(self.process.stdout)

    def check(self) -> None:
        """Raise where the two frameworks do not compute the same function, in float32."""
        model, count = self.model, 8
        g, f, logits = self.ask("outputs", count)
        mine = model.inference.decode(self.z[:count])
        np.testing.assert_allclose(g, mine, atol=1e-4)
        features = model.inference.features_of(mine)
        np.testing.assert_allclose(f, features, rtol=1e-3, atol=1e-3)
        expected = model.trainer.ema.discriminator(mine, training=False)[0]
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)

    def train(self, steps: int) -> int:
        """See Twin.train."""
        return self.ask("train", steps)

    def search(self, steps: int) -> int:
        """See Twin.search."""
        return self.ask("search", steps)
