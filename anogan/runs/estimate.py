"""What a training run will need: time and memory, roughly, before it begins."""

from __future__ import annotations

import math

from anogan.config import Config
from anogan.image_form import MEMORY_LIMIT
from anogan.runs import distributed

MIB = 2**20
# Seconds for a pixel of a batch on one core at so many channels: benchmarks/throughput.py on two
# idle cores without AVX-512, in float32. Another machine may be several times as fast or slow.
PIXEL_SECONDS = {"default": 3e-6, "classic": 1.2e-5}
CHANNELS = {"default": 16, "classic": 64}
# Peak resident memory, fitted to measured ones: 0.9 GiB of digits without calibration, 1.3 of ELPV
# at 64 pixels, 1.5 at 128, 1.7 of 320 x 127 pixels through windows
BASE = 900 * MIB  # TensorFlow, and the graphs of training
PIXEL_BYTES = 600  # for a pixel of a batch at CHANNELS
SCORING = 350 * MIB  # calibration and ranking after the training
WINDOWED = 400 * MIB  # more of it, where images are seen through windows


def seconds(config: Config, steps: int, cores: int | None = None) -> float:
    """Return roughly what so many steps take on a CPU."""
    h, w, _ = config.net_shape
    pixels = steps * config.batch_size * h * w
    each = PIXEL_SECONDS[config.preset] * _width(config) ** 1.5
    return pixels * each / (cores or distributed.cores())


def memory(config: Config, images: int) -> int:
    """Return roughly the peak of the resident memory on a CPU, bytes: training, then ranking."""
    batch = config.batch_size * math.prod(config.net_shape[:2]) * PIXEL_BYTES * _width(config)
    kept = images * math.prod(config.view)
    fixed = BASE + SCORING + (WINDOWED if config.window else 0)
    return round(fixed + batch + (kept if kept <= MEMORY_LIMIT else 0))


def describe(config: Config, images: int, steps: int, on_gpu: bool) -> str:
    """Describe to the user a training on so many images that is about to begin."""
    line = f"{steps} steps of {config.batch_size} images"
    if on_gpu:  # whose speed and memory are not known here
        return line
    time, cores = duration(seconds(config, steps)), distributed.cores()
    gib = memory(config, images) / 2**30
    return f"{line}, about {gib:.1f} GiB of memory, very roughly {time} on {cores} cores"


def _width(config: Config) -> float:
    """Return how wide the networks are, 1 as the preset has them."""
    return (config.gf_dim + config.df_dim) / (2 * CHANNELS[config.preset])


def duration(seconds: float) -> str:
    """Return a time in words, to two digits."""
    if seconds < 60:
        return f"{max(round(seconds), 1)} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
