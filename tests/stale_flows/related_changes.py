# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes for related flows: TFTP data comes from a port that the server chooses."""

from __future__ import annotations

from .base import RULES, instead, nft
from .comparison import Case, Step
from .flows import Flow
from .packets import UDP, Tuple

_HELPER = """
table inet helpers {
    ct helper files { type "tftp" protocol udp; }
    chain prerouting { type filter hook prerouting priority -100; policy accept; udp dport 69 ct helper set "files"; }
}
"""


def _transfers() -> list[Flow]:
    """Return requests from inside hosts, each with the server's data to the source address of the request after NAT."""
    flows: list[Flow] = []
    for host in range(4, 12):
        request = Tuple(UDP, f"2001:db8:1::{host}", "2001:db8:9::1", 40_000 + host, 69)
        data = Tuple(UDP, "2001:db8:9::1", request.source, 50_000, request.source_port)
        flows += [("lan", request), ("wan", data)]
        outside = "203.0.113.2" if host < 8 else "203.0.113.3" if host < 10 else "203.0.113.1"
        request = Tuple(UDP, f"10.1.0.{host}", "198.51.100.1", 41_000 + host, 69)
        data = Tuple(UDP, "198.51.100.1", outside, 50_000, request.source_port)
        flows += [("lan", request), ("wan", data)]
    return flows


def _changed(name: str, *steps: Step) -> Case:
    return Case(f"transfers: {name}", [instead(RULES + _HELPER)], steps, flows=_transfers())


CASES = [
    _changed("nothing changes"),
    _changed(
        "some clients are refused",
        nft("add element inet filter blocked { 10.1.0.8/29 }\nadd element inet filter blocked6 { 2001:db8:1::8/125 }"),
    ),
    _changed("another address", nft("flush map ip nat by_source")),
    _changed("no transfers", nft("insert rule inet filter forward udp dport 69 reject")),
    _changed("no source NAT", nft("flush chain ip nat srcnat")),
]
