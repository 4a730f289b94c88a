# The targets explain themselves: `make` lists them.
PYTHON   ?= python3
PIP_ARGS ?=
VENV     := .venv
BIN      := $(VENV)/bin
READY    := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench fuzz clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make the virtual environment .venv with everything that the other targets need

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "inrformat needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt setuptools
	$(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt --no-build-isolation -e '.[dev]'
	touch $@

demo: $(READY)  ## encode and decode a generated head, and draw it: out/demo.png
	$(BIN)/inrformat demo out

test: lint  ## check style and types, then run the tests (those on real data if $INRFORMAT_DATA has it)
	$(BIN)/python -m pytest --numprocesses logical --dist worksteal

lint: $(READY)  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## measure the real series in $INRFORMAT_DATA, into out/bench (some hours on two cores)
	$(BIN)/python benchmarks/curves.py out/bench

fuzz: $(READY)  ## throw damaged files at the decoder for ten minutes
	$(BIN)/python tests/fuzz/run.py --seconds 600

clean:  ## remove the virtual environment and everything that was made
	rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
