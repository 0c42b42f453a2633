"""The parts of the AnoGAN tool; the scripts that one runs lie above."""

import os

__version__ = "1.0.0"

# Before TensorFlow is loaded: by itself it takes oneDNN's operations only on some processors, and
# training is almost twice as fast with them on those that it leaves out.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
