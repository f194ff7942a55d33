# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports that source NAT uses, for each translated address and destination.

The kernel needs a different reply tuple for each flow. An address can therefore have as many flows to one port of one
destination as there are ports to translate to. Entries of closed connections count until they expire.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from ..client.codec.types import PORT_PROTOCOLS
from ..client.dump.group_keys import parse_group_by
from ..client.dump.groups import Groups, sort_key
from ..client.dump.scan import VisitorGroup
from ..client.errors import ConntrackError
from ..client.match.expression import And
from ..client.match.match import Match, parse_match
from ..client.netlink.socket import NetlinkSocket
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


def snat_ports(table: TableReader, match: Match, most: int, sources: int | None = None) -> list[Document]:
    """Return the `most` used groups of flows that share ports, those with the highest use first.

    Only matching entries with source NAT and ports count. Each group has at most `sources` sources, by default `most`.
    """
    translated = parse_match({"nat": "source", "protocol": sorted(PORT_PROTOCOLS)})
    where = translated.term if match.where is None else And((match.where, translated.term))
    keys = parse_group_by([*_SHARING, "source"], "keys")
    shared, source = keys[:-1], keys[-1]
    ports, clients = Groups(shared), Groups(keys)
    table.scan(VisitorGroup([ports, clients]), where)
    ranges = _ranges()
    limits: dict[bytes, int] = {}
    uses = []
    for group, used in ports.flows().items():
        address = group[0]
        limit = limits.get(address)
        if limit is None:
            limit = limits[address] = ports_of(address, ranges)
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


def _ranges() -> list[SnatRange]:
    """Return the ranges of the rules. Without nftables, there are none that could be read."""
    try:
        with NetlinkSocket() as netlink:
            return read_snat_ranges(netlink)
    except ConntrackError:
        return []
