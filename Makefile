# Everything needed is installed here; see README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := runs/quickstart-$(shell date +%Y%m%d-%H%M%S)

.PHONY: setup quickstart test test-processors test-processors-short storm storm-short lint docs tables clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

# Two minutes of meta-training on generated characters, then accuracy on unseen ones, then pictures.
quickstart: setup
	$(BIN)/reptile train glyphs-1shot-5way --max-minutes 2 --monitor-episodes 20 --out $(RUN)
	$(BIN)/reptile evaluate $(RUN) --episodes 300
	$(BIN)/reptile report $(RUN)

# One thread per test process: two processes on two cores beat one process with two threads. Each takes half of the
# tests in their order, so that most files, and what their tests share, belong to one process; the first to be done
# takes from the other's end.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test: setup
	$(PYTEST)

# As on other processors: without the newest vector instructions of oneDNN and ATen, which round otherwise.
PROCESSORS := ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=SSE41,ATEN_CPU_CAPABILITY=default
EXACT := tests/training/test_interruption.py tests/experiments/reproduce/test_runner.py tests/core/distributed

test-processors: setup
	for settings in $(PROCESSORS); do \
		echo "$$settings"; \
		env $$(echo $$settings | tr , ' ') $(PYTEST) || exit 1; \
	done

# What promises equal bits, on the oldest processor alone.
test-processors-short: setup
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default $(PYTEST) $(EXACT)

# Damaged files, hostile files and kills, with counts (docs/reliability.md); the short one is part of .ci/run.
storm: setup
	$(BIN)/python tools/storm

storm-short: setup
	$(BIN)/python tools/storm --mutations 130 --hostile 34 --kills 0

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site, site/index.html, from docs/ and the docstrings. Setup leaves its tools out: 80 MB.
docs: $(VENV)/.docs-installed
	rm -rf site build/site
	$(BIN)/python -m sphinx -b html -W --keep-going -q -E -d build/doctrees docs build/site
	mv build/site site
	@echo "site/index.html"

$(VENV)/.docs-installed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

# README's table and docs/results.md from results/.
tables: setup
	$(BIN)/python tools/tables.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build site
