# Every target sets up what it needs. `make help` lists them.

PYTHON ?= python3
POOL ?= digits
BENCH ?= large
STEPS ?= 10000
PROCESSES ?= 2
BENCHES ?= score_throughput score_memory driver_cost driver_steps store_requests decoding reduction rule_cost embedding_scores \
	simulated_rounds task_training duplicates diversifiers badge step_overhead input_stall zero_memory signal_auc consensus \
	handoff acquisition_cost packing cluster_round
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV_VERSION := 0.13.8

export UV_HTTP_TIMEOUT ?= 600

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-slow machine check fix bench prometheus azurite constraints requirements dist sbom clean

help: ## List the targets.
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed 's/%/NAME/' | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## Make .venv with everything the project needs.

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## Run a whole round on real images (POOL=digits, or POOL=cifar10).
	$(BIN)/vaal demo --pool $(POOL)
	@echo "Which rule saves labels? Minutes: $(BIN)/vaal simulate experiments/digits.toml --out demo/simulated"

test: $(READY) ## Run the tests, all but the slow ones: a quarter of an hour on two cores (PROCESSES=2: two files at once).
	$(BIN)/python -m pytest -m "not slow" --numprocesses $(PROCESSES) --dist loadfile

test-fast: $(READY) ## Run the tests that start no Ray, no other process, no training and no report: a minute.
	$(BIN)/python -m pytest -m "not slow and not heavy" --hypothesis-profile=few --numprocesses $(PROCESSES) --dist loadfile

test-slow: $(READY) ## Run the tests that take minutes, or those of them that match ONLY.
	$(BIN)/python -m pytest -m slow -k "$(ONLY)"

machine: $(READY) ## Attack the product with random commands and disturbances; run again to continue (STEPS=10000).
	$(BIN)/python -m tests.machine $(STEPS)

check: $(READY) ## Check format, lint, types and layers.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layering.py

fix: $(READY) ## Format the code, and fix what the linter can.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Measure; prints ratios. Some parts need images below VAAL_DATA (BENCH=small: the quick parts; BENCHES: the names).
	@for name in $(BENCHES); do \
		echo "$$name"; $(BIN)/python tests/bench/$$name.py $(BENCH) || exit; \
	done

peer-%: tests/peers/%/requirements.txt $(READY) ## Make build/peers/NAME, a peer's environment for tests/peers (NAME: a folder there).
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python build/peers/$*
	$(BIN)/uv pip install --python build/peers/$* --requirement $<
	@test ! -f tests/peers/$*/prepare.py || build/peers/$*/bin/python tests/peers/$*/prepare.py build/peers/$*-data

prometheus: build/prometheus/usr/bin/promtool ## Unpack Debian's Prometheus into build/, for tests/cluster.

build/prometheus/usr/bin/promtool:
	@mkdir -p build/deb
	cd build/deb && apt-get download prometheus
	dpkg-deb --extract build/deb/prometheus_*.deb build/prometheus
	@touch $@

azurite: ## Install Microsoft's emulator of Azure's storage into build/, for tests/engine/storage; needs npm.
	npm install --silent --no-audit --no-fund --prefix build/azurite azurite

constraints: $(READY) ## Pin the newest versions that pyproject.toml admits, for development and for the image.
	$(BIN)/uv pip compile --universal --python-version 3.11 --upgrade --extra dev --extra ray-up-gcp --quiet \
		--no-emit-index-url --no-annotate --no-header pyproject.toml --output-file constraints.txt
	$(MAKE) requirements

requirements: $(READY) ## Write cluster/requirements.txt, the image's packages with their hashes, from constraints.txt.
	$(BIN)/uv pip compile --python-version 3.11 --python-platform linux --extra ray-up-gcp --constraint constraints.txt \
		--generate-hashes --quiet --upgrade --no-emit-index-url --no-annotate --no-header pyproject.toml \
		--output-file cluster/requirements.txt

dist: $(READY) ## Build the wheel into dist/.
	@rm -rf build/lib
	$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir dist .

sbom: $(READY) ## Write dist/sbom.json, a bill of materials (CycloneDX) of the image's packages.
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements cluster/requirements.txt --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/sbom.json

clean: ## Remove the environment, caches and the demo's folder.
	rm -rf $(VENV) demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
