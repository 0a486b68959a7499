# Quick start: `make demo`. All targets: `make help`.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test oldest lint types doctest notebooks site compatibility benchmark-quick clean

BIN := .venv/bin
AT_LEAST_3_11 := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
# Each candidate is run, not only looked up: version managers put names on the path that do not
# start.
PYTHON ?= $(shell for python in python3.11 python3 python; do \
	$$python $(AT_LEAST_3_11) 2>/dev/null && echo $$python && break; done)
PYTEST_ARGS ?=
CSV ?=
TARGET ?=
DEMO_ARGS ?= $(if $(CSV),--csv '$(CSV)') $(if $(TARGET),--target '$(TARGET)')
# Two test processes on two cores: more threads in each would only wait for one another.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

SET_UP_TEST := .venv/.installed-test
# The test environment holds all that the demo and the documentation need.
SET_UP_DEMO := $(or $(wildcard $(SET_UP_TEST)),.venv/.installed-plot)
SET_UP_SITE := $(or $(wildcard $(SET_UP_TEST)),.venv/.installed-docs)

help:
	@echo "make demo       set up .venv, train on real tables, print scores, draw pictures"
	@echo "                (CSV=FILE TARGET=COLUMN for a table of your own; DEMO_ARGS=--help: more)"
	@echo "make test       set up .venv, run the tests (PYTEST_ARGS='-k name' for some)"
	@echo "make oldest     run some tests with the oldest numpy, scipy, scikit-learn and skorch"
	@echo "make lint       check the code style and the layout"
	@echo "make types      check the annotations"
	@echo "make doctest    run the examples of the docstrings, of README.md and of docs/"
	@echo "make notebooks  run the notebooks"
	@echo "make site       build the documentation in docs/_build/html"
	@echo "make compatibility  build, install and try the wheel; tests with the oldest libraries"
	@echo "make benchmark-quick  fit a slice of the benchmarks, beside the stored results"
	@echo "make clean      remove .venv and all that the tools left behind"

demo: $(SET_UP_DEMO)
	@echo "Running the demo: python -m sklearn_probmix.demo $(DEMO_ARGS)"
	@$(BIN)/python -m sklearn_probmix.demo $(DEMO_ARGS)

test: $(SET_UP_TEST)
	@echo "Running the tests in two processes"
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --dist worksteal $(PYTEST_ARGS)

oldest: .venv/oldest
	@echo "Running some tests with the oldest numpy, scipy, scikit-learn and skorch"
	@$(ONE_THREAD) PYTHONPATH='$(CURDIR)/$<' $(BIN)/python -m pytest -q -m "not slow" \
		-k "not test_check_estimator and not two_processes" tests/test_sklearn_conformance.py \
		tests/test_columns.py::TestFrames tests/test_persistence.py tests/test_pipelines.py \
		tests/test_stacking.py::TestNGBoost \
		'tests/test_recipes.py::TestPages::test_the_same_task_in_other_libraries[ngboost]' \
		tests/test_recipes.py::TestPages::test_shares_of_the_columns_in_the_spread_of_a_row

lint: $(SET_UP_TEST)
	@echo "Checking the code style and the layout with ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(SET_UP_TEST)
	@echo "Checking the annotations with mypy"
	@$(BIN)/mypy

doctest: $(SET_UP_TEST)
	@echo "Running the examples of the docstrings, of README.md and of docs/"
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --doctest-modules --doctest-glob='*.md' \
		sklearn_probmix README.md docs/*.md docs/site/*.md

notebooks: $(SET_UP_TEST)
	@echo "Running the notebooks"
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -n 2 --nbmake notebooks

site: $(SET_UP_SITE)
	@echo "Building the documentation in docs/_build/html"
	@$(BIN)/python -m sphinx -q -E -W --keep-going docs docs/_build/html
	@echo "Built $$(find docs/_build/html -name '*.html' | wc -l) pages without a warning"

compatibility: $(SET_UP_TEST)
	@echo "Trying the wheel, and the oldest releases of other libraries"
	@$(BIN)/python -m nox

benchmark-quick: $(SET_UP_TEST)
	@echo "Fitting two small tables, beside the stored results"
	@$(ONE_THREAD) $(BIN)/python -m benchmarks.quick

clean:
	@echo "Removing .venv and caches"
	@rm -rf .venv build dist *.egg-info .coverage .hypothesis .mypy_cache .nox .pytest_cache .ruff_cache
	@rm -rf docs/_build docs/api docs/benchmarks docs/notebooks
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed-%: setup.cfg pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sklearn-probmix[$*] into .venv. The first time pip downloads torch (some 200 MB"
	@echo "in its CPU build, several GB with CUDA), scipy, scikit-learn, matplotlib and what they need."
# pip would compile one module after the other, and the tests of libraries. What does not compile is
# for another Python.
	@$(BIN)/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt \
		-e ".[$*]"
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests/' .venv/lib || true
	@touch $@

# A folder that hides what .venv has of the same names: torch and the rest need not be set up twice.
# NGBoost and what it needs are here since it asks for an old scikit-learn, and SHAP since with its
# numba scoringrules compiles its scores in every process.
.venv/oldest: constraints-oldest.txt $(SET_UP_TEST)
	@rm -rf $@
	@$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-compile --target $@ \
		-r constraints-oldest.txt \
		ngboost lifelines autograd autograd-gamma formulaic interface_meta wrapt \
		shap slicer numba llvmlite
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" && $(PYTHON) $(AT_LEAST_3_11) || { \
		echo "No Python 3.11 or newer: tried $(or $(PYTHON),python3.11 python3 python)." \
			"Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Creating the environment .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
