# Two commands matter: `make run` and `make test`. `make clean` removes everything that make creates, except .env and
# mlengine.env.

PYTHON ?= python3
ARGS   ?=
EXAMPLE ?= mnist
BOOT   := $(PYTHON) scripts/bootstrap.py
BIN    := .venv/bin

# The environment of the caller must not decide what is built or where (a set UV_CACHE_DIR is kept: caches are shared).
export UV_CACHE_DIR ?= $(CURDIR)/.mlengine/cache/uv
export UV_PYTHON_DOWNLOADS := never
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help run test lint format unit integration trainer-test e2e bench screenshots lock clean setup
.PHONY: test-compose compose-env wheel

help:  ## print this list
	@sed -n 's|^\([a-z0-9 -]*\):.*  ## \(.*\)|  make \1\t\2|p' $(MAKEFILE_LIST) | expand -t 44

run: setup  ## start everything, train, validate, publish; EXAMPLE=flights, flights-xgboost; ARGS=--once stops it afterwards
	@$(BIN)/python -m scripts.run --example $(EXAMPLE) $(ARGS)

test: setup-dev  ## the default test suite: lint, types, trainer, unit, integration, end to end
	@$(BIN)/python -m scripts.check -- $(ARGS)

lint: setup-dev  ## run ruff, mypy, the import contracts and the word check
	@$(BIN)/python -m scripts.check lint types

format: setup-dev  ## format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

unit integration e2e trainer-test: setup-dev  ## run one part of the tests; ARGS go to pytest
	@$(BIN)/python -m scripts.check $@ -- $(ARGS)

.PHONY: system
system: setup-dev  ## run five small jobs on a real project of Vertex AI: PROJECT=… BUCKET=gs://… REGION=…
	@MLENGINE_SYSTEM_PROJECT="$(PROJECT)" MLENGINE_SYSTEM_BUCKET="$(BUCKET)" MLENGINE_SYSTEM_REGION="$(REGION)" \
		$(BIN)/python -m pytest tests/system $(ARGS)

bench: setup-dev  ## run benchmarks, as ratios to a baseline of the same run
	@$(BIN)/python -m benchmarks $(ARGS)

docs: setup-dev  ## build the manual into .mlengine/site; a warning is an error; ARGS=serve serves it
	@$(BIN)/python -m scripts.docs $(ARGS)

reference: setup-dev  ## write docs/reference.md and docs/errors.md from the code
	@AIRFLOW_HOME=$(CURDIR)/.mlengine/test/airflow $(BIN)/python -m scripts.reference

.PHONY: docs reference

screenshots: setup-dev  ## take pictures of the running UI into docs/img (needs Chromium)
	@$(BIN)/python -m scripts.screenshots $(ARGS)

test-compose: setup-dev  ## test docker-compose.yaml (needs Docker; 15 to 30 minutes)
	@AIRFLOW_HOME=$(CURDIR)/.mlengine/test/airflow $(BIN)/python -m pytest tests/compose $(ARGS)

wheel: setup-dev  ## build the package for another Airflow: dist/mlengine-*.whl
	@$(BIN)/uv build --wheel --offline --no-build-isolation --quiet --python $(BIN)/python && ls dist/*.whl

compose-env:  ## create .env and mlengine.env for docker compose, unless they exist: passwords and settings
	@$(PYTHON) scripts/compose_env.py

lock: setup-dev  ## recompile the lock files
	@$(BIN)/python -m scripts.lock $(ARGS)

clean:  ## remove everything that make created, except .env and mlengine.env (refuses while `make run` is up)
	@$(PYTHON) scripts/clean.py $(ARGS)

setup:
	@$(BOOT) run

.PHONY: setup-dev
setup-dev:
	@$(BOOT) dev
