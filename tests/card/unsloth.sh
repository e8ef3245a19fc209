#!/usr/bin/env bash
# Unsloth's ORPO steps on the weights and pairs of the other contenders: bash unsloth.sh SITE.TGZ PROJECT SCRATCH OUT (run.sh calls it).
# It rewrites transformers, peft and trl as it is imported, and wants other versions of them: packages of its own, a process of its own.
set -u
site=$1 project=$2 scratch=$3 out=$4
python=${PYTHON:-python3}
cd "$project" || exit 1
"$python" -m tests.card save --shape 1b --out "$out" --folder "$scratch/model" || exit 1
mkdir -p "$scratch/unsloth" && tar xzf "$site" -C "$scratch/unsloth"
export PYTHONPATH="$project:$scratch/unsloth" UNSLOTH_DISABLE_STATISTICS=1 HF_HUB_OFFLINE=1
for base in nf4 bf16; do
    echo "== $base"
    timeout 60 "$python" -m tests.card.unsloth_steps "$scratch/model" $base "$out"
done
