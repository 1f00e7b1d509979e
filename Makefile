# `make` lists the targets. Python 3.11 or newer and make are all they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.ready-to-run
DEV_READY := $(VENV)/.ready-to-develop
CLIENT := $(wildcard clients/python/pyproject.toml)
# What the tests run on: the PostgreSQL of the wheel, or `make test PG=debian`, which asks pg_config.
PG ?= embedded
DEBIAN_BIN = $(shell pg_config --bindir 2>/dev/null)
ifeq ($(PG),debian)
export REJOIN_TEST_POSTGRES_BIN := $(DEBIAN_BIN)
endif
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test demo bench check soak clean
# Two targets at once would install into one environment.
.NOTPARALLEL:

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: $(RUN_READY)  ## Serve on http://localhost:8000 (PORT=…), with a PostgreSQL of its own
	@exec $(BIN)/python -m app serve

test: $(DEV_READY)  ## Run the tests (PG=debian: on the PostgreSQL that pg_config finds; T=tests/unit: some)
	$(BIN)/python -m pytest $(T)

demo: $(DEV_READY)  ## Three devices, offline and back, against a fresh server, in under a minute
	@exec $(BIN)/python -m app demo

bench: $(DEV_READY)  ## What it costs, beside baselines, in under 15 minutes (M="push idle" ARGS="--runs 3")
	@exec $(BIN)/python -m benchmarks $(M) $(ARGS)

check: $(DEV_READY)  ## The one gate: format, lint, imports, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	$(BIN)/python -m pytest

soak: $(DEV_READY)  ## The long searches for counterexamples, and the planted bugs
	$(BIN)/python -m pytest -m soak $(T)

clean:  ## Remove what was installed and what the tests left; the data in .rejoin stays
	rm -rf $(VENV) .rejoin-test .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Rejoin needs Python 3.11 or newer; make PYTHON=python3.12 names another.")'
	$(PYTHON) -m venv $(VENV)

$(RUN_READY): requirements.txt | $(BIN)/python
	$(PIP) install -r requirements.txt
	@touch $@

$(DEV_READY): requirements.txt requirements-dev.txt $(CLIENT) | $(BIN)/python
	$(PIP) install -r requirements-dev.txt $(if $(CLIENT),-e clients/python)
	@touch $@ $(RUN_READY)
