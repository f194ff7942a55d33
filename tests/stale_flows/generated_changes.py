# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes by random rules: conditions, and an effect on the packets."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .base import changed
from .comparison import Case

NUMBER = 40

_LINKS = ("lan", "vlan10", "vlan20", "dmz", "wan", "wan2")
#: Conditions by the property that they test. A rule has at most one of each kind, so that they do not contradict.
_OF_IPV4 = (
    "ip saddr {inside}",
    "ip saddr != {inside}",
    "ip daddr {outside}",
    "ip daddr {inside}",
    "ip saddr & 0.0.0.3 == 0.0.0.{digit}",
    "ip saddr . ip daddr {{ 10.1.0.{host} . 198.51.100.0-198.51.100.100, 10.1.0.4/30 . 0.0.0.0/0 }}",
    "ct original ip saddr {inside}",
    "ct original ip daddr 203.0.113.1",
)
_OF_IPV6 = (
    "ip6 saddr 2001:db8:{network}::/64",
    "ip6 daddr 2001:db8:9::{host}",
    "ip6 daddr & ::f == ::{host}",
    "ip6 saddr {{ 2001:db8:1::5-2001:db8:1::8, 2001:db8:{network}::/112 }}",
)
_OF_TRANSPORT = (
    "meta l4proto {protocols}",
    "meta l4proto {{ tcp, udp }} th dport {ports}",
    "meta l4proto {{ tcp, udp }} th sport 20000-{high}",
    "meta l4proto . th dport {{ tcp . 80-443, udp . 53 }}",
    "tcp dport != {ports}",
    "udp dport {ports}",
    "tcp flags & (syn | ack) == syn",
    "sctp dport {ports}",
    "meta l4proto tcp ct original proto-dst 443",
)
_OF_ALL = (
    "meta mark {mark}",
    "meta mark & 0x2 == 0x2",
    "meta pkttype host",
    "ct state new",
    "ct state {{ new, untracked }}",
    "ct direction original",
    "ct status snat",
    "ct status dnat",
    "ct mark 0",
    "fib saddr type unicast",
    "fib daddr type {type}",
)
_EARLY = (
    *(
        'iifname "{link}"',
        'iifname {{ "{link}", "{other}" }}',
        'iif "{link}"',
        'meta iifname . mark {{ "{link}" . 0 }}',
    ),
    "fib saddr . iif oif exists",
)
_LATE = ('oifname "{link}"', 'oifname != {{ "{link}", "{other}" }}', 'oif "{other}"')
_FILTER = (
    *("drop", "accept", "counter drop", "reject", "reject with icmpx admin-prohibited", "jump rejected"),
    *("goto rejected", "return"),
)
#: Effects that test the protocol themselves.
_FILTER_BY_PROTOCOL = (
    "meta l4proto tcp reject with tcp reset",
    "meta l4proto vmap {{ tcp : drop, udp : accept, icmp : jump rejected }}",
    "meta l4proto {{ tcp, udp }} th dport vmap {{ 0-99 : accept, 100-499 : drop, 5000-9000 : goto rejected }}",
)
_DNAT = ("dnat to 10.30.0.8{digit}", "accept", "return")
_DNAT_BY_PROTOCOL = (
    "ip protocol tcp dnat to 10.1.0.8{digit}:80",
    "ip protocol {{ tcp, udp }} redirect to :{port}",
    "tcp dport vmap {{ 80 : accept, 443 : return }}",
    "dnat to ip daddr map {{ 203.0.113.1 : 10.30.0.82, 203.0.113.2-203.0.113.3 : 10.30.0.81 }}",
    "meta l4proto {{ tcp, udp }} dnat to th dport map {{ 80 : 10.30.0.82 . 8080, 53 : 10.30.0.81 . 5353 }}",
)
_SNAT = (
    *("masquerade", "snat to 203.0.113.1{digit}", "snat to 203.0.113.1-203.0.113.3", "accept", "return"),
    "snat to ip saddr map {{ 10.1.0.0/28 : 203.0.113.2, 10.10.0.0/28 : 203.0.113.3 }}",
)
_SNAT6 = ("masquerade", "snat to 2001:db8:100::1{digit}", "accept")
_MARK = ("meta mark set {mark}", "ct mark set {mark}", "meta mark set meta mark or 0x2", "notrack")


