# make demo   build for this machine, map the shipped places, query them at four budgets, drive a loop
# make test   run every test this machine can; what was skipped is listed with its package
# make check  ruff, mypy, import-linter, the API pages
# make docs   API pages from the docstrings, in build/api
# make fuzz   every reader of others' bytes under libFuzzer and atheris, FUZZ_SECONDS each
# make soak   everything at once under injected faults, for SOAK_MINUTES
# make plugin the TensorRT plugin library, given TENSORRT_INCLUDE=DIR
# make sbom   the software bill of materials (CycloneDX) in build/sbom.json
# make wheels platform wheels that carry the compiled default model
#
# Each target sets itself up in .venv: Python 3.11 to 3.13 and a C compiler are enough.

VENV := .venv
BIN := $(VENV)/bin
# Repeated runs must not write into a shared pip cache that CI does not have.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST_ARGS ?= -n 2 --dist loadfile
FUZZ_SECONDS ?= 3600
FUZZ_LANES ?= 1
SOAK_MINUTES ?= 60

.PHONY: demo test check docs fuzz soak plugin sbom wheels clean

demo: $(VENV)/.ready-build
	$(BIN)/tatvpr-edge demo

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest -rs $(PYTEST_ARGS)

check: $(VENV)/.ready-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MAKE) --no-print-directory docs

docs: $(VENV)/.ready-test
	$(BIN)/python tools/api_pages.py build/api

# A first run of CI gives each target half a minute; what was found stays in build/fuzz/corpus.
fuzz: $(VENV)/.ready-test
	$(BIN)/python -m fuzz.run --seconds $(FUZZ_SECONDS) --lanes $(FUZZ_LANES) $(FUZZ_TARGETS)

soak: $(VENV)/.ready-build
	$(BIN)/python tools/soak.py --minutes $(SOAK_MINUTES)

plugin: $(VENV)/.ready-build
	$(PIP) install --editable '.[gpu]'
	$(BIN)/python tools/build_plugin.py

sbom: $(VENV)/.ready-build
	$(PIP) install --editable '.[sbom]'
	$(BIN)/python tools/sbom.py

wheels: $(VENV)/.ready-build
	$(PIP) install 'setuptools>=77'
	$(BIN)/python tools/make_wheels.py

$(BIN)/python:
	@for p in python3.11 python3.12 python3.13 python3; do \
	  if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    echo "setting up $(VENV) with $$($$p --version)"; $$p -m venv $(VENV) || { rm -f $@; exit 1; }; exit 0; \
	  fi; \
	done; \
	echo "error: no Python 3.11 to 3.13 on the PATH: install one (Debian: apt-get install python3 python3-venv)" >&2; exit 1

$(VENV)/.ready-build: pyproject.toml | $(BIN)/python
	@echo "installing the build tools (TVM, ONNX Runtime): about 700 MB, some minutes"
	$(PIP) install --editable '.[build]'
	@touch $@

# torch comes first and pinned: whatever asks for torch later is then satisfied.
$(VENV)/.ready-test: pyproject.toml | $(BIN)/python
	@echo "installing the test and training tools: about 2 GB, some minutes"
	$(PIP) install torch==2.13.0
	$(PIP) install --editable '.[build,train,teacher,render,plot,slam,zig,gpu,bags,video,test,fuzz,sbom,check]'
	@touch $@ $(VENV)/.ready-build

clean:
	rm -rf build dist wheels *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
