# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports that source NAT uses, for each translated address and destination.

The kernel needs a different reply tuple for each flow. An address can therefore have as many flows to one port of one
destination as there are ports to translate to. Entries of closed connections count until they expire.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ..client.codec.types import PORT_PROTOCOLS, parse_address
from ..client.dump.group_keys import parse_group_by
from ..client.dump.groups import Groups
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
#: A number of groups that is not exceeded.
_ALL = 1 << 30


def snat_ports(table: TableReader, match: Match, most: int, sources: int | None = None) -> list[Document]:
    """Return the `most` used groups of flows that share ports, those with the highest use first.

    Only matching entries with source NAT and ports count. Each group has at most `sources` sources, by default `most`.
    """
    translated = parse_match({"nat": "source", "protocol": sorted(PORT_PROTOCOLS)})
    where = translated.term if match.where is None else And((match.where, translated.term))
    ports = Groups(parse_group_by(list(_SHARING), "keys"))
    clients = Groups(parse_group_by([*_SHARING, "source"], "keys"))
    table.scan(VisitorGroup([ports, clients]), where)
    ranges = _ranges()
    rows = [_row(group, ranges) for group in ports.as_document(_ALL)["groups"]]
    rows.sort(key=lambda row: (-row["usage_percent"], -row["used"], str(row)))
    by_source: defaultdict[tuple[Any, ...], list[Document]] = defaultdict(list)
    for group in clients.as_document(_ALL)["groups"]:
        of = by_source[tuple(group[key] for key in _SHARING)]
        if len(of) < (most if sources is None else sources):
            of.append({"address": group["source"], "ports": group["flows"]})
    return [{**row, "sources": by_source[tuple(row[name] for name in _SHARING.values())]} for row in rows[:most]]


def _row(group: Document, ranges: list[SnatRange]) -> Document:
    limit = ports_of(parse_address(group["reply_destination"], "address"), ranges)
    used = group["flows"]
    return {
        **{name: group[key] for key, name in _SHARING.items()},
        "used": used,
        "limit": limit,
        "usage_percent": round(100 * used / limit, 2) if limit else 100.0,
    }


def _ranges() -> list[SnatRange]:
    """Return the ranges of the rules. Without nftables, there are none that could be read."""
    try:
        with NetlinkSocket() as netlink:
            return read_snat_ranges(netlink)
    except ConntrackError:
        return []
