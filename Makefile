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
LOCKS := tests/requirements/lock
INSTALL := install -qq --disable-pip-version-check --require-hashes
RUN := $(RUNNER)/bin/python tests/run.py

.DEFAULT_GOAL := help
.PHONY: help demo dev check test unit kernel kernels interop fleet integration sanity lint types bench soak fuzz docs schema pages picture lock changelog build wheel release clean python

help:  ## List the targets
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16
	@echo 'STRICT=1 tests every supported Python, ansible-core and kernel, and a skipped test counts as failed.'

demo: $(VENV)/ready  ## Show the collection at work, in network namespaces of its own (no root needed)
	@$(VENV)/bin/python -m tests.demo

dev: $(VENV)/ready $(VENV)/dev  ## Install in .venv what an editor, `pytest FILE` and pre-commit need

check: $(RUNNER)/ready  ## Before each commit: style, types, unit tests on the newest Python (90 seconds)
	@$(RUN) -s ruff types unit

test: $(RUNNER)/ready  ## What a change must pass, on the newest and oldest versions (15 minutes)
	@$(RUN)

unit: $(RUNNER)/ready  ## Tests without a kernel, on every supported Python and ansible-core
	@$(RUN) -t units

kernel: $(RUNNER)/ready  ## Tests of the client on the running kernel
	@$(RUN) -s kernel events

kernels: $(RUNNER)/ready  ## The same on other kernels under QEMU: Linux 5.10 and 7.2, with STRICT=1 also 6.1 and 6.12
	@$(RUN) -s kernels

interop: $(RUNNER)/ready  ## Tests against conntrack(8) and pyroute2
	@$(RUN) -s interop

fleet: $(RUNNER)/ready  ## Tests of playbooks, inventories, rulebooks and documentation
	@$(RUN) -s fleet

integration: $(RUNNER)/ready  ## Tests of the modules in plays (as root)
	@$(RUN) -t integration

sanity: $(RUNNER)/ready  ## ansible-test sanity
	@$(RUN) -t sanity

lint: $(RUNNER)/ready  ## Style, licences, documentation, changelog, package
	@$(RUN) -s ruff yamllint antsibull-nox-config license-check extra-checks docs-check changelog ansible-lint build-import-check

types: $(RUNNER)/ready  ## mypy, strict
	@$(RUN) -s types

fuzz: $(RUNNER)/ready  ## Look for input that breaks the readers, for 5 minutes (FUZZ=--help lists options)
	@$(RUNNER)/bin/nox -s fuzz -- $(FUZZ)

bench: $(VENV)/ready  ## Measure speed and memory beside other programs (BENCH=--help lists options)
	@$(VENV)/bin/python -m tests.bench $(BENCH)

soak: $(VENV)/ready  ## Flush and restore for two minutes beside 2,000 new connections per second (SOAK=--help lists options)
	@$(VENV)/bin/python -m tests.soak $(SOAK)

docs: $(RUNNER)/ready  ## Build the documentation as HTML, in dist/docs/build/html
	@$(RUNNER)/bin/nox -s docs

schema: $(RUNNER)/ready  ## Write docs/conntrack_config.schema.json, after a change of options or their documentation
	@$(RUNNER)/bin/nox -s schema

pages: $(RUNNER)/ready  ## Write guide_faults.rst and event_source.rst, after a change of tests/faults or of the event source
	@$(RUNNER)/bin/nox -s pages

picture: $(RUNNER)/ready  ## Write docs/report.png, after a change of the report (needs Chromium)
	@$(RUNNER)/bin/nox -s picture

lock: $(RUNNER)/ready  ## Write tests/requirements/lock, after a change of tests/requirements (LOCK=--upgrade: newest versions)
	@$(RUNNER)/bin/nox -s lock -- $(LOCK)

changelog: $(RUNNER)/ready  ## Write CHANGELOG.rst from changelogs/fragments
	@$(RUNNER)/bin/nox -s changelog -- write

build: $(VENV)/ready  ## Build the collection, in dist
	@$(VENV)/bin/ansible-galaxy collection build --force --output-path dist

wheel: $(RUNNER)/ready  ## Build the client as a Python package without Ansible, in dist
	@$(RUNNER)/bin/nox -s wheel

release: $(RUNNER)/ready  ## Prepare a release in dist: make release VERSION=1.0.0
	@$(RUNNER)/bin/nox -s release --install-only
	@PATH="$(CURDIR)/.nox/release/bin:$$PATH" python -m tests.release '$(VERSION)'

clean:  ## Remove what these targets made
	rm -rf .venv .nox .cache .hypothesis .mypy_cache .ruff_cache .pytest_cache .ansible dist tests/output
	find plugins tests -name __pycache__ -prune -exec rm -rf {} +

python:
	@test -n '$(PYTHON)' || { echo 'Python 3.11 or newer with its venv module is needed (on Debian: apt install python3 python3-venv), or name one: make PYTHON=...' >&2; exit 1; }

$(VENV)/ready: $(LOCKS)/demo.txt | python
$(RUNNER)/ready: $(LOCKS)/runner.txt | python
$(VENV)/dev: $(LOCKS)/dev.txt | $(VENV)/ready
	@echo 'Installing what $< lists into $(@D)'
	@$(@D)/bin/python -m pip $(INSTALL) -r $<
	@touch $@
%/ready:
	@echo 'Installing what $< lists into $(@D)'
	@rm -rf $(@D)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip $(INSTALL) -r $<
	@touch $@
