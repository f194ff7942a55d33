# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect the endpoints of flows in one pass.

Only the hosts and the most frequent values of each are kept. The memory depends on the number of hosts, not on the
number of flows.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import MessageLayout
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import Action, Visitor
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.nested import present_family
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue

#: The ends of a flow: the originator and the responder.
SIDES = ("source", "destination")
#: Keys of the addresses of both ends, by value of the option. Zone and port are of the same direction as the address.
ADDRESSES = {
    "own": ("original.source", "reply.source"),
    "as_client_sees": ("original.source", "original.destination"),
    "as_server_sees": ("reply.destination", "reply.source"),
}
#: Properties that distinguish hosts with the same address.
SEPARATORS = ("zone", "gateway")

_COUNTERS = ("counters.original.bytes", "counters.reply.bytes")
#: Keys with values that the layout must decode.
_CONVERTED = ("labels", "helper")
#: Maximum number of different groups of equal flows to count before they are added to the hosts.
_PENDING = 1 << 14
#: Valid names of a gateway in the name of a host.
_NAME = re.compile(r"\w[\w.-]{0,252}", re.ASCII)


class Tally:
    """Numbers of flows and bytes of the most frequent keys, and the total number of flows of all others.

    A key that was dropped and occurs again starts from 0. Its earlier flows remain in `others`.
    """

    __slots__ = ("others", "rows")

    def __init__(self) -> None:
        self.rows: dict[Any, list[int]] = {}
        self.others = 0

    def add(self, key: Any, flows: int, moved: int, room: int) -> None:
        """Count flows and their bytes. Keep at most `2 * room` keys."""
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = [0, 0]
        row[0] += flows
        row[1] += moved
        if len(self.rows) > 2 * room:
            self.cut(room)

    def cut(self, room: int) -> None:
        """Drop all keys except the most frequent."""
        ranked = sorted(self.rows.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))
        self.others += sum(flows for _key, (flows, _moved) in ranked[room:])
        self.rows = dict(ranked[:room])


class Role:
    """The flows of a host on one side."""

    __slots__ = ("flows", "moved", "peers", "services")

    def __init__(self) -> None:
        self.flows = 0
        #: Bytes, None until a flow has counters.
        self.moved: int | None = None
        self.peers, self.services = Tally(), Tally()

    def as_variable(self) -> dict[str, Any]:
        found: dict[str, Any] = {"flows": self.flows, **self._bytes(self.moved or 0)}
        for name, tally, present in (
            ("peers", self.peers, types.present_address),
            ("services", self.services, _present_service),
        ):
            found[name] = {
                present(key): {"flows": flows, **self._bytes(moved)} for key, (flows, moved) in tally.rows.items()
            }
            found[f"other_{name}"] = tally.others
        return found

    def _bytes(self, moved: int) -> dict[str, int]:
        return {} if self.moved is None else {"bytes": moved}


class Identity(NamedTuple):
    """The properties that identify a host. Those that do not distinguish hosts are None."""

    address: bytes
    zone: int | None
    gateway: str | None

    @property
    def name(self) -> str:
        """`10.0.0.5`, `10.0.0.5@zone7`, `10.0.0.5@gw1`, `10.0.0.5@zone7@gw1`."""
        zone = f"@zone{self.zone}" if self.zone else ""
        gateway = "" if self.gateway is None else f"@{self.gateway}"
        return f"{types.present_address(self.address)}{zone}{gateway}"

    @property
    def order(self) -> tuple[Any, ...]:
        return len(self.address), self.address, self.zone or 0, self.gateway or ""


class Endpoint:
    """A host with its counts."""

    #: Values that are counted for a host on both sides together.
    SEEN = ("zones", "marks", "labels", "helpers")

    __slots__ = ("gateways", "roles", "seen")

    def __init__(self, sides: Sequence[str]) -> None:
        self.gateways: dict[str, None] = {}
        self.roles = {side: Role() for side in sides}
        self.seen = {name: Tally() for name in self.SEEN}

    def as_variables(self, identity: Identity, room: int) -> dict[str, Any]:
        """The variables of the host. Each list has at most `room` items."""
        for tally in (*self.seen.values(), *(t for role in self.roles.values() for t in (role.peers, role.services))):
            tally.cut(room)
        address = types.present_address(identity.address)
        accounted = [role.moved for role in self.roles.values() if role.moved is not None]
        return {
            "ansible_host": address,
            "conntrack_address": address,
            "conntrack_family": present_family(types.family_of(identity.address)),
            "conntrack_gateways": sorted(self.gateways),
            "conntrack_flows": sum(role.flows for role in self.roles.values()),
            **({"conntrack_bytes": sum(accounted)} if accounted else {}),
            **{f"conntrack_as_{side}": role.as_variable() for side, role in self.roles.items()},
            **{f"conntrack_{name}": list(tally.rows) for name, tally in self.seen.items()},
            "conntrack_cut": [name for name, tally in self.seen.items() if tally.others],
        }


class _LayoutCounts(NamedTuple):
    """Numbers of flows and bytes by values of `keys`, for flows of one layout with the same values in `same`."""

    same: Entry
    keys: tuple[str, ...]
    accounted: bool
    rows: defaultdict[tuple[Any, ...], list[int]]


