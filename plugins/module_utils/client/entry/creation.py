# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Complete a declared entry, as a request to create it must have it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Mapping

from .. import uapi
from ..codec.attributes import ENTRY, INSEPARABLE
from ..codec.types import DCCP_ROLES, DCCP_STATES, SCTP_STATES, TCP_STATES, listing
from ..errors import InvalidValue
from .entry import Entry
from .tuple import default_reply

#: Status bits that a request can set. The kernel ignores or refuses all others.
SETTABLE_STATUS = uapi.IPS_SEEN_REPLY | uapi.IPS_ASSURED | uapi.IPS_FIXED_TIMEOUT
#: Timeout in seconds of an entry that is declared without one.
DEFAULT_TIMEOUT = 120
#: The keys of the TCP flags of each direction.
TCP_FLAGS = ("tcp.original.flags", "tcp.reply.flags")
_NAT_KEYS = frozenset(row.key for row in ENTRY if row.key.startswith("nat."))


def creation(declared: Mapping[str, Any]) -> Entry:
    """Return a complete entry, as a request to create it must have it.

    The kernel requires both tuples and a timeout. The default reply is the reversed original. With `nat`, the reply is
    always the reversed original: the kernel computes the NATed one. If the request contained that, the kernel would
    store it and translate nothing. A direction of TCP without flags gets those of `assumed_flags`.

    Raises `InvalidValue` for a timeout of 0, an unknown state, and a group of keys of which one is missing.
    """
    entry = {**default_reply(declared), **declared}
    if not _NAT_KEYS.isdisjoint(declared):
        entry.update(default_reply(declared))
    entry.setdefault("timeout", DEFAULT_TIMEOUT)
    if entry["timeout"] == 0:
        raise InvalidValue("timeout", "0 would expire immediately; write 1 or more seconds")
    if "status" in entry:
        entry["status"] = sent_status(entry["status"])
    if not entry.get("helper"):
        entry.pop("helper", None)
    if entry.get("original.protocol") == uapi.IPPROTO_TCP:
        for key in TCP_FLAGS:
            entry.setdefault(key, assumed_flags(entry.get("tcp.state", 0)))
    check_states(entry)
    _check_whole(entry)
    return entry


def assumed_flags(state: int) -> int:
    """Return the flags for a TCP connection in this state whose handshake the kernel has not seen.

    The window scales of such a connection are unknown. Without `be_liberal`, the kernel assumes that there is none, and
    every packet beyond the unscaled window is invalid. The kernel sets the same flags when it picks up an established
    connection (tcp_new in nf_conntrack_proto_tcp.c). `close_init` lets a new connection replace one that has ended.
    """
    flags = uapi.IP_CT_TCP_FLAG_SACK_PERM | uapi.IP_CT_TCP_FLAG_BE_LIBERAL
    return flags | uapi.IP_CT_TCP_FLAG_CLOSE_INIT if state >= TCP_STATES["time_wait"] else flags


def sent_status(status: int) -> int:
    """Return the status bits for a request to create an entry. The kernel requires `confirmed`."""
    return status & (SETTABLE_STATUS | uapi.IPS_HELPER) | uapi.IPS_CONFIRMED


#: Keys that accept only numbers with a name, and the names.
STATE_NAMES: dict[str, Mapping[str, int]] = {
    "tcp.state": TCP_STATES,
    "sctp.state": SCTP_STATES,
    "dccp.state": DCCP_STATES,
    "dccp.role": DCCP_ROLES,
}


def check_states(entry: Mapping[str, Any]) -> None:
    """Raise `InvalidValue` for a state without a name: old kernels accept any number and index tables by it."""
    for key, names in STATE_NAMES.items():
        if key in entry and entry[key] > max(names.values()):
            raise InvalidValue(key, f"{entry[key]} is not a state to set; write one of {listing(names)}")


@lru_cache(maxsize=None)
def inseparable_groups() -> list[list[str]]:
    """Return the groups of keys that the kernel accepts only as a whole."""
    return [[row.key for row in ENTRY if row.key.startswith(group)] for group in INSEPARABLE]


@lru_cache(maxsize=None)
def _inseparable_keys() -> frozenset[str]:
    return frozenset(key for members in inseparable_groups() for key in members)


def _check_whole(entry: Mapping[str, Any]) -> None:
    """Raise `InvalidValue` if a group of keys is incomplete that the kernel accepts only as a whole."""
    if entry.keys().isdisjoint(_inseparable_keys()):
        return
    for members in inseparable_groups():
        missing = [key for key in members if key not in entry]
        if missing and len(missing) < len(members):
            raise InvalidValue(missing[0], f"is missing; all of {', '.join(members)} go together")
