# Everything runs inside .venv, which `make` creates from the project's own files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: help run lint test-fast test check bench-check format wheel clean
.DEFAULT_GOAL := help

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/.lint: $(VENV)/.run
	$(PIP) --editable ".[lint]"
	touch $@

$(VENV)/.test: $(VENV)/.run
	$(PIP) --editable ".[test]"
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/.lint $(VENV)/.test

run: $(VENV)/.run  ## derain the bundled demo clip and say where the result is
	$(BIN)/streamderain demo --overwrite

lint: $(VENV)/.lint  ## formatting, lint and import contracts, in seconds, without torch
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

test-fast: $(VENV)/.test  ## unit and contract tests, in a minute, without torch
	$(BIN)/python -m pytest tests/unit tests/contract -m "not slow"

test: $(VENV)/.dev  ## the full test-suite, training tests included
	$(BIN)/python -m pytest

check: $(VENV)/.dev lint  ## formatting, lint, types and the import contracts
	$(BIN)/mypy

bench-check: $(VENV)/.dev  ## has anything become slower than the committed baseline?
	$(BIN)/python -m benchmarks guard

format: $(VENV)/.lint  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(VENV)/.dev  ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean:  ## remove .venv and what was built
	rm -rf $(VENV) dist build
