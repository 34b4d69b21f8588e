#!/usr/bin/env bash
# Makes a CUDA 13.0 toolkit that builds this crate with `--features cuda`, from NVIDIA's wheels on PyPI. It needs neither
# root nor a GPU nor a driver, takes 1.2 GB in DIR, and does nothing where DIR already has a toolkit.
#
#   bash kernels/toolchain.sh DIR && . DIR/env.sh
#   cargo build --release --features cuda
#
# What is built runs where the driver (libcuda.so.1) and libcudart.so.13, libcublas.so.13 and libcurand.so.10 are found;
# docs/gpu.md says how. Needs bash, python3 with pip, unzip and a C compiler.
set -euo pipefail

dir=${1:?usage: bash kernels/toolchain.sh DIR}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
home=$dir/nvidia/cu13
repository=$(cd "$(dirname "$0")/.." && pwd)

# Compiler and headers of one release; cudarc, candle's binding, knows toolkits up to 13.4. The disassemblers' oldest
# wheels are of 13.2 and read what 13.0 makes.
packages=(
    nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-profiler-api==13.0.85 nvidia-cuda-nvrtc==13.0.88
    nvidia-cublas==13.1.0.3 nvidia-curand==10.4.0.35
    nvidia-cuda-cuobjdump==13.2.51 nvidia-cuda-nvdisasm==13.2.51
)

unpack() {
    local wheels=$dir/wheels tags=() tag
    # pip takes a wheel only if one of these is exactly its tag.
    for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014 manylinux1; do
        tags+=(--platform "${tag}_$(uname -m)")
    done
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        "${tags[@]}" --dest "$wheels" "${packages[@]}"
    local wheel
    for wheel in "$wheels"/*.whl; do unzip -qo "$wheel" -d "$dir"; done
    rm -r "$wheels"
    # Wheels lose the permission to run, the unversioned names that linkers look for, and lib64.
    chmod +x "$home"/bin/* "$home"/nvvm/bin/*
    ln -sfn lib "$home/lib64"
    local library name
    for library in "$home"/lib/*.so.*; do
        name=${library##*/}
        ln -sfn "$name" "$home/lib/${name%%.so.*}.so"
    done
}

# A library to link against in the driver's place, with every function that cudarc names: candle links them all.
stub() {
    local sources
    sources=$(cd "$repository" && cargo metadata --format-version 1 --features cuda --filter-platform "$(uname -m)-unknown-linux-gnu" \
        | python3 -c 'import json, os, sys
print(next(os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"] if p["name"] == "cudarc"))')
    mkdir -p "$home/lib/stubs"
    grep -ohE 'fn cu[A-Z][A-Za-z0-9_]*' "$sources"/src/driver/sys/*.rs | sort -u \
        | sed 's/^fn \(.*\)$/void \1(void) {}/' > "$dir/stub.c"
    cc -shared -fPIC -w -Wl,-soname,libcuda.so.1 "$dir/stub.c" -o "$home/lib/stubs/libcuda.so"
}

[ -x "$home/bin/nvcc" ] || unpack
[ -e "$home/lib/stubs/libcuda.so" ] || stub

# Candle's build would ask nvidia-smi for the compute capability.
cat > "$dir/env.sh" << END
export CUDA_HOME=$home CUDA_PATH=$home CUDA_ROOT=$home CUDA_TOOLKIT_ROOT_DIR=$home
export PATH=$home/bin:\$PATH
export LIBRARY_PATH=$home/lib:$home/lib/stubs\${LIBRARY_PATH:+:\$LIBRARY_PATH}
export CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-90}
END
"$home/bin/nvcc" --version | grep release
