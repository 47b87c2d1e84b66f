# Developer commands, the same on a laptop and in CI. Everything happens in .venv, build/ and engines/.
#   make demo    export the bundled model and watch it solve a Sudoku
#   make test    C++ and Python tests
#   make asan    C++ tests under address and undefined-behaviour sanitizers;  make tsan: thread sanitizer
#   make lint    style, types        make bench    the benchmark scenarios        make wheel-check    build and try a wheel
# PYTHON: interpreter for the virtual environment.  JOBS: parallel compilations.

PYTHON ?= python3
JOBS ?= $(shell nproc)
VENV := .venv
BIN := $(VENV)/bin
ENGINE := engines/mini

# The first line of each Sudoku of the demo is the task word that the bundled model was trained with.
DEMO_PROMPT ?= $(shell cat dgrt/models/mini/demo_prompt.txt 2>/dev/null)

export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
# One place for the compiled tests' view of Python packages (JSON header) and of the ONNX Runtime library.
NATIVE_PYTHON := $(CURDIR)/$(BIN)/python

NATIVE_SOURCES := $(shell find csrc CMakeLists.txt -type f)

.PHONY: demo test test-cpp test-python asan tsan lint bench wheel-check clean

# ---- environment and build ----

# torch first: the later packages then find it and do not choose another build of it.
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet $$($(BIN)/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
	  print(*[r.replace(' ', '') for r in p['dependencies'] + sum(p['optional-dependencies'].values(), [])])")
	touch $@

# The package is installed in place: Python sources are used where they are, only native code is built and copied.
$(VENV)/built: $(VENV)/installed $(NATIVE_SOURCES)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

$(ENGINE)/manifest.json: $(VENV)/built $(wildcard dgrt/models/mini/*) $(shell find export/dgrt_export -name '*.py')
	$(BIN)/dgrt export dgrt/models/mini -o $(ENGINE) --force

# ---- commands ----

demo: $(ENGINE)/manifest.json
	$(BIN)/dgrt generate $(ENGINE) "$$(cat dgrt/models/mini/demo_prompt.txt)" --show

test: test-cpp test-python

test-cpp: $(VENV)/built
	$(call native,cpu-release)

test-python: $(VENV)/built
	$(BIN)/python -m pytest tests

asan: $(VENV)/installed
	$(call native,cpu-asan)

tsan: $(VENV)/installed
	$(call native,cpu-tsan)

# Configure, build and run the C++ tests of one preset.
define native
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --preset $(1) -DPython_EXECUTABLE=$(NATIVE_PYTHON)
	PATH="$(CURDIR)/$(BIN):$$PATH" cmake --build --preset $(1) --parallel $(JOBS)
	PATH="$(CURDIR)/$(BIN):$$PATH" ctest --preset $(1)
endef

lint: $(VENV)/installed
	$(BIN)/ruff check dgrt export tests benchmarks
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/boundary/test_layering.py

bench: $(ENGINE)/manifest.json
	$(BIN)/python benchmarks/run.py --scenario benchmarks/scenarios/mini.json

wheel-check: $(VENV)/installed
	rm -rf build/wheelhouse build/wheel-venv
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip wheel --quiet --no-build-isolation --no-deps . -w build/wheelhouse
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet build/wheelhouse/dgrt-*.whl
	cd build/wheel-venv && bin/python -c "import dgrt, ctypes, pathlib; \
	  lib = ctypes.CDLL(str(pathlib.Path(dgrt._native.__file__).parent / 'libdgrt.so')); \
	  lib.dgrt_version.restype = ctypes.c_char_p; assert lib.dgrt_version().decode() == dgrt.__version__; print('wheel', dgrt.__version__)"

clean:
	rm -rf build engines
