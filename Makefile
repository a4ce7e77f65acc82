PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NODE := tests/node/node_modules/.installed

.PHONY: test picture soak-crashes soak-long-runs soak-kills soak-load node lint types demo lock clean reference

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.2"  # its launchers do not import re
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

node: $(NODE)  ## the packages of the tests' JavaScript apps

$(NODE): tests/node/package.json tests/node/package-lock.json
	cd tests/node && npm ci --loglevel=error
	touch $@

test: $(STAMP) $(NODE)  ## everything that must hold: lint, types, tests
	$(MAKE) --no-print-directory lint types
	$(BIN)/python -m pytest -q -n 2

.PHONY: test-postgres
test-postgres: $(STAMP)  ## every test of workflows once more, with runs kept in PostgreSQL
	$(BIN)/python -m pytest -q -n 2 tests/workflows --storage postgres

soak-crashes: $(STAMP)  ## kill processes at every durable operation: nothing is lost, nothing finished runs again
	$(BIN)/python -m tests.crashes local
	$(BIN)/python -m tests.crashes local --deaths 4 --sample 300
	$(BIN)/python -m tests.crashes local --postgres
	$(BIN)/python -m tests.crashes worker
	$(BIN)/python -m tests.crashes worker --leg 4
	$(BIN)/python -m tests.crashes worker --apart
	$(BIN)/python -m tests.crashes worker --crowded
	$(BIN)/python -m tests.crashes worker --apart --crowded --sample 60
	$(BIN)/python -m tests.crashes engine --apart --sample 40
	$(BIN)/python -m tests.crashes worker --postgres --sample 20
	$(BIN)/python -m tests.crashes engine
	$(BIN)/python -m tests.crashes engine --crowded

soak-kills: $(STAMP)  ## kill -9 of the engine and its workers, 200 times under load; about five minutes
	$(BIN)/python tests/engine/soak_kills.py --kills 200

soak-load: $(STAMP)  ## 1,000 runs side by side, then 100,000 queued: the engine's memory and latency
	$(BIN)/python tests/engine/soak_load.py --queued 100000 --parallel 1000

.PHONY: fuzz
fuzz: $(STAMP)  ## the long form of the API's fuzzing, with its summary
	FLOWCTL_LONG_FUZZ=1 $(BIN)/python -m pytest -q -s tests/server/test_openapi.py

soak-long-runs: $(STAMP)  ## runs of 10,000 steps on Inngest: each step costs at the end what it did at first
	$(BIN)/python tests/bench/long_runs.py

picture: $(STAMP)  ## draw the README's picture anew (needs tmux)
	$(BIN)/python scripts/picture.py

demo: $(STAMP)  ## the main job: scaffold, serve, run, stop
	$(BIN)/python scripts/demo.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright --warnings

reference: $(STAMP)  ## docs/cli.md and the completion table, from the parsers
	$(BIN)/python scripts/cli_reference.py

lock:  ## refresh requirements.lock from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --no-header --no-emit-index-url --no-emit-find-links --universal --all-extras --group dev \
		--output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) dist
