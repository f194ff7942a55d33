# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports that rules of source NAT may use.

Source: net/netfilter/nft_nat.c, net/netfilter/nft_masq.c; struct nf_nat_range2 and nf_nat_ipv4_multi_range_compat in
include/uapi/linux/netfilter/nf_nat.h; nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c.
"""

from __future__ import annotations

import struct
import sys
from typing import Iterable, Iterator, NamedTuple

from ..netlink.socket import DumpInterrupted, NetlinkSocket
from . import numbers as n
from .expressions import expressions_of, number_of
from .network import ATTEMPTS, attributes_of, text_of
from .ruleset import read_rules

#: The ports that the kernel chooses from for a source port of 1024 or more, if the rule has no range.
PORTS_WITHOUT_RANGE = range(1024, 65536)

_ORDER = "<" if sys.byteorder == "little" else ">"
#: struct nf_nat_range2, and with revision 0 for IPv4 struct nf_nat_ipv4_multi_range_compat: flags (in host order),
#: lowest and highest address, lowest and highest port (in network order).
_RANGE = struct.Struct(f"{_ORDER}I16s16s2s2s")
_OLD_RANGE = struct.Struct(f"{_ORDER}4xI4s4s2s2s")


class SnatRange(NamedTuple):
    """What a rule of source NAT translates to: the lowest and the highest address, and the ports.

    Addresses are None if they do not follow from the rule, ports if the kernel chooses them. The rule applies to
    addresses of `sizes` (4 bytes for IPv4, 16 for IPv6), and to one protocol, or to all if it is None.
    """

    low: bytes | None
    high: bytes | None
    ports: range | None
    protocol: int | None = None
    sizes: tuple[int, ...] = (4, 16)

    def has(self, address: bytes) -> bool:
        """Whether this address is one that the rule names."""
        if self.low is None or self.high is None or len(self.low) != len(address):
            return False
        return self.low <= address and address <= self.high


def read_snat_ranges(netlink: NetlinkSocket) -> list[SnatRange]:
    """Read the source NAT of all nftables rules, also those of iptables-nft.

    Raises `KernelError`, and `DumpInterrupted` if the rules change all the time.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return [found for family, expressions in read_rules(netlink) for found in snat_ranges(family, expressions)]
        except DumpInterrupted:
            if attempt == ATTEMPTS:
                raise
    return []


def snat_ranges(family: int, expressions: bytes) -> Iterator[SnatRange]:
    """Yield the source NAT of one rule."""
    registers: dict[int, bytes] = {}
    protocol: int | None = None
    loads_protocol = False
    sizes = {n.NFPROTO_IPV4: (4,), n.NFPROTO_IPV6: (16,)}.get(family, (4, 16))
    for name, data, _raw_bytes in expressions_of(expressions):
        if name == "immediate":
            value = attributes_of(data.get(n.NFTA_IMMEDIATE_DATA, b""), 0).get(n.NFTA_DATA_VALUE)
            if value is not None:
                registers[number_of(data.get(n.NFTA_IMMEDIATE_DREG))] = value
        elif name == "masq":
            yield SnatRange(None, None, _ports(registers, data, n.NFTA_REG_PROTO_MIN[name]), protocol, sizes)
        elif name == "nat" and number_of(data.get(n.NFTA_NAT_TYPE)) == n.NFT_NAT_SNAT:
            low = registers.get(number_of(data.get(n.NFTA_NAT_REG_ADDR_MIN)))
            high = registers.get(number_of(data.get(n.NFTA_NAT_REG_ADDR_MAX)), low)
            to = {n.NFPROTO_IPV4: (4,), n.NFPROTO_IPV6: (16,)}.get(number_of(data.get(n.NFTA_NAT_FAMILY)), sizes)
            yield SnatRange(low, high, _ports(registers, data, n.NFTA_REG_PROTO_MIN[name]), protocol, to)
        elif name == "target" and text_of(data[n.NFTA_TARGET_NAME]) in ("SNAT", "MASQUERADE"):
            found = _of_target(family, number_of(data.get(n.NFTA_TARGET_REV)), data[n.NFTA_TARGET_INFO])
            yield found._replace(protocol=protocol, sizes=sizes)
        elif name != "counter":
            # Other expressions can load what the rule does not say, for example an address from a map
            registers.clear()
            if name == "cmp" and loads_protocol and number_of(data.get(n.NFTA_CMP_OP)) == n.NFT_CMP_EQ:
                compared = attributes_of(data.get(n.NFTA_CMP_DATA, b""), 0).get(n.NFTA_DATA_VALUE, b"")
                protocol = compared[0] if len(compared) == 1 else protocol
            loads_protocol = _loads_protocol(family, name, data)


