PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
DEMO_STAMP := $(VENV)/.demo
STAMP := $(VENV)/.installed
# A folder with bge-m3's tokenizer.json, for benchmarks.
TOKENIZER ?= models/bge-m3

PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.PHONY: install demo test lanes versions check fix wheel-test notebooks cookbook docs bench clean

install: $(STAMP)

# Only what the demo needs; pip shows what it downloads.
$(DEMO_STAMP): pyproject.toml constraints.txt
	@echo "== Installing what the demo needs, torch first: a few minutes on a slow line"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[langchain,llamaindex]'
	touch $@

$(STAMP): $(DEMO_STAMP)
	@echo "== Adding stores, training and the tools of developers"
	$(PIP) --editable '.[dev]'
	touch $@

demo: $(DEMO_STAMP)
	$(BIN)/m3-retrieval demo $(ARGS)

test: install
	$(BIN)/python -m pytest

# With each instruction set that this CPU has, in random order: make lanes ARGS="--times 10 --busy 4"
lanes: install
	$(BIN)/python tests/lanes.py $(ARGS)

# Several GB of downloads: other Pythons and the lowest versions that pyproject.toml allows.
versions:
	$(PYTHON) tests/versions/run.py $(ARGS)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pydoclint --quiet core langchain_m3 llamaindex_m3

fix: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel-test: install
	bash tests/wheel_test.sh $(BIN)/python

notebooks: install
	find cookbook -name '*.ipynb' | xargs -r $(BIN)/python -m pytest --nbmake --nbmake-timeout=600

# The site, into build/site; a warning ends it. `.venv/bin/mkdocs serve` shows it while you write.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet build --strict

# Runs the notebooks and writes what they show into them.
cookbook: install
	$(BIN)/python cookbook/store.py

bench: install
	$(BIN)/python benchmarks/encode.py --tokenizer $(TOKENIZER)

clean:
	rm -rf $(VENV) build dist
