# Everything runs inside .venv, which `make` creates from the project's own files.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test check bench-check format wheel clean

$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

run: $(VENV)/.run  ## derain the bundled demo clip and say where the result is
	$(BIN)/streamderain demo --overwrite

test: $(VENV)/.dev  ## the full test-suite, training tests included
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## formatting, lint, types and the import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-check: $(VENV)/.dev  ## has anything become slower than the committed baseline?
	$(BIN)/python -m benchmarks guard

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel

clean:
	rm -rf $(VENV) dist build