def _loads_protocol(family: int, name: str, data: dict[int, bytes]) -> bool:
    """Whether an expression loads the transport protocol of the packet."""
    if name == "meta":
        return number_of(data.get(n.NFTA_META_KEY)) == n.NFT_META_L4PROTO
    if name != "payload" or number_of(data.get(n.NFTA_PAYLOAD_BASE)) != n.NFT_PAYLOAD_NETWORK_HEADER:
        return False
    place = number_of(data.get(n.NFTA_PAYLOAD_OFFSET)), number_of(data.get(n.NFTA_PAYLOAD_LEN))
    return place == {n.NFPROTO_IPV4: (9, 1), n.NFPROTO_IPV6: (6, 1)}.get(family)


def _ports(registers: dict[int, bytes], data: dict[int, bytes], lowest: int) -> range | None:
    if lowest not in data:
        return None
    first = registers.get(number_of(data[lowest]))
    last = registers.get(number_of(data.get(lowest + 1)), first)
    if first is None or last is None:
        return None
    return range(int.from_bytes(first[:2], "big"), int.from_bytes(last[:2], "big") + 1)


def _of_target(family: int, revision: int, info: bytes) -> SnatRange:
    old = family == n.NFPROTO_IPV4 and not revision
    flags, low, high, first, last = (_OLD_RANGE if old else _RANGE).unpack_from(info)
    size = 4 if family == n.NFPROTO_IPV4 else 16
    named = flags & n.NF_NAT_RANGE_MAP_IPS
    ports = range(int.from_bytes(first, "big"), int.from_bytes(last, "big") + 1)
    return SnatRange(
        low[:size] if named else None,
        high[:size] if named else None,
        ports if flags & n.NF_NAT_RANGE_PROTO_SPECIFIED else None,
    )


class Ports(NamedTuple):
    """The ports that the kernel may use for an address and a protocol.

    `ranges` are those of rules. If `without_range` is true, another rule without a range can apply as well.
    """

    ranges: tuple[range, ...]
    without_range: bool

    def has(self, port: int) -> bool:
        """Whether a port is in one of the ranges."""
        return any(port in ports for ports in self.ranges)

    def count(self, outside: bool) -> int:
        """Return the number of ports. `outside` is whether flows use ports that are not in the ranges."""
        if not self.ranges or (self.without_range and outside):
            return len(PORTS_WITHOUT_RANGE)
        size, end = 0, 0
        for one in sorted(self.ranges, key=lambda ports: ports.start):
            size += max(0, one.stop - max(one.start, end))
            end = max(end, one.stop)
        return size


def ports_of(address: bytes, protocol: int, ranges: Iterable[SnatRange]) -> Ports:
    """Return the ports for an address and a protocol, by the rules that can translate to it.

    These are the rules that name the address, and if there are none, those whose address does not follow from the rule.
    """
    possible = [one for one in ranges if len(address) in one.sizes and one.protocol in (None, protocol)]
    chosen = [one for one in possible if one.has(address)] or [one for one in possible if one.low is None]
    of_rules = tuple(one.ports for one in chosen if one.ports is not None)
    return Ports(of_rules, len(of_rules) < len(chosen))
