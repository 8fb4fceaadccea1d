PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Tests wait more than they compute: twice as many workers as cores keep the cores busy.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(16, 2 * (os.cpu_count() or 1)))')

N ?= 8

.PHONY: help install run test kernels lint bench demo lab lab-down docs pictures clean

help:
	@echo "make run      install, then open the console"
	@echo "make test     install, then lint, types and all tests"
	@echo "make lint     ruff and mypy"
	@echo "make bench    the measurements in benchmarks/ (takes a while)"
	@echo "make demo     a scratch root with a small model, and the console on it"
	@echo "make lab      N=8 hosts with SSH on this machine (Linux, root): .lab/hosts.yaml"
	@echo "make lab-down takes them away again"
	@echo "make docs     docs/keys.md, docs/cli.md and docs/settings.md, from the program itself"
	@echo "make pictures docs/pictures, from the program on a root with two trained models (about ten minutes)"

install: $(STAMP)

# Torch goes first and alone: the constraint keeps pip from taking a build with gigabytes of CUDA libraries.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

run: $(STAMP)
	@$(BIN)/ringrift-console

test: $(STAMP)
	@$(MAKE) --no-print-directory -j2 lint kernels
	$(BIN)/python -m tests.lab.suite $(WORKERS)

kernels: $(STAMP)
	$(BIN)/python -m tests.lab.kernels

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP)
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

demo: $(STAMP)
	$(BIN)/ringrift pipeline square8_2p --root build/demo --games 40 --epochs 2 --gauntlet-games 10 --wait
	$(BIN)/ringrift-console --root build/demo

lab: $(STAMP)
	@$(BIN)/python -m tests.lab.bed up --hosts $(N) $(if $(CAP),--cap $(CAP))

lab-down: $(STAMP)
	@$(BIN)/python -m tests.lab.bed down

docs: $(STAMP)
	$(BIN)/python docs/generate.py

pictures: $(STAMP)
	$(BIN)/ringrift pipeline square8_2p --root build/pictures --wait
	$(BIN)/ringrift pipeline hex8_2p --root build/pictures --wait
	$(BIN)/python docs/pictures.py --root build/pictures
	$(BIN)/ringrift supervise --stop --root build/pictures

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
