# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NAT of an entry: what a document requests (`nat.…`), and what the tuples of an entry show.

A request has the keys `nat.source.address_min`, `nat.source.address_max` (bytes), `nat.source.port_min` and
`nat.source.port_max` (numbers), and the same for `nat.destination`. The kernel sets NAT up only when an entry is
created, and does not report it: it follows from the status bits and from the reply tuple.

Source: ctnetlink_setup_nat in net/netfilter/nf_conntrack_netlink.c; net/netfilter/nf_nat_core.c.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from .. import uapi
from .tuple import protocol_keys

#: For source and destination NAT: the end that is translated, the end of the reply tuple that shows to what, and the
#: status bit.
NAT_ENDS = (("source", "destination", uapi.IPS_SRC_NAT), ("destination", "source", uapi.IPS_DST_NAT))
NAT_STATUS = uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT


class Translation(NamedTuple):
    """The address and the port (or ICMP id, or GRE key) to which one end is translated. None is unchanged."""

    address: bytes | None
    port: int | None


def translations(entry: Mapping[str, Any]) -> dict[str, Translation]:
    """Return the NAT in force, by `source` and `destination`.

    It follows from the status bits and from the difference between the reply tuple and the reversed original. An
    ICMP id or a GRE key is there only if it was changed.
    """
    status = entry.get("status", 0)
    found: dict[str, Translation] = {}
    for end, answered_by, bit in NAT_ENDS:
        if not status & bit or f"reply.{answered_by}" not in entry:
            continue
        port = entry.get(f"reply.{answered_by}_port")
        if port is None:
            was, port = entry.get(f"original.{end}_key"), entry.get(f"reply.{answered_by}_key")
            if "reply.icmp_id" in entry and "source" not in found:  # one id serves both ends
                was, port = entry.get("original.icmp_id"), entry["reply.icmp_id"]
            port = None if port == was else port
        found[end] = Translation(entry[f"reply.{answered_by}"], port)
    return found


def port_key(entry: Mapping[str, Any], direction: str, end: str) -> str | None:
    """Return the key of the number that NAT translates with an address: port, GRE key or ICMP id."""
    names = protocol_keys(entry["original.protocol"])
    name = next((name for name in (f"{end}_port", f"{end}_key", "icmp_id") if name in names), None)
    return name and f"{direction}.{name}"


def requested_ends(entry: Mapping[str, Any]) -> list[str]:
    """Return the ends for which an entry requests NAT: `source`, `destination` or both."""
    return [
        end
        for end, _answered_by, _bit in NAT_ENDS
        if f"nat.{end}.address_min" in entry or f"nat.{end}.port_min" in entry
    ]


def requested_ranges(entry: Mapping[str, Any], end: str) -> tuple[Any | None, Any | None]:
    """Return the inclusive ranges of addresses and of ports that an entry requests for one end, each None if open."""
    low, first = entry.get(f"nat.{end}.address_min"), entry.get(f"nat.{end}.port_min")
    addresses = None if low is None else (low, entry.get(f"nat.{end}.address_max", low))
    ports = None if first is None else (first, entry.get(f"nat.{end}.port_max", first))
    return addresses, ports


def nat_status_bits(entry: Mapping[str, Any]) -> int:
    """Return the status bits of source and destination NAT that an entry has."""
    bits: int = entry.get("status", 0) & NAT_STATUS
    return bits
