# Everything runs in .venv, which each target makes from nothing but python3 (3.11 or newer) and pip.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: setup demo test test-all check benchmark clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,gguf]'
	touch $@

demo: setup
	$(BIN)/goldilocks demo --out runs/demo

test: setup
	RAY_AUTH_MODE=disabled $(BIN)/pytest -m "not slow"

test-all: test
	RAY_AUTH_MODE=disabled $(BIN)/pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy framework actors cluster jobs
	$(BIN)/lint-imports

benchmark: setup
	$(BIN)/python tests/benchmarks/online_step.py
	$(BIN)/python tests/benchmarks/ensemble_cost.py
	$(BIN)/python tests/benchmarks/best_of_n.py
	$(BIN)/python tests/benchmarks/sweep_report.py
	$(BIN)/python tests/benchmarks/sweep_overhead.py

clean:
	rm -rf .venv runs build dist *.egg-info
