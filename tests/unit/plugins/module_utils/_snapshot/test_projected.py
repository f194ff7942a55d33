# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What check mode would be wrong about, if entries to come were not told apart as the kernel does."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.projected import ProjectedEntries
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import creation

FLOW: dict[str, Any] = {
    "protocol": "udp",
    "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1000, "destination_port": 53},
    "timeout": 60,
}
BACK = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 53, "destination_port": 1000}
ORIGINAL_IN_5 = {"original": {**FLOW["original"], "zone": 5}}
REPLY_IN_5 = {"reply": {**BACK, "zone": 5}}


def entry(**keys: Any) -> Any:
    return creation(from_document({**FLOW, **keys}))


@pytest.mark.parametrize(
    ("there", "comes", "has", "end"),
    [
        ({}, {}, True, "original"),
        ({}, {"mark": 5}, True, "original"),
        ({}, {"original": {**FLOW["original"], "source_port": 1001}}, False, None),
        ({}, {"original": BACK}, False, "original"),
        ({}, {"zone": 5}, False, None),
        ({"zone": 5}, {"zone": 5, "original": BACK}, False, "original"),
        (ORIGINAL_IN_5, ORIGINAL_IN_5, True, "original"),
        (ORIGINAL_IN_5, REPLY_IN_5, False, None),
        (ORIGINAL_IN_5, {}, False, "reply"),
        (REPLY_IN_5, {}, True, "original"),
    ],
)
def test_who_is_in_whose_way(there: Any, comes: Any, has: bool, end: Any) -> None:
    coming = ProjectedEntries(4)
    assert not coming.has(entry(**comes))
    assert coming.conflict_of(entry(**comes)) is None
    coming.add(entry(**there))
    assert coming.has(entry(**comes)) is has
    assert coming.conflict_of(entry(**comes)) == end


#: Two flows to one server, which are translated to one address.
MASQUERADED = {"nat": {"source": {"address": "198.51.100.1"}}, "reply": {**BACK, "destination": "198.51.100.1"}}
OTHER = {"original": {**FLOW["original"], "source": "10.0.0.3"}, **MASQUERADED}


@pytest.mark.parametrize(("port", "end"), [({}, None), ({"port": 1000}, "reply")])
def test_a_translation_finds_another_port_only_where_the_kernel_may_choose_it(port: Any, end: Any) -> None:
    coming = ProjectedEntries(4)
    coming.add(from_document({**FLOW, **MASQUERADED}))
    nat = {"source": {"address": "198.51.100.1", **port}}
    assert coming.conflict_of(from_document({**FLOW, **OTHER, "nat": nat})) == end


def test_masters_are_known_by_either_tuple() -> None:
    coming = ProjectedEntries(4)
    child = {**FLOW, "original": {**FLOW["original"], "source_port": 2000}}
    masters = [{"protocol": "udp", **FLOW["original"]}, {"protocol": "udp", **BACK}]
    children = [creation(from_document({**child, "master": master})) for master in masters]
    assert not any(map(coming.has_master_of, [*children, entry()]))
    coming.add(entry(helper="ftp"))
    assert all(map(coming.has_master_of, children))
    assert not coming.has_master_of(entry())
    assert len(coming.masters) == 1
