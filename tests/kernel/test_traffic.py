# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Groups and rates of real entries and packets, compared with what conntrack(8) lists and with what was sent."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest

from tests.lab import Host, Lab, Namespace
from tests.modules import run

from .test_modules import ENTRIES

pytestmark = pytest.mark.oldest_and_newest_kernel

CLIENT, GATEWAY = "10.1.0.2", "10.1.0.1"
PAYLOAD, IP_AND_UDP = 1000, 28


@pytest.fixture
def filled(namespace: Namespace) -> Namespace:
    namespace.conntrack("-R", "-", input=ENTRIES)
    return namespace


def test_groups_agree_with_conntrack(filled: Namespace) -> None:
    listed = Counter((flow["original"]["source"], flow["protocol"]) for flow in filled.table())
    found = run(filled, "conntrack_info", group_by=["source", "protocol"])
    assert {(row["source"], row["protocol"]): row["flows"] for row in found["groups"]} == listed
    assert (found["entries"], found["matched"], found["truncated"]) == ([], sum(listed.values()), False)
    limited = run(filled, "conntrack_info", group_by=["source", "protocol"], limit=1, match={"family": "ipv4"})
    assert limited["groups"] == [{"source": CLIENT, "protocol": "udp", "flows": 3}]
    assert (limited["other"], limited["truncated"]) == ({"flows": 3}, True)


def test_networks_and_several_groupings_in_one_dump(filled: Namespace) -> None:
    facts = run(
        filled,
        "conntrack_facts",
        gather_subset=["!all", "summary"],
        group_by=[["source/24/48"], ["mark/0xf0", "state", "zone"]],
        match={"family": "ipv6"},
    )["ansible_facts"]["conntrack"]
    assert facts["matched"] == 6
    assert facts["groups"] == [
        {
            "by": ["source/24/48"],
            "groups": [{"source": "2001:db8:1::/48", "flows": 5}, {"source": "2001:db8:2::/48", "flows": 1}],
        },
        {
            "by": ["mark/0xf0", "state", "zone"],
            "groups": [
                {"mark": 0, "state": None, "zone": 0, "flows": 2},
                {"mark": 0, "state": None, "zone": 5, "flows": 1},
                {"mark": 0, "state": "established", "zone": 0, "flows": 1},
                {"mark": 16, "state": None, "zone": 0, "flows": 1},
                {"mark": 96, "state": None, "zone": 0, "flows": 1},
            ],
        },
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": ["nothing"]}, "group_by[0]: 'nothing' is not a key to group by; write one of family, protocol"),
        ({"group_by": []}, "group_by: [] is not a list of keys; write for example [source, state]"),
        ({"group_by": ["source"], "table": "expect"}, "group_by: expectations cannot be grouped"),
        ({"group_by": ["source"], "reverse": True}, "reverse: the largest groups always come first"),
        (
            {"group_by": ["source"], "sort_by": "timeout"},
            "sort_by: 'timeout' is not an order of groups; write one of flows",
        ),
        ({"group_by": ["source"], "sort_by": "bytes"}, "sort_by: requires accounting, which is off"),
        ({"group_by": ["source"], "owner": True}, "owner: groups have no owner; leave out owner or group_by"),
        ({"interval": 1}, "interval: requires accounting, which is off"),
        ({"interval": 0}, "interval: 0 is out of range; write a number of seconds from 1 to 3600"),
        ({"interval": 1, "table": "dying"}, "interval: table dying has no rates; leave out interval or table"),
    ],
)
def test_invalid_groups_and_rates_are_refused(namespace: Namespace, options: dict[str, Any], message: str) -> None:
    failed = run(namespace, "conntrack_info", **options)
    assert failed["msg"].startswith(message)


@pytest.fixture
def accounting(lab: Lab) -> tuple[Host, Host]:
    client, gateway = lab.host("client"), lab.host("gateway")
    lab.link(client, gateway, [f"{CLIENT}/24"], [f"{GATEWAY}/24"])
    gateway.sysctl("net.netfilter.nf_conntrack_acct", 1)
    gateway.firewall.track()
    return client, gateway


@pytest.fixture
def senders(accounting: tuple[Host, Host]) -> Iterator[dict[int, int]]:
    """Send from two ports, with a different pause between datagrams. Return the number of datagrams by source port."""
    client = accounting[0]
    sent: dict[int, int] = {}
    over = Event()

    def send(port: int, pause: float) -> None:
        with client.entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.bind((CLIENT, port))
            sender.connect((GATEWAY, 9))
            while not over.wait(pause):
                try:
                    sender.send(bytes(PAYLOAD))
                except ConnectionRefusedError:
                    continue
                sent[port] = sent.get(port, 0) + 1

    threads = [Thread(target=send, args=one) for one in ((4001, 0.1), (4002, 0.01))]
    for thread in threads:
        thread.start()
    try:
        yield sent
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_rates_agree_with_the_sent_packets(accounting: tuple[Host, Host], senders: dict[int, int]) -> None:
    gateway = accounting[1]
    match = {"source": CLIENT, "destination_port": 9}
    for options in ({}, {"group_by": ["source_port"]}):
        began = time.monotonic()
        before = dict(senders)
        found = run(gateway, "conntrack_info", match=match, interval=1, **options)
        most = {port: sent - before.get(port, 0) for port, sent in senders.items()}
        seconds = time.monotonic() - began
        if options:
            rates = {row["source_port"]: row["packets_per_second"] for row in found["groups"]}
            assert {row["flows"] for row in found["groups"]} == {1}
        else:
            rates = {one["original"]["source_port"]: one["rate"]["original"]["packets"] for one in found["entries"]}
            for one in found["entries"]:
                rate = one["rate"]["original"]
                assert rate["bytes"] == pytest.approx(rate["packets"] * (PAYLOAD + IP_AND_UDP), rel=0.01, abs=100)
        assert list(rates) == [4002, 4001], "the highest rate comes first"
        assert rates[4002] > 2 * rates[4001] > 0
        for port, rate in rates.items():
            assert rate <= most[port] + 1, (most, seconds)
