#!/usr/bin/env bash
# Rewrites constraints.txt: the newest versions that pyproject.toml allows, found by a clean install in a temporary
# environment. PyTorch stays at the version that constraints.txt names; to move it, change that line first.
# PYTHON and TORCH_PIP_OPTIONS as in bootstrap.sh; PYTHON must be the oldest that pyproject.toml allows, because newer
# ones run the packages of older ones, but not the other way round.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3.11}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "constraints: error: $python is not Python 3.11; name one with PYTHON=..." >&2
    exit 1
}
torch=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "constraints: installing $torch and '.[dev]' in a temporary environment"
"$python" -m venv "$work/venv"
# shellcheck disable=SC2086 # options are several words
"$work/venv/bin/pip" install --quiet "$torch" ${TORCH_PIP_OPTIONS:-} </dev/null
"$work/venv/bin/pip" install --quiet --editable '.[dev]' </dev/null
{
    sed '/^[^#]/,$d' constraints.txt
    # Without pip itself, and without the CUDA libraries, which depend on the build of PyTorch and which it pins itself.
    "$work/venv/bin/pip" freeze --all --exclude-editable |
        grep -vE '^(#|-e|pip=|nvidia-|cuda-|triton=)' | sed 's/+.*//' | LC_ALL=C sort -f
} >"$work/constraints.txt"
cp "$work/constraints.txt" constraints.txt
echo "constraints: constraints.txt written; 'make test' installs and tries it"
