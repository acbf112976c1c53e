# Everything a person or CI runs here. `make help` lists it.
# Whatever needs root asks sudo for it, unless it is root already.

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev bundle wheel image demo test test-slow lint format test-versions test-jaeger test-wild \
	test-propagation test-libraries test-kernels test-wheel test-bare bench bench-start bench-sites bench-rates bench-encode \
	bench-metrics bench-wire bench-propagation bench-libraries bench-network bench-scale bench-inspect clean

VENV := .venv/bin
PYTEST := scripts/as-root $(VENV)/pytest -p no:cacheprovider
PYTHON := otel_goprobe tests benchmarks $(shell grep -l '^\#!/usr/bin/env python3' scripts/*)

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

setup:  ## make .venv/bin/otel-goprobe, installing what it needs (apt, pip)
	@scripts/setup

bundle: setup  ## compile the BPF programs into the package, so that it runs without a compiler (root)
	@mkdir -p otel_goprobe/bundles
	@scripts/as-root $(VENV)/python -m otel_goprobe.units

wheel: bundle  ## dist/otel_goprobe-*.whl with the BPF programs compiled: it runs where there is no compiler
	@rm -rf dist
	@$(VENV)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@ls dist/*.whl

image: wheel  ## the agent's image, by docker build: without a compiler, less than 150 MB
	docker build --tag otel-goprobe .

demo: setup  ## an example Go service, the agent, requests, their traces (JAEGER=1: in a real Jaeger)
	@$(VENV)/python scripts/demo $(if $(filter-out 0,$(JAEGER)),--jaeger)

setup-dev:
	@scripts/setup dev

# Two files of tests at a time: most of them wait for processes. ARGS='-n 0 …' for one after the other.
test: setup-dev  ## the core tests: < 5 minutes on 2 cores, root
	$(PYTEST) -n 2 --dist loadfile tests -m 'not slow and not versions and not jaeger and not collector and not wild and not wheel and not propagation and not libraries' $(ARGS)

test-slow: setup-dev  ## 8 minutes: what takes longer than a core test may
	@scripts/apt-missing bpftrace iproute2 graphviz
	$(PYTEST) -n 2 --dist loadfile tests -m slow $(ARGS)

lint: setup-dev  ## ruff, mypy, the one way of imports
	$(VENV)/ruff check $(PYTHON)
	$(VENV)/ruff format --check $(PYTHON)
	$(VENV)/mypy
	$(VENV)/lint-imports

format: setup-dev  ## rewrite the Python sources as `make lint` wants them
	$(VENV)/ruff check --fix $(PYTHON)
	$(VENV)/ruff format $(PYTHON)

# Their tests leave a line a row in OTEL_GOPROBE_ROWS; from these the pages' parts are made.
test-versions: setup-dev  ## Go 1.19 to 1.27, each built in four ways, and more ways (the first time 700 MB of toolchains)
	@mkdir -p .cache && rm -f .cache/versions.jsonl
	OTEL_GOPROBE_ROWS=.cache/versions.jsonl $(PYTEST) tests -m versions $(ARGS)
	@PYTHONPATH=tests $(VENV)/python tests/e2e/compatibility.py versions .cache/versions.jsonl docs/compatibility.md

test-jaeger: setup-dev  ## a real Collector, Jaeger and browser (the first time some minutes to build them)
	@scripts/apt-missing chromium
	@$(VENV)/python tests/backends/build.py
	$(PYTEST) tests -m 'jaeger or collector'

test-wild: setup-dev  ## three real programs that nobody here wrote, from Go's module proxy
	@mkdir -p .cache && rm -f .cache/wild.jsonl
	OTEL_GOPROBE_ROWS=.cache/wild.jsonl $(PYTEST) tests -m wild $(ARGS)
	@PYTHONPATH=tests $(VENV)/python tests/e2e/compatibility.py wild .cache/wild.jsonl docs/compatibility.md

test-propagation: setup-dev  ## < 10 minutes: parents of 10,007 requests in each of many situations, against the truth
	@mkdir -p .cache && rm -f .cache/propagation.jsonl
	OTEL_GOPROBE_ROWS=.cache/propagation.jsonl $(PYTEST) tests -m propagation $(ARGS)
	@PYTHONPATH=tests:tests/e2e $(VENV)/python -m propagation.page .cache/propagation.jsonl docs/propagation.md

test-libraries: setup-dev  ## libraries by version and Go: our spans beside their official instrumentation's
	@mkdir -p .cache && rm -f .cache/libraries.jsonl
	OTEL_GOPROBE_ROWS=.cache/libraries.jsonl $(PYTEST) tests -m libraries $(ARGS)
	@PYTHONPATH=tests $(VENV)/python tests/e2e/compatibility.py libraries .cache/libraries.jsonl docs/compatibility.md

test-kernels: setup-dev  ## kernels that this machine doesn't run, in virtual machines without KVM
	@scripts/apt-missing qemu-system-x86 kmod udev busybox-static
	scripts/as-root env PYTHONPATH=tests:tests/e2e $(VENV)/python -m kernels

test-wheel: setup-dev wheel  ## the wheel is what the sources give; it and the image run without a compiler
	$(PYTEST) tests -m wheel $(ARGS)

test-bare:  ## `make demo` and `make test` on a bare Debian 12, made for it, from a fresh clone of HEAD
	@scripts/as-root scripts/bare-machine

bench: setup-dev  ## 12 minutes: what the agent costs a server, and itself
	@scripts/apt-missing wrk
	scripts/as-root $(VENV)/python -m benchmarks.overhead --into docs/overhead.md

bench-start: bundle  ## half a minute: from the start of the agent to its probes, and to the first span
	scripts/as-root $(VENV)/python -m benchmarks.start --into docs/overhead.md

bench-sites: setup-dev  ## half a minute: what one hit costs, by the instruction under the probe
	scripts/as-root $(VENV)/python -m benchmarks.sites --into docs/overhead.md

bench-rates: setup-dev  ## 3 minutes: the agent's CPU and memory, idle and by rate; OTEL_BSP_*, gRPC
	@scripts/apt-missing wrk
	scripts/as-root $(VENV)/python -m benchmarks.rates --into docs/overhead.md

bench-scale: setup-dev  ## 3 minutes: what a span costs the agent from 100 to 100,000 a second, of 1 and 100 services
	scripts/as-root $(VENV)/python -m benchmarks.scale --into docs/overhead.md

bench-encode: setup-dev  ## 4 minutes: the agent's own work for a span, and its limit
	$(VENV)/python -m benchmarks.encode --into docs/overhead.md
	scripts/as-root $(VENV)/python -m benchmarks.encode --produce --into docs/overhead.md

bench-metrics: setup-dev  ## 3 minutes: what metrics cost, with spans and without
	@scripts/apt-missing wrk
	scripts/as-root $(VENV)/python -m benchmarks.metrics --into docs/overhead.md

bench-wire: setup-dev  ## 2 minutes: what headers on the wire cost the client that sends them
	scripts/as-root env PYTHONPATH=tests $(VENV)/python -m benchmarks.wire --into docs/overhead.md

bench-propagation: setup-dev  ## 3 minutes: what each way to a span's parent costs, in hits and ns
	@scripts/apt-missing wrk
	scripts/as-root $(VENV)/python -m benchmarks.propagation --into docs/overhead.md

bench-libraries: setup-dev  ## a minute: what each library costs a request, in hits and ns
	scripts/as-root env PYTHONPATH=tests:tests/e2e $(VENV)/python -m benchmarks.libraries --into docs/overhead.md

bench-network: setup-dev  ## 3 minutes: what watching connections costs who makes them, and everybody else
	scripts/as-root $(VENV)/python -m benchmarks.network --into docs/overhead.md

bench-inspect: setup-dev  ## half a minute: what inspecting a program of 98 MB costs (the first time it is built)
	$(VENV)/python -m benchmarks.inspection

clean:  ## remove what was made in the tree (not the cache outside it)
	rm -rf otel_goprobe/bundles .venv .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
