#!/usr/bin/env bash
# Installs the system packages that some tests need: ends with 0 when all are there, else says what is missing and ends
# with 1 (those tests are skipped then). Installs on Debian and Ubuntu, as root; does nothing elsewhere.
set -euo pipefail

# COMMAND:PACKAGE, or FILE:PACKAGE
wanted=(
    cc:build-essential
    node:nodejs
    npm:npm
    chromium:chromium
    aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu
    /usr/aarch64-linux-gnu/include/stdio.h:libc6-dev-arm64-cross
    qemu-aarch64-static:qemu-user-static
)

say() { printf 'system-packages: %s\n' "$*"; }

missing() {
    local pair
    for pair in "${wanted[@]}"; do
        command -v "${pair%%:*}" >/dev/null || [[ -e ${pair%%:*} ]] || printf '%s\n' "${pair##*:}"
    done
}

mapfile -t packages < <(missing)
[[ ${#packages[@]} -eq 0 ]] && exit 0
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    say "missing: ${packages[*]}; as root on Debian or Ubuntu this would install them"
    exit 1
fi
say "installing ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null && apt-get install -qq -y --no-install-recommends "${packages[@]}" </dev/null >/dev/null || true
mapfile -t packages < <(missing)
[[ ${#packages[@]} -eq 0 ]] || {
    say "still missing: ${packages[*]}"
    exit 1
}
