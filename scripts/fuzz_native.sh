#!/usr/bin/env bash
# Coverage-guided fuzzing of the native reader and engine under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   scripts/fuzz_native.sh [SECONDS]    default 600; needs clang (Debian/Ubuntu package: clang)
#
# Begins with small bundles of several kinds and keeps what it finds in runs/fuzz/corpus. Ends with status 1 at the first
# crash, over-read, leak, undefined behaviour, or file that takes more than 2 GB or 25 seconds, which is then in runs/fuzz.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v clang >/dev/null || {
    echo "fuzz_native: error: 'clang' is missing; it comes with the Debian/Ubuntu package 'clang'" >&2
    exit 1
}
mkdir -p runs/fuzz/corpus
native=src/lsan/runtime/_native
.venv/bin/python benchmarks/fuzz_bundles.py --write-seeds runs/fuzz/seeds
clang -g -O1 -std=gnu11 -fno-sanitize-recover=all -fsanitize=fuzzer,address,undefined "$native"/*.c \
    -lm -lpthread -o runs/fuzz/fuzz
cd runs/fuzz
exec ./fuzz corpus seeds -max_total_time="${1:-600}" -max_len=65536 -rss_limit_mb=2048 -timeout=25 -print_final_stats=1
