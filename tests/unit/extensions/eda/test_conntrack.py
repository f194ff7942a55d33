# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file of the event source works in any folder of the collection, and its documented options are correct."""

from __future__ import annotations

import inspect
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import (
    ENTRY_GROUPS,
    GROUPS,
    RECEIVE_BUFFER,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.changes import KINDS
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.options import (
    BY,
    NAMES,
    Aggregate,
    Changes,
    Options,
    Threshold,
    parse_options,
)

ROOT = Path(__file__).parents[4]
SOURCE = ROOT / "extensions/eda/plugins/event_source/conntrack.py"
PLUGIN = runpy.run_path(str(SOURCE))
DOCUMENTED = yaml.safe_load(PLUGIN["DOCUMENTATION"])["options"]


def test_entry_point_for_ansible_rulebook() -> None:
    assert inspect.iscoroutinefunction(PLUGIN["main"])
    assert list(inspect.signature(PLUGIN["main"]).parameters) == ["queue", "args"]


@pytest.mark.parametrize("other_package", [False, True], ids=["no Ansible", "ansible_collections is another package"])
def test_source_finds_the_collection(tmp_path: Path, other_package: bool) -> None:
    """ansible-rulebook's Python has no collections, or only those of the package `ansible`."""
    home = tmp_path / "ansible_collections/netops"
    home.mkdir(parents=True)
    (home / "conntrack").symlink_to(ROOT)
    if other_package:
        (tmp_path / "site/ansible_collections").mkdir(parents=True)
        (tmp_path / "site/ansible_collections/__init__.py").touch()
    program = f"""
import asyncio, runpy, sys
sys.path.insert(0, {str(tmp_path / "site")!r})
source = runpy.run_path({str(home / "conntrack" / SOURCE.relative_to(ROOT))!r})
try:
    asyncio.run(source["main"](asyncio.Queue(1), {{"groups": "old"}}))
except Exception as fault:
    print(type(fault).__name__, fault)
assert "ansible" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], check=False, capture_output=True, text=True)
    assert done.stdout.startswith("InvalidValue groups: 'old' is not a group"), done.stderr


def test_every_option_is_documented() -> None:
    assert list(DOCUMENTED) == list(NAMES)
    assert tuple(DOCUMENTED["aggregate"]["suboptions"]) == Aggregate._fields
    assert tuple(DOCUMENTED["threshold"]["suboptions"]) == Threshold._fields
    assert tuple(DOCUMENTED["changes"]["suboptions"]) == Changes._fields


def test_choices_and_defaults_are_documented() -> None:
    assert DOCUMENTED["groups"]["choices"] == list(GROUPS)
    assert DOCUMENTED["groups"]["default"] == list(ENTRY_GROUPS)
    assert DOCUMENTED["receive_buffer"]["default"] == RECEIVE_BUFFER
    defaults = Options._field_defaults
    assert all(DOCUMENTED[name]["default"] == defaults[name] for name in ("resync", "existing"))
    by = DOCUMENTED["aggregate"]["suboptions"]["by"]
    assert sorted(by["choices"]) == sorted(BY)
    assert DOCUMENTED["changes"]["suboptions"]["kinds"]["choices"] == list(KINDS)
    defaulted = (("aggregate", Aggregate()), ("threshold", Threshold(80, 72)), ("changes", Changes()))
    for option, default in defaulted:
        for name, described in DOCUMENTED[option]["suboptions"].items():
            if "default" in described:
                value = getattr(default, name)
                assert described["default"] == (list(value) if isinstance(value, tuple) else value), name


@pytest.mark.parametrize("source", yaml.safe_load(PLUGIN["EXAMPLES"]))
def test_examples_are_valid(source: dict[str, Any]) -> None:
    parse_options(source["netops.conntrack.conntrack"])
