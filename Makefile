# Two commands are all a fresh machine needs: `make demo` and `make test`. Both make .venv and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test slow gpu browser lint types smoke docs results check clean

demo: $(VENV)/installed
	$(BIN)/fbnetv5 profile --device cpu --networks 15
	$(BIN)/fbnetv5 search --flops 400M --device cpu
	$(BIN)/fbnetv5 export

# Two processes of one thread each: torch would wait for its own threads. The tests of a file share costly fixtures.
test: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m "not slow"

slow: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile -m slow

# Everything that needs an NVIDIA GPU, tested and measured in 8 minutes: build/gpu/report.json (docs/gpu.md). Exit code 3
# if this machine has no GPU.
gpu: $(VENV)/installed-dev
	$(BIN)/python -m tests.gpu

# The Chromium that opens pages in the slow tests, which skip without it. Only root can install it; others have their
# own ways.
browser:
	@if command -v chromedriver >/dev/null; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium chromium-driver >/dev/null; \
	else echo "Chromium and chromedriver are not installed: the tests that open pages will skip"; fi

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
	cd build/smoke && ../../$(BIN)/fbnetv5 predict runs/latest/export/det ../../fbnetv5/data/assets
	cd build/smoke && ../../$(BIN)/fbnetv5 show runs/latest/det.json
	cd build/smoke && ../../$(BIN)/fbnetv5 report

# The documentation site, build/site/index.html. A broken link, anchor or reference is an error.
docs: $(VENV)/installed-docs
	$(BIN)/zensical build --strict --clean

# The figures of docs/results.md on whether searches find better networks: runs/judge/report.json,
# runs/judge/fresh/report.json, runs/judge/both/report.json, runs/other-budgets/both/report.json,
# runs/judge-depth/report.json and runs/from-scratch/TASK/report.json. Estimated for two cores with nothing else
# running: 20 minutes for each search, an hour for the judge and half an hour for its fresh scenes, three quarters of an
# hour for the panels, as long for a task that is added, half an hour for each task from scratch, some seven hours in
# all. Stopped and called again, it goes on.
SEEDS := 0 1 2 3 4
SEARCHES := $(SEEDS:%=runs/s%)
results: $(SEARCHES:%=%/pareto.json)
	$(BIN)/python -m benchmarks.judge $(SEARCHES) --output runs/judge
	$(BIN)/python -m benchmarks.judge $(SEARCHES) --output runs/judge --scenes fresh
	$(BIN)/python -m benchmarks.judge $(SEARCHES) --output runs/judge --scenes both
	$(BIN)/python -m benchmarks.other_budgets $(firstword $(SEARCHES)) --judge runs/judge --output runs/other-budgets --scenes both
	$(BIN)/python -m benchmarks.panel_colours --judge runs/judge --output runs/panel-colours
	for run in $(SEARCHES); do \
	  [ -e $$run/added/depth/pareto.json ] || $(BIN)/fbnetv5 search --add depth --run $$run || exit 1; done
	$(BIN)/python -m benchmarks.added_task $(SEARCHES) --task depth --judge runs/judge --output runs/judge-depth
	for task in det seg "cls --steps 800 --lr 0.01 --max-fan-in 128"; do \
	  $(BIN)/python -m benchmarks.from_scratch $(SEARCHES) --task $$task --output runs/from-scratch --judge runs/judge || exit 1; \
	done

runs/s%/pareto.json: | $(VENV)/installed
	if [ -d $(@D) ]; then $(BIN)/fbnetv5 search --resume $(@D); \
	  else $(BIN)/fbnetv5 search --flops 400M --seed $* --name s$*; fi

check: lint types test slow smoke

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

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