class Endpoints(Visitor):
    """Collects the hosts of flows that are passed to `add`, or visited by a scan. Call `finish` after a scan.

    Raises `InvalidValue` if there are more than `max_hosts`, or if the name of a gateway is not valid in host names.
    """

    def __init__(
        self,
        sides: Sequence[str] = SIDES,
        addresses: str = "own",
        separate_by: Sequence[str] = ("zone",),
        max_hosts: int = 5000,
        max_listed: int = 50,
    ) -> None:
        #: The number of counted flows, and of those by side whose address there is not that of a host.
        self.flows = 0
        self.left_out = dict.fromkeys(sides, 0)
        self._sides = tuple(sides)
        self._ends = dict(zip(SIDES, ADDRESSES[addresses], strict=True))
        self._zones = {side: f"{key.partition('.')[0]}.zone" for side, key in self._ends.items()}
        self._port = f"{self._ends['destination']}_port"
        self._by_zone, self._by_gateway = ("zone" in separate_by), ("gateway" in separate_by)
        self._max_hosts, self._room = max_hosts, max_listed
        #: By the fields of an `Identity`, which is created only at the end because there are many flows.
        self._found: dict[tuple[bytes, int | None, str | None], Endpoint] = {}
        self._gateway, self._labels = "", LabelMap()
        self._pending: list[_LayoutCounts] = []

    def set_source(self, gateway: str, labels: LabelMap) -> None:
        """Set the gateway of the flows that are added next, and the names of its labels."""
        if self._by_gateway and not _NAME.fullmatch(gateway):
            raise InvalidValue(
                "separate_by",
                f"the gateway {gateway!r} cannot be a part of a host's name; give it another name, of letters, digits, "
                "dots, dashes and underscores",
            )
        self._gateway, self._labels = gateway, labels

    def on(self, layout: MessageLayout) -> Action:
        if any(layout.column(key) for key in _CONVERTED):
            return lambda data: self.add_all(layout.entries(data))
        keys, read = layout.part(("zone", "mark", self._port, *self._ends.values(), *self._zones.values()))
        accounted, read_counters = layout.part(_COUNTERS)
        counts = _LayoutCounts(layout.constants, keys, bool(accounted), defaultdict(lambda: [0, 0]))
        self._pending.append(counts)
        rows = counts.rows

        def act(data: bytes) -> None:
            for found, counters in zip(read(data), read_counters(data), strict=True):
                row = rows[found]
                row[0] += 1
                row[1] += sum(counters)
            if len(rows) > _PENDING:
                self._add_counts(counts)

        return act

    def finish(self) -> None:
        """Add the counts of a scan to the hosts."""
        for counts in self._pending:
            self._add_counts(counts)
        self._pending.clear()

    def _add_counts(self, counts: _LayoutCounts) -> None:
        for found, (flows, moved) in counts.rows.items():
            entry = {**counts.same, **dict(zip(counts.keys, found, strict=True))}
            self._count(entry, flows, moved if counts.accounted else None)
        counts.rows.clear()

    def add(self, entry: Entry) -> None:
        counters = [entry[key] for key in _COUNTERS if key in entry]
        self._count(entry, 1, sum(counters) if counters else None)

    def _count(self, entry: Entry, flows: int, moved: int | None) -> None:
        get, room = entry.get, self._room
        self.flows += flows
        service = (get("original.protocol", 0), *([entry[self._port]] if self._port in entry else ()))
        ends = {side: get(key) for side, key in self._ends.items()}
        for side in self._sides:
            zone = get(self._zones[side]) or get("zone") or 0
            host = self._host(ends[side], zone)
            if host is None:
                self.left_out[side] += flows
                continue
            host.gateways[self._gateway] = None
            self._see(host, entry, zone, flows)
            role = host.roles[side]
            role.flows += flows
            if moved is not None:
                role.moved = (role.moved or 0) + moved
            role.peers.add(ends["destination" if side == "source" else "source"] or b"", flows, moved or 0, room)
            role.services.add(service, flows, moved or 0, room)

    def _host(self, address: bytes | None, zone: int) -> Endpoint | None:
        if address is None:
            return None
        identity = (address, zone if self._by_zone else None, self._gateway if self._by_gateway else None)
        host = self._found.get(identity)
        if host is None:
            if not is_host(address):
                return None
            if len(self._found) >= self._max_hosts:
                raise InvalidValue(
                    "max_hosts",
                    f"there are more than {self._max_hosts} hosts at the ends of the flows that match; narrow match, "
                    "or write a higher number",
                )
            host = self._found[identity] = Endpoint(self._sides)
        return host

    def _see(self, host: Endpoint, entry: Entry, zone: int, flows: int) -> None:
        seen, room = host.seen, self._room
        seen["zones"].add(zone, flows, 0, room)
        seen["marks"].add(entry.get("mark", 0), flows, 0, room)
        if "labels" in entry:
            for bit in types.LABELS.present(entry["labels"]):
                seen["labels"].add(str(self._labels.names.get(bit, bit)), flows, 0, room)
        if "helper" in entry:
            seen["helpers"].add(entry["helper"], flows, 0, room)

    def hosts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The names and variables of the hosts, sorted by address."""
        for identity in sorted(map(Identity._make, self._found), key=lambda identity: identity.order):
            yield identity.name, self._found[identity].as_variables(identity, self._room)


def is_host(address: bytes) -> bool:
    """Whether other hosts can reach a host by this address alone.

    Multicast, broadcast and unspecified addresses belong to no single host, loopback addresses to every host. A
    link-local address requires the link, which entries do not contain.
    """
    if len(address) not in (4, 16):
        return False
    known = ipaddress.ip_address(address)
    nobodys = known.is_multicast or known.is_unspecified or known.is_loopback or known.is_link_local
    return not nobodys and address != b"\xff\xff\xff\xff"


def _present_service(service: tuple[int, ...]) -> str:
    """`tcp/443`, or `icmp` for a protocol without ports."""
    protocol, *port = service
    return "/".join(map(str, (types.PROTOCOL.present(protocol), *port)))
