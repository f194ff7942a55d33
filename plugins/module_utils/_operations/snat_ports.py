# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports that source NAT uses, for each translated address and destination.

The kernel needs a different reply tuple for each flow. An address can therefore have as many flows to one port of one
destination as there are ports to translate to. Entries of closed connections count until they expire.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Callable, Iterable

from ..client.codec.types import PORT_PROTOCOLS
from ..client.dump.group_keys import parse_group_by
from ..client.dump.groups import Group, Groups, sort_key
from ..client.dump.scan import VisitorGroup
from ..client.errors import KernelError
from ..client.match.expression import And, InRanges, Term, points
from ..client.match.match import Match, parse_match
from ..client.netlink.socket import DumpInterrupted, NetlinkSocket
from ..client.reevaluate.snat_ranges import SnatRange, ports_of, read_snat_ranges
from ..client.table_reader import TableReader

if TYPE_CHECKING:
    from ..client.entry.nested import Document

#: The keys of the groups that share ports, and how results call them.
_SHARING = {
    "reply_destination": "address",
    "reply_source": "destination",
    "reply_source_port": "destination_port",
    "protocol": "protocol",
    "reply_zone": "zone",
}
_KEYS = parse_group_by(list(_SHARING), "keys")


def snat_ports(table: TableReader, match: Match, most: int, sources: int | None = None) -> list[Document]:
    """Return the `most` used groups of flows that share ports, those with the highest use first.

    Only matching entries with source NAT and ports count. Each group has at most `sources` sources, by default `most`.
    """
    translated = parse_match({"nat": "source", "protocol": sorted(PORT_PROTOCOLS)})
    where: Term = translated.term if match.where is None else And((match.where, translated.term))
    shared, (source,) = _KEYS, parse_group_by(["source"], "keys")
    ports, clients = Groups(shared), Groups((*shared, source))
    table.scan(VisitorGroup([ports, clients]), where)
    used_ports = ports.flows()
    limits = _limits(table, where, used_ports)
    uses = []
    for group, used in used_ports.items():
        limit = limits(group)
        uses.append((used / limit if limit else 1.0, used, limit, group))
    ranked = heapq.nsmallest(most, uses, key=lambda use: (-use[0], -use[1], *map(sort_key, use[3])))
    by_source: dict[Any, list[tuple[int, Any]]] = {group: [] for _share, _used, _limit, group in ranked}
    for (*group, client), used in clients.flows().items():
        found = by_source.get(tuple(group))
        if found is not None:
            found.append((used, client))
    return [
        {
            **{name: key.present(value) for name, key, value in zip(_SHARING.values(), shared, group)},
            "used": used,
            "limit": limit,
            "usage_percent": round(100 * share, 2),
            "sources": [
                {"address": source.present(client), "ports": number}
                for number, client in heapq.nsmallest(
                    most if sources is None else sources,
                    by_source[group],
                    key=lambda one: (-one[0], sort_key(one[1])),
                )
            ],
        }
        for share, used, limit, group in ranked
    ]


def _limits(table: TableReader, where: Term, groups: Iterable[Group]) -> Callable[[Group], int]:
    """Return a function that returns the number of ports of a group.

    Rules with and without a range of ports can apply to the same address. Then the ports of the flows show which one
    applies to a group.
    """
    ranges = _ranges()
    known = {(group[0], group[3]): ports_of(group[0], group[3], ranges) for group in groups}
    ambiguous = [address for (address, _protocol), ports in known.items() if ports.ranges and ports.without_range]
    outside = set()
    if ambiguous:
        to = InRanges(("reply.destination",), points(set(ambiguous)))
        for entry in table.dump(where=And((where, to))):
            group = tuple(key.of(entry) for key in _KEYS)
            if not known[group[0], group[3]].has(entry["reply.destination_port"]):
                outside.add(group)
    return lambda group: known[group[0], group[3]].count(group in outside)


def _ranges() -> list[SnatRange]:
    """Return the ranges of the rules, none if they cannot be read: without nftables, or if they change all the time."""
    try:
        with NetlinkSocket() as netlink:
            return read_snat_ranges(netlink)
    except (KernelError, DumpInterrupted):
        return []
