# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declared entries of every kind, each with the values that the kernel adds when an entry is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:  # the oldest Python of the client's tests does not accept it
    Document = dict[str, Any]

FAMILIES = ("ipv4", "ipv6")
CLIENT = {"ipv4": "192.0.2.1", "ipv6": "2001:db8:1::1"}
SERVER = {"ipv4": "198.51.100.2", "ipv6": "2001:db8:2::2"}
OUTSIDE = {"ipv4": "203.0.113.3", "ipv6": "2001:db8:3::3"}
INSIDE = {"ipv4": "192.0.2.4", "ipv6": "2001:db8:1::4"}

IDLE_TCP = {
    "state": "none",
    "original": {"window_scale": 0, "flags": []},
    "reply": {"window_scale": 0, "flags": []},
}
#: The TCP state of an entry that was declared without flags.
ASSUMED_TCP = {
    "state": "none",
    "original": {"window_scale": 0, "flags": ["sack_permitted", "be_liberal"]},
    "reply": {"window_scale": 0, "flags": ["sack_permitted", "be_liberal"]},
}
IDLE_SCTP = {"state": "none", "original_vtag": 0, "reply_vtag": 0}
SNAT = ["confirmed", "src_nat", "src_nat_done", "dst_nat_done"]
DNAT = ["confirmed", "dst_nat", "src_nat_done", "dst_nat_done"]
BOTH = ["confirmed", "src_nat", "dst_nat", "src_nat_done", "dst_nat_done"]


class Sample(NamedTuple):
    """A declaration, and the values that are read in addition or instead."""

    name: str
    declared: Document
    adds: Document
    #: a requirement of the entry: a helper, a capability, or nothing
    needs: str = ""

    def gathered(self) -> Document:
        """Return the whole entry as a module must read it, except id and use."""
        return {"mark": 0, "timeout": 120, "status": ["confirmed"], **self.declared, **self.adds}


def ends(family: str, **more: Any) -> Document:
    """Return an original tuple between the two hosts."""
    return {"source": CLIENT[family], "destination": SERVER[family], **more}


def turned(family: str, **more: Any) -> Document:
    """Return the reply tuple."""
    return {"source": SERVER[family], "destination": CLIENT[family], **more}


def ports(source: int, destination: int) -> Document:
    return {"source_port": source, "destination_port": destination}


def flow(family: str, protocol: str | int, source: int, destination: int, **more: Any) -> Document:
    """Return a document of a protocol with ports, with both tuples."""
    return {
        "family": family,
        "protocol": protocol,
        "original": ends(family, **ports(source, destination)),
        "reply": turned(family, **ports(source=destination, destination=source)),
        **more,
    }


def everything(family: str) -> Document:
    """Return one entry with every value that one entry can have at the same time."""
    return flow(
        family,
        "tcp",
        40000,
        21,
        zone=5,
        timeout=65535,
        mark=0xFFFFFFFF,
        labels=[0, 1, 31, 32, 64, 127],
        status=["seen_reply", "assured", "confirmed", "seq_adjust", "fixed_timeout", "helper"],
        helper="ftp",
        tcp={
            "state": "established",
            "original": {
                "window_scale": 7,
                "flags": ["window_scale", "sack_permitted", "be_liberal", "maxack_set"],
            },
            "reply": {"window_scale": 14, "flags": ["window_scale", "close_init", "data_unacknowledged"]},
        },
        sequence_adjustment={
            "original": {"position": 4294967295, "before": -2147483648, "after": 2147483647},
            "reply": {"position": 1, "before": 2, "after": -3},
        },
        synproxy={"isn": 4294967295, "its": 1, "tsoff": 2},
    )