class _Rules:
    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"rules {seed}")

    def _filled(self, template: str) -> str:
        choose = self._random.choice
        host = choose((5, 6, 7, 8, 9))
        return template.format(
            protocols=choose(
                ("tcp", "udp", "{ tcp, 132 }", "{ icmp, ipv6-icmp, 47 }", "!= { tcp, udp }", "{ 99, 136 }")
            ),
            ports=choose(("{ 80, 443 }", "53", "1-100", "8000-9000", "443", "{ 22, 5060-5070, 8080 }")),
            port=choose((3128, 8080, 53)),
            high=choose((20500, 21000, 22000)),
            inside=choose((f"10.1.0.{host}", "10.1.0.0/29", "10.10.0.0/24", "{ 10.1.0.4/30, 10.20.0.0/24 }")),
            outside=choose(("198.51.100.0/25", "203.0.113.1", "198.51.100.7", "{ 203.0.113.2, 198.51.100.128/25 }")),
            network=choose((1, 10, 20, 30)),
            host=host,
            mark=choose((0, 1, 2)),
            type=choose(("local", "unicast", "{ local, broadcast }")),
            link=choose(_LINKS[:4]),
            other=choose(_LINKS[4:]),
            digit=choose((0, 1, 2)),
        )

    def _rule(
        self, families: tuple[int, ...], links: tuple[str, ...], plain: Sequence[str], full: Sequence[str]
    ) -> str:
        """Return conditions and an effect. `full` are the effects with a condition for the protocol."""
        network = _OF_IPV4 if self._random.choice(families) == 4 else _OF_IPV6
        by_protocol = bool(full) and self._random.random() < 0.3
        kinds = [network, _OF_ALL, links] if by_protocol else [network, _OF_TRANSPORT, _OF_ALL, links]
        if by_protocol and families == (4,):
            kinds.remove(network)  # some of these effects have conditions for addresses
        chosen = self._random.sample(kinds, self._random.choice((1, 1, 2, 3)) if len(kinds) > 2 else 1)
        effect = self._random.choice(full if by_protocol else plain)
        return self._filled(" ".join([*(self._random.choice(kind) for kind in chosen), effect]))

    def command(self) -> str:
        """Return a command that inserts a rule."""
        filtering = (_FILTER, _FILTER_BY_PROTOCOL)
        return "insert rule " + self._random.choice(
            (
                f"inet filter forward {self._rule((4, 4, 6), _EARLY, *filtering)}",
                f"inet filter forward {self._rule((4, 4, 6), _LATE, *filtering)}",
                f"inet filter input {self._rule((4, 4, 6), _EARLY, *filtering)}",
                f"inet filter output {self._rule((4, 4, 6), _LATE, *filtering)}",
                f"inet early prerouting {self._rule((4, 4, 6), _EARLY, _MARK, ())}",
                f"ip nat dstnat {self._rule((4,), _EARLY, _DNAT, _DNAT_BY_PROTOCOL)}",
                f"ip nat srcnat {self._rule((4,), _LATE, _SNAT, ())}",
                f"ip6 nat srcnat {self._rule((6,), _LATE, _SNAT6, ())}",
            )
        )


#: A chain before conntrack, for properties that are set there.
_FIRST = "table inet early { chain prerouting { type filter hook prerouting priority raw; policy accept; }; }\n"


def _case(seed: int) -> Case:
    rules = _Rules(seed)
    commands = [rules.command() for _number in range(1 + seed % 4)]
    return changed(f"generated {seed}", "\n".join(commands), first=_FIRST)


CASES = [_case(seed) for seed in range(NUMBER)]
