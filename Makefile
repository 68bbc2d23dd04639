# Everything a fresh machine needs besides Python 3.11+ and make is installed by these targets into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: venv run test quick soak check format release bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	mkdir -p build/ns/shrivenq
	for folder in shm stages pipeline configs; do ln -sfn ../../../$$folder build/ns/shrivenq/$$folder; done
	touch $(STAMP)

run: venv
	$(BIN)/shrivenq run $(or $(ARGS),simulator)

test: check release
	$(BIN)/python tests/run.py $(ARGS)

quick: venv
	$(BIN)/python -m pytest -q -x -m 'not slow' $(ARGS)

# 200,000 live orders under faults, ten deaths of the gateway; SOAK_ORDERS and SOAK_SEED choose others.
soak: venv
	SOAK_ORDERS=$(or $(SOAK_ORDERS),200000) $(BIN)/python -m pytest -q tests/pipeline/test_soak.py -m slow $(ARGS)

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

release: venv
	$(BIN)/python tests/wheel.py

bench: venv
	$(BIN)/python bench/all.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
