# `make demo` evolves a small network with a local model; `make test` runs every check. Both set up all they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# An index with CPU builds of torch, for a Linux machine without a GPU: make demo TORCH_INDEX=URL
TORCH  := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch==2.13.0

export GUIDED_EVOLUTION_DATA ?= $(wildcard $(abspath ../shared/data))

.PHONY: demo test quick lint clean

demo: $(VENV)/.run
	$(BIN)/ge run examples/digits

test: $(VENV)/.dev lint
	$(BIN)/pytest -m alone
	$(BIN)/pytest -m "not alone" -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

quick: $(VENV)/.dev
	$(BIN)/pytest -m "not slow" -x

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Guided Evolution needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what Guided Evolution needs into $(VENV)"
	$(PIP) $(TORCH)
	$(PIP) -e '.[torch,plot,ui]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing what its tests need"
	$(PIP) -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
