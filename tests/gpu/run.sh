#!/usr/bin/env bash
# Everything that needs a GPU: tests/gpu/run.sh [FOLDER [PARTS [SECONDS]]]. Made for machines that are lent by the minute.
#
# FOLDER  (default: gpu-results in the checkout) gets table.txt, a line as soon as a step ends, log.txt, all that the steps said, and running/, what those
#         have said that are not at their end. Another call adds to it. The table is printed last, also when steps fail or somebody stops the script.
#         What networks learn here is thrown away.
# PARTS   any of "tests train bench sanitizer", or names of steps such as "layers-bf16" (default: all parts), in the order below: what the rest stands
#         on comes first, and of the benchmarks those that say most. A name that does not occur is a failure.
# SECONDS that all of it may take (default: as long as it likes). No step gets more than is left, and what does not fit any more is skipped:
#         with ten minutes a call, say 570, and name what was cut off or skipped in the next one. If the machine may be gone before a call ends,
#         make two.
# JOBS    in the environment: how many steps go on side by side that are not timed (default: half the cores, 6 at most).
#
# Needs CuPy (either wheel; from 14 on with [ctk], cupy-cuda13x[ctk], where there is no CUDA toolkit) and, for "tests", pytest with hypothesis; PyTorch
# to compare with and compute-sanitizer of the CUDA toolkit are used where they are installed.
set -uo pipefail
for number in "${3:-1}" "${JOBS:-1}"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || { echo "run.sh: SECONDS and JOBS are whole numbers from 1 on, not '$number'" >&2; exit 2; }
done
out=$(realpath -m "${1:-$(dirname "$0")/../../gpu-results}") parts=${2:-tests train bench sanitizer} end=$((SECONDS + ${3:-1000000000}))
cd "$(dirname "$0")/../.." || exit 2
running=$out/running table=$out/table.txt log=$out/log.txt
rm -rf "$running"
mkdir -p "$running" && touch "$table" "$log" && work=$(mktemp -d) || exit 2
before=$(wc -l <"$table") # of earlier calls
[ -w "${HOME:-/}" ] || export PYTHONUSERBASE="${PYTHONUSERBASE:-${HOME:-}/.local}" HOME="$work" # CuPy keeps there what it compiles
export PYTHONPATH="$PWD:$PWD/tests${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
PATH=$PATH:${CUDA_PATH:-/usr/local/cuda}/bin
ulimit -c 0
declare -A names=() began=() limits=() tells=() # by process: its step, first second, seconds that it may take, and what its most telling line matches
declare -A status=()                            # by step that has ended
known=" "                                       # names of parts and steps that were asked about
cores=$(nproc) jobs=${JOBS:-}
jobs=${jobs:-$((cores < 4 ? 1 : cores > 12 ? 6 : cores / 2))}

finish() {
    local pid
    for pid in "${!names[@]}"; do
        kill "$pid" 2>/dev/null
        keep "${names[$pid]}"
    done
    rm -rf "$work" "$running"
    printf '\n'
    tail -n +$((before + 1)) "$table"
}

stopped() {
    local pid
    for pid in "${!names[@]}"; do row "${names[$pid]}" stopped $((SECONDS - began[$pid])) "by a signal"; done
    exit 143
}
trap finish EXIT
trap stopped TERM INT HUP

keep() { # keep NAME: add what this step said to the log, of what says too much the end: it may not keep the log from coming back
    { head -n 2 "$running/$1"; sed 1,2d "$running/$1" | tail -c 1000000; } >>"$log"
}

row() { # row NAME HOW SECONDS [WORDS]: a line of the table
    printf '%-26s %-10s %5d s   %s\n' "$1" "$2" "$3" "${4:-}" | cut -c1-250 | sed 's/ *$//' | tee -a "$table"
}

wanted() { # wanted PART NAME: whether this step was asked for
    known+="$1 $2 "
    [[ " $parts " == *" $1 "* || " $parts " == *" $2 "* ]]
}

