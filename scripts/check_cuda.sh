#!/usr/bin/env bash
# Type-checks the package with `--features cuda`: check_cuda.sh TARGET_DIR.
#
# NVIDIA's compiler comes from PyPI, into a virtual environment in the target directory; no GPU and no driver is
# needed. Candle's kernels are compiled on the way, here without optimisation, since nothing runs them.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$1
venv=$target/cuda-venv
if [[ ! -e $venv/complete ]]; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet nvidia-cuda-{nvcc,crt,runtime,cccl}'==13.0.*' 'nvidia-nvvm==13.0.*'
    touch "$venv/complete"
fi
CUDA_HOME=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13)
export CUDA_HOME CUDA_PATH=$CUDA_HOME PATH="$CUDA_HOME/bin:$PATH"
# Without a GPU to ask, the kernels' architecture has to be said: that of an H100.
export CUDA_COMPUTE_CAP=90
export NVCC_APPEND_FLAGS="-Xcicc -O0 -Xptxas -O0"
cargo check --release --locked --features cuda
