# Two commands are all a fresh machine needs: `make demo` and `make test`. Both make .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types smoke check clean

demo: $(VENV)/installed
	$(BIN)/fbnetv5 profile --device cpu --networks 15
	$(BIN)/fbnetv5 search --flops 400M --device cpu
	$(BIN)/fbnetv5 export

# Two processes of one thread each: torch's threads would wait for each other. A file's tests share costly fixtures.
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

# The demo in small, with too few steps to learn anything: does every command still work on the next one's files?
smoke: $(VENV)/installed
	rm -rf build/smoke && mkdir -p build/smoke
	cd build/smoke && ../../$(BIN)/fbnetv5 profile --device cpu --resolution 64x64 --networks 9
	cd build/smoke && ../../$(BIN)/fbnetv5 search --flops 32M@64x64 --device cpu --config ../../tests/quick-search.json
	cd build/smoke && ../../$(BIN)/fbnetv5 export
	cd build/smoke && ../../$(BIN)/fbnetv5 show runs/latest/det.json

check: lint types test smoke

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fbnetv5 needs Python 3.11 or newer; name one with: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
