# make setup        a virtual environment in .venv with everything that the other targets need
# make quickstart   generate a dataset, train a small model on it, evaluate it, draw pictures
# make test         the tests
# make lint         style and type checks
# make docs         the documentation site, in build/site
# make sanitize     address and undefined-behaviour sanitizer over the compiled CPU kernels
#
# PARALLEL= runs the tests in one process; the default is one a core, at most four.
# VENV=folder puts the environment elsewhere, PYTHON=program chooses the Python (3.10 to 3.13) that it is made with.
# The other targets do the set-up by themselves; it runs once, and again when one of its inputs has changed.

VENV ?= .venv
PYTHON ?= python3
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist worksteal

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
STAMP := $(VENV)/.hdetr_d2-is-set-up
DOCS_STAMP := $(VENV)/.docs-are-set-up
SETUP_INPUTS := Makefile pyproject.toml setup.py constraints.txt tools/install_detectron2.py $(shell find csrc -type f)

.PHONY: setup quickstart test lint docs sanitize
.DELETE_ON_ERROR:

setup: $(STAMP)

quickstart: $(STAMP)
	$(RUN) tools/quickstart.py

test: $(STAMP)
	$(RUN) -m pytest $(PARALLEL)

lint: $(STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(VENV)/bin/clang-format --dry-run --Werror $(shell find csrc -type f ! -name '.*')

# The API pages are made from the sources, which are read and not imported.
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=true $(RUN) -m mkdocs build --strict --quiet

sanitize:
	tools/sanitize.sh

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "Python 3.10 to 3.13 is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# PyTorch comes first and build isolation is off because the extension is compiled against the installed PyTorch, and
# because Detectron2's own set-up imports it. lvis, which the tests compare with, comes without its dependencies: they
# are here already, or would put a second OpenCV over the first.
$(STAMP): $(SETUP_INPUTS) | $(RUN)
	$(PIP) install -c constraints.txt setuptools wheel ninja torch torchvision
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[dev]'
	$(PIP) install -c constraints.txt --no-deps lvis
	$(RUN) tools/install_detectron2.py
	touch $@

# hdetr_d2 itself is installed already: this adds what its extra asks for.
$(DOCS_STAMP): $(STAMP)
	$(PIP) install -c constraints.txt 'hdetr_d2[docs]'
	touch $@
