# Everything a newcomer or CI calls. `check` and `test` only look; `fmt` and `generate` change files.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PB := kybernate/clients/pb
OPA = $(shell $(PY) -c "from testbed.assets import ensure; print(ensure(['opa'])['opa'])")
# Tests of one file stay in one process; each process has a control plane and real nodes of its own.
PYTEST := $(PY) -m pytest
# tests/stack has a target of its own, for it takes minutes: CONTRIBUTING.md.
UNIT := -m "not controlplane and not node" -n 2 --dist loadfile --ignore=tests/stack
PLANE := -m "controlplane or node" -n 2 --dist loadfile --durations=15 --ignore=tests/stack

.PHONY: help setup assets built native check test test-unit test-plane test-stack images demo demo-multiplex thousand-switches bench-extender bench-park bench-pairs bench-images bench-artifacts bench-tiers bench-activator bench-wake generate fmt clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "== setting up $(VENV) (once, about a minute)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP) ## Make the virtual environment (the other targets do it themselves)

assets: $(STAMP) ## Build etcd, Kubernetes and OPA into the user's cache folder (once, about 8 minutes); prints where
	@$(PY) -m testbed.assets

built: $(STAMP) # the same, without the paths, for the targets below
	@$(PY) -m testbed.assets > /dev/null

native: $(STAMP) ## Compile our C programs into the user's cache folder (seconds); prints where
	@$(PY) -m testbed.assets.native

demo: built ## The main job, live: five 40 GB models and a trainer share one 80 GB GPU
	@$(PY) -m testbed.demo

demo-multiplex: built ## Five models behind one address on one 80 GB GPU, asked as a real trace asks
	@$(PY) -m testbed.multiplex

thousand-switches: built ## 30 models behind one address, 1,000 switches: nothing lost, mixed up or out of order
	@$(PY) -m testbed.multiplex --models 30 --vram 256Mi --together 1 --turn 0 --clients 12 --ahead 4 \
	  --requests 1500 --switches 1000

test: test-unit test-plane ## All tests but those of the whole stack, which have a target of their own

test-unit: built ## Tests without a control plane
	@$(PYTEST) -q $(UNIT)

test-plane: built ## Tests on the real control plane and, as root, on real nodes
	@echo "== tests of the whole stack are apart: make test-stack, about 7 minutes"
	@$(PYTEST) -q $(PLANE)

test-stack: built ## The whole stack, broken on purpose, and the manifests on a real node (not part of `test`)
	@$(PYTEST) -q tests/stack -n 2 --dist loadfile

images: built ## Build every image of the Dockerfile, try each, and install from them on a real node (root; minutes)
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT \
	  && $(PY) -m testbed.imaging --keep "$$folder" \
	  && KYB_IMAGES="$$folder" $(PYTEST) -q tests/stack/test_installing_on_a_real_node.py

bench-park: $(STAMP) ## Park and resume real programs on a real GPU (needs one, PyTorch and nvcc)
	@$(PY) -m benchmarks.parking

bench-pairs: $(STAMP) ## Park and resume a job on two real GPUs, joined by NCCL (needs them, and PyTorch)
	@$(PY) -m benchmarks.pairs

bench-images: $(STAMP) ## Process images beside runc's own checkpoint and restore (root, some minutes)
	@$(PY) -m benchmarks.images

bench-artifacts: built ## Sealing and fetching checkpoints beside cp and a plain connection, and what the next one costs
	@$(PY) -m benchmarks.artifacts
	@$(PY) -m benchmarks.snapshots

bench-tiers: $(STAMP) ## Sealed checkpoints to a disk and a bucket and back, beside the disk's and obstore's own rates
	@$(PY) -m benchmarks.tiers

bench-activator: $(STAMP) ## What the activator adds to a request for a running model
	@$(PY) -m benchmarks.activator

bench-wake: $(STAMP) ## What a client of a parked model waits for beside the resume (root)
	@$(PY) -m benchmarks.waking

bench-extender: built ## Pods a second without an extender, with an idle one, and with Kybernate
	@$(PY) -m benchmarks.extender

check: built ## Format, lint, types, import contracts, Rego, generated code, spelling
	@echo "== format and lint"; $(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check .
	@echo "== types"; $(VENV)/bin/mypy
	@echo "== import contracts"; $(VENV)/bin/lint-imports
	@echo "== Rego"; opa="$(OPA)"; cd policies && "$$opa" check --strict --schema schemas kyb \
	  && "$$opa" fmt --fail --list kyb && "$$opa" test kyb \
	  && "$$opa" test --coverage --threshold 95 kyb > /dev/null
	@echo "== generated code"; $(MAKE) --no-print-directory generate && git diff --exit-code --stat -- $(PB)
	@echo "== spelling"; $(VENV)/bin/codespell

generate: $(STAMP) ## Make the gRPC code from the .proto files
	@$(PY) -m grpc_tools.protoc -I . --python_out=. --grpc_python_out=. \
	  --mypy_out=quiet:. --mypy_grpc_out=quiet:. \
	  --plugin=protoc-gen-mypy=$(VENV)/bin/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(VENV)/bin/protoc-gen-mypy_grpc $(PB)/*.proto

fmt: built ## Format the code
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .
	@cd policies && $(OPA) fmt --write kyb

clean: ## Remove what make made here (the cache folder stays)
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
