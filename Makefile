# Developer commands, the same on a laptop and in CI. Everything happens in .venv, build/ and engines/.
#
#   make demo           export the bundled model and watch it solve a Sudoku
#   make test           C++ tests, then Python tests
#   make asan, tsan     C++ tests under address + undefined-behaviour, or thread sanitizers
#   make lint           style, types, layering
#   make bench          the benchmark of the bundled model
#   make install-check  install library, header, CMake package and pkg-config file; build outside programs against them
#   make wheel-check    build a wheel and use it from another folder, in an environment without torch
#
# PYTHON: interpreter for the virtual environment.  JOBS: parallel compilations.

PYTHON ?= python3
JOBS ?= $(shell nproc)

VENV := .venv
BIN := $(VENV)/bin
ENGINE := engines/mini
# cmake and ninja come from the virtual environment.
IN_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"
PIP_OPTIONS := --disable-pip-version-check
PIP := $(BIN)/python -m pip $(PIP_OPTIONS)
# Versions that the tests are known to pass with; pyproject.toml has the ranges.
CONSTRAINTS := $(CURDIR)/constraints.txt

export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)

define SUDOKU
sudoku 9x9
..9..56.1
.2..7.8.5
.45..1.27
.7.4..5..
3..8172.9
...5.237.
..36.87..
5..123.8.
..6.4.1..
endef
export SUDOKU

.PHONY: demo test test-cpp test-python asan tsan lint bench install-check wheel-check clean

# ---- environment and build ----

# torch first: what is installed later then finds it and does not choose another build of it.
REQUIREMENTS := import tomllib; project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
  print("\n".join(project["dependencies"] + sum(project["optional-dependencies"].values(), [])))

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "installing Python packages into $(VENV), minutes the first time: torch is large"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c '$(REQUIREMENTS)' > $(VENV)/requirements.txt
	$(PIP) install --quiet -c $(CONSTRAINTS) torch
	$(PIP) install --quiet -c $(CONSTRAINTS) -r $(VENV)/requirements.txt
	touch $@

# Editable: Python sources are used where they are, only native code is built and put into the environment.
$(VENV)/built: $(VENV)/installed CMakeLists.txt $(shell find csrc -type f)
	@echo "building the native code, about a minute; the first build also fetches the ONNX Runtime headers, 150 MB"
	$(IN_VENV) $(PIP) install --quiet --no-build-isolation --no-deps --editable .
	touch $@

$(ENGINE)/manifest.json: $(VENV)/built $(wildcard dgrt/models/mini/* dgrt/models/mini-drafter/*) $(shell find export/dgrt_export -name '*.py')
	$(BIN)/dgrt export dgrt/models/mini -o $(ENGINE) --drafter dgrt/models/mini-drafter --force

# $(call native,PRESET): configure, build and run the C++ tests.
define native
$(IN_VENV) cmake --preset $(1) -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
$(IN_VENV) cmake --build --preset $(1)
$(IN_VENV) ctest --preset $(1)
endef

# A C program built with what the installed pkg-config file says.
define BY_PKG_CONFIG
export PKG_CONFIG_PATH=$$(dirname $$(find $(CURDIR)/build/install -name dgrt.pc)) && \
$(CC) -std=c11 csrc/samples/generate.c -o build/outside/by_pkg_config $$(pkg-config --cflags --libs dgrt) \
  -Wl,-rpath,$$(pkg-config --variable=libdir dgrt) && build/outside/by_pkg_config 2>&1 | grep -q usage
endef

# ---- commands ----

demo: $(ENGINE)/manifest.json
	$(BIN)/dgrt generate $(ENGINE) "$$SUDOKU" --show

test: test-cpp test-python

test-cpp: $(VENV)/installed
	$(call native,cpu-release)

test-python: $(VENV)/built
	$(BIN)/python -m pytest

asan: $(VENV)/installed
	$(call native,cpu-asan)

tsan: $(VENV)/installed
	$(call native,cpu-tsan)

lint: $(VENV)/built
	$(BIN)/ruff check dgrt export tests benchmarks
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/boundary/test_layering.py tests/boundary/test_stub.py

bench: $(ENGINE)/manifest.json
	$(BIN)/python benchmarks/run.py --scenario mini

install-check: test-cpp
	rm -rf build/install build/outside
	$(IN_VENV) cmake --install build/cpu-release --prefix build/install
	$(IN_VENV) cmake -S csrc/samples -B build/outside -G Ninja -DCMAKE_PREFIX_PATH=$(CURDIR)/build/install \
	  -DDGRT_JSON_INCLUDE=$$($(BIN)/python -c "import nlohmann_json; print(*nlohmann_json.__path__)")/include
	$(IN_VENV) cmake --build build/outside
	build/outside/inline_editor 2>&1 | grep -q usage
	build/outside/json_server 2>&1 | grep -q usage
	if command -v pkg-config; then $(BY_PKG_CONFIG); else echo "no pkg-config: its file is not checked"; fi

wheel-check: $(ENGINE)/manifest.json
	rm -rf build/wheelhouse build/wheel-venv
	$(IN_VENV) $(PIP) wheel --quiet --no-build-isolation --no-deps . -w build/wheelhouse
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip $(PIP_OPTIONS) install --quiet -c $(CONSTRAINTS) build/wheelhouse/*.whl
	cd build/wheel-venv && bin/python $(CURDIR)/tests/boundary/wheel_check.py $(CURDIR)/build/wheelhouse $(CURDIR)/$(ENGINE)

clean:
	rm -rf build engines
