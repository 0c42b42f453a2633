#!/usr/bin/env bash
# Is the GPU used, does it compute what the CPU does, and how fast? Prints tables for docs/speed.md.
#
#   benchmarks/gpu.sh            of a clone after `make demo`, with pip install "tensorflow[and-cuda]"
#   ROUNDS=1 IMAGES=100 PYTHON=python3 benchmarks/gpu.sh    shorter, with another Python
#
# It runs without a GPU, too. Results are in benchmarks/results/.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
ROUNDS=${ROUNDS:-5} IMAGES=${IMAGES:-1000}
export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-3}

echo "## Devices"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv || echo "no nvidia-smi"
"$PYTHON" -c '
from anogan.runs import distributed
import tensorflow as tf
print("TensorFlow", tf.__version__, "built for CUDA", tf.sysconfig.get_build_info().get("cuda_version"))
print(distributed.describe_devices())
print("--precision auto is", distributed.resolve_precision("auto"))
'

echo "## Agreement with a plain float32 reference, by search and precision"
"$PYTHON" benchmarks/agreement.py --images "$IMAGES"

for precision in float32 mixed_bfloat16; do
    echo "## Speed in $precision"
    "$PYTHON" benchmarks/throughput.py --rounds "$ROUNDS" --precision "$precision" \
        --results "benchmarks/results/throughput_$precision.json"
done

echo "## Where the time goes"
"$PYTHON" benchmarks/stages.py digits
