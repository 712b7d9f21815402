# The environment lives in .venv; `make PYTHON=python3.12` chooses the interpreter that it is made with.
PYTHON ?= python3
# Passed on to Snakemake: make ARGS="--configfile config/realtext.yaml"
ARGS ?=
# The release of torch that `make lock` pins, chosen by hand: a new one can change results in the last digits.
TORCH := torch==2.13.0

VENV := .venv
# The environment's `python` and `snakemake` come first, also for the jobs that Snakemake starts.
IN_VENV := PATH="$$PWD/$(VENV)/bin:$$PATH"
# Written first, empty, and last, with the folder of .venv: whoever finds it otherwise makes .venv again.
PLACE := $(VENV)/.place
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := run
.PHONY: run setup test outcome test-versions faults lint bench schema results-page lock help

run: setup ## set up .venv, then run the workflow on the default configuration (or with ARGS)
	$(IN_VENV) snakemake $(ARGS)

setup: $(VENV)/.installed ## make .venv from requirements.lock

test: lint ## lints, types and tests, in two processes: a quarter of an hour on two cores
	$(IN_VENV) pytest -n 2 --dist loadgroup

faults: setup ## inject faults and rewrite the table of docs/reliability.md: 13 minutes of CPU time
	$(IN_VENV) python tests/faults/reliability.py
	MALMEN_RECORD_FAULTS=1 $(IN_VENV) pytest -m "" tests/faults

lint: setup ## lints, types and layers only
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	$(IN_VENV) snakefmt --check Snakefile workflow
	$(IN_VENV) snakemake --lint
	$(IN_VENV) mypy
	$(IN_VENV) lint-imports

outcome: setup ## run the demo (20 minutes on two cores) and check the claims of the paper that must hold in it
	$(IN_VENV) snakemake $(ARGS)
	$(IN_VENV) pytest -m outcome tests/outcome

test-versions: ## tests of each kind with the oldest and the newest packages that pyproject.toml allows
	.ci/versions oldest
	.ci/versions newest

bench: setup ## time training, editing and MEMIT on models of full size; against the official code with ARGS="--official DIR"
	$(IN_VENV) python benchmarks/compare.py $(ARGS)
	$(IN_VENV) python benchmarks/paths.py
	$(IN_VENV) python benchmarks/memit.py
	$(IN_VENV) python benchmarks/page.py

schema: setup ## write workflow/schemas, the keys in config/README.md, and tables in docs, from the code
	$(IN_VENV) python -c 'from pathlib import Path; from malmen.config.schema import write_schema; write_schema(Path("workflow/schemas/config.schema.yaml"))'
	$(IN_VENV) python -c 'from pathlib import Path; from malmen.provenance.records import write_schema; write_schema(Path("workflow/schemas/record.schema.json"))'
	$(IN_VENV) python -c 'from pathlib import Path; from malmen.audit.report_file import write_schema; write_schema(Path("workflow/schemas/audit.schema.json"))'
	$(IN_VENV) python tools/config_keys.py
	$(IN_VENV) python tools/measures.py
	$(IN_VENV) python tools/data_and_models.py

results-page: setup ## write the results in docs and the README from those that are published
	$(IN_VENV) python tools/results_page.py
	$(IN_VENV) python tools/after_malmen.py

lock: ## rewrite requirements.lock: TORCH, and the newest versions of other packages that pyproject.toml allows
	@set -e; env=$$(mktemp -d); trap 'rm -rf "$$env"' EXIT; \
	$(PYTHON) -m venv "$$env"; \
	"$$env/bin/pip" install --quiet $(TORCH); \
	"$$env/bin/pip" install --quiet --editable '.[dev]'; \
	"$$env/bin/pip" check; \
	grep '^#' requirements.lock > "$$env/lock"; \
	"$$env/bin/pip" list --format=freeze --exclude-editable --exclude pip > "$$env/installed"; \
	grep -viE '^(nvidia|cuda|triton)' "$$env/installed" | sed 's/+.*//' | uniq >> "$$env/lock"; \
	mv "$$env/lock" requirements.lock

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' Makefile

$(VENV)/.installed: pyproject.toml requirements.lock $(PLACE)
	@echo "Installing the packages of requirements.lock into $(VENV): a few minutes, once."
	$(PIP) install --quiet --constraint requirements.lock torch
	$(PIP) install --quiet --constraint requirements.lock --editable '.[dev]'
	@touch $@

# Made again where it was left half-made, came here with a moved checkout, or lost its Python.
MADE := $(shell { test ! -e $(PLACE) || test "$$(cat $(PLACE))" = "$$(pwd -P)"; } && $(VENV)/bin/python -c 'import pip' 2>/dev/null && echo yes)
.PHONY: again

$(PLACE): $(if $(MADE),,again)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is missing or older than Python 3.11: install a newer one and name it, as in 'make PYTHON=python3.12'." >&2; exit 1; }
	@$(PYTHON) -c 'import os, sys; sys.exit(not set(os.getcwd()).isdisjoint("\":{}`$$\n"))' || { echo "No environment works in $$PWD: move the checkout to a path without double quotes, colons, braces, dollar signs, backquotes and line breaks." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian and Ubuntu: the package python3-venv)." >&2; exit 1; }
	$(if $(MADE),,rm -rf $(VENV) && mkdir $(VENV) && : > $(PLACE) && $(PYTHON) -m venv $(VENV))
	@pwd -P > $@
