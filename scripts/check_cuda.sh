#!/usr/bin/env bash
# Compiles the encoder's CUDA kernels and type-checks the package and its tests with `--features cuda`:
# check_cuda.sh TARGET_DIR.
#
# NVIDIA's compiler comes from PyPI, into a virtual environment in the target directory; no GPU and no driver is
# needed. Candle's kernels are compiled on the way.
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

# Candle's kernels for quantised models take most of the time, and nothing here calls them: they alone are compiled
# without optimisation. Its build looks for the toolkit around the compiler.
quick=$venv/quick
mkdir -p "$quick/bin"
ln -sfn "$CUDA_HOME/include" "$quick/include"
cat > "$quick/bin/nvcc" << END
#!/bin/sh
case "\$*" in *moe* | *mmq* | *mmvq*) set -- -Xcicc -O0 -Xptxas -O0 "\$@" ;; esac
exec "$CUDA_HOME/bin/nvcc" "\$@"
END
chmod +x "$quick/bin/nvcc"
export NVCC=$quick/bin/nvcc

# The program has them compiled when it loads a model.
for kernels in "sm_90 F32" "sm_90 F16" "sm_90 BF16" "sm_75 F32" "sm_75 F16"; do
    read -r gpu states <<< "$kernels"
    nvcc --gpu-architecture="$gpu" --define-macro="$states" --cubin --Werror=all-warnings \
        --output-file="$venv/kernels.cubin" src/encoder/cuda/kernels.cu
done
cargo check --release --locked --features cuda --lib --bins --tests
