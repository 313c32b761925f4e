SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first suitable interpreter; override with `make PYTHON=/path/to/python`.
CHECK := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.10 python3 python; do \
	$$name -c '$(CHECK)' > /dev/null 2>&1 && echo $$name && break; done)
PARAMS ?=
CHAPTERS ?=

# Every wait in these tests has an end; this ends what hangs all the same.
BROWSER_TEST = timeout --kill-after=20 1200 .venv/bin/python -m pytest tests/browser

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help study report test browser-test screenshots lint format lab notebooks doctor clean

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

study: .venv/installed  ## Run all chapters and print the result table (PARAMS=params/study.yaml: another scale)
	@.venv/bin/python -m medusa_core.study $(if $(PARAMS),--params '$(PARAMS)')

report: .venv/installed  ## Build one site of the saved chapters, the results and the dashboard, without running anything
	@.venv/bin/python -m medusa_core.site

test: lint  ## Check style, run the tests and check the notebooks' saved outputs
	@.venv/bin/python -c 'from medusa_core import runtime; runtime.start()'
	.venv/bin/python -m pytest tests
	PLOTLY_RENDERER=json MEDUSA_AMX=0 .venv/bin/python -m pytest -p no:cacheprovider \
		--nbval-lax --nbval-current-env --nbval-cell-timeout 1200 notebooks

browser-test: .venv/browser  ## Drive JupyterLab and exported pages in headless Chromium (skipped without one)
	$(BROWSER_TEST)

screenshots: .venv/browser  ## The same, and renew the pictures of the explorers
	$(BROWSER_TEST) --write-screenshots

lint: .venv/installed  ## Check style
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: .venv/installed  ## Rewrite the code in the project's style
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

lab: .venv/installed  ## Open the notebooks in JupyterLab
	.venv/bin/jupyter lab --notebook-dir notebooks

notebooks: .venv/browser  ## Run the chapters where they lie and save their outputs (CHAPTERS='01 04': only these)
	.venv/bin/python -m medusa_core.refresh $(CHAPTERS)

doctor: .venv/installed  ## Say what this machine has and lacks, with the fix for each lack
	@.venv/bin/python -m medusa_core.doctor

clean:  ## Remove .venv, run outputs and caches; models and shipped artifacts stay
	rm -rf .venv artifacts/runs artifacts/cache *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.venv/browser: .venv/installed
	@echo 'Installing playwright and kaleido, 52 MB, without a browser of their own'
	@.venv/bin/python -m pip install --quiet -e '.[dev,browser]'
	@touch $@

.venv/installed: pyproject.toml
	@if [ -z '$(PYTHON)' ]; then \
		echo 'No Python 3.10 to 3.12 with venv found. Install one (Debian: apt install python3.11-venv python3.11-dev;'; \
		echo 'conda: conda create -n py311 python=3.11), or name it: make PYTHON=/path/to/python3.11'; exit 1; fi
	@.venv/bin/python -m pip --version > /dev/null 2>&1 || { \
		echo "Making .venv with $$('$(PYTHON)' --version)"; '$(PYTHON)' -m venv --clear .venv; }
	@echo 'Installing about 150 packages into .venv, 2 to 5 minutes; log: .venv/install.log'
	@.venv/bin/python -m pip install --progress-bar off -e '.[dev]' 2>&1 | tee .venv/install.log \
		| { grep --line-buffered -oE '^(Collecting [^ ]+ \(from medusa|Installing collected packages)' || true; } \
		| sed -uE 's/^Collecting ([A-Za-z0-9_.-]+).*/  \1/; s/^Installing.*/  installing .../' \
		|| { tail -n 30 .venv/install.log; exit 1; }
	@touch $@
