# make run and make test need only Python >= 3.11 and a C++20 compiler; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CXX_SOURCES = $(shell git ls-files 'csrc/*.cpp' 'csrc/*.h' 'csrc/*.cu' 'tests/ptx/*.cpp' 'tests/ptx/*.h' 'tests/rtl/*.cpp' 'tests/native/*.cpp' 'tests/native/*.h')

.PHONY: run test test-slow test-cuda bench-cuda lint lint-sources lint-build format wheel bench rtl-area fuzz sanitize clean help

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.installed ## Install into .venv and run the example
	$(BIN)/pysim run resnet20 --block 4

# Two files at a time. The threads of both share the cores, so none may wait for another by spinning.
test: $(VENV)/.installed-test ## Install with the test extra and pass the tests
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: $(VENV)/.installed-test ## The tests that take minutes
	$(BIN)/python -m pytest -m slow

bench: $(VENV)/.installed-test ## Benchmarks, each with its goal; leave the machine alone meanwhile
	$(BIN)/python -m tests.bench

# Where PyTorch sees the GPU: .venv, or any Python with pysim installed, as in make test-cuda CUDA_PYTHON=python3.
CUDA_PYTHON ?= $(BIN)/python

test-cuda: ## What only a GPU can show, and compute-sanitizer; status 2 without one
	$(CUDA_PYTHON) -m tests.gpu test build/cuda-tests.json

bench-cuda: ## Kernels against cuBLAS and torch's own on a GPU; status 2 without one
	$(CUDA_PYTHON) -m tests.gpu bench build/cuda-bench.json

fuzz: $(VENV)/.installed-test ## Hostile bytes for every reader of files, a minute each
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e ".[fuzz]" || \
	  echo "atheris does not install here"
	$(BIN)/python -m tests.fuzz

sanitize: $(VENV)/.installed-lint ## The core without Python under ASan and UBSan, then under TSan
	for kind in address,undefined thread; do \
	  $(BIN)/cmake -S tests/native -B build/sanitize-$$kind -G Ninja -DPYSIM_SANITIZE=$$kind > /dev/null && \
	  $(BIN)/cmake --build build/sanitize-$$kind && build/sanitize-$$kind/native_checks || exit 1; done

rtl-area: $(VENV)/.installed-test ## Cells of a PE and of the skip logic, by yosys
	$(BIN)/python -m tests.rtl.area

lint: lint-sources lint-build ## ruff, mypy, clang-format, and a build with warnings as errors

lint-sources: $(VENV)/.installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

lint-build: $(VENV)/.installed-lint
	$(BIN)/cmake -S . -B build/lint -G Ninja -DPYSIM_WERROR=ON \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	  -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) > build/lint-configure.log
	$(BIN)/cmake --build build/lint

format: $(VENV)/.installed-lint ## Rewrite the sources in house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

wheel: $(VENV)/.installed-test ## Build dist/*.whl, with what .venv has compiled
	$(BIN)/python -m pip install --quiet -c constraints.txt build
	rm -rf dist
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean: ## Remove what was built, keep .venv
	rm -rf build dist

# Torch comes first and pinned: an open range may resolve to a build of several gigabytes.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	@touch $@

# The editable install is rebuilt when anything that is compiled changes.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml CMakeLists.txt $(shell git ls-files csrc)
	$(BIN)/python -m pip install --quiet -c constraints.txt "scikit-build-core>=0.11" "pybind11>=3.0" cmake ninja
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e ".[test]"
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-build-isolation -e ".[lint]"
	@touch $@