said() { # said FILE PATTERN: the last line that matches, or else the last; the first test that failed or warning, and the test under way
    local line failed under_way
    line=$({ grep -a '[^ ]' "$1" | tail -n 1; [ -n "$2" ] && grep -aE "$2" "$1"; } | tail -n 1 | sed 's/^=* *//; s/ *=*$//')
    failed=$(grep -aE -m 1 '^((FAILED|ERROR) tests/|warning: )' "$1" || grep -aoE -m 1 '^tests/[^ ]+::.* (FAILED|ERROR)' "$1")
    under_way=$(grep -aoE '^tests/[^ ]+::.*' "$1" | tail -n 1 | sed 's/ *Fatal Python error.*//')
    [[ -n $under_way && ! $under_way =~ \ (PASSED|FAILED|SKIPPED|ERROR|XFAIL|XPASS) ]] && line="in $under_way"
    printf '%s' "$line${failed:+; first $failed}"
}

start() { # start PART NAME LIMIT COMMAND...: run it within LIMIT seconds, beside what runs already; `tell` is for `said`
    local part=$1 name=$2 limit=$3 left
    shift 3
    wanted "$part" "$name" || return 0
    while ((${#names[@]} >= jobs)); do one_ends; done
    left=$((end - SECONDS))
    if [ "$left" -lt 3 ]; then
        row "$name" skipped 0 "no time is left"
        return 0
    fi
    limit=$((limit < left ? limit : left))
    printf '\n== %s: %s\n' "$name" "${*//$'\n'/ }" >"$running/$name"
    timeout --signal=ABRT --kill-after=10 "$limit" "$@" >>"$running/$name" 2>&1 & # at SIGABRT, Python says where it is
    names[$!]=$name began[$!]=$SECONDS limits[$!]=$limit tells[$!]=$tell
}
tell=

one_ends() { # wait for one of those that run, and add its line to the table
    local pid name how seconds code=0
    while :; do
        for pid in "${!names[@]}"; do kill -0 "$pid" 2>/dev/null || break 2; done
        ((${#names[@]} == 1)) && break
        sleep 0.1
    done
    wait "$pid" || code=$?
    kill -KILL -- "-$pid" 2>/dev/null # what it left behind, which would go on beside what is timed
    name=${names[$pid]} seconds=$((SECONDS - began[$pid]))
    how="FAILED $code"
    [ "$code" = 0 ] && how=passed
    ((code == 124 || (code == 137 && seconds >= limits[$pid]))) && how="TOO LONG"
    [ "$how" = "TOO LONG" ] && ((SECONDS >= end)) && how="CUT OFF" code=2 # which says nothing about the step
    sed 1,2d "$running/$name" | tr -d '\0' >"$work/said"
    keep "$name"
    rm "$running/$name"
    row "$name" "$how" "$seconds" "$(said "$work/said" "${tells[$pid]}")"
    status[$name]=$code
    unset "names[$pid]"
}

all_end() { while ((${#names[@]})); do one_ends; done; }

step() { # step PART NAME LIMIT COMMAND...: run it alone
    all_end
    start "$@"
    all_end
}

missing() { # missing PACKAGE...: the first that Python does not import, or nothing
    local package
    for package in "$@"; do
        timeout 60 python3 -c "import $package" >/dev/null 2>&1 || { echo "$package"; return; }
    done
}

{
    printf '\n-- %s, %s\n' "$(date -u +'%Y-%m-%d %H:%M UTC')" "$(git log -1 --format='commit %h' 2>/dev/null || echo 'no commit known')"
    timeout 30 nvidia-smi
} >>"$log" 2>&1
parts+=" device"
step device device 120 python3 -c "
import cupy, minidcnn
d = cupy.cuda.runtime.getDeviceProperties(0)
minidcnn.use('cupy')
print(d['name'].decode(), f\"compute {d['major']}.{d['minor']}\", '| CuPy', cupy.__version__, '| CUDA', cupy.cuda.runtime.runtimeGetVersion())"
[ "${status[device]:-}" = 0 ] || exit 1 # nothing else makes sense
precisions=(float32 tf32x3 tf32 bf16 float16)
declare -A value=([mma.sync]=0 [wgmma]=1) # of MINIDCNN_WGMMA
other=                                    # the tensor-core instructions that are not used, where there is a choice
[ "${MINIDCNN_WGMMA:-1}" != 0 ] && grep -q 'compute 9\.0' "$work/said" && other=mma.sync

# -- tests: those of the simulator, on the device -------------------------------------------------------------------------------------------
# Fragments are what tf32x3, tf32, bf16 and float16 stand on: those of mma.sync in one step, wgmma in another, so that each is judged by itself; the rest is
# too small for tiles of 128. A file a process, since an illegal access is the end of its process. Warnings of a machine that we do not know are no errors.
tests=(env MINIDCNN_CUDA=device python3 -m pytest -v -o addopts= -m "not exhaustive" -p no:cacheprovider -W default --maxfail=5 --tb=short)
lacking=$(missing pytest hypothesis)
if [ -n "$lacking" ]; then
    wanted tests tests && row tests skipped 0 "$lacking is not installed"
else
    tell='^=.* in [0-9.]+s'
    start tests fragments 240 env MINIDCNN_WGMMA=0 "${tests[@]}" tests/test_cuda_kernels.py tests/test_cuda_conv.py tests/test_cuda_linalg.py \
        tests/test_cuda_tf32x3.py tests/test_half_cuda.py -k "tensor or large_tiles or tiles_of"
    start tests wgmma 180 env MINIDCNN_WGMMA=1 "${tests[@]}" tests/test_cuda_wgmma.py
    for file in cuda_kernels cuda_conv cuda_linalg half_cuda cuda_training cuda_norm cuda_optim cuda_metrics; do
        start tests "${file//_/-}" 240 "${tests[@]}" "tests/test_$file.py" \
            -k "not tensor and not large_tiles and not tiles_of and not names and not in_check_mode and not unet_trains and not left_out_too"
    done
    start tests engine 300 "${tests[@]}" tests/test_{,models_,onnx_,optim_}on_cupy.py tests/test_gradcheck.py -k cupy
    start tests streams 180 "${tests[@]}" tests/test_cuda_uploads.py tests/test_cuda_graph.py
    all_end
    tell=
fi
# Only of tests that failed, pytest's 1, is it known that results are wrong. What hung or crashed would do so again; any other status is of no test.
hung() { ((${status[$1]:-0} == 124 || ${status[$1]:-0} > 128)); }
if [ "${status[fragments]:-}" = 1 ]; then
    row tensor-cores note 0 "fragments do not pass: of what follows in tf32x3, tf32, bf16 and float16, believe times only"
elif hung fragments; then
    precisions=(float32)
    row tensor-cores skipped 0 "fragments hang or crash: only float32 from here on"
fi
if [ "${status[wgmma]:-}" = 1 ] || hung wgmma; then
    export MINIDCNN_WGMMA=0
    hung wgmma && other=
    other=${other:+wgmma}
    row without-wgmma set 0 "wgmma does not pass: MINIDCNN_WGMMA=0 from here on, and by hand in later calls"
fi

# -- train: the example, and a recorded run ends with the bits of the other one -------------------------------------------------------------
tell='^best mean IoU'
for p in "${precisions[@]}"; do
    example=(python3 examples/train_unet.py --backend cupy --precision "$p" --epochs 2)
    start train "train-$p" 180 "${example[@]}" --out "$work/train-$p"
    start train "graph-$p" 180 "${example[@]}" --graph --out "$work/graph-$p"
done
all_end
tell=
for p in "${precisions[@]}"; do step train "same-bits-$p" 30 cmp "$work/train-$p/best.safetensors" "$work/graph-$p/best.safetensors"; done

# -- bench: kernels against the ceilings of this GPU, then whole steps, beside PyTorch where it is installed --------------------------------
on_gpu() { # on_gpu NAME LIMIT ARGUMENTS...
    step bench "$1" "$2" python3 -m minidcnn bench --backend cupy "${@:3}"
}
peer=unknown
compared() { # the same, beside PyTorch if there is one, which is found out once; if that fails, ours alone
    local found left=$((end - SECONDS))
    if [ "$peer" = unknown ] && wanted bench "$1" && [ "$left" -ge 3 ]; then
        if found=$(timeout $((left < 120 ? left : 120)) python3 -c "
import torch
assert torch.cuda.is_available()
print('PyTorch', torch.__version__)" 2>/dev/null | tail -n 1); then
            peer="--peer torch"
            row peer found 0 "$found"
        else
            peer=
            row peer skipped 0 "no PyTorch that finds the GPU is installed: nothing is compared"
        fi
    fi
    on_gpu "$@" $peer
    if [ -n "$peer" ] && [ "${status[$1]:-0}" != 0 ]; then
        parts+=" $1-alone"
        on_gpu "$1-alone" 120 "${@:3}"
    fi
}
for p in "${precisions[@]}"; do on_gpu "kernels-$p" 120 --precision "$p" --what kernels --shape 16,3,256,256; done
for p in tf32 float16; do
    [ -n "$other" ] && [ "${#precisions[@]}" -gt 1 ] || continue
    MINIDCNN_WGMMA=${value[$other]} on_gpu "kernels-$p-$other" 120 --precision "$p" --what kernels --shape 16,3,256,256
done
for run in "unet 16,3,256,256" "unet 4,3,512,512" "segnet 16,3,256,256" "fcn8s 16,3,256,256"; do
    read -r net shape <<<"$run"
    name=$net-${shape%%,*} these=() # float16 and tf32x3 with one network only, for the time that all this takes
    for p in "${precisions[@]}"; do [[ $p = float16 || $p = tf32x3 ]] || these+=("$p"); done
    [ "$name" = unet-16 ] && these=("${precisions[@]}")
    for p in "${these[@]}"; do compared "$name-$p" 240 --precision "$p" --net "$net" --shape "$shape"; done
    for p in "${these[@]}"; do on_gpu "$name-$p-graph" 120 --precision "$p" --net "$net" --shape "$shape" --graph; done
    for p in "${these[@]}"; do compared "$name-$p-memory" 240 --precision "$p" --net "$net" --shape "$shape" --what memory; done
    if [ "$name" = unet-16 ]; then
        for p in "${these[@]}"; do compared "layers-$p" 240 --precision "$p" --what layers --shape "$shape"; done
    fi
done

# -- sanitizer: few cases of each kernel, every access watched from outside -----------------------------------------------------------------
if [ -n "$lacking" ] || ! command -v compute-sanitizer >/dev/null; then
    wanted sanitizer sanitizer && row sanitizer skipped 0 "${lacking:-compute-sanitizer} is not installed"
else
    for tool in memcheck racecheck initcheck; do # one by one: they might take each other for their own process
        step sanitizer "$tool" 240 env MINIDCNN_CUDA_POOL=none HYPOTHESIS_PROFILE=short compute-sanitizer --tool "$tool" --error-exitcode 9 \
            "${tests[@]}" tests/test_cuda_kernels.py tests/test_cuda_conv.py tests/test_cuda_linalg.py tests/test_cuda_training.py tests/test_cuda_norm.py \
            tests/test_cuda_optim.py tests/test_cuda_metrics.py -k "large or runs_of or pooling or cross or norm or sgd or adam or counts or clean"
    done
fi

for word in $parts; do
    [[ $known == *" $word "* ]] || row "$word" FAILED 0 "no such step, or nothing to run it with"
done
! tail -n +$((before + 1)) "$table" | grep -E "^[^ ]+ +(FAILED|TOO LONG|CUT OFF)" >/dev/null # not -q, which stops reading: then tail fails, too
