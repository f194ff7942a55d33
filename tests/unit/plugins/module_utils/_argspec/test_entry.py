# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the entry options accept gathered entries and YAML numbers, so that a gathered entry can be declared."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.entry import ENTRY, declared_entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.unit.support.corpus import ANSWERS


@pytest.mark.parametrize("sample", ANSWERS, ids=lambda sample: sample.name)
def test_gathered_entry_is_accepted_as_options_with_the_same_meaning(sample: Any) -> None:
    result = ArgumentSpecValidator(ENTRY).validate(sample.document)
    assert not result.error_messages
    declared = declared_entry(result.validated_parameters)
    assert from_document(declared) == from_document(sample.document)


def test_options_are_exactly_the_keys_of_an_entry() -> None:
    with pytest.raises(InvalidValue) as fault:
        from_document({"protocol": "tcp", "colour": 1})
    known = fault.value.problem.rpartition("write one of ")[2].split(", ")
    assert sorted(ENTRY) == known


def test_numbers_are_accepted_as_integers_or_strings() -> None:
    flow = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": "1", "destination_port": 2}
    document = {"protocol": 17, "original": flow, "mark": 16, "labels": [1, "2"], "nat": {"source": {"port": 5}}}
    result = ArgumentSpecValidator(ENTRY).validate(document)
    assert not result.error_messages
    entry = from_document(declared_entry(result.validated_parameters))
    assert (entry["mark"], entry["labels"], entry["original.source_port"], entry["nat.source.port_min"]) == (
        16,
        6,
        1,
        5,
    )


def test_default_zone_is_0() -> None:
    """The default is a number and not null, so that Ansible itself refuses a null."""
    assert ENTRY["zone"]["default"] == 0
    params = {**dict.fromkeys(ENTRY), "zone": 0}
    assert declared_entry({**params, "mark": "1"}) == {"mark": "1"}
    assert declared_entry({**params, "zone": 5}) == {"zone": 5}
