# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

# The best Python of 3.11 or newer that really starts (a pyenv shim may not).
# `make PYTHON=/path/to/python3.12 ...` names another.
PYENV_BIN := $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.*/bin)
PYTHON ?= $(shell for v in 3.13 3.12 3.11 3.14 3; do \
	for p in python$$v $(foreach d,$(PYENV_BIN),$(d)/python$$v); do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; exit; }; done; done)

VENV := .venv
RUNNER := .nox/runner
RUN := $(RUNNER)/bin/python tests/run.py

.DEFAULT_GOAL := help
.PHONY: help demo bench test unit kernel kernels interop fleet integration sanity lint types docs schema build clean python

help:  ## This list
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo 'STRICT=1 makes what the tests skip a failure.'

demo: $(VENV)/ready  ## See it work, in network namespaces of its own (no root needed)
	@$(VENV)/bin/python -m tests.demo

bench: $(VENV)/ready  ## Measure it beside conntrack and pyroute2 (BENCH=--help lists options)
	@$(VENV)/bin/python -m tests.bench $(BENCH)

test: $(RUNNER)/ready  ## All tests
	@$(RUN)

unit: $(RUNNER)/ready  ## Tests without a kernel, on every Python and ansible-core
	@$(RUN) -k unit

kernel: $(RUNNER)/ready  ## Tests of the client on the running kernel
	@$(RUN) -s kernel

kernels: $(RUNNER)/ready  ## The same, and modules, on Linux 5.10, 6.1, 6.12 and 7.2 under QEMU
	@$(RUN) -s kernels

interop: $(RUNNER)/ready  ## Tests against conntrack(8) and pyroute2
	@$(RUN) -s interop

fleet: $(RUNNER)/ready  ## Tests of what users run: playbooks, inventories, rulebooks
	@$(RUN) -s fleet

integration: $(RUNNER)/ready  ## Tests of the modules in plays (as root)
	@$(RUN) -k integration

sanity: $(RUNNER)/ready  ## ansible-test sanity, with every ansible-core
	@$(RUN) -k sanity

lint: $(RUNNER)/ready  ## Style, licences, documentation, changelog, package
	@$(RUN) -s ruff yamllint antsibull-nox-config license-check extra-checks docs-check changelog ansible-lint build-import-check

types: $(RUNNER)/ready  ## mypy, strict
	@$(RUN) -s types

docs: $(RUNNER)/ready  ## The documentation as HTML, in dist/docs
	@$(RUNNER)/bin/nox -s docs

schema: $(RUNNER)/ready  ## docs/conntrack_config.schema.json anew, after a change of options or their documentation
	@$(RUNNER)/bin/nox -s schema

build: $(VENV)/ready  ## The package to install, in dist
	@$(VENV)/bin/ansible-galaxy collection build --force --output-path dist

clean:  ## Remove what any of these made
	rm -rf .venv .nox .cache .hypothesis .mypy_cache .ruff_cache .pytest_cache .ansible dist tests/output
	find plugins tests -name __pycache__ -prune -exec rm -rf {} +

python:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer with its venv module is needed (on Debian: apt install python3 python3-venv), or name one: make PYTHON=...' >&2; exit 1; }

$(VENV)/ready: tests/requirements/demo.txt | python
$(RUNNER)/ready: tests/requirements/runner.txt | python
%/ready:
	@echo 'Installing what $< lists into $(@D)'
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@
