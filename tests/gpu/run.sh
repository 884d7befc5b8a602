#!/usr/bin/env bash
# Everything that needs a GPU: tests/gpu/run.sh [FOLDER [PARTS [SECONDS]]]. Made for machines that are lent by the minute.
#
# FOLDER  (default: gpu-results) gets table.txt, a line as soon as a step ends, and log.txt, all that the steps say. The table is printed last,
#         also when steps fail or somebody stops the script. What networks learn here is thrown away.
# PARTS   any of "tests bench train sanitizer", or names of steps such as "layers-bf16" (default: all parts), in the order below: what the
#         rest stands on comes first, and of the benchmarks those that say most.
# SECONDS that all of it may take (default: as long as it likes). No step gets more than is left, and what does not fit any more is skipped:
#         with ten minutes a call, say 570, and name what was skipped in the next one.
#
# Needs CuPy (either wheel; from 14 on with [ctk], cupy-cuda13x[ctk], where there is no CUDA toolkit) and, for "tests", pytest with hypothesis; PyTorch to compare with and compute-sanitizer of the CUDA toolkit are used
# where they are installed.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-gpu-results} parts=${2:-tests bench train sanitizer} end=$((SECONDS + ${3:-1000000000}))
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
export PYTHONPATH="$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
PATH=$PATH:/usr/local/cuda/bin
child= current=run.sh began=$SECONDS

finish() {
    [ -n "$child" ] && kill "$child" 2>/dev/null
    rm -rf "$work"
    printf '\n'
    cat "$out/table.txt"
}
: >"$out/table.txt" >"$out/log.txt"
trap finish EXIT
trap 'row "$current" stopped $((SECONDS - began)) "by a signal"; exit 143' TERM INT HUP

row() { # row NAME HOW SECONDS [WORDS]: a line of the table
    printf '%-26s %-10s %5d s   %s\n' "$1" "$2" "$3" "${4:-}" | sed 's/ *$//' | tee -a "$out/table.txt"
}

wanted() { # wanted PART NAME: whether this step was asked for
    [[ " $parts " == *" $1 "* || " $parts " == *" $2 "* ]]
}

step() { # step PART NAME LIMIT COMMAND...: run it within LIMIT seconds; its status, or 0 if nobody asked for it
    local part=$1 name=$2 limit=$3 left=$((end - SECONDS)) status how
    shift 3
    wanted "$part" "$name" || return 0
    if [ "$left" -lt 3 ]; then
        row "$name" skipped 0 "no time is left"
        return 0
    fi
    current=$name began=$SECONDS
    printf '\n== %s: %s\n' "$name" "$*" >>"$out/log.txt"
    timeout --kill-after=10 $((limit < left ? limit : left)) "$@" >>"$out/log.txt" 2>&1 &
    child=$!
    wait "$child"
    status=$? child=
    case $status in
        0) how=passed ;;
        124 | 137) how="TOO LONG" ;;
        *) how="FAILED $status" ;;
    esac
    row "$name" "$how" $((SECONDS - began)) "$(tail -n 1 "$out/log.txt" | cut -c1-120)"
    return "$status"
}

missing() { # missing PACKAGE...: the first that Python does not import, or nothing
    local package
    for package in "$@"; do
        python3 -c "import $package" >/dev/null 2>&1 || { echo "$package"; return; }
    done
}

parts+=" device"
if ! step device device 120 python3 -c "
import cupy, minidcnn
d = cupy.cuda.runtime.getDeviceProperties(0)
minidcnn.use('cupy')
print(d['name'].decode(), 'compute', d['major'], d['minor'], '| CuPy', cupy.__version__, '| CUDA', cupy.cuda.runtime.runtimeGetVersion())"; then
    exit 1 # nothing else makes sense
fi
precisions=(float32 tf32 bf16 float16)
warpgroups=no # whether there is a choice between wgmma and mma.sync
if [ "${MINIDCNN_WGMMA:-1}" != 0 ] && python3 -c "
import cupy
d = cupy.cuda.runtime.getDeviceProperties(0)
raise SystemExit((d['major'], d['minor']) != (9, 0))"; then warpgroups=yes; fi

# -- tests: those of the simulator, on the device -------------------------------------------------------------------------------------------
# First the tensor cores' fragments, on which the rest of tf32, bf16 and float16 stands. Warnings of a machine that we do not know are no errors.
tests=(env MINIDCNN_CUDA=device python3 -m pytest -q -o addopts= -m "not exhaustive" -p no:cacheprovider -W default --maxfail=5 --tb=short)
lacking=$(missing pytest hypothesis)
if [ -n "$lacking" ]; then
    wanted tests tests && row tests skipped 0 "$lacking is not installed"
