#!/usr/bin/env bash
# Everything that only a card can show, in at most nine minutes: bash tests/card/run.sh PROJECT [--tiny]
#
# PROJECT is the project, or a copy of its tracked files; beside a copy may lie site.tgz with the packages that the machine lacks
# (prepare.sh makes both). Results go to $OUT as they come, so that whatever ends this loses nothing. --tiny shows on a CPU that it runs.
# BUDGET: seconds for all of it. SLACK: how many times as long a stage may take, for a busy machine. ONLY: a regular expression; stages whose names do not match are left out.
set -u
usage='usage: bash tests/card/run.sh PROJECT [--tiny]'
[ $# -ge 1 ] || { echo "$usage" >&2; exit 2; }
project=$(cd "$1" 2>/dev/null && pwd) || { echo "There is no folder $1. $usage" >&2; exit 2; }
[ -f "$project/studio/engine/orpo/trainer.py" ] || { echo "$1 is not the project. $usage" >&2; exit 2; }
tiny=${2:-}
[ -z "$tiny" ] || [ "$tiny" = --tiny ] || { echo "$usage" >&2; exit 2; }
out=${OUT:-$PWD/card-out}
budget=${BUDGET:-530}
only=${ONLY:-.}
export SLACK=${SLACK:-1}
python=${PYTHON:-python3}
scratch=$(mktemp -d)
mkdir -p "$out"

say() { echo "[$SECONDS s] $*" | tee -a "$out/stages.log"; }

stage() { # NAME BOX LOG COMMAND...: runs it for at most BOX seconds, or what is left
    local name=$1 box=$(($2 * SLACK)) log=$3 left=$((budget - SECONDS)); shift 3
    [[ $name =~ $only ]] || return 0
    if [ "$left" -lt 15 ]; then say "left out: $name"; return 0; fi
    [ "$box" -le "$left" ] || box=$left
    say "begins: $name (at most $box s)"
    local from=$SECONDS code=0
    timeout -k 5 "$box" "$@" >>"$log" 2>&1 || code=$?
    say "ends: $name, code $code, after $((SECONDS - from)) s"
    [ "$code" = 0 ] || tail -n 12 "$log" | cut -c1-300
}

bench() { # NAME BOX STAGE ARGUMENTS...
    local name=$1 box=$2; shift 2
    stage "$name" "$box" "$out/bench.log" "$python" -m tests.card "$@" --out "$out" ${tiny:+--device cpu --tiny}
}

practice() { # the studio's own run, in the terminal, on the card
    "$python" -m studio.terminal ${tiny:+"$scratch/short.yaml"} --runs "$scratch/runs"
    local code=$?
    tail -n 30 "$scratch"/runs/*/worker.log
    head -c 2000000 "$scratch"/runs/*/events.jsonl
    return $code
}

imports() { timeout 90 "$python" -c "$check" >"$scratch/import.log" 2>"$scratch/import.err"; }
why_not() { grep -E '(Error|Exception)(:|$)' "$scratch/import.err" | tail -n 1 | cut -c1-300; }

say "budget $budget s; out: $out"
if [ -f "$(dirname "$project")/site.tgz" ]; then
    mkdir -p "$scratch/site" && tar xzf "$(dirname "$project")/site.tgz" -C "$scratch/site" && say "packages unpacked"
    export PYTHONPATH="$scratch/site:$project"
else
    export PYTHONPATH="$project"
fi
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TRL_EXPERIMENTAL_SILENCE=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
[ -z "$tiny" ] || export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # threads of several small models only wait for each other
export HF_HOME="$scratch/hf" TRITON_CACHE_DIR="$scratch/triton" PYTHONPYCACHEPREFIX="$scratch/pyc"
command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total,memory.used,clocks.sm --format=csv,noheader | tee -a "$out/stages.log"
cd "$project" || exit 2

# If the carried libraries do not import here, the machine's own transformers and hub client are tried.
check='import torch, transformers, huggingface_hub, peft, trl, datasets, bitsandbytes, pydantic; from trl.experimental.orpo import ORPOTrainer
import studio.terminal, studio.engine.learning; print(torch.__version__, transformers.__version__, huggingface_hub.__version__, peft.__version__)'
if ! imports; then
    say "the carried libraries do not import: $(why_not)"
    rm -rf "$scratch"/site/{transformers,huggingface_hub,httpx2,httpcore2}{,-*}
    imports || say "nor do the machine's own: $(why_not)"
fi
say "$(tail -n 1 "$scratch/import.log" | cut -c1-300)"

# The boxes of what always runs leave 25 of the 530 seconds to unpack and import; tests/test_benchmarks.py adds them up.
bench probe 45 probe
if [ -n "$tiny" ]; then
    sed 's/^training:$/training:\n  max_steps: 2/; s/rows: 2000/rows: 60/' presets/practice.yaml >"$scratch/short.yaml"
fi
# These three need correct results only, so they share the time. Each has folders of runs of its own.
bench "end to end" 110 end-to-end --seconds 100 &
stage "practice run" 75 "$out/practice.log" bash -c "$(declare -f practice); out='$out' scratch='$scratch' python='$python' tiny='$tiny'; practice" &
stage "GPU tests" 90 "$out/pytest.log" "$python" -m pytest tests/test_gpu.py tests/test_orpo_attention.py -p no:cacheprovider --timeout 80 -rs
wait
for run in "$scratch"/runs/*/; do [ ! -d "$run" ] || touch "$run/stop"; done # of a run that outlived its time box the worker still computes
grep -hE '[0-9]+ (passed|failed|skipped|error)' "$out/pytest.log" 2>/dev/null | tail -n 1 | cut -c1-300
bench exact 50 exact
bench "speed, 8B, 4 bits" 100 speed --shape 8b --base nf4 --profile --seconds 90
bench "speed, 8B, bf16" 60 speed --shape 8b --base none --checkpointing none --sets "log-normal,full length" --profile --seconds 52
bench "speed, 1B, 4 bits" 40 speed --shape 1b --base nf4 --checkpointing none --sets "log-normal,fixed,short prompt" --profile --seconds 34
if [ -f "$(dirname "$project")/unsloth.tgz" ]; then # what follows then has the time that is left
    stage "Unsloth, 1B" 75 "$out/unsloth.log" bash "$project/tests/card/unsloth.sh" "$(dirname "$project")/unsloth.tgz" "$project" "$scratch" "$out"
fi
bench "tune, 8B, 4 bits" 50 tune --shape 8b --seconds 44
bench "speed, 1B, bf16" 30 speed --shape 1b --base none --checkpointing none --sets "log-normal,long prompt" --seconds 25
say "done"
echo; cat "$out/summary.txt" 2>/dev/null
