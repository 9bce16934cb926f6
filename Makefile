# Everything a contributor runs. `make` alone prints this list.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
SERVERS := rabbitmq-server redis-server haproxy pgbouncer faketime chromium
# What it measures includes what coverage notes of each line.
NOT_COVERED := --deselect=tests/unit/policies/test_registry.py::test_a_keyed_child_costs_less_than_four_kib

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-python setup-servers demo check test ci bench proof docs

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: setup-python setup-servers ## Virtual environment, the package with all extras, tools; with root also the Debian servers

setup-python: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing spoolproof with its extras and tools into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,dev,demo]'
	@touch $@

# Debian starts a service as soon as it is installed. policy-rc.d forbids that for as long as the installation runs:
# the tests start servers of their own and leave the machine's alone.
setup-servers:
	@missing=""; for name in $(SERVERS); do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v $$name >/dev/null || missing="$$missing $$name"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then echo "install these to run every test:$$missing"; exit 0; fi; \
	sudo=""; if [ "$$(id -u)" != 0 ]; then \
	  if ! sudo -n true 2>/dev/null; then \
	    echo "without root, some tests are skipped; install: sudo apt-get install$$missing"; exit 0; \
	  fi; sudo="sudo -n"; \
	fi; \
	echo "installing$$missing (none of them is started)"; \
	policy=/usr/sbin/policy-rc.d; \
	if [ ! -e $$policy ]; then \
	  trap "$$sudo rm -f $$policy" EXIT; \
	  printf '#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null; $$sudo chmod 755 $$policy; \
	fi; \
	$$sudo apt-get update -qq && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null

demo: setup-python ## The example shop on SQLite and the embedded broker: orders flow, a service is killed, nothing is lost
	@$(BIN)/spoolproof demo

define checks
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy src
	$(BIN)/lint-imports
	$(PYTEST) -n 2 --dist worksteal $(wildcard tests/unit tests/architecture tests/api)
endef

check: export SPOOLPROOF_DOSE ?= commit
check: setup-python ## Format, lint, types, layers, unit tests with small doses; before every commit
	$(checks)

# Three at a time, each with servers of its own: most of their time they wait for a fault to end.
test: setup ## What CI runs: check with its whole doses, then real processes and real servers
	$(checks)
	$(PYTEST) -n 3 --dist worksteal -m "not proof" $(wildcard tests/conformance tests/integration tests/crash tests/acceptance tests/docs)

ci: export SPOOLPROOF_DOSE = ci
ci: export CI = true
ci: test ## test with larger doses; a missing server fails

bench: setup ## All benchmarks against their peers, into benchmarks/RESULTS.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/requirements.txt
	$(BIN)/python -m benchmarks

proof: export SPOOLPROOF_DOSE = proof
proof: export CI = true
proof: setup ## Hours of it: the tests marked proof, large doses of the policies' models, their every branch, mutants
	$(PYTEST) -m proof
	$(PYTEST) tests/unit/policies
	SPOOLPROOF_DOSE=mutation $(BIN)/python -m coverage run -m pytest $(NOT_COVERED) tests/unit/policies tests/unit/testing
	$(BIN)/python -m coverage report --fail-under=100
	$(BIN)/python tests/mutation.py

docs: setup-python ## Run every code block of the README and the docs
	@if [ -d tests/docs ]; then $(PYTEST) tests/docs; else echo "no tests/docs yet"; fi
