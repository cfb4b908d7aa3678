# Attack, Defend, Certify: every command of the project. `make help` lists them.
# Works with GNU make 3.81 (macOS) and later. Choose another Python with `make book PYTHON=/path/to/python`.

PYTHONS := python3.13 python3.12 python3.11 python3
PORT    := 8000
PIP     := .venv/bin/python -m pip install --disable-pip-version-check $(if $(CI),--quiet)
TEACHER := $(strip $(if $(VARIANT),--variant "$(VARIANT)") $(if $(SOURCE),--source "$(SOURCE)"))

.PHONY: help venv book zip test lab serve notebooks release grade clean
.DEFAULT_GOAL := help
.NOTPARALLEL: # two installations into one environment would spoil it

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: .venv/bin/python ## make .venv and install nothing (to choose your own build of PyTorch first)

book: .venv/installed-book ## execute the chapters and build the book into _build/html; SOLUTIONS=no leaves these out
	@.venv/bin/python book/build.py $(if $(filter no,$(SOLUTIONS)),--no-solutions)

zip: .venv/installed-book ## build the book and pack it into one file that needs no network
	@.venv/bin/python book/build.py --zip $(if $(filter no,$(SOLUTIONS)),--no-solutions)

test: .venv/installed-test ## run every test; PARTS="lint unit" runs only those
	@.venv/bin/python tests/run_all.py $(foreach part,$(PARTS),--only $(part))

lab: .venv/installed-book ## open a chapter and its exercise in JupyterLab, side by side
	@.venv/bin/python book/lab.py

serve: _build/html/index.html ## show the built book at http://127.0.0.1:8000 (PORT=8001 for another port)
	@echo "Serving the book at http://127.0.0.1:$(PORT)/ (stop with Ctrl-C)"
	@.venv/bin/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

notebooks: .venv/installed-book ## execute the chapters again and save them in place
	@.venv/bin/python book/notebooks.py

release: .venv/installed-teach ## make exercises/ from solutions/; with VARIANT=7 or SOURCE=folder, _grading/release
	@.venv/bin/python solutions/release.py $(TEACHER) $(if $(TEACHER),--to _grading/release)

grade: .venv/installed-teach ## grade SUBMISSIONS=folder into _grading/graded; VARIANT, SOURCE as for release; OPTIONS
	@.venv/bin/python solutions/grade.py $(if $(SUBMISSIONS),"$(SUBMISSIONS)") $(TEACHER) $(OPTIONS)

clean: ## delete the built book, the caches and .venv
	rm -rf _build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .git -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -print0 | xargs -0 rm -rf

_build/html/index.html:
	@$(MAKE) book

# The first Python that is new enough and can make an environment. A name on PATH may still not run
# (version managers leave such names behind), so each one is tried.
.venv/bin/python:
	@for python in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)); do \
	    if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "Making .venv with $$("$$python" --version)"; \
	        exec "$$python" -m venv --clear .venv; \
	    fi; \
	done; \
	echo "No usable Python found; tried: $(if $(PYTHON),$(PYTHON),$(PYTHONS))."; \
	echo "Python 3.11 or newer is needed, with its venv module. Install it (Debian, Ubuntu: apt install python3 python3-venv;"; \
	echo "macOS: brew install python@3.12; or from python.org) and call make again, or name one: make book PYTHON=/path/to/python"; \
	exit 1

# Stamps: installed again only when pyproject.toml changes. What the tests need includes what the book needs.
.venv/installed-book: pyproject.toml | .venv/bin/python
	@echo "Installing what the book needs into .venv (once; PyTorch alone can be 5 GB)"
	@$(PIP) -e '.[book]'
	@touch $@

.venv/installed-teach: pyproject.toml | .venv/bin/python
	@echo "Installing what the book and grading need into .venv (once; PyTorch alone can be 5 GB)"
	@$(PIP) -e '.[book,teach]'
	@touch .venv/installed-book $@

.venv/installed-test: pyproject.toml | .venv/bin/python
	@echo "Installing what the book and the tests need into .venv (once; PyTorch alone can be 5 GB)"
	@$(PIP) -e '.[book,test]'
	@touch .venv/installed-book .venv/installed-teach $@
