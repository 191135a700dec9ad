# make demo   installs, finds people in a photograph, writes output/demo/demo_poses.jpg
# make test   installs, runs the tests
# make test-web   the pages in a real browser: needs Chromium, Node.js and npm
# make test-notebooks  the notebooks from top to bottom
# make test-wheel  the wheel, installed into an empty environment and used in an empty folder
# make docs   builds the documentation into site/
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Test processes; each computes with one thread.
WORKERS ?= 2

.PHONY: demo test test-web test-wheel test-notebooks lint docs install clean

demo: install
	$(BIN)/higherhrnet demo --output output/demo

test: install
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not gpu and not web"

test-web: install
	cd tests/web && npm install --no-package-lock --no-audit --no-fund --silent
	$(BIN)/python -m pytest -m web tests/test_web.py

test-wheel: install
	sh tests/wheel.sh $(BIN) $(PYTHON)

test-notebooks: install
	$(BIN)/python -m pytest tests/test_notebooks.py

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: install
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) output site build dist
