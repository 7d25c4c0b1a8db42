PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# A folder with bge-m3's tokenizer.json, for benchmarks.
TOKENIZER ?= models/bge-m3

.PHONY: install demo test check fix wheel-test notebooks bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: install
	$(BIN)/python demo/demo.py

test: install
	$(BIN)/python -m pytest

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

bench: install
	$(BIN)/python benchmarks/encode.py --tokenizer $(TOKENIZER)

clean:
	rm -rf $(VENV) build dist
