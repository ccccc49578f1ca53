# Two commands for a fresh machine: `make serve` and `make test`.
SHELL := /bin/bash
UV_ENV := .uv
UV := $(UV_ENV)/bin/uv
BIN := .venv/bin
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: setup serve test check docs proto bench soak clean

setup: .venv/.ready .treeline/models/credit/1.0.0/manifest.json

$(UV):
	python3 -m venv $(UV_ENV)
	$(UV_ENV)/bin/pip install --quiet --disable-pip-version-check "uv>=0.9"

.venv/.ready: pyproject.toml uv.lock | $(UV)
	$(UV) sync --frozen --quiet
	touch $@

.treeline/models/credit/1.0.0/manifest.json: | .venv/.ready
	$(BIN)/treeline demo

serve: setup
	$(BIN)/treeline serve configs/quickstart.yaml

test: setup
	$(BIN)/python -m pytest -m "not soak"

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: setup
	$(BIN)/python docs/generate.py

# The gRPC messages; needs the network the first time.
proto: $(UV)
	$(UV) run --isolated --no-project --with grpcio-tools==1.81.1 python -m grpc_tools.protoc \
	  -I. --python_out=. --pyi_out=. serve_app/grpc/open_inference.proto

bench: setup
	$(BIN)/python -m benchmarks $(BENCH)

# About 50 minutes. Parts: `make soak PART=test_soak` (kills and outages, 30 minutes),
# `make soak PART=test_storage_away` (10 minutes of load, 5 of them without storage).
PART ?= test
soak: setup
	$(BIN)/python -u -m pytest -s -m soak -k $(PART)

clean:
	rm -rf .venv $(UV_ENV) .treeline
