# Two commands: `make demo` and `make test`. Both build .venv first; a second call reuses it.
#
# torch comes from the PyTorch index of CPU builds. Where wheels are kept in a folder, PIP_FIND_LINKS=FOLDER takes them
# from there; a machine with a GPU can say UV_TORCH_BACKEND=auto.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV_TORCH_BACKEND ?= cpu
INSTALL := $(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e '.[dev]' -e 'runtime[serve]'

# The first interpreter that is new enough, for the pinned MuJoCo not too new, and able to make environments.
SUITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11)

.PHONY: demo studio test lint bench results docs fuzz
.DEFAULT_GOAL := demo

demo: $(STAMP)
	@$(BIN)/quickstudy demo

# A page on which you teach a robot with the mouse; ARGS='--language zh' gives it options.
studio: $(STAMP)
	@$(BIN)/quickstudy studio $(ARGS)

test: $(STAMP)
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup

lint: $(STAMP)
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

bench: $(STAMP)
	@$(BIN)/python -m benchmarks.metaworld_agreement
	@set -e; for file in benchmarks/speed_*.py; do name=$${file%.py}; $(BIN)/python -m $${name//\//.}; done
	@$(BIN)/python tools/standing.py

# Every reader is fed with damaged files; a few readers, or another time, by FUZZ='lerobot map --seconds 60'.
fuzz: $(STAMP)
	@$(BIN)/python -c 'import atheris' 2>/dev/null || \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) -e '.[fuzz]' || true
	@$(BIN)/python -m checks.fuzz $(FUZZ)

results: $(STAMP)
	@$(BIN)/python tools/fill_tables.py

# Dead links fail the build, which needs no network once the packages are there.
docs: $(STAMP)
	@$(BIN)/python -c 'import mkdocstrings, zensical' 2>/dev/null || \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) -e '.[docs]'
	@$(BIN)/python tools/make_reference.py
	@$(BIN)/zensical build --strict --clean

$(STAMP): pyproject.toml constraints.txt
	@python=; for candidate in $(CANDIDATES); do \
	    if $$candidate -c '$(SUITS)' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "quickstudy needs Python 3.11, 3.12 or 3.13 with the venv module, and none of '$(CANDIDATES)' is that:" \
	         "on Debian or Ubuntu run 'sudo apt-get install python3 python3-venv', or name another by 'make PYTHON=...'." >&2; \
	    exit 1; \
	fi; \
	echo "Setting up $(VENV) with $$python (once; a few minutes) ..."; \
	$$python -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
ifdef PIP_FIND_LINKS
	@$(INSTALL) --find-links $(PIP_FIND_LINKS)
else
	@$(INSTALL) --torch-backend $(UV_TORCH_BACKEND) || \
	    { echo "That failed; trying once more with PyPI alone, whose torch for Linux is the larger CUDA build." >&2; $(INSTALL); }
endif
	@# A policy client of the field, for one test; it pins an older NumPy than it needs.
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS)) openpi-client==0.1.2 || true
	@touch $@
