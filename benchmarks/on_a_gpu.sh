#!/usr/bin/env bash
# Measures on a GPU all that docs/performance.md tells of GPUs, in some twelve minutes, with plain Python and torch.
#
#   bash benchmarks/on_a_gpu.sh [--official DIR]     DIR: a clone of github.com/ChenmienTan/malmen
#   bash benchmarks/on_a_gpu.sh --small              tries all parts on the CPU, with small models
#
# Each part has its own time limit and writes its results as it goes. A part whose complete result, of this GPU and this
# code, is there already is left out: call the script again after it was cut off. A part that fails says so, and the
# next one runs. Results go to benchmarks/results; RESULTS names another folder. Where OUT names a folder, results and
# logs are copied there, too. PYTHON names the interpreter.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
results=${RESULTS:-$here/results}
official='' small=''
while [ $# -gt 0 ]; do
    case $1 in
    --official) official=${2:?--official needs a folder} && shift ;;
    --small) small=yes ;;
    *) echo "on_a_gpu.sh: unknown option $1; see the first lines of the script." >&2 && exit 2 ;;
    esac
    shift
done

logs=$(mktemp -d)
mkdir -p "$results"
summary=() part_running='' failed=0

keep() { # copies what there is to OUT
    if [ -n "${OUT:-}" ]; then
        mkdir -p "$OUT" && cp "$logs"/* "$OUT" 2>/dev/null
        for name in $names; do cp "$results/$name.json" "$OUT" 2>/dev/null; done
    fi
    return 0
}

stop() { # the script itself is cut off: end the part, keep what it wrote
    [ -n "$part_running" ] && kill "$part_running" 2>/dev/null && wait "$part_running"
    keep
    rm -r "$logs"
    exit 143
}
trap stop TERM INT

part() { # part NAME SECONDS SCRIPT ARGUMENT...
    local name=$1 limit=$2 script=$3 began=$SECONDS status
    shift 3
    if grep -qxF "$results/$name.json" <<<"$done_before"; then
        summary+=("$name: was there")
        return
    fi
    echo "== $script $*"
    timeout --kill-after=10 "$limit" "$python" "$here/$script" "$@" --out "$results" > >(tee "$logs/$name.log") 2>&1 &
    part_running=$!
    wait "$part_running"
    status=$?
    part_running=''
    case $status in
    0) summary+=("$name: done in $((SECONDS - began)) s") ;;
    124 | 137) summary+=("$name: cut off after $limit s") && failed=1 ;;
    *) summary+=("$name: FAILED with exit status $status, see above") && failed=1 ;;
    esac
    keep
}

if [ -n "$small" ]; then
    gpus=2 device=cpu
    names="small_device_agreement small_compare_m4 small_gptj_cpu small_memory_gpt2_cpu small_memit"
    names+=" small_parallel_cpu_m4"
    size=(--device cpu --blocks 9 --width 64)
    agreement=(--devices cpu --small --n-edits 4 --steps 2)
    compare=("${size[@]}" --models gpt2 --n-edits 4 --repetitions 1)
    gptj=("${size[@]}" --n-edits 4 --steps 1)
    memory=("${size[@]}" --n-edits 4)
    memit=("${size[@]}" --requests 1 --plain-requests 1 --steps 1)
    parallel=("${size[@]}" --ranks 1 2 --n-edits 4 --turns 1 --steps 1)
else
    gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())') || exit 1
    [ "$gpus" -gt 0 ] || { echo "torch finds no GPU; --small tries the script on the CPU." >&2 && exit 2; }
    names="device_agreement compare_cuda_m4096 gptj_cuda memory_gpt2_cuda memit_cuda parallel_cuda_m4096"
    agreement=()
    compare=(--device cuda --models gpt2 --n-edits 4096)
    gptj=(--n-edits 16384)
    memory=(--device cuda --rows-per-batch 256 --n-edits 32 8192)
    memit=(--device cuda --requests 256)
    parallel=(--device cuda --n-edits 4096 --turns 2 --ranks)
    for ranks in 1 2 4 8; do [ "$ranks" -le "$gpus" ] && parallel+=("$ranks"); done
fi
set -- $names
files=("${@/#/$results/}")
compared=$results/$2.json # one of this package alone does not stand for a comparison
[ -n "$official" ] && grep -qs '"official_commit": null' "$compared" && rm "$compared"
done_before=$("$python" "$here/reporting.py" "${files[@]/%/.json}") || exit 1

part "$1" 150 device_agreement.py ${agreement[@]+"${agreement[@]}"}
if [ -n "$official" ]; then
    compare+=(--official "$official")
else
    echo "No clone of the official code is given (--official DIR): compare.py measures this package alone."
fi
part "$2" 150 compare.py "${compare[@]}"
part "$3" 240 gptj.py "${gptj[@]}"
part "$4" 120 memory.py "${memory[@]}"
part "$5" 60 memit.py "${memit[@]}"
if [ "$gpus" -gt 1 ]; then
    part "$6" 180 parallel.py "${parallel[@]}"
else
    summary+=("$6: left out, there is one GPU only")
fi
keep
rm -r "$logs"
printf '\n'
printf '%s\n' "${summary[@]}"
exit $failed
