# Developer commands, the same on a laptop and in CI. Everything happens in .venv, build/ and engines/.
#
#   make demo           export the bundled model and watch it solve a Sudoku
#   make mini-engine    export it into dgrt/models/mini-engine, the engine that the wheel carries
#   make test           C++ tests, then Python tests
#   make asan, tsan     C++ tests under address + undefined-behaviour, or thread sanitizers
#   make fuzz           readers of files from outside, a fixed number of damaged inputs each (needs clang)
#   make lint           style, types, layering
#   make bench          the benchmark of the bundled model
#   make install-check  install library, header, CMake package and pkg-config file; build outside programs against them
#   make wheel-check    build a wheel and use it in an environment without torch: elsewhere, and inside this clone
#   make versions       export with the oldest and the newest torch, onnx and transformers that are allowed
#   make nightly        what takes too long for every change: versions
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

.PHONY: demo mini-engine test test-cpp test-python asan tsan fuzz lint bench install-check wheel wheel-check versions \
  nightly clean

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
	$(BIN)/dgrt demo $(ENGINE)

# Copies: a file in the source tree should be one file.
mini-engine: $(VENV)/built
	$(BIN)/dgrt export dgrt/models/mini -o dgrt/models/mini-engine --drafter dgrt/models/mini-drafter --copy --force

test: test-cpp test-python

test-cpp: $(VENV)/installed
	$(call native,cpu-release)

test-python: $(VENV)/built
	$(BIN)/python -m pytest

asan: $(VENV)/installed
	$(call native,cpu-asan)

tsan: $(VENV)/installed
	$(call native,cpu-tsan)

fuzz: $(VENV)/built
	@if command -v clang++ > /dev/null; then \
	  $(IN_VENV) cmake --preset fuzz -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python && \
	  $(IN_VENV) cmake --build --preset fuzz && $(BIN)/python tests/fuzz/run.py build/fuzz; \
	else echo "SKIPPED: fuzz needs clang++ (Debian: apt-get install clang)"; fi

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

wheel: $(VENV)/built
	rm -rf build/wheelhouse
	$(IN_VENV) $(PIP) wheel --quiet --no-build-isolation --no-deps . -w build/wheelhouse

wheel-check: wheel
	rm -rf build/wheel-venv
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip $(PIP_OPTIONS) install --quiet -c $(CONSTRAINTS) build/wheelhouse/*.whl
	cd build/wheel-venv && bin/python $(CURDIR)/tests/boundary/wheel_check.py $(CURDIR)
	rm -rf build/wheel-venv

# The export extra with the oldest versions of its ranges, then with the newest; gigabytes each, one after the other.
versions: wheel
	for end in oldest newest; do \
	  rm -rf build/versions && $(PYTHON) -m venv build/versions && \
	  build/versions/bin/python tests/boundary/versions_check.py requirements $$end > build/versions/$$end.txt && \
	  build/versions/bin/python -m pip $(PIP_OPTIONS) install --quiet -r build/versions/$$end.txt build/wheelhouse/*.whl && \
	  (cd build/versions && bin/python $(CURDIR)/tests/boundary/versions_check.py run) || exit 1; \
	done
	rm -rf build/versions

# What takes too long for every change.
nightly: versions

clean:
	rm -rf build engines
