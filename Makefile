# `make lab` is the front door. Everything lives in .venv; stamps there remember which extras pyproject.toml asked for.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
QUIET := $(VENV)/share/jupyter/lab/settings/overrides.json
BIOME := npx --yes @biomejs/biome@2.6
WORKERS ?= 2

ifeq ($(shell uname -s)$(DISPLAY)$(WAYLAND_DISPLAY),Linux)
LAB_FLAGS += --no-browser
endif
ifeq ($(shell id -u),0)
LAB_FLAGS += --allow-root
endif

.DEFAULT_GOAL := help
.PHONY: help lab demo test quick lint format floors compare notebooks pages slides kit shots docs clean

help:  ## list these targets
	@grep -hE '^[a-z]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 18

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'prockd needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo 'No virtual environment could be made. On Debian or Ubuntu: apt install python3-venv'; exit 1; }

$(STAMP): pyproject.toml | $(BIN)/pip
	$(BIN)/pip install $(PIP_ARGS) -e .
	@touch $@

$(STAMP)-%: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install $(PIP_ARGS) -e '.[$*]'
	@touch $@

$(QUIET): | $(STAMP)-lab  # Lab asks for no news: a class is often offline
	@mkdir -p $(@D)
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}' > $@

lab: $(STAMP)-lab $(QUIET)  ## open JupyterLab on the quickstart notebook (prints the address where there is no browser)
	$(BIN)/jupyter lab $(LAB_FLAGS) --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb

demo: $(STAMP)-lab  ## the whole pipeline on the built-in world, without a browser: table and runs/demo/report.html
	$(BIN)/prockd demo

test: $(STAMP)-test  ## every test and example, then the story and every solved page; WORKERS=2 side by side
	@status=0; \
	$(BIN)/python -m pytest -n $(WORKERS) || status=1; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --nbmake notebooks/00*.ipynb notebooks/instructor/*.ipynb \
		--nbmake-timeout=600 || status=1; \
	exit $$status

quick: $(STAMP)-test  ## the tests that are not marked slow, without notebooks: about a minute
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow'

lint: $(STAMP)-dev  ## ruff, mypy, import-linter; biome for the scripts where node is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if $(BIOME) --version >/dev/null 2>&1; then $(BIOME) ci --error-on-warnings .; \
	else echo 'no node, or it cannot fetch biome: the scripts in widgets/ and tests/js/ were not checked'; fi

format: $(STAMP)-dev  ## what ruff and biome can put right themselves
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if $(BIOME) --version >/dev/null 2>&1; then $(BIOME) check --write .; fi

floors:  ## the tests with the oldest versions that pyproject.toml allows, in .venv-floors
	@$(MAKE) $(VENV)-floors/bin/pip VENV=$(VENV)-floors
	$(PYTHON) tests/floors.py > $(VENV)-floors/constraints.txt
	$(VENV)-floors/bin/pip install $(PIP_ARGS) -c $(VENV)-floors/constraints.txt -e '.[test]'
	$(VENV)-floors/bin/python -m pytest -n $(WORKERS) -m 'not slow' -W default  # old versions warn of newer ones

compare: $(STAMP)  ## every contest of benchmarks/compare that needs no photographs; goes on where it was stopped (hours)
	for name in classes parts boxes keypoints; do $(BIN)/prockd compare -c benchmarks/compare/farmyard-$$name.toml \
		--run-dir runs/farmyard-$$name --jobs $(WORKERS) || exit 1; done

notebooks: $(STAMP)-test  ## run the solved pages and make the student's of them, with outputs, minutes and memory
	printf '%s\n' 00 01 02 03 04 05 06 07 08 09 | OMP_NUM_THREADS=1 xargs -P $(WORKERS) -n 1 \
		$(BIN)/python notebooks/make.py --run
	$(BIN)/python notebooks/make.py

pages: $(STAMP)-test  ## make the student's pages of the solved ones without running them; outputs of what is as it was stay
	$(BIN)/python notebooks/make.py

slides: $(STAMP)-lab  ## the lecture of 45 minutes as one offline page: build/slides.html (press S for the notes)
	$(BIN)/python notebooks/instructor/slides/make.py build/slides.html

kit: $(STAMP)  ## a folder for a room without a network, then tried without one: build/kit (11 GB)
	$(BIN)/prockd class-kit build/kit --overwrite
	$(BIN)/python tests/try_kit.py build/kit

shots: $(STAMP)-test  ## every state of the widgets as pictures in runs/shots, light and dark, three widths: to look at
	$(BIN)/python tests/browser/shots.py

docs: $(STAMP)-docs  ## the pages, offline, as docs/_build/html/index.html; a warning or a dead link is an error
	$(BIN)/python docs/stage.py docs/_build/source
	$(BIN)/python -m sphinx -W --keep-going -c docs docs/_build/source docs/_build/html

clean:  ## remove what was built or run here, .venv included
	rm -rf $(VENV) $(VENV)-floors build dist docs/_build runs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
