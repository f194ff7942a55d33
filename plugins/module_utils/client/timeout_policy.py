# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a timeout policy is: a name for the seconds that a protocol's states may last.

Source: include/uapi/linux/netfilter/nfnetlink_cttimeout.h.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from . import uapi, values
from .attributes import Attribute
from .codec import Codec, attributes
from .messages import nfgenmsg, payload_of
from .netlink import Message
from .table import Table

_HALVES = {"unreplied": 1, "replied": 2}
_WHOLE = {"timeout": 1}

#: The states of each protocol that a policy can name, with their attribute numbers.
STATES: dict[int, Mapping[str, int]] = {
    uapi.IPPROTO_TCP: {
        "syn_sent": 1,
        "syn_recv": 2,
        "established": 3,
        "fin_wait": 4,
        "close_wait": 5,
        "last_ack": 6,
        "time_wait": 7,
        "close": 8,
        "syn_sent2": 9,
        "retrans": 10,
        "unacknowledged": 11,
    },
    uapi.IPPROTO_UDP: _HALVES,
    uapi.IPPROTO_UDPLITE: _HALVES,
    uapi.IPPROTO_GRE: _HALVES,
    uapi.IPPROTO_ICMP: _WHOLE,
    uapi.IPPROTO_ICMPV6: _WHOLE,
    uapi.IPPROTO_SCTP: {
        "closed": 1,
        "cookie_wait": 2,
        "cookie_echoed": 3,
        "established": 4,
        "shutdown_sent": 5,
        "shutdown_recd": 6,
        "shutdown_ack_sent": 7,
        "heartbeat_sent": 8,
        "heartbeat_acked": 9,
    },
    uapi.IPPROTO_DCCP: {
        "request": 1,
        "respond": 2,
        "partopen": 3,
        "open": 4,
        "closereq": 5,
        "closing": 6,
        "timewait": 7,
    },
}


class _Raw(values.Text):
    """Bytes whose meaning follows from another attribute."""

    def decode(self, data: bytes) -> Any:
        return bytes(data)


POLICY: tuple[Attribute, ...] = (
    Attribute("name", (uapi.CTA_TIMEOUT_NAME,), values.Text(31)),
    Attribute("family", (uapi.CTA_TIMEOUT_L3PROTO,), values.Named("H", values.FAMILIES, "family")),
    Attribute("protocol", (uapi.CTA_TIMEOUT_L4PROTO,), values.PROTOCOL),
    Attribute("timeouts", (uapi.CTA_TIMEOUT_DATA,), _Raw(0)),
    Attribute("use", (uapi.CTA_TIMEOUT_USE,), values.U32),
)

_POLICIES = Codec(POLICY)
_KINDS = {row.key: row.kind for row in POLICY if row.key != "timeouts"}


def dump() -> Message:
    """Ask for every timeout policy."""
    return Message(uapi.IPCTNL_MSG_TIMEOUT_GET, 0, nfgenmsg())


def read_all(table: Table) -> Iterator[dict[str, Any]]:
    """Every timeout policy of the table's namespace, in the form of a document.

    Raises `Unavailable` where the kernel has no cttimeout.
    """
    return table.read(dump(), parse_policy)


def parse_policy(message: Message) -> dict[str, Any]:
    """The policy in a message of the kernel's: `name`, `family`, `protocol`, `use` and, by state,
    `timeouts` in seconds."""
    policy = _POLICIES.decode(*payload_of(message))
    names = {number: name for name, number in STATES.get(policy["protocol"], _WHOLE).items()}
    data = policy.pop("timeouts", b"")
    shown = {key: _KINDS[key].present(policy[key]) for key in _KINDS if key in policy}
    shown["timeouts"] = {
        names.get(number, str(number)): int.from_bytes(data[start:end], "big")
        for number, start, end in attributes(data, 0, len(data))
    }
    return shown
