#!/usr/bin/env bash
# Makes what run.sh needs on an offline machine with a card, in the ignored folder .gpu: bash tests/card/prepare.sh [--unsloth]
#
# The last commit is taken. Packages come from the package index, for the machine's Python 3.12, at the versions that the project pins,
# its own torch excepted; bitsandbytes keeps its library for CUDA 13 only. There: bash .gpu/check/run.sh .gpu/project
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ -e .git ] || { echo "This is no git repository; what is committed would be taken." >&2; exit 2; }
rm -rf .gpu/project .gpu/site .gpu/site.tgz .gpu/check && mkdir -p .gpu/project .gpu/site .gpu/check
git archive HEAD | tar x -C .gpu/project
cp .gpu/project/tests/card/run.sh .gpu/check/
rm -rf .gpu/project/assets/screenshot.png

fetch() { # FOLDER PACKAGES...
    local folder=$1; shift
    python3 -m pip install --quiet --disable-pip-version-check --target "$folder" --no-deps --no-compile --only-binary=:all: --python-version 3.12 \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 --platform any "$@" 2>&1 | grep -v WARNING || true
}

pinned() { sed -n "s/^\($1==.*\)/\1/p" requirements.txt requirements-dev.txt; }

packed() { # FOLDER ARCHIVE
    find "$1" -name 'libbitsandbytes_*' ! -name '*cuda130*' ! -name '*cpu*' -delete
    find "$1" -type d \( -name __pycache__ -o -name tests \) -prune -exec rm -rf {} +
    tar czf "$2" -C "$1" . && rm -rf "$1"
}

fetch .gpu/site $(for name in accelerate argon2-cffi bitsandbytes charset-normalizer datasets gguf huggingface_hub itsdangerous openpyxl peft pydantic transformers trl; do pinned $name; done) \
    argon2-cffi-bindings cffi pycparser annotated-types typing-inspection typing-extensions 'dill<0.4.2' 'multiprocess<0.70.20' et-xmlfile \
    truststore liger-kernel
core=$(sed -n 's/^Requires-Dist: pydantic-core==\(.*\)/\1/p' .gpu/site/pydantic-*.dist-info/METADATA)
client=$(python3 -m pip index versions httpx2 --disable-pip-version-check 2>/dev/null | sed -n '1s/.*(\(.*\))/\1/p')
fetch .gpu/site "pydantic-core==$core" "httpx2==$client" "httpcore2==$client"
packed .gpu/site .gpu/site.tgz

if [ "${1:-}" = --unsloth ]; then # it allows no newer transformers than the machine has, and an older trl and datasets than ours
    rm -rf .gpu/unsloth && mkdir .gpu/unsloth
    fetch .gpu/unsloth unsloth unsloth_zoo trl==1.15.0 'datasets>=4.6,<5' $(pinned bitsandbytes) $(pinned peft) $(pinned pydantic) "pydantic-core==$core" \
        annotated-types typing-inspection typing-extensions 'dill<0.4.2' 'multiprocess<0.70.20' tyro docstring-parser typeguard cut_cross_entropy msgspec \
        charset-normalizer hf_transfer diffusers json5 nest-asyncio structlog certifi torchao wheel
    rm -rf .gpu/unsloth/studio # a package of that name is the project's own
    packed .gpu/unsloth .gpu/unsloth.tgz
fi
du -sh .gpu/* && du -sb .gpu | awk '{printf "%.1f of 64 MiB, the repository itself not counted\n", $1 / 1048576}'
