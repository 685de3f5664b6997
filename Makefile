# quickstart: a virtual environment, a small run and its report.
# test: linters, type checks and all tests but the slow ones (test-slow).  docs: the site, in build/site.
# bench: measured speed; RUNS=3 repeats the benchmarks and reports the range.
# bench-gpu: the tests and benchmarks that need a card, and two suites, within 13 minutes, in build/gpu.
# coverage: how often each kind of interval holds, by simulation (minutes).
# board: rebuild the leaderboard and its site from the submissions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= 1
DRAWS ?= 10000
BENCH_FILES = $(patsubst %,$(VENV)/benchmarks-%.json,$(shell seq $(RUNS)))
# One thread per process: cores are used by parallel worker processes.
export OMP_NUM_THREADS ?= 1
export MPLBACKEND := agg

.PHONY: quickstart test test-slow docs bench bench-gpu coverage board clean

quickstart: $(VENV)/.installed
	$(BIN)/transferbench run quickstart

test: $(VENV)/.installed-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2

test-slow: $(VENV)/.installed-for-tests
	$(BIN)/pytest -n 2 -m slow

docs: $(VENV)/.installed-for-tests
	$(BIN)/properdocs build --strict -f mkdocs.yml
	@echo "open build/site/index.html"

bench: $(VENV)/.installed-for-bench
	for file in $(BENCH_FILES); do $(BIN)/pytest tests/benchmarks -m benchmark -p no:randomly --benchmark-only --benchmark-json=$$file || exit; done
	$(BIN)/python tests/benchmarks/table.py $(BENCH_FILES) tests/benchmarks/RESULTS.md

bench-gpu: $(VENV)/.installed-for-bench
	PYTHON=$(BIN)/python tests/benchmarks/gpu.sh build/gpu

coverage: $(VENV)/.installed-for-tests
	$(BIN)/python tests/coverage/coverage_table.py $(DRAWS) tests/coverage/RESULTS.md

board: $(VENV)/.installed
	$(BIN)/transferbench leaderboard build --site

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e '.[mnist]'
	touch $@

$(VENV)/.installed-for-tests: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e '.[mnist,test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-for-bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet -e '.[mnist,test,bench]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
