# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page about faults is current, and each test that it names exists."""

from __future__ import annotations

import ast

import pytest
import yaml

from ansible_collections.netops.conntrack.tests.faults import FAULTS, TABLES, WRITING
from ansible_collections.netops.conntrack.tests.faults.page import CHECKOUT, PUBLISHED, text

#: Modules of the action group that change nothing.
READING = {"conntrack_facts", "conntrack_info", "conntrack_wait"}
NAMED = sorted({test for rows in TABLES.values() for row in rows for test in row.tests})


def test_the_page_is_current() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == text(), "run 'make pages'"


@pytest.mark.parametrize("test", NAMED)
def test_a_named_test_exists(test: str) -> None:
    file, _colons, name = test.partition("::")
    nodes = ast.walk(ast.parse((CHECKOUT / file).read_text(encoding="utf-8")))
    assert name in {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_each_line_names_a_test() -> None:
    assert all(row.tests for rows in TABLES.values() for row in rows)


def test_each_fault_has_a_unique_name_and_a_line() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {row.injected for rows in TABLES.values() for row in rows} >= {fault.what for fault in FAULTS}


def test_each_module_writes_or_reads() -> None:
    groups = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text(encoding="utf-8"))["action_groups"]
    assert {*WRITING, *READING} == {name.rpartition(".")[2] for name in groups["conntrack"]}
