# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""nftables rules of a namespace, set over netlink with pyroute2, so that no program is needed."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from collections.abc import Callable
from typing import Any

from pyroute2.nftables import expressions
from pyroute2.nftables.main import NFTables

# linux/netfilter/nf_tables.h, nf_conntrack_common.h
NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 1, 2, 10
REGISTER, SECOND_REGISTER, VERDICT = 1, 2, 0
EQUAL, NOT_EQUAL = 0, 1
META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 6, 7, 15, 16
CT_STATE, CT_MARK, CT_LABELS, CT_ZONE = 0, 3, 13, 17
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
SNAT, DNAT = 0, 1
DROP, ACCEPT = 0, 1
STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132}

# Hook, type and priority of each chain. The first rule of a chain creates it.
CHAINS = {
    "raw": ("prerouting", "filter", -300),
    "raw_output": ("output", "filter", -300),
    "mangle": ("prerouting", "filter", -150),
    "mangle_output": ("output", "filter", -150),
    "dnat": ("prerouting", "nat", -100),
    "input": ("input", "filter", 0),
    "forward": ("forward", "filter", 0),
    "output": ("output", "filter", 0),
    "snat": ("postrouting", "nat", 100),
    "unhooked": None,
}
TABLE = "lab"
IFNAMSIZ = 16

Expression = dict[str, Any]


