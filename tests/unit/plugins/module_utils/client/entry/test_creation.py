# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a creation contains every attribute that the kernel requires, and none that it refuses."""

from __future__ import annotations

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.types import TCP_STATES
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import TCP_FLAGS, creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import default_reply
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.tests.unit.support import corpus

ENTRIES = {sample.name: messages.parse_entry(Message(0x100, 0, sample.data)) for sample in corpus.ANSWERS}
UDP = from_document(
    {
        "protocol": "udp",
        "original": {"source": "10.0.0.1", "destination": "192.0.2.53", "source_port": 1000, "destination_port": 53},
    }
)


def test_creation_contains_all_values_that_the_kernel_requires() -> None:
    request = creation(UDP)
    assert request["timeout"] == 120
    assert (request["reply.source"], request["reply.source_port"]) == (UDP["original.destination"], 53)
    assert "status" not in request
    assert "timeout" not in UDP, "the declaration is unchanged"
    with pytest.raises(InvalidValue, match=r"^timeout: 0 .*write"):
        creation({**UDP, "timeout": 0})


@pytest.mark.parametrize(
    ("state", "flags"),
    [(None, 0x0A), ("none", 0x0A), ("established", 0x0A), ("last_ack", 0x0A), ("time_wait", 0x0E), ("close", 0x0E)],
)
def test_tcp_creation_has_the_flags_of_a_connection_picked_up_midstream(state: str, flags: int) -> None:
    """Without be_liberal, the kernel treats packets outside the unscaled window as invalid."""
    tcp = {**UDP, "original.protocol": 6}
    if state is not None:
        tcp["tcp.state"] = TCP_STATES[state]
    assert [creation(tcp)[key] for key in TCP_FLAGS] == [flags, flags]
    for declared, other in (TCP_FLAGS, reversed(TCP_FLAGS)):
        for value in (0, 0x41):
            made = creation({**tcp, declared: value})
            assert (made[declared], made[other]) == (value, flags), "declared flags are kept"
    assert not set(TCP_FLAGS) & set(creation(UDP))


def test_creation_keeps_a_declared_reply_unless_nat_is_declared() -> None:
    asymmetric = {**UDP, **default_reply(UDP), "reply.source_port": 54}
    assert creation(asymmetric)["reply.source_port"] == 54
    nat = {"nat.source.port_min": 7, "nat.source.port_max": 7}
    assert creation({**asymmetric, **nat})["reply.source_port"] == 53


def test_a_creation_sends_only_status_bits_that_can_be_set() -> None:
    assert creation({**UDP, "status": 0xFFFF})["status"] == 2 | 4 | 8 | 0x400 | 0x2000
    assert creation({**UDP, "status": 0})["status"] == 8
    assert "helper" not in creation({**UDP, "helper": ""})
