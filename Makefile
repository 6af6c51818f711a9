# `make demo` and `make test` do all the set-up. `make help` lists the rest.
#
#   PYTHON      the interpreter .venv is made from (default: the first of python3, python3.13,
#               python3.12, python3.11 that is 3.11, 3.12 or 3.13)
#   PIP_FLAGS   more options for pip. On Linux plain pip brings torch with CUDA, several GB; for a
#               machine without a GPU, much smaller:
#               make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
#   ARGS        more arguments for pytest: make test ARGS="tests/test_house.py -k import"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

PYTHON ?=
PIP_FLAGS ?=
ARGS ?=

PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)
TYPES := build/types

.PHONY: help demo test lint types format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: .venv/.run  ## install what a run needs; train on real games, evaluate, print the run folder
	@if [ -e runs/demo/seed0/config.yaml ]; then set -x; $(BIN)/clrl resume runs/demo/seed0; \
	else set -x; $(BIN)/clrl train configs/demo.yaml; fi

test: .venv/.dev  ## install everything, run every test
	$(BIN)/python -m pytest $(ARGS)

lint: .venv/.dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.dev  ## ruff: mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# agents/ and envs/ are clrl.agents and clrl.envs only once installed, so mypy reads an installed
# copy, made anew: setuptools would otherwise carry over modules deleted since. mypy prefers the
# folder it stands in, hence the cd.
types: .venv/.dev  ## mypy --strict on the installed package
	@rm -rf build
	$(PIP) --quiet --no-build-isolation --no-deps --target $(TYPES) .
	cd $(TYPES) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml \
		--cache-dir $(CURDIR)/.mypy_cache $(if $(ARGS),$(ARGS),-p clrl)

clean:  ## remove .venv, build outputs and caches (never runs/)
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find agents clrl configs envs tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is touched last, so an install that was cut short is done again; a change of the
# dependencies makes .venv anew. setuptools comes first and builds the package itself: pinned, and
# no second environment to download. The install is editable: edits count at once.
.venv/.run: pyproject.toml constraints.txt
	@python=; for candidate in $(PYTHONS); do \
		"$$candidate" -c '$(IN_RANGE)' 2>/dev/null && python=$$candidate && break; \
	done; \
	if [ -z "$$python" ]; then \
		echo "clrl needs Python 3.11, 3.12 or 3.13, and found none as: $(PYTHONS)." \
			"Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "making .venv with $$($$python --version) (downloads torch: some minutes)"; \
	rm -rf .venv; \
	"$$python" -m venv .venv || { \
		echo "$$python cannot make an environment; on Debian and Ubuntu: apt install python3-venv" >&2; \
		rm -rf .venv; exit 1; }
	$(PIP) --quiet setuptools
	$(PIP) --no-build-isolation -e .
	@touch $@

.venv/.dev: .venv/.run
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@
