#!/usr/bin/env bash
# Compiles the native engine to WebAssembly: src/lsan/javascript/lsan.wasm, or the file that is named.
#
#   scripts/wasm.sh [FILE]    needs the Python package ziglang (make environment installs it): its clang and wasm-ld
#
# The same sources and the version of constraints.txt give the same bytes everywhere; a test compares them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath "${1:-src/lsan/javascript/lsan.wasm}")
python=${PYTHON:-$PWD/.venv/bin/python}
"$python" -c 'import ziglang' 2>/dev/null || {
    echo "wasm: error: $python has no package ziglang: make environment installs it" >&2
    exit 1
}
zig() { "$python" -m ziglang "$@"; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export ZIG_GLOBAL_CACHE_DIR=$work/cache ZIG_LOCAL_CACHE_DIR=$work/cache
cd src/lsan/runtime/_native

# What every browser has that has 128-bit vectors.
target=(-target wasm32-wasi -msimd128 -mbulk-memory -mbulk-memory-opt -msign-ext -mnontrapping-fptoint)
# -Os for the hot loops, -Oz for the rest: smaller than -O2, and no slower in V8. There, calls
# are inlined only where that is smaller.
for name in json reader tensors items program encoder topk kernels wasm; do
    size=(-Xclang -Oz -mllvm -inline-threshold=-20)
    [[ $name == kernels ]] && size=(-fno-math-errno)
    [[ $name == wasm ]] && size+=(-fno-builtin) # else the loop of strlen becomes a call of strlen
    zig cc "${target[@]}" -std=c11 -Os "${size[@]}" -fvisibility=hidden -fno-sanitize=all -g0 -c "$name.c" -o "$work/$name.o"
done
functions=(
    malloc free lsan_open lsan_describe lsan_state_new lsan_state_reserve lsan_state_free lsan_encode lsan_rank
    lsan_scores lsan_append lsan_session_hidden lsan_cosines
)
cd "$work"
zig wasm-ld -O2 --no-entry --strip-all --gc-sections --compress-relocations -z stack-size=65536 --stack-first \
    --max-memory=1073741824 "${functions[@]/#/--export=}" ./*.o -o lsan.wasm
chmod 644 lsan.wasm
cp lsan.wasm "$out.new"
mv "$out.new" "$out"
