# Everything is set up by the first target that needs it: a virtual environment in .venv, pinned by requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test check format bench lock train clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: $(READY)  ## make the virtual environment

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=…"; exit 1; }
	@echo "Setting up $(VENV) (once, about a minute)…"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(READY)

demo: $(READY)  ## the whole story on this machine; ONCE=1 ends after it
	@$(BIN)/lineside-cloud demo $(if $(ONCE),--once)

test: $(READY)  ## all tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(READY)  ## lint, types, import direction, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs -m "not slow"  # the sessions of the pages run in `make test`

format: $(READY)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## measure, print tables
	$(BIN)/lineside-bench all

train: $(READY)  ## what training the reference models needs, on top
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-train.txt

lock:  ## bring requirements.lock up to date with pyproject.toml (needs uv; UPGRADE=1 takes newer versions)
	uv pip compile pyproject.toml --group dev --extra tflite --extra cloud --extra demo --extra export --extra bench --extra server --extra voice --extra gpio --extra modbus --extra microphone --extra whisper --extra pocketsphinx --extra postgres --extra s3 --extra otel --extra flash --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-header --quiet $(if $(UPGRADE),--upgrade) --output-file requirements.lock

clean:  ## remove what was made here
	rm -rf $(VENV) .demo .bench dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
