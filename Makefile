# `make demo` shows it at work, `make test` checks it. Both make their own environment in .venv on the first run.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
ARGS ?=

BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable
RECIPE := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-all lint docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  Variables: PYTHON=$(PYTHON) (3.11 or newer), WORKERS=$(WORKERS) test processes, ARGS passed on to the command"

demo: $(VENV)/.installed ## Learn to swing up a pendulum and say where to look
	$(BIN)/bayesdyn demo $(ARGS)

test: $(VENV)/.installed-dev ## Run the tests (a few minutes)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

test-all: $(VENV)/.installed-dev ## Run the tests and the slow learning checks
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "" $(ARGS)

lint: $(VENV)/.installed-dev ## Check style and types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(VENV)/.installed-docs ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) site build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written after its command has succeeded, so that an interrupted install is taken up again by the next run.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "bayesdyn needs Python 3.11 or newer; '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true)"; \
	  echo "Say which one to use, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created $(RECIPE)
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created $(RECIPE)
	$(INSTALL) '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(VENV)/.created $(RECIPE)
	$(INSTALL) '.[docs]'
	@touch $(VENV)/.installed $@
