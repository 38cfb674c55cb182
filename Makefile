# Two commands matter: `make demo` and `make test`. Both work from a fresh clone with Python 3.11+ and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH ?= bench.json
BUILD := pyproject.toml CMakeLists.txt $(wildcard kernels/*)
SOURCES := $(wildcard examples/pipeline/*.cpp examples/pipeline/*.h kernels/*.cpp kernels/*.h kernels/*.cu kernels/emulated/*.h training/gpu/*.cu training/gpu/*.h tests/*.cpp tests/sanitize/*.cpp)

.PHONY: help demo test test-slow bench bench-compare fuzz lint fmt sanitize gpu-check clean

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/with-demo  ## complete a real photograph six times and say where the sheet lies
	$(BIN)/picme demo -o demo

test: lint  ## install everything, build the kernels, lint, type-check, run every test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test-slow: $(VENV)/with-dev  ## tests marked slow: Ray on two workers (0.5 GB), the pipeline in node; needs npm
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'ray[data]>=2.40'
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/with-dev  ## time the latency suite into bench.json (or BENCH=FILE) and print its tables
	$(BIN)/python -m pytest tests/benchmarks --benchmark-enable --benchmark-only --benchmark-json=$(BENCH)
	$(BIN)/python tests/benchmarks/tables.py $(BENCH)

bench-compare: $(VENV)/with-dev  ## fail if the run NEW=b.json is over 15 % slower than BASE=a.json
	$(BIN)/python tests/benchmarks/compare_runs.py $(BASE) $(NEW)

fuzz: $(VENV)/with-dev  ## 100,000 damaged engines, 10,000 pictures and masks, 8 threads for a minute
	$(BIN)/python tests/fuzz/threads.py engines/cats128 --threads 8 --seconds 60
	$(BIN)/python tests/fuzz/threads.py engines/cats128 --threads 8 --seconds 60 --backend openvino
	$(BIN)/python tests/fuzz/pictures.py engines/cats128 --cases 10000
	$(BIN)/python tests/fuzz/engines.py --cases 100000
	$(BIN)/python tests/fuzz/engines.py --cases 20000 --backend openvino

lint: $(VENV)/with-dev  ## ruff, mypy, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(SOURCES)

fmt: $(VENV)/with-dev  ## rewrite in house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(SOURCES)

sanitize:  ## run the kernels' CPU paths under the address, undefined-behaviour and thread sanitizers
	$(PYTHON) tests/sanitize/run.py

gpu-check:  ## measure a machine with a GPU, with its own python3 and torch; installs nothing
	$(PYTHON) training/gpu_check.py

clean:  ## remove the virtual environment and all caches
	rm -rf $(VENV) build dist demo .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/with-demo: $(BIN)/python $(BUILD)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@$(BIN)/python -c "from picme_rt import _kernels; print('picme_rt kernels:', _kernels.built_for)"
	@touch $@

$(VENV)/with-dev: $(BIN)/python $(BUILD)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@$(BIN)/python -c "from picme_rt import _kernels; print('picme_rt kernels:', _kernels.built_for)"
	@touch $@ $(VENV)/with-demo
