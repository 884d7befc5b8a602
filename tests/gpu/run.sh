#!/usr/bin/env bash
# Everything that needs a GPU, in one call: tests/gpu/run.sh [FOLDER [PARTS]]. Ends with a table.
# FOLDER is for logs (default: gpu-results); PARTS are any of "tests sanitizer train bench" (default: all), for machines that are lent by the minute.
# Needs CuPy (either wheel) and pytest with hypothesis, and PyTorch to compare with; compute-sanitizer of the CUDA toolkit is used where it is installed.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-gpu-results}
parts=${2:-tests sanitizer train bench}
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 MINIDCNN_CUDA=device
rows=()

step() { # step NAME COMMAND...: run it, keep what it prints in a log of that name, remember how it ended
    local name=$1 start=$SECONDS status
    shift
    "$@" >"$out/$name.log" 2>&1
    status=$?
    rows+=("$(printf '%-24s %-9s %5d s   %s' "$name" "$([ $status = 0 ] && echo passed || echo "FAILED $status")" $((SECONDS - start)) "$(tail -n 1 "$out/$name.log" | cut -c1-100)")")
    echo "${rows[-1]}"
}

step device python3 -c "
import cupy, minidcnn
d = cupy.cuda.runtime.getDeviceProperties(0)
minidcnn.use('cupy')
print(d['name'].decode(), 'compute', d['major'], d['minor'], '| CuPy', cupy.__version__, '| CUDA', cupy.cuda.runtime.runtimeGetVersion())"

if [[ " $parts " == *" tests "* ]]; then
    # The tests of the simulator, on the device: first the tensor cores' fragments, on which the rest of tf32 and bf16 stands.
    step fragments python3 -m pytest -q -n0 tests/test_cuda_kernels.py -k "tensor"
    step kernels python3 -m pytest -q -n0 tests/test_cuda_kernels.py tests/test_cuda_training.py tests/test_cuda_optim.py tests/test_cuda_metrics.py \
        -k "not tensor and not names and not in_check_mode and not unet_trains"
    step engine python3 -m pytest -q -n0 tests/test_on_cupy.py
    step streams python3 -m pytest -q -n0 tests/test_cuda_uploads.py tests/test_cuda_graph.py
fi

if [[ " $parts " == *" sanitizer "* ]]; then
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck initcheck; do
            step "$tool" env CUPY_CUDA_MEMORY_POOL_TYPE=none HYPOTHESIS_PROFILE=short compute-sanitizer --tool "$tool" --error-exitcode 9 \
                python3 -m pytest -q -n0 tests/test_cuda_kernels.py tests/test_cuda_training.py tests/test_cuda_optim.py tests/test_cuda_metrics.py \
                -k "larger or pooling or cross or norm or sgd or adam or counts or clean"
        done
    else
        rows+=("sanitizer      skipped: compute-sanitizer is not installed")
    fi
fi

if [[ " $parts " == *" train "* ]]; then
    for precision in float32 tf32 bf16; do
        step "train-$precision" python3 examples/train_unet.py --backend cupy --precision $precision --epochs 2 --out "$out/run-$precision"
        step "graph-$precision" python3 examples/train_unet.py --backend cupy --precision $precision --epochs 2 --graph --out "$out/graph-$precision"
    done
    # A recorded run ends with the bits of the other one.
    step same-bits cmp "$out/run-float32/best.safetensors" "$out/graph-float32/best.safetensors"
fi

if [[ " $parts " == *" bench "* ]]; then
    # How fast: kernels against the ceilings of this GPU, then whole steps, beside PyTorch where it is installed.
    peer=()
    python3 -c "import torch; assert torch.cuda.is_available()" 2>/dev/null && peer=(--peer torch)
    for precision in float32 tf32 bf16; do
        on_gpu=(python3 -m minidcnn bench --backend cupy --precision $precision)
        step "kernels-$precision" "${on_gpu[@]}" --what kernels --shape 16,3,256,256
        step "layers-$precision" "${on_gpu[@]}" --what layers --shape 16,3,256,256 "${peer[@]}"
        for run in "unet 16,3,256,256" "unet 4,3,512,512" "segnet 16,3,256,256" "fcn8s 16,3,256,256"; do
            read -r net shape <<<"$run"
            for how in "" --graph; do
                step "$net-${shape%%,*}-$precision$how" "${on_gpu[@]}" --net $net --shape $shape $how "${peer[@]}"
            done
            step "$net-${shape%%,*}-$precision-memory" "${on_gpu[@]}" --net $net --shape $shape --what memory "${peer[@]}"
        done
    done
fi

printf '\n%s\n' "${rows[@]}"
! printf '%s\n' "${rows[@]}" | grep -q FAILED
