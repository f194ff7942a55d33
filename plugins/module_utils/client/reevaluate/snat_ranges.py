# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports that rules of source NAT may use.

Source: net/netfilter/nft_nat.c, net/netfilter/nft_masq.c; struct nf_nat_range2 and nf_nat_ipv4_multi_range_compat in
include/uapi/linux/netfilter/nf_nat.h; nf_nat_l4proto_unique_tuple in net/netfilter/nf_nat_core.c.
"""

from __future__ import annotations

import struct
import sys
from typing import Iterable, Iterator, NamedTuple, Sequence

from ..netlink.socket import NetlinkSocket
from . import numbers as n
from .expressions import expressions_of, number_of
from .network import attributes_of, text_of
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

    Addresses are None if they do not follow from the rule, ports if the kernel chooses them.
    """

    low: bytes | None
    high: bytes | None
    ports: range | None

    def has(self, address: bytes) -> bool:
        """Whether this address is one that the rule names."""
        if self.low is None or self.high is None or len(self.low) != len(address):
            return False
        return self.low <= address and address <= self.high


def read_snat_ranges(netlink: NetlinkSocket) -> list[SnatRange]:
    """Read the source NAT of all nftables rules, also those of iptables-nft. Raises `KernelError`."""
    return [found for family, expressions in read_rules(netlink) for found in snat_ranges(family, expressions)]


def snat_ranges(family: int, expressions: bytes) -> Iterator[SnatRange]:
    """Yield the source NAT of one rule."""
    registers: dict[int, bytes] = {}
    for name, data, _raw_bytes in expressions_of(expressions):
        if name == "immediate":
            value = attributes_of(data.get(n.NFTA_IMMEDIATE_DATA, b""), 0).get(n.NFTA_DATA_VALUE)
            if value is not None:
                registers[number_of(data.get(n.NFTA_IMMEDIATE_DREG))] = value
        elif name == "masq":
            yield SnatRange(None, None, _ports(registers, data, n.NFTA_REG_PROTO_MIN[name]))
        elif name == "nat" and number_of(data.get(n.NFTA_NAT_TYPE)) == n.NFT_NAT_SNAT:
            low = registers.get(number_of(data.get(n.NFTA_NAT_REG_ADDR_MIN)))
            high = registers.get(number_of(data.get(n.NFTA_NAT_REG_ADDR_MAX)), low)
            yield SnatRange(low, high, _ports(registers, data, n.NFTA_REG_PROTO_MIN[name]))
        elif name == "target" and text_of(data[n.NFTA_TARGET_NAME]) in ("SNAT", "MASQUERADE"):
            yield _of_target(family, number_of(data.get(n.NFTA_TARGET_REV)), data[n.NFTA_TARGET_INFO])
        elif name != "counter":
            # Other expressions can load what the rule does not say, for example an address from a map
            registers.clear()


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


def ports_of(address: bytes, ranges: Sequence[SnatRange]) -> int:
    """Return the number of ports that the kernel may use for an address, by the rules that can translate to it.

    These are the rules that name the address, and if there are none, those whose address does not follow from the rule.
    If one of them has no range of ports, the kernel chooses from `PORTS_WITHOUT_RANGE`.
    """
    chosen = [one for one in ranges if one.has(address)] or [one for one in ranges if one.low is None]
    if not chosen or any(one.ports is None for one in chosen):
        return len(PORTS_WITHOUT_RANGE)
    return _size(one.ports for one in chosen if one.ports is not None)


def _size(ranges: Iterable[range]) -> int:
    """Return the number of ports in at least one of these ranges."""
    size, end = 0, 0
    for one in sorted(ranges, key=lambda ports: ports.start):
        size += max(0, one.stop - max(one.start, end))
        end = max(end, one.stop)
    return size