else
    if ! step tests fragments 240 "${tests[@]}" tests/test_cuda_kernels.py tests/test_cuda_conv.py tests/test_cuda_linalg.py tests/test_half_cuda.py \
        -k "tensor or large_tiles or tiles_of"; then
        precisions=(float32)
        row tensor-cores skipped 0 "their fragments are wrong here"
    fi
    if ! step tests wgmma 180 "${tests[@]}" tests/test_cuda_wgmma.py; then
        export MINIDCNN_WGMMA=0 warpgroups=no
        row without-wgmma set 0 "its results are wrong here: MINIDCNN_WGMMA=0 from here on"
    fi
    step tests kernels 300 "${tests[@]}" tests/test_cuda_kernels.py tests/test_cuda_conv.py tests/test_cuda_linalg.py tests/test_cuda_training.py \
        tests/test_cuda_optim.py tests/test_cuda_metrics.py tests/test_half_cuda.py \
        -k "not tensor and not large_tiles and not tiles_of and not names and not in_check_mode and not unet_trains and not left_out_too"
    step tests engine 300 "${tests[@]}" tests/test_on_cupy.py tests/test_models_on_cupy.py
    step tests streams 180 "${tests[@]}" tests/test_cuda_uploads.py tests/test_cuda_graph.py
fi

# -- bench: kernels against the ceilings of this GPU, then whole steps, beside PyTorch where it is installed --------------------------------
peer=()
on_gpu() { # on_gpu NAME LIMIT ARGUMENTS...
    step bench "$1" "$2" python3 -m minidcnn bench --backend cupy "${@:3}"
}
if [[ " $parts " == *" bench "* || " $parts " == *"-"* ]]; then
    if python3 -c "import torch; assert torch.cuda.is_available()" >/dev/null 2>&1; then
        peer=(--peer torch)
    else
        row peer skipped 0 "no PyTorch that finds the GPU is installed: nothing is compared"
    fi
fi
for p in "${precisions[@]}"; do
    on_gpu "kernels-$p" 120 --precision "$p" --what kernels --shape 16,3,256,256
    if [[ $warpgroups-$p == yes-tf32 || $warpgroups-$p == yes-float16 ]]; then
        MINIDCNN_WGMMA=0 on_gpu "kernels-$p-mma.sync" 120 --precision "$p" --what kernels --shape 16,3,256,256
    fi
done
for run in "unet 16,3,256,256" "unet 4,3,512,512" "segnet 16,3,256,256" "fcn8s 16,3,256,256"; do
    read -r net shape <<<"$run"
    name=$net-${shape%%,*} these=(${precisions[*]//float16/}) # float16 with one network only, for the time that all this takes
    [ "$name" = unet-16 ] && these=("${precisions[@]}")
    for p in "${these[@]}"; do on_gpu "$name-$p" 240 --precision "$p" --net "$net" --shape "$shape" "${peer[@]}"; done
    for p in "${these[@]}"; do on_gpu "$name-$p-graph" 120 --precision "$p" --net "$net" --shape "$shape" --graph; done
    for p in "${these[@]}"; do on_gpu "$name-$p-memory" 240 --precision "$p" --net "$net" --shape "$shape" --what memory "${peer[@]}"; done
    if [ "$name" = unet-16 ]; then
        for p in "${these[@]}"; do on_gpu "layers-$p" 240 --precision "$p" --what layers --shape "$shape" "${peer[@]}"; done
    fi
done

# -- train: the example, and a recorded run ends with the bits of the other one -------------------------------------------------------------
for p in "${precisions[@]}"; do
    example=(python3 examples/train_unet.py --backend cupy --precision "$p" --epochs 2)
    step train "train-$p" 180 "${example[@]}" --out "$work/train-$p"
    step train "graph-$p" 180 "${example[@]}" --graph --out "$work/graph-$p"
    step train "same-bits-$p" 30 cmp "$work/train-$p/best.safetensors" "$work/graph-$p/best.safetensors"
done

# -- sanitizer: few cases of each kernel, every access watched from outside -----------------------------------------------------------------
if [ -n "$lacking" ] || ! command -v compute-sanitizer >/dev/null; then
    wanted sanitizer sanitizer && row sanitizer skipped 0 "${lacking:-compute-sanitizer} is not installed"
else
    for tool in memcheck racecheck initcheck; do
        step sanitizer "$tool" 240 env MINIDCNN_CUDA_POOL=none HYPOTHESIS_PROFILE=short compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "${tests[@]}" tests/test_cuda_kernels.py tests/test_cuda_conv.py tests/test_cuda_linalg.py tests/test_cuda_training.py \
            tests/test_cuda_optim.py tests/test_cuda_metrics.py -k "large or runs_of or pooling or cross or norm or sgd or adam or counts or clean"
    done
fi

! grep -qE "^[^ ]+ +(FAILED|TOO LONG)" "$out/table.txt"
