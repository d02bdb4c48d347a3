# Everything runs in .venv, which each target makes from nothing but python3 (3.11 or newer) and pip.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export HF_HUB_OFFLINE ?= 1
export RAY_USAGE_STATS_ENABLED ?= 0

# Three tests at a time on two processors, for tests on Ray wait a lot. tests/conftest.py says which stay together.
PYTEST := RAY_AUTH_MODE=disabled $(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test test-all test-processors check benchmark clean

setup: .venv/ready

.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,gguf]'
	touch $@

demo: setup
	$(BIN)/goldilocks demo --out runs/demo

test: setup
	$(PYTEST) -m "not slow"

test-all: test
	$(PYTEST) -m slow

# As it would be on a processor with AVX2 and no more, and on one without.
test-processors: setup
	ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(PYTEST) -m "not slow"
	ATEN_CPU_CAPABILITY=default $(PYTEST) -m "not slow"

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