def samples(family: str) -> Iterator[Sample]:
    """Return entries of every kind, no two of them with a common tuple."""
    icmp, request, answer = ("icmp", 8, 0) if family == "ipv4" else ("icmpv6", 128, 129)
    outside, inside, client, server = OUTSIDE[family], INSIDE[family], CLIENT[family], SERVER[family]

    yield Sample("everything", everything(family), {}, "helper")
    yield Sample("tcp", flow(family, "tcp", 1, 2), {"tcp": ASSUMED_TCP})
    yield Sample(
        "tcp-states",
        flow(family, "tcp", 2, 65535, tcp={**IDLE_TCP, "state": "syn_sent2"}, mark=1, timeout=86400),
        {},
    )
    yield Sample("udp", flow(family, "udp", 1, 53), {})
    yield Sample("udp-assured", flow(family, "udp", 2, 53, status=["seen_reply", "assured", "confirmed"]), {})
    yield Sample("udplite", flow(family, "udplite", 1, 2), {}, "tracks_udplite")
    yield Sample("sctp", flow(family, "sctp", 1, 2), {"sctp": IDLE_SCTP})
    yield Sample(
        "sctp-tags",
        flow(
            family,
            "sctp",
            2,
            3,
            sctp={"state": "established", "original_vtag": 4294967295, "reply_vtag": 1},
        ),
        {},
    )
    yield Sample(
        "gre",
        {
            "family": family,
            "protocol": "gre",
            "original": ends(family, source_key=1, destination_key=65535),
            "reply": turned(family, source_key=65535, destination_key=1),
        },
        {},
    )
    echo = {"icmp_code": 0, "icmp_id": 65535}
    yield Sample(
        icmp,
        {
            "family": family,
            "protocol": icmp,
            "original": ends(family, icmp_type=request, **echo),
            "reply": turned(family, icmp_type=answer, **echo),
        },
        {},
    )
    for number in (0, 50, 99, 255):
        yield Sample(
            f"protocol-{number}",
            {"family": family, "protocol": number, "original": ends(family), "reply": turned(family)},
            {},
        )

    yield Sample("zone", flow(family, "udp", 3, 53, zone=65535), {})
    one_way = flow(family, "udp", 4, 53)
    yield Sample("original-zone", {**one_way, "original": {**one_way["original"], "zone": 7}}, {})
    one_way = flow(family, "udp", 5, 53)
    yield Sample("reply-zone", {**one_way, "reply": {**one_way["reply"], "zone": 8}}, {})

    yield Sample(
        "expected",
        flow(
            family,
            "tcp",
            50000,
            20,
            zone=5,
            master={"protocol": "tcp", **ends(family, **ports(40000, 21))},
            status=["expected", "confirmed"],
        ),
        {"tcp": ASSUMED_TCP},
        "helper",
    )

    def translated(name: str, port: int, nat: Document, reply: Document, status: list[str]) -> Sample:
        document = flow(family, "udp", port, 80, nat=nat)
        del document["reply"]
        return Sample(name, document, {"reply": reply, "status": status})

    to_outside = {"address": outside}
    yield translated(
        "source-nat",
        11,
        {"source": {**to_outside, "port": 11}},
        {"source": server, "destination": outside, **ports(80, 11)},
        SNAT,
    )
    yield translated(
        "source-nat-port",
        12,
        {"source": {**to_outside, "port": 1200}},
        {"source": server, "destination": outside, **ports(80, 1200)},
        SNAT,
    )
    yield translated(
        "destination-nat",
        13,
        {"destination": {"address": inside, "port": 80}},
        {"source": inside, "destination": client, **ports(80, 13)},
        DNAT,
    )
    yield translated(
        "destination-nat-port",
        14,
        {"destination": {"address": inside, "port": 8080}},
        {"source": inside, "destination": client, **ports(8080, 14)},
        DNAT,
    )
    yield translated(
        "both-nat",
        15,
        {
            "source": {**to_outside, "port": 1500},
            "destination": {"address": inside, "port": 8080},
        },
        {"source": inside, "destination": outside, **ports(8080, 1500)},
        BOTH,
    )
    yield Sample(
        "nat-of-icmp-id",
        {
            "family": family,
            "protocol": icmp,
            "original": ends(family, icmp_type=request, icmp_code=0, icmp_id=1),
            "nat": {"source": {"address": outside, "port": 77}},
        },
        {
            "reply": {
                "source": server,
                "destination": outside,
                "icmp_type": answer,
                "icmp_code": 0,
                "icmp_id": 77,
            },
            "status": SNAT,
        },
    )
    yield Sample(
        "nat-of-gre",
        {
            "family": family,
            "protocol": "gre",
            "original": ends(family, source_key=3, destination_key=4),
            "nat": {"source": {"address": outside}},
        },
        {
            "reply": {"source": server, "destination": outside, "source_key": 4, "destination_key": 3},
            "status": SNAT,
        },
    )
    yield Sample(
        "nat-of-esp",
        {
            "family": family,
            "protocol": 50,
            "original": {"source": inside, "destination": server},
            "nat": {"source": {"address": outside}},
        },
        {"reply": {"source": server, "destination": outside}, "status": SNAT},
    )
    tcp_nat = flow(
        family,
        "tcp",
        17,
        80,
        nat={"source": {"address": outside, "port": 17}},
        mark=7,
        status=["seen_reply", "assured"],
        tcp={**IDLE_TCP, "state": "established"},
    )
    del tcp_nat["reply"]
    yield Sample(
        "nat-of-tcp",
        tcp_nat,
        {
            "reply": {"source": server, "destination": outside, **ports(80, 17)},
            "status": ["seen_reply", "assured", *SNAT],
        },
    )
    # NATed only in the tuples: the kernel stores the entry as declared, but translates none of its packets.
    yield Sample(
        "asymmetric",
        {
            **flow(family, "udp", 18, 80),
            "reply": {"source": server, "destination": outside, **ports(80, 1800)},
        },
        {},
    )


SAMPLES = [(f"{family}-{sample.name}", sample) for family in FAMILIES for sample in samples(family)]


def create_all(create: Callable[[Document], Any], refusal: type[Exception], *more: Sample) -> set[str]:
    """Create one entry of every kind. Return the features that the kernel lacks for some entries."""
    lacking: set[str] = set()
    for sample in (*(sample for _name, sample in SAMPLES), *more):
        if sample.needs not in lacking:
            try:
                create(sample.declared)
            except refusal:
                assert sample.needs
                lacking.add(sample.needs)
    return lacking
