#!/usr/bin/env bash
# Makes .venv beside this folder and installs lsan and its tools into it; returns at once when that is done already.
#
#   PYTHON             the Python to make it with; else the first of python3, python3.13, ... that is new enough
#   TORCH_PIP_OPTIONS  more options for the pip call that installs PyTorch; remembered in .venv
#
# "Done" is a file in .venv that holds what the environment was made from. It is written last, so that an interrupted
# install is taken up again, and it holds no times, so that `git checkout` alone does not cause an install.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'bootstrap: %s\n' "$*"; }
fail() { printf 'bootstrap: error: %s\n' "$@" >&2; exit 1; }

# need COMMAND PACKAGE: for a tool that lsan cannot do without.
need() {
    command -v "$1" >/dev/null || fail "'$1' is missing; it comes with the Debian/Ubuntu package '$2': apt-get install $2"
}

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

# Sets `python`, and checks that it can make environments.
find_python() {
    if [[ -n ${PYTHON:-} ]]; then
        command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON: no such command"
        new_enough "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.11 or newer: $("$PYTHON" --version 2>&1 || true)"
        python=$PYTHON
    else
        python=
        local candidate
        for candidate in python3 python3.13 python3.12 python3.11 python3.14; do
            if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
                python=$candidate
                break
            fi
        done
        if [[ -z $python ]]; then
            local found="there is none"
            command -v python3 >/dev/null && found="python3 here is $(python3 --version 2>&1 || echo broken)"
            fail "lsan needs Python 3.11 or newer, and $found" \
                "Debian 12, Ubuntu 24.04 and newer: apt-get install python3 python3-venv" \
                "Ubuntu 22.04: apt-get install python3.11 python3.11-venv"
        fi
    fi
    "$python" -c 'import venv, ensurepip' 2>/dev/null || {
        local package
        package=python$(version_of "$python")-venv
        fail "$(command -v "$python") cannot make virtual environments (its modules venv or ensurepip are missing)" \
            "they come with the Debian/Ubuntu package '$package': apt-get install $package"
    }
}

# What makes an environment unusable when it changes: its place (scripts and .pth files hold it) and its Python.
identity() {
    .venv/bin/python -I -c 'import sys; print(sys.prefix, "%d.%d" % sys.version_info[:2])' 2>/dev/null || echo unusable
}

sources() {
    cat pyproject.toml constraints.txt scripts/bootstrap.sh setup.py tests/javascript/package-lock.json \
        src/lsan/runtime/_native/*.{c,h,inc,pyx} | sha256sum | cut -d ' ' -f 1
}

stamp=.venv/lsan-installed
made_identity='' made_options='' made_sources=''
if [[ -f $stamp ]]; then
    { read -r made_identity; read -r made_options; read -r made_sources; } <"$stamp" || true
fi
here=$(identity)
want_sources=$(sources)
options=${TORCH_PIP_OPTIONS:-$made_options}

reason=
if [[ ! -e .venv ]]; then
    reason="new"
elif [[ ! -f .venv/pyvenv.cfg ]]; then
    fail ".venv is here but is no virtual environment; move it away, or delete it with make clean-environment"
elif [[ $here == unusable ]] || ! .venv/bin/python -I -c 'import pip' 2>/dev/null; then
    reason="its Python does not run, or it has no pip"
elif ! new_enough .venv/bin/python; then
    reason="its Python is too old"
elif [[ -f $stamp && $here != "$made_identity" ]]; then
    reason="it was moved here, or its Python changed"
elif [[ -f $stamp && $options != "$made_options" ]]; then
    reason="TORCH_PIP_OPTIONS changed"
elif [[ -n ${PYTHON:-} ]] && command -v "$PYTHON" >/dev/null && [[ $(version_of "$PYTHON") != "$(version_of .venv/bin/python)" ]]; then
    reason="PYTHON is another version"
elif [[ $want_sources == "$made_sources" ]]; then
    exit 0
fi

rm -f "$stamp"
if [[ -n $reason ]]; then
    find_python
    say "making .venv with $(command -v "$python") ($("$python" --version 2>&1)): $reason"
    "$python" -m venv --clear .venv || fail "making .venv failed, see above"
fi

install() { .venv/bin/python -m pip --no-input --disable-pip-version-check install --quiet "$@" </dev/null; }

# PyTorch alone first, free of the other pins: an index for one build of it may lack those versions. What it brings is
# moved to the pinned versions by the second call, which finds PyTorch itself in place and keeps it.
torch=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)
[[ -n $torch ]] || fail "constraints.txt names no version of torch"
say "installing $torch (large: this may take minutes)${options:+ with $options}"
# shellcheck disable=SC2086 # options are several words
install "$torch" $options || fail "installing PyTorch failed, see above" \
    "for a build for other hardware, pass TORCH_PIP_OPTIONS (make help tells how)"

say "installing lsan with the versions of constraints.txt"
install --constraint constraints.txt setuptools cython || fail "installing setuptools and cython failed, see above"
# Without build isolation, the build too uses the pinned setuptools, and is not downloaded again.
command -v cc >/dev/null || say "no C compiler (cc): lsan will recommend from bundles with NumPy, many times slower;" \
    "with the Debian/Ubuntu package 'build-essential', make clean-environment and this again, it has its native engine"
install --constraint constraints.txt --no-build-isolation --editable '.[dev]' || fail "installing lsan failed, see above"
.venv/bin/python -m pip --disable-pip-version-check check >/dev/null ||
    fail "the installed packages contradict each other: $(.venv/bin/python -m pip --disable-pip-version-check check 2>&1)"

if command -v npm >/dev/null; then
    say "installing TypeScript, for tests of lsan.js"
    mkdir -p .venv/javascript
    cp tests/javascript/package.json tests/javascript/package-lock.json .venv/javascript
    npm ci --prefix .venv/javascript --silent --no-audit --no-fund </dev/null || say "that failed: the test of lsan.js's types will be skipped"
else
    say "no npm: the test of lsan.js's types will be skipped"
fi

printf '%s\n%s\n%s\n' "$(identity)" "$options" "$want_sources" >"$stamp.new"
mv "$stamp.new" "$stamp"
say "done; .venv/bin/lsan is the command"