class Firewall:
    """Rules in one table. Each chain has its rules in the order of the calls.

    Most rules accept conditions for packets, all optional: source and destination (address or network),
    protocol, port (its destination port), in_interface, out_interface.
    """

    def __init__(self, entered: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        self._entered = entered
        self._chains: set[str] = set()

    def track(self) -> None:
        """Track every packet of the namespace. Without a rule that needs conntrack, the kernel tracks none."""
        self.add("unhooked", ct_state("new"))

    def use_labels(self) -> None:
        """Let connections have labels, and track packets. This rule sets no label."""
        self.add("unhooked", set_ct(CT_LABELS, bytes(16)))

    def label(self, bit: int, **packet: Any) -> None:
        """Set the label with this number on the connections of matching packets that arrive."""
        self.add("mangle", match(**packet), set_ct(CT_LABELS, (1 << bit).to_bytes(16, "little")))

    def mark(self, mark: int, **packet: Any) -> None:
        """Set a mark on the connections of matching packets that arrive."""
        self.add("mangle", match(**packet), set_ct(CT_MARK, struct.pack("=I", mark)))

    def zone(self, zone: int, chain: str = "raw", **packet: Any) -> None:
        """Track matching packets in a zone: packets that arrive, or with chain="raw_output" local packets."""
        self.add(chain, match(**packet), set_ct(CT_ZONE, struct.pack("=H", zone)))

    def drop(self, chain: str = "input", state: str | None = None, comment: str = "", **packet: Any) -> None:
        """Drop matching packets; state is a conntrack state, such as invalid or new."""
        self.add(chain, match(**packet), ct_state(state) if state else [], verdict(DROP), comment=comment)

    def accept(self, chain: str = "input", state: str | None = None, **packet: Any) -> None:
        """Accept matching packets; state is a conntrack state, such as established."""
        self.add(chain, match(**packet), ct_state(state) if state else [], verdict(ACCEPT))

    def snat(self, to: str, to_port: int | None = None, comment: str = "", **packet: Any) -> None:
        """Apply source NAT to new connections that leave, with this address and port."""
        self.add("snat", match(family=to, **packet), nat(SNAT, to, to_port), comment=comment)

    def masquerade(self, **packet: Any) -> None:
        """Apply source NAT to new connections that leave, with an address of the outgoing interface."""
        self.add("snat", match(**packet), [_expression("masq", {})])

    def dnat(self, to: str, to_port: int | None = None, **packet: Any) -> None:
        """Apply destination NAT to new connections that arrive, with this address and port."""
        self.add("dnat", match(family=to, **packet), nat(DNAT, to, to_port))

    def add(self, chain: str, *parts: list[Expression], comment: str = "") -> None:
        """Append a rule with these expressions to one of the CHAINS."""
        with self._entered(), contextlib.closing(NFTables(nfgen_family=NFPROTO_INET)) as nftables:
            if chain not in self._chains:
                nftables.table("add", name=TABLE)
                nftables.chain("add", table=TABLE, name=chain, **_hook(chain))
                self._chains.add(chain)
            more = {"userdata": {"value": comment}} if comment else {}
            nftables.rule("add", table=TABLE, chain=chain, expressions=parts, **more)

    def clear(self, chain: str) -> None:
        """Remove the rules of one of the CHAINS, if it has any."""
        if chain in self._chains:
            with self._entered(), contextlib.closing(NFTables(nfgen_family=NFPROTO_INET)) as nftables:
                nftables.rule("del", table=TABLE, chain=chain)


def match(
    *,
    family: str | None = None,
    source: str | None = None,
    destination: str | None = None,
    protocol: str | None = None,
    port: int | None = None,
    in_interface: str | None = None,
    out_interface: str | None = None,
) -> list[Expression]:
    """Return the expressions of conditions for packets. Any address determines the family."""
    rule: list[Expression] = []
    given = [address for address in (family, source, destination) if address]
    if given:
        version = ipaddress.ip_network(given[0], strict=False).version
        rule += [
            _load_meta(META_NFPROTO),
            _compare(bytes([NFPROTO_IPV4 if version == 4 else NFPROTO_IPV6])),
        ]
    if source:
        rule += _address(source, 12, 8)
    if destination:
        rule += _address(destination, 16, 24)
    if protocol:
        rule += [_load_meta(META_L4PROTO), _compare(bytes([PROTOCOLS[protocol]]))]
    if port is not None:
        rule += [_load_payload(TRANSPORT_HEADER, 2, 2), _compare(struct.pack("!H", port))]
    if in_interface:
        rule += [_load_meta(META_IIFNAME), _compare(_interface(in_interface))]
    if out_interface:
        rule += [_load_meta(META_OIFNAME), _compare(_interface(out_interface))]
    return rule


def ct_state(*states: str) -> list[Expression]:
    """Return the expressions that match connections in one of these states."""
    bits = sum(STATES[state] for state in states)
    return [
        _expression("ct", {"dreg": REGISTER, "key": CT_STATE}),
        _mask(struct.pack("=I", bits)),
        _compare(bytes(4), NOT_EQUAL),
    ]


def set_ct(key: int, value: bytes) -> list[Expression]:
    """Return the expressions that set a property of the packet's connection."""
    return [_load(value), _expression("ct", {"key": key, "sreg": REGISTER})]


def nat(kind: int, address: str, port: int | None) -> list[Expression]:
    """Return the expressions of NAT to an address, and to a port."""
    to = ipaddress.ip_address(address)
    family = NFPROTO_IPV4 if to.version == 4 else NFPROTO_IPV6
    translation = {"type": kind, "family": family, "reg_addr_min": REGISTER}
    rule = [_load(to.packed)]
    if port is not None:
        rule.append(_load(struct.pack("!H", port), SECOND_REGISTER))
        translation["reg_proto_min"] = SECOND_REGISTER
    return [*rule, _expression("nat", translation)]


def verdict(code: int) -> list[Expression]:
    """Return the expression of DROP or ACCEPT."""
    data = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": [("NFTA_VERDICT_CODE", code)]})]}
    return [_expression("immediate", {"dreg": VERDICT, "data": data})]


def _hook(chain: str) -> dict[str, Any]:
    of_chain = CHAINS[chain]
    if of_chain is None:
        return {}
    hook, kind, priority = of_chain
    return {"hook": hook, "type": kind, "priority": priority, "policy": ACCEPT}


def _expression(name: str, attributes: dict[str, Any]) -> Expression:
    expression: Expression = expressions.genex(name, attributes)
    return expression


def _address(network: str, offset_ipv4: int, offset_ipv6: int) -> list[Expression]:
    of = ipaddress.ip_network(network, strict=False)
    load = _load_payload(NETWORK_HEADER, offset_ipv4 if of.version == 4 else offset_ipv6, of.max_prefixlen // 8)
    return [load, _mask(of.netmask.packed), _compare(of.network_address.packed)]


def _interface(name: str) -> bytes:
    return name.encode().ljust(IFNAMSIZ, b"\0")


def _load(value: bytes, register: int = REGISTER) -> Expression:
    return _expression("immediate", {"dreg": register, "data": _value(value)})


def _load_meta(key: int) -> Expression:
    return _expression("meta", {"dreg": REGISTER, "key": key})


def _load_payload(base: int, offset: int, length: int) -> Expression:
    return _expression("payload", {"dreg": REGISTER, "base": base, "offset": offset, "len": length})


def _mask(mask: bytes) -> Expression:
    length = len(mask)
    return _expression(
        "bitwise",
        {
            "sreg": REGISTER,
            "dreg": REGISTER,
            "len": length,
            "mask": _value(mask),
            "xor": _value(bytes(length)),
        },
    )


def _compare(value: bytes, operator: int = EQUAL) -> Expression:
    return _expression("cmp", {"sreg": REGISTER, "op": operator, "data": _value(value)})


def _value(value: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}
