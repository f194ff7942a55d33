# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the filters in requests: a wrong one hides a match, and the kernel flushes everything if it ignores a filter."""

from __future__ import annotations

import errno
import struct
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.expression import (
    And,
    InRanges,
    MaskEquals,
    Not,
    Or,
    Predicate,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.kernel_filter import KernelFilter, narrow
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING, parse_match
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import strategies, wire

IPV4, IPV6 = 2, 10
ICMP, TCP, UDP, GRE, ICMPV6 = 1, 6, 17, 47, 58
TUPLE, REPLY, STATUS, MARK, ZONE, MARK_MASK, FILTER, STATUS_MASK = 1, 2, 3, 8, 18, 21, 25, 26
SRC, DST, PROTO, SPORT, DPORT = 1, 2, 8, 16, 32
TYPE, CODE, ID, TYPE6, CODE6, ID6 = 64, 128, 256, 512, 1024, 2048

DUMP, FLUSH = 0x0101, 0x0102


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def flags(original: int) -> dict[int, bytes]:
    """Return the content of CTA_FILTER: words in the host's byte order, with no flags for the reply."""
    return {1: struct.pack("=I", original), 2: bytes(4)}


def tuple_of(*addresses: tuple[int, bytes], **protocol: Any) -> dict[int, Any]:
    """Return the content of CTA_TUPLE_ORIG."""
    numbers = {"n": 1, "sport": 2, "dport": 3, "id": 4, "type": 5, "code": 6, "id6": 7, "type6": 8, "code6": 9}
    there: dict[int, Any] = {1: dict(addresses)} if addresses else {}
    if protocol:
        sizes = {key: 2 if key in ("sport", "dport", "id", "id6") else 1 for key in protocol}
        there[2] = {numbers[key]: value.to_bytes(sizes[key], "big") for key, value in protocol.items()}
    return there


def status(value: int, mask: int) -> dict[int, bytes]:
    return {STATUS: u32(value), STATUS_MASK: u32(mask)}


def mark(value: int, mask: int) -> dict[int, bytes]:
    return {MARK: u32(value), MARK_MASK: u32(mask)}


class Case(NamedTuple):
    match: Any
    family: int = 0
    sent: dict[int, Any] = {}  # noqa: RUF012
    exact: bool = False
    fails_closed: bool = False


V4 = bytes([192, 0, 2, 1])
DNS = {TUPLE: tuple_of(n=UDP, dport=53), FILTER: flags(PROTO | DPORT)}
CASES = {
    # Family, and the keys that determine it
    "family": Case({"family": "ipv6"}, IPV6, exact=True),
    "both families": Case({"family": ["ipv4", "ipv6"]}),
    "network": Case({"source": "192.0.2.0/24"}, IPV4),
    "addresses of one family": Case({"address": ["192.0.2.1", "192.0.2.2"]}, IPV4),
    "addresses of two families": Case({"source": ["192.0.2.1", "::1"]}),
    "address of the reply": Case({"reply_destination": "192.0.2.1"}, IPV4),
    "address of any direction": Case({"address": "192.0.2.1"}, IPV4),
    "icmp is not a family": Case({"protocol": "icmp"}),
    # Addresses
    "source": Case({"source": "192.0.2.1"}, IPV4, {TUPLE: tuple_of((1, V4)), FILTER: flags(SRC)}, True, True),
    "destination": Case({"destination": "192.0.2.1"}, IPV4, {TUPLE: tuple_of((2, V4)), FILTER: flags(DST)}, True, True),
    "both addresses are a key": Case(
        {"source": "192.0.2.1", "destination": "192.0.2.1"},
        IPV4,
        {TUPLE: tuple_of((1, V4), (2, V4)), FILTER: flags(SRC | DST)},
        exact=True,
    ),
    "address of IPv6": Case({"source": "2001:db8::1"}, IPV6),
    "address of IPv6 beside what is sent": Case(
        {"source": "2001:db8::1", "protocol": "udp", "destination_port": 53}, IPV6, DNS, fails_closed=True
    ),
    # Protocol and ports
    "protocol": Case(
        {"family": "ipv6", "protocol": "sctp"},
        IPV6,
        {TUPLE: tuple_of(n=132), FILTER: flags(PROTO)},
        True,
        True,
    ),
    "protocol of no family": Case({"protocol": "tcp", "destination_port": 443}),
    "ports": Case(
        {"family": "ipv4", "protocol": "tcp", "source_port": 1, "destination_port": 443},
        IPV4,
        {TUPLE: tuple_of(n=TCP, sport=1, dport=443), FILTER: flags(PROTO | SPORT | DPORT)},
        True,
        True,
    ),
    "port of IPv6": Case({"family": "ipv6", "protocol": "udp", "destination_port": 53}, IPV6, DNS, True, True),
    "written twice": Case(
        {"family": "ipv6", "protocol": ["udp", 17], "destination_port": [53, "53"]}, IPV6, DNS, True, True
    ),
    "several ports": Case(
        {"family": "ipv4", "protocol": "udp", "destination_port": [53, 54]},
        IPV4,
        {TUPLE: tuple_of(n=UDP), FILTER: flags(PROTO)},
        fails_closed=True,
    ),
    "range of ports": Case(
        {"family": "ipv4", "protocol": "udp", "destination_port": "53-54"},
        IPV4,
        {TUPLE: tuple_of(n=UDP), FILTER: flags(PROTO)},
        fails_closed=True,
    ),
    "port of the reply": Case(
        {"family": "ipv4", "protocol": "udp", "reply_source_port": 53},
        IPV4,
        {TUPLE: tuple_of(n=UDP), FILTER: flags(PROTO)},
        fails_closed=True,
    ),
    "port of no protocol": Case({"family": "ipv4", "destination_port": 53}, IPV4),
    "port of two protocols": Case({"family": "ipv4", "protocol": ["tcp", "udp"], "destination_port": 53}, IPV4),
    "port of sctp": Case(
        {"family": "ipv4", "protocol": "sctp", "destination_port": 53},
        IPV4,
        {TUPLE: tuple_of(n=132), FILTER: flags(PROTO)},
        fails_closed=True,
    ),
    "key of gre": Case(
        {"family": "ipv4", "protocol": "gre", "source_key": 1, "destination_key": 2},
        IPV4,
        {TUPLE: tuple_of(n=GRE), FILTER: flags(PROTO)},
        fails_closed=True,
    ),
    # ICMP
    "icmp": Case(
        {"family": "ipv4", "protocol": "icmp", "icmp_type": 8, "icmp_code": 0, "icmp_id": 513},
        IPV4,
        {TUPLE: tuple_of(n=ICMP, type=8, code=0, id=513), FILTER: flags(PROTO | TYPE | CODE | ID)},
        True,
        True,
    ),
    "icmpv6": Case(
        {"family": "ipv6", "protocol": "icmpv6", "icmp_type": 128, "icmp_code": 0, "icmp_id": 513},
        IPV6,
        {TUPLE: tuple_of(n=ICMPV6, type6=128, code6=0, id6=513), FILTER: flags(PROTO | TYPE6 | CODE6 | ID6)},
        True,
        True,
    ),
    "type that starts no connection": Case(
        {"family": "ipv4", "protocol": "icmp", "icmp_type": 3},
        IPV4,
        {TUPLE: tuple_of(n=ICMP), FILTER: flags(PROTO)},
        fails_closed=True,
    ),
    "type of the other icmp": Case(
        {"family": "ipv6", "protocol": "icmpv6", "icmp_type": 8},
        IPV6,
        {TUPLE: tuple_of(n=ICMPV6), FILTER: flags(PROTO)},
        fails_closed=True,
    ),
    "type of either icmp": Case({"family": "ipv4", "icmp_type": 8}, IPV4),
    # Marks and status
    "mark": Case({"mark": 5}, 0, mark(5, 0xFFFFFFFF), exact=True),
    "mark of zero": Case({"mark": 0}, 0, mark(0, 0xFFFFFFFF), exact=True),
    "mark under a mask": Case({"mark": "0x10/0xf0"}, 0, mark(0x10, 0xF0), exact=True),
    "marks": Case({"mark": [5, 6]}),
    "status": Case({"status": ["assured", "seen_reply"]}, 0, status(6, 6), exact=True),
    "status that is not": Case({"status_not": "assured"}, 0, status(0, 4), exact=True),
    "status and not": Case({"status": "seen_reply", "status_not": "assured"}, 0, status(2, 6), exact=True),
    "nat": Case({"nat": "source", "status": "assured"}, 0, status(0x14, 0x14), exact=True),
    "no nat": Case({"nat": "none"}, 0, status(0, 0x30), exact=True),
    "any nat": Case({"nat": "any", "status": "assured"}, 0, status(4, 4)),
    "status that contradicts itself": Case({"status": "assured", "status_not": "assured"}, 0, status(4, 4)),
    # Zones
    "zone": Case({"zone": 5}, 0, {ZONE: b"\0\5"}),
    "zone 0": Case({"zone": 0}, 0, {ZONE: b"\0\0"}, exact=True),
    "zones": Case({"zone": [0, 5]}),
    "zone of a direction": Case({"original_zone": 5}),
    "zone 0 of a direction": Case({"original_zone": 0, "reply_zone": 0}),
    "zone 0 of a protocol": Case(
        {"family": "ipv6", "zone": 0, "protocol": "udp", "destination_port": 53},
        IPV6,
        {ZONE: b"\0\0", **DNS},
        True,
        True,
    ),
    "zone of a protocol": Case(
        {"family": "ipv6", "zone": 5, "protocol": "udp", "destination_port": 53},
        IPV6,
        {ZONE: b"\0\5", **DNS},
        fails_closed=True,
    ),
    # Keys that only the match itself can evaluate
    "helper": Case({"mark": 5, "helper": "ftp"}, 0, mark(5, 0xFFFFFFFF)),
    "state": Case({"mark": 5, "state": "established"}, 0, mark(5, 0xFFFFFFFF)),
    "labels": Case({"mark": 5, "labels": [1]}, 0, mark(5, 0xFFFFFFFF)),
    "labels under a mask": Case({"mark": 5, "labels": "0x1/0xff"}, 0, mark(5, 0xFFFFFFFF)),
    "timeout": Case({"mark": 5, "timeout_below": 7}, 0, mark(5, 0xFFFFFFFF)),
    "expected": Case({"mark": 5, "expected": True}, 0, mark(5, 0xFFFFFFFF)),
    "not expected": Case({"mark": 5, "expected": False}, 0, mark(5, 0xFFFFFFFF)),
    "exception": Case({"mark": 5, "except": {"mark": 5}}, 0, mark(5, 0xFFFFFFFF)),
    "exception of a family": Case({"family": "ipv4", "except": {"protocol": "tcp"}}, IPV4),
    # Lists of matches
    "one of a list": Case([{"mark": 5}], 0, mark(5, 0xFFFFFFFF), exact=True),
    "common conditions of a list": Case(
        [
            {"source": "192.0.2.1", "protocol": "tcp", "mark": 5, "status": "assured", "zone": 7},
            {"source": "192.0.2.2", "protocol": "tcp", "mark": 7, "status_not": ["assured", "offload"], "zone": 7},
        ],
        IPV4,
        {**mark(5, 0xFFFFFFFD), ZONE: b"\0\7", TUPLE: tuple_of(n=TCP), FILTER: flags(PROTO)},
        fails_closed=True,
    ),
    "no common condition of a list": Case([{"family": "ipv4", "mark": 5}, {"protocol": "tcp", "status": "assured"}]),
    "a list of the same": Case([{"status": "assured"}, {"status_not": "assured"}]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_filter_of_a_match(case: Case) -> None:
    narrowing = narrow(parse_match(case.match).term)
    assert narrowing.family == case.family
    assert wire.tree(narrowing.attributes) == case.sent
    assert (narrowing.exact, narrowing.fails_closed) == (case.exact, case.fails_closed)


def test_everything_is_not_narrowed_and_not_flushed() -> None:
    assert narrow(EVERYTHING.term) == KernelFilter(0, b"", True, False)


SOURCE, PORT, FAMILY = ("original.source",), ("original.destination_port",), InRanges(("family",), ((IPV4, IPV4),))
ONE = ((V4, V4),)
NO_REPLY_ZONE = MaskEquals("reply.zone", ((0, 0xFFFFFFFF),))


@pytest.mark.parametrize(
    "term",
    [
        And((FAMILY, InRanges(SOURCE, ONE, V4))),  # an entry without a source also matches
        And((FAMILY, InRanges(("original.protocol",), ((UDP, UDP),), UDP))),
        And((FAMILY, InRanges(("zone",), ((0, 0),), 0))),  # an entry with a zone in one direction also matches
        And((FAMILY, InRanges(("zone",), ((5, 5),), 5))),
        And((FAMILY, MaskEquals("original.zone", ((0, 0xFFFFFFFF),)), NO_REPLY_ZONE)),
        And((FAMILY, InRanges(("zone",), ((0, 0),), 0), MaskEquals("original.zone", ((0, 0xFF),)), NO_REPLY_ZONE)),
        And((FAMILY, MaskEquals("mark", ((3, 1),)))),  # no mark has this value, because the mask clears its bits
        And((FAMILY, MaskEquals("labels", ((1, 1),)))),
        And((FAMILY, MaskEquals("mark", ()))),
        And((FAMILY, InRanges(SOURCE, ()))),
        And((FAMILY, Or(()))),
        And((FAMILY, Not(InRanges(PORT, ((1, 1),))))),
        And((FAMILY, Predicate(lambda entry: True))),
        And((FAMILY, InRanges(("family",), ((IPV6, IPV6),)))),
        And((FAMILY, InRanges(SOURCE, ((bytes(16), bytes(16)),)))),
    ],
)
def test_conditions_that_a_filter_cannot_express_are_omitted(term: Any) -> None:
    assert narrow(term) == KernelFilter(IPV4, b"", False, False)


def test_optional_address_does_not_imply_a_family() -> None:
    assert narrow(InRanges(SOURCE, ONE, V4)) == KernelFilter(0, b"", False, False)


def test_family_without_tuples_has_no_tuple_filter() -> None:
    """The kernel refuses such a filter with EOPNOTSUPP."""
    bridge = And((InRanges(("family",), ((7, 7),)), InRanges(("original.protocol",), ((TCP, TCP),))))
    assert narrow(bridge) == KernelFilter(7, b"", False, False)


def test_empty_mask_is_not_sent() -> None:
    """The kernel refuses it with EINVAL, and it would match every entry."""
    assert narrow(MaskEquals("status", ((0, 0),))) == KernelFilter(0, b"", True, False)


# Requests

HTTPS = narrow(parse_match({"family": "ipv4", "protocol": "tcp", "destination_port": 443}).term)


def test_dump_contains_the_whole_filter() -> None:
    message = messages.dump(kernel_filter=HTTPS)
    assert (message.type, message.payload) == (DUMP, bytes([IPV4, 1, 0, 0]) + HTTPS.attributes)


@pytest.mark.parametrize("options", [{"zero": True}, {"family": IPV4}, {"zero": True, "family": IPV6}])
@pytest.mark.parametrize("narrowing", [HTTPS, narrow(EVERYTHING.term)])
def test_reset_of_counters_with_a_filter_is_refused(options: Any, narrowing: KernelFilter) -> None:
    with pytest.raises(InvalidValue, match="^kernel_filter: .* reset of counters"):
        messages.dump(**options, kernel_filter=narrowing)


def test_flush_contains_the_whole_filter() -> None:
    message = messages.flush(HTTPS)
    assert (message.type, message.payload) == (FLUSH, bytes([IPV4, 1, 0, 0]) + HTTPS.attributes)


@pytest.mark.parametrize("case", [case for case in CASES.values() if not (case.exact and case.fails_closed)])
def test_flush_with_an_inexact_filter_is_refused(case: Case) -> None:
    with pytest.raises(InvalidValue, match="^where: "):
        messages.flush(narrow(parse_match(case.match).term))


# A model of the kernels


class Refused(Exception):
    """The kernel's errno for a request."""


class Kernel(NamedTuple):
    """The filters that a kernel supports: by tuple since 5.8, in a flush since 6.12."""

    status: bool = True
    zone: bool = True
    flush: bool = True
    dump: bool = True
    has_marks: bool = True
    has_zones: bool = True
    inverted: bool = True

    def chosen(self, payload: bytes, entries: list[Entry], flush: bool) -> list[Entry]:
        """Return the entries that a dump shows or a flush deletes."""
        family, version, attributes = payload[0], payload[1], wire.tree(payload[4:])
        filtered = self.flush if flush else self.dump
        if ZONE in attributes and not self.has_zones and (flush or FILTER in attributes or self.zone):
            raise Refused(errno.EOPNOTSUPP)
        if flush and TUPLE in attributes and not (filtered and FILTER in attributes):
            return self._of_key(family, attributes, entries)
        if flush and FILTER in attributes and not filtered and self.dump:
            raise Refused(errno.EOPNOTSUPP)
        if flush and not version and not filtered:
            family = 0
        if {MARK, MARK_MASK} & set(attributes) and not self.has_marks:
            raise Refused(errno.EOPNOTSUPP)
        if MARK_MASK in attributes and MARK not in attributes:
            raise Refused(errno.EINVAL)
        if self.status and STATUS in attributes and not any(attributes.get(STATUS_MASK, attributes[STATUS])):
            raise Refused(errno.EINVAL)
        wanted = self._parsed(family, attributes) if filtered else {}
        return [entry for entry in entries if self._passes(entry, family, attributes, wanted)]

    @staticmethod
    def _of_key(family: int, attributes: dict[int, Any], entries: list[Entry]) -> list[Entry]:
        """Delete one entry. The kernel ignores the filters and the direction."""
        original = attributes[TUPLE]
        protocol = original.get(2, {}).get(1)
        if protocol is None or len(original.get(1, {})) != 2:
            raise Refused(errno.EINVAL)
        parts = {1: (4, 5, 6), 6: (2, 3), 17: (2, 3), 47: (2, 3), 58: (7, 8, 9), 132: (2, 3)}.get(protocol[0], ())
        if not set(parts) <= set(original[2]):
            raise Refused(errno.EINVAL)
        zone = int.from_bytes(attributes.get(ZONE, b""), "big")
        for entry in entries:
            for direction in ("original", "reply"):
                there = parts_of(entry, direction)
                key = {**original[1], **{100 + number: value for number, value in original[2].items()}}
                same = all(there.get(number) == value for number, value in key.items())
                if same and entry["family"] == family and zone_of(entry) == zone:
                    return [entry]
        raise Refused(errno.ENOENT)

    @staticmethod
    def _parsed(family: int, attributes: dict[int, Any]) -> dict[int, Any]:
        """Return the part of the tuple that the flags select, by flag."""
        if FILTER not in attributes:
            return {}
        selected = struct.unpack("=I", attributes[FILTER][1])[0]
        if attributes[FILTER][2] != bytes(4):
            raise Refused("the reply is compared wrongly before 5.16")
        if selected & ~0xFFF or family not in (IPV4, IPV6):
            raise Refused(errno.EOPNOTSUPP)
        if TUPLE not in attributes or (selected & 0xFF0 and not selected & PROTO):
            raise Refused(errno.EINVAL)
        addresses = {1: 1, 2: 2} if family == IPV4 else {1: 3, 2: 4}
        members = {16: 2, 32: 3, 64: 5, 128: 6, 256: 4, 512: 8, 1024: 9, 2048: 7}
        wanted: dict[int, Any] = {}
        for bit in (1 << number for number in range(12)):
            if not selected & bit:
                continue
            where, member = (1, addresses[bit]) if bit in addresses else (2, {8: 1, **members}[bit])
            if member not in attributes[TUPLE].get(where, {}):
                raise Refused(errno.EINVAL)
            wanted[bit] = attributes[TUPLE][where][member]
        if TYPE in wanted and wanted[TYPE][0] not in (0, 8, 13, 14, 15, 16, 17, 18):
            raise Refused(errno.EINVAL)
        if TYPE6 in wanted and wanted[TYPE6][0] not in (128, 129, 139, 140):
            raise Refused(errno.EINVAL)
        return wanted

    def _passes(self, entry: Entry, family: int, attributes: dict[int, Any], wanted: dict[int, Any]) -> bool:
        if family and entry["family"] != family:
            return False
        if self.zone and ZONE in attributes and zone_of(entry) != int.from_bytes(attributes[ZONE], "big"):
            return False
        for key, value, mask, supported in (("mark", 8, 21, self.has_marks), ("status", 3, 26, self.status)):
            if not supported or value not in attributes:
                continue
            bits, under = (int.from_bytes(attributes[number], "big") for number in (value, mask))
            if entry.get(key, 0) & under != bits:
                return False
        there = parts_of(entry, "original")
        for bit, value in wanted.items():
            if bit in (SRC, DST):
                same = there[bit if family == IPV4 else bit + 2] == value
                if same != (family == IPV4 or not self.inverted):
                    return False
            elif bit == PROTO and there[101] != value:
                return False
            else:
                compared = {6: {16: 2, 32: 3}, 17: {16: 2, 32: 3}}
                compared[1] = {64: 5, 128: 6, 256: 4}
                compared[58] = {512: 8, 1024: 9, 2048: 7}
                member = compared.get(there[101][0], {}).get(bit)
                if member is not None and there[100 + member] != value:
                    return False
        return True


def parts_of(entry: Entry, direction: str) -> dict[int, bytes]:
    """Return a tuple's values by number: addresses by attribute number, and protocol values from 100."""
    protocol = entry[f"{direction}.protocol"]
    six = 2 if entry["family"] == IPV6 else 0
    found = {
        1 + six: entry[f"{direction}.source"],
        2 + six: entry[f"{direction}.destination"],
        101: bytes([protocol]),
    }
    names = {"source_port": (2, 2), "destination_port": (3, 2), "source_key": (2, 2), "destination_key": (3, 2)}
    names.update({"icmp_id": (7, 2), "icmp_type": (8, 1), "icmp_code": (9, 1)})
    if protocol == ICMP:
        names.update({"icmp_id": (4, 2), "icmp_type": (5, 1), "icmp_code": (6, 1)})
    for name, (number, size) in names.items():
        if f"{direction}.{name}" in entry:
            found[100 + number] = entry[f"{direction}.{name}"].to_bytes(size, "big")
    return found


def zone_of(entry: Entry) -> int:
    """Return the number of the zone, in both directions or in one."""
    return int(entry.get("zone") or entry.get("original.zone") or entry.get("reply.zone") or 0)


KERNELS = {
    "5.4": Kernel(status=False, zone=False, flush=False, dump=False),
    "5.10": Kernel(status=False, zone=False, flush=False),
    "6.1": Kernel(zone=False, flush=False),
    "6.8": Kernel(flush=False),
    "6.12": Kernel(),
    "6.12 without marks and zones": Kernel(has_marks=False, has_zones=False),
    "5.10 without marks and zones": Kernel(False, False, False, has_marks=False, has_zones=False),
    "future": Kernel(inverted=False),
}


#: Few values of each kind, so that matches often select some entries.
POOLS: dict[str, tuple[Any, ...]] = {
    "family": ("ipv4", "ipv6"),
    "protocol": ("tcp", "udp", "icmp", "icmpv6", "sctp", "gre", 50),
    **dict.fromkeys(
        ["source", "destination", "reply_source", "reply_destination", "address", "reply_address"],
        ("10.0.0.1", "10.0.0.2", "10.0.0.0/30", "2001:db8::1", "2001:db8::2", "::/0"),
    ),
    **dict.fromkeys(
        ["source_port", "destination_port", "reply_source_port", "reply_destination_port", "port"], (1, 2, "1-2", "2-9")
    ),
    "icmp_type": (8, 0, 3, 128, "8-13"),
    "icmp_code": (0, 1),
    **dict.fromkeys(["icmp_id", "source_key", "destination_key"], (1, 2)),
    "mark": (0, 1, 2, "1/1", "2/3", "0x10/0xf0"),
    **dict.fromkeys(["status", "status_not"], ("assured", "seen_reply", "src_nat", "confirmed")),
    "nat": ("source", "destination", "any", "none"),
    **dict.fromkeys(["zone", "original_zone", "reply_zone"], (0, 1, 2)),
    "state": ("established",),
    "labels": (1,),
    "helper": ("ftp",),
    "master": ({"source": "10.0.0.1"}, {"protocol": "tcp"}),
}


@st.composite
def entries(draw: Any) -> Entry:
    """Draw an entry that a kernel can have; its zone has one number, for both directions or for one."""
    family = draw(st.sampled_from(["ipv4", "ipv6"]))
    protocol = draw(st.sampled_from([TCP, UDP, ICMP, ICMPV6, 132, GRE, 50]))
    addresses = st.sampled_from(
        [item for item in POOLS["source"] if "/" not in item and (":" in item) == (family[3] == "6")]
    )
    entry: Entry = {"family": IPV4 if family == "ipv4" else IPV6}
    for direction in ("original", "reply"):
        there: dict[str, Any] = {"protocol": protocol}
        for end in ("source", "destination"):
            there[end] = types.parse_address(draw(addresses), "")
        if protocol in (TCP, UDP, 132):
            there["source_port"], there["destination_port"] = draw(SMALL), draw(SMALL)
        elif protocol == GRE:
            there["source_key"], there["destination_key"] = draw(SMALL), draw(SMALL)
        elif protocol in (ICMP, ICMPV6):  # over either family, because a netlink request can create such entries
            there["icmp_type"] = draw(st.sampled_from([8, 13] if protocol == ICMP else [128, 139]))
            there["icmp_code"], there["icmp_id"] = 0, draw(SMALL)
        entry.update({f"{direction}.{key}": value for key, value in there.items()})
    zone = draw(st.sampled_from(["", "", "zone", "original.zone", "reply.zone"]))
    if zone:
        entry[zone] = draw(SMALL)
    for key, pool in (("mark", [0, 1, 2, 3, 0x11]), ("status", [0, 2, 4, 8, 0xE, 0x14, 0x36]), ("labels", [2])):
        if draw(st.booleans()):
            entry[key] = draw(st.sampled_from(pool))
    return entry


SMALL = st.integers(1, 2)


def match_values_of(entry: Entry) -> dict[str, Any]:
    """Return keys of a match with the values of this entry."""
    document = to_document(entry)
    original, reply = document["original"], document["reply"]
    found = {key: value for key, value in original.items() if key != "zone"}
    found.update({f"reply_{key}": value for key, value in reply.items() if f"reply_{key}" in POOLS})
    found.update({"family": document["family"], "protocol": document["protocol"], "mark": entry.get("mark", 0)})
    if "zone" not in original and "zone" not in reply:
        found["zone"] = document.get("zone", 0)
    found["original_zone"] = original.get("zone", document.get("zone", 0))
    found["status"] = document.get("status", [])[:1] or ["dying"]
    found["status_not"] = ["dying"]
    return found


@st.composite
def random_matches(draw: Any, table: list[Entry]) -> dict[str, Any]:
    """Draw a match for one of these entries, with some values changed."""
    selected = match_values_of(draw(st.sampled_from(table)))
    match: dict[str, Any] = {}
    usual = st.sampled_from(["family", "protocol", *selected])
    for key in draw(
        st.lists(st.one_of(usual, usual, st.sampled_from(sorted(POOLS))), min_size=1, max_size=6, unique=True)
    ):
        other = draw(st.sampled_from(POOLS[key]))
        own = selected.get(key, other)
        how = draw(st.integers(0, 9))
        match[key] = own if how < 7 or isinstance(own, list) else other if how == 7 else [own, other]
    return match


@st.composite
def situations(draw: Any) -> tuple[Any, list[Entry]]:
    """Draw a match and entries, about half of which match."""
    table = draw(st.lists(entries(), min_size=3, max_size=6))
    match = draw(random_matches(table))
    form = draw(st.integers(0, 9))
    if form == 9:
        match["except"] = draw(random_matches(table))
    return ([match, draw(random_matches(table))] if form == 8 else match), table


def ids(chosen: list[Entry]) -> set[int]:
    return {id(entry) for entry in chosen}


def check(raw: Any, table: list[Entry]) -> tuple[bool, ...]:
    """Check the match on each kernel model, and return the properties of the case."""
    try:
        match = parse_match(raw)
    except InvalidValue:
        return ()
    narrowing = narrow(match.term)
    wanted = ids([entry for entry in table if match(entry)])
    request = messages.dump(kernel_filter=narrowing).payload
    for name, kernel in KERNELS.items():
        try:
            shown = ids(kernel.chosen(request, table, flush=False))
        except Refused:
            assert {MARK, ZONE} & set(wire.tree(narrowing.attributes)), "every kernel accepts the dump …"
            assert "without" in name, "… if it has marks and zones"
            continue
        assert wanted <= shown, f"Linux {name} hides a matching entry"
        if narrowing.exact and name in ("6.12", "future"):
            assert wanted == shown, f"Linux {name} shows an entry that does not match"
    if narrowing.exact and narrowing.fails_closed:
        request = messages.flush(narrowing).payload
        for name, kernel in KERNELS.items():
            try:
                gone = ids(kernel.chosen(request, table, flush=True))
            except Refused:
                assert name not in ("6.12", "future"), "the kernel refuses a valid request"
                continue
            assert gone == wanted, f"Linux {name} does not delete exactly the matching entries"
    return narrowing.exact, narrowing.fails_closed, bool(wanted), len(wanted) < len(table)


def test_filter_hides_no_matching_entry_on_any_kernel() -> None:
    seen: set[tuple[bool, ...]] = set()

    @given(situations())
    @examples(600, at_least=600)
    def check_situation(situation: Any) -> None:
        seen.add(check(*situation))

    check_situation()
    kinds = {(True, True), (True, False), (False, True), (False, False)}
    assert {(*kind, True, True) for kind in kinds} <= seen, "the random cases cover too little"


@given(strategies.matches(), st.lists(entries(), min_size=1, max_size=3))
def test_filter_of_any_match_hides_no_matching_entry(raw: Any, table: list[Entry]) -> None:
    for entry in table:
        for key in ("counters.original", "counters.reply"):
            entry.update({f"{key}.packets": 1, f"{key}.bytes": 100})
        entry["timestamps.start"] = 0
    check(raw, table)
