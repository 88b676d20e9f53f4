# Every verb makes the environment first if need be. PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export MLFLOW_DISABLE_TELEMETRY ?= true
export HF_HUB_OFFLINE ?= 1

.PHONY: env demo test test-hosts attack mutants lint types format bench ui clean
.DEFAULT_GOAL := help

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

env: $(VENV)/.ready  ## make the environment in .venv

$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Making the environment in $(VENV): about a minute, some more where packages have to be downloaded (8 GB on the disk)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e ".[dev]"
	touch $@

demo: env  ## segment the shipped frames, then train, evaluate and track a small network on them: a few minutes on a CPU
	$(BIN)/clinbundles demo

test: env lint  ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-hosts: env  ## the bundles in real hosts, those that this environment has
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m hosts tests/hosts --durations=0

attack: env  ## kill commands, damage files, lie in headers and attack stores: 15 minutes, and how long each kind took
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "" tests/attack

mutants: env  ## change constants of the configs one by one, and see that tests notice: a few minutes
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py

lint: env  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory types

types: env  # mypy sees the wings under their import names, through links, and so across wings
	mkdir -p .typed/clinbundles
	for wing in transforms nets engines scripts; do ln -sfn ../../$$wing .typed/clinbundles/$$wing; done
	MYPYPATH=.typed $(BIN)/mypy -p clinbundles

format: env  ## let ruff rewrite the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: env  ## ratio tables: this project's methods beside what one would use instead
	$(BIN)/clinbundles bench blur
	$(BIN)/clinbundles bench two_stage --sizes 768 --precisions float32
	$(BIN)/clinbundles bench classifier

ui: env  ## open the MLflow interface on the local database
	@echo "starting the server, which says when it answers; then open http://127.0.0.1:5000/#/experiments?workflowType=machine_learning"
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --workers 1 --backend-store-uri sqlite:///$(CURDIR)/runs/mlflow.db

clean:  ## remove caches and the environment, keep runs/
	rm -rf $(VENV) *.egg-info .typed .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
