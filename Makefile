# `make` lists the targets. CONTRIBUTING.md says more.

ifneq ($(lastword $(MAKEFILE_LIST)),Makefile)
$(error run make in the folder of this Makefile, or use `make -C FOLDER TARGET` instead of `make -f`)
endif

# Everything below uses paths relative to this folder, so that it may lie anywhere and have any name.
export PYTHON TORCH_PIP_OPTIONS
BIN := .venv/bin
PYTEST_OPTIONS ?=

.PHONY: help
help: ## list the targets (this is the default)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 22
	@echo
	@echo 'Variables:'
	@echo '  PYTHON=python3.12      the Python that makes the environment, if not python3'
	@echo '  TORCH_PIP_OPTIONS=...  options for pip when it installs PyTorch, for another build (CPU only, another CUDA):'
	@echo '                         make demo TORCH_PIP_OPTIONS="--index-url ADDRESS", where ADDRESS is the index that'
	@echo "                         PyTorch's install page names for that build. Remembered until it is given again."
	@echo '  PYTEST_OPTIONS=...     more options for pytest: make unit PYTEST_OPTIONS="-k splits -x"'

.PHONY: demo
demo: environment ## make a shop, train on it, measure and recommend; the results are in demo/
	@$(BIN)/lsan demo --out demo

.PHONY: test check
test: lint types imports unit ## everything that CI runs
check: test ## the same as `make test`

.PHONY: environment
environment: ## make .venv and install everything; at once if nothing changed
	@bash scripts/bootstrap.sh

.PHONY: lint
lint: environment ## style: ruff
	@echo '== ruff'
	@$(BIN)/python -m ruff check --quiet .
	@$(BIN)/python -m ruff format --quiet --check . || { echo 'make format mends this'; exit 1; }

.PHONY: types
types: environment ## types: mypy strict
	@echo '== mypy'
	@$(BIN)/python -m mypy

.PHONY: imports
imports: environment ## layers: the import contracts
	@echo '== import contracts'
	@$(BIN)/lint-imports --no-logo

.PHONY: unit
unit: environment ## tests: pytest, on all cores but at most four
	@echo '== pytest'
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(PYTEST_OPTIONS)

.PHONY: wheel
wheel: environment ## a wheel with the native engine, in dist/
	@$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

.PHONY: wasm
wasm: environment ## the native engine in WebAssembly, src/lsan/javascript/lsan.wasm
	@PYTHON="$(CURDIR)/$(BIN)/python" bash scripts/wasm.sh

.PHONY: format
format: environment ## rewrite the code in the project's style
	@$(BIN)/python -m ruff check --fix --quiet . && $(BIN)/python -m ruff format --quiet .

.PHONY: constraints
constraints: ## look up the newest allowed versions and rewrite constraints.txt
	@bash scripts/constraints.sh

.PHONY: clean
clean: ## delete caches and the demo; .venv and runs/ stay
	@rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: clean-environment
clean-environment: ## delete .venv
	@rm -rf .venv
