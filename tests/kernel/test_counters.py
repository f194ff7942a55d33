# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Zero the counters of real packets. No packet is lost or counted twice, and other entries keep their counters."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations.counters import zero
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ResultUnknown
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import (
    EVERYTHING,
    Match,
    parse_match,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import (
    ANSWERED_BATCH_SIZE,
    NetlinkSocket,
    NetlinkTransport,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples
from tests.lab import Gateway, Namespace

pytestmark = pytest.mark.every_kernel

PORTS = (5001, 5002, 5003)


@pytest.fixture
def counting(gateway_lab: Gateway) -> Gateway:
    """Return a gateway with accounting on."""
    gateway_lab.gateway.sysctl("nf_conntrack_acct", 1)
    return gateway_lab


@pytest.fixture
def table(counting: Gateway) -> Iterator[Table]:
    with counting.gateway.entered(), Table() as table:
        yield table


def run(table: Table, match: Match = EVERYTHING, check_mode: bool = False, report_limit: int = 100) -> dict[str, Any]:
    return zero(table, match, report_limit, LabelMap(), check_mode)


def shown(namespace: Namespace) -> dict[int, list[tuple[int, int]]]:
    """Return packets and bytes of each direction by source port, as conntrack(8) shows them."""
    found = {}
    for line in namespace.conntrack("-L", "-p", "udp").splitlines():
        counters = re.findall(r"packets=(\d+) bytes=(\d+)", line)
        port = re.search(r"sport=(\d+)", line)
        assert port
        found[int(port[1])] = [(int(packets), int(size)) for packets, size in counters]
    return found


def totals(result: dict[str, Any]) -> list[tuple[int, int]]:
    return [(result["total"][way]["packets"], result["total"][way]["bytes"]) for way in ("original", "reply")]


@pytest.mark.parametrize("match", [None, {"source_port": [5001, 5003]}])
def test_shown_counters_are_returned_and_reset(counting: Gateway, table: Table, match: Any) -> None:
    for rounds, port in enumerate(PORTS, 1):
        flow = counting.client1.udp(counting.SERVER, counting.PORT, source_port=port)
        for _packet in range(rounds):
            flow.seen_as()
        flow.close()
    before = shown(counting.gateway)
    assert set(before) == set(PORTS)
    wanted = EVERYTHING if match is None else parse_match(match)
    selected = PORTS if match is None else (5001, 5003)
    predicted = run(table, wanted, check_mode=True)
    assert shown(counting.gateway) == before
    done = run(table, wanted)
    for result in (predicted, done):
        assert result["zeroed"] == len(selected)
        returned = {
            entry["original"]["source_port"]: [
                (entry["counters"][way]["packets"], entry["counters"][way]["bytes"]) for way in ("original", "reply")
            ]
            for entry in result["entries"]
        }
        assert returned == {port: before[port] for port in selected}
    nothing = [(0, 0), (0, 0)]
    assert shown(counting.gateway) == {port: nothing if port in selected else before[port] for port in PORTS}
    again = run(table, wanted)
    assert not again["changed"]
    assert again["entries"] == []


@pytest.mark.parametrize("match", [None, {"protocol": "udp"}])
def test_results_under_traffic_add_up(counting: Gateway, table: Table, match: Any) -> None:
    wanted = EVERYTHING if match is None else parse_match(match)
    flows = [counting.client1.udp(counting.SERVER, counting.PORT, source_port=port) for port in PORTS]
    for flow in flows:
        flow.seen_as()
    enough, rounds = threading.Event(), 1

    def send() -> None:
        nonlocal rounds
        while not enough.is_set():
            for flow in flows:
                flow.seen_as()
            rounds += 1

    traffic = threading.Thread(target=send)
    traffic.start()
    try:
        results = [run(table, wanted) for _run in range(25)]
    finally:
        enough.set()
        traffic.join()
    results.append(run(table, wanted))
    for flow in flows:
        flow.close()
    parts = [[totals(result)[way][0] for result in results] for way in (0, 1)]
    assert [sum(packets) for packets in parts] == [rounds * len(flows)] * 2
    assert sum(packets > 0 for packets in parts[0]) > 5, "packets flowed between the runs"


def flow_document(port: int) -> Any:
    return creation(from_document(samples.flow("ipv6", "tcp", port, 53)))


def test_windows_fit_the_receive_buffer(namespace: Namespace) -> None:
    """Every answer arrives and belongs to its request."""
    namespace.sysctl("nf_conntrack_acct", 1)
    entries = [flow_document(port) for port in range(1, 20 * ANSWERED_BATCH_SIZE)]
    with namespace.entered(), Table() as table:
        assert not any(table.create_all(entries))
        answers = list(table.zero_all(entries))
        assert [answer["original.source_port"] for answer in answers if isinstance(answer, dict)] == list(
            range(1, 20 * ANSWERED_BATCH_SIZE)
        )


def test_lost_answers_of_a_small_buffer_are_reported(namespace: Namespace) -> None:
    """The client reports each answer that the buffer had no room for, because its counters are lost."""
    namespace.sysctl("nf_conntrack_acct", 1)
    with namespace.entered(), Table(lambda: NetlinkSocket(NetlinkTransport(receive_buffer=1))) as small_buffer_table:
        assert not any(small_buffer_table.create_all(flow_document(port) for port in range(1, 2 * ANSWERED_BATCH_SIZE)))
        entries = list(small_buffer_table.dump())
        answers = list(small_buffer_table.zero_all(entries))
        assert len(answers) == len(entries)
        lost = [answer for answer in answers if not isinstance(answer, dict)]
        assert lost
        assert all(isinstance(answer, ResultUnknown) for answer in lost)
        assert "counters of" in str(lost[0])
