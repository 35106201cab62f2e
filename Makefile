# make demo and make test do everything on a fresh machine; the rest is for developers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test test-all test-cluster lint bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "tad-selftrain needs Python >= 3.11, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/tad demo

lint: setup
	$(BIN)/ruff check tad distributed search_spaces tests benchmarks
	$(BIN)/ruff format --check --quiet tad distributed search_spaces tests benchmarks
	$(BIN)/mypy

# Three processes, each with whole files: most tests use one core, few machines have less than two, and some tests wait
# (for Ray, disks, servers). In the order of tests/conftest.py: xdist's own begins with the files of many tests.
test: lint
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-all: lint
	$(BIN)/python -m pytest -m ""

test-cluster: setup
	$(BIN)/python -m pytest -m cluster -rs tests/cluster

bench: setup
	$(BIN)/python -m benchmarks.speed.ops
	$(BIN)/python -m benchmarks.speed.evaluation
	$(BIN)/python -m benchmarks.studies.hrpro
	$(BIN)/python -m benchmarks.speed.tuning
	$(BIN)/python -m benchmarks.speed.scale
	$(BIN)/python -m benchmarks.speed.small
	$(BIN)/python -m benchmarks.speed.workers

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
