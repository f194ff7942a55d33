# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that damaged and malicious declarations are read or refused with the key; `make fuzz` finds more cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.config import read_declaration
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.tests.fuzz.guard import limited
from ansible_collections.netops.conntrack.tests.fuzz.mutations import mutated
from ansible_collections.netops.conntrack.tests.fuzz.targets import TARGETS
from ansible_collections.netops.conntrack.tests.profiles import examples

TARGET = TARGETS["declarations"]


@pytest.mark.parametrize(
    "path", [*TARGET.inputs(), *TARGET.fixed()], ids=lambda path: f"{path.parent.parent.name}-{path.stem}"
)
def test_known_inputs_are_handled(path: Path) -> None:
    with limited():
        TARGET.run(path.read_bytes())


def test_the_corpus_has_a_file_for_each_sample() -> None:
    """Run `make fuzz FUZZ=--samples` to write the files."""
    assert {path.stem for path in TARGET.inputs()} == set(TARGET.samples())


@examples(200)
@given(mutated([path.read_bytes() for path in TARGET.inputs()]))
def test_a_mutated_declaration_is_read_or_refused(data: bytes) -> None:
    with limited():
        TARGET.run(data)


def test_except_can_be_nested_up_to_20_levels() -> None:
    assert parse_match(nested(20))
    with pytest.raises(InvalidValue, match=r"except: is nested too deeply; write at most 20 levels of except"):
        parse_match(nested(21))


def nested(levels: int) -> Any:
    match: Any = {"zone": 1}
    for _level in range(levels):
        match = {"zone": 1, "except": match}
    return match


def test_all_faults_of_a_deeply_nested_declaration_are_reported() -> None:
    deep: Any = "x"
    for _level in range(700):
        deep = [deep]
    _declaration, faults = read_declaration({"absent": [{"source": deep}], "settings": {"max": "x"}}, LabelMap())
    assert {fault.key for fault in faults.found} == {"settings.max", "absent[0].source"}
