# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare the kernel's own counters with conntrack(8) and /proc."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import messages
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import KernelError
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message, nested
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples
from tests.lab import Gateway, Namespace

pytestmark = pytest.mark.every_kernel


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        yield table


def fill(table: Table, count: int) -> None:
    assert not any(
        table.create_all(creation(from_document(samples.flow("ipv6", "udp", port, 53))) for port in range(1, count + 1))
    )


def shown_per_cpu(namespace: Namespace) -> dict[int, dict[str, int]]:
    """Return the output of `conntrack -S`, with the kernel's names."""
    shown = {}
    for line in namespace.conntrack("-S").splitlines():
        numbers = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}
        numbers["chain_toolong"] = numbers.pop("chaintoolong", 0)
        shown[numbers.pop("cpu")] = numbers
    return shown


def counted(table: Table) -> dict[int, dict[str, int]]:
    """Return the counters of the client. As in conntrack(8), a counter that Linux 5.10 does not have is 0."""
    return {cpu: {"chain_toolong": 0, **counters} for cpu, counters in table.statistics_per_cpu().items()}


def test_global(table: Table, namespace: Namespace) -> None:
    fill(table, 37)
    assert table.statistics() == {
        "entries": 37,
        "max_entries": int(namespace.sysctl("nf_conntrack_max")),
    }
    assert table.count() == int(namespace.conntrack("-C")) == 37


def test_per_cpu(table: Table, namespace: Namespace) -> None:
    fill(table, 37)
    statistics = table.statistics_per_cpu()
    assert counted(table) == shown_per_cpu(namespace)
    assert sum(counters["insert"] for counters in statistics.values()) == 37
    lines = Path("/proc/thread-self/net/stat/nf_conntrack").read_text().splitlines()
    names = lines[0].split()
    inserted = [int(line.split()[names.index("insert")], 16) for line in lines[1:]]
    assert [counters["insert"] for _cpu, counters in sorted(statistics.items())] == inserted


def test_per_cpu_of_real_packets(gateway_lab: Gateway) -> None:
    """Packets in the middle of a connection without an entry are invalid, and counted as invalid."""
    server = gateway_lab.server
    server.firewall.track()
    server.sysctl("nf_conntrack_tcp_loose", 0)
    with (
        server.entered(),
        Table() as table,
        gateway_lab.client1.tcp(gateway_lab.SERVER, gateway_lab.PORT) as flow,
    ):
        flow.seen_as()
        assert not any(counters["invalid"] for counters in table.statistics_per_cpu().values())
        server.conntrack("-F")
        flow.seen_as()
        assert any(counters["invalid"] for counters in table.statistics_per_cpu().values())
        for _attempt in range(10):
            before, shown = counted(table), shown_per_cpu(server)
            if counted(table) == before:  # no delayed acknowledgement arrived in between
                break
        assert before == shown


def expected(port: int) -> Message:
    """Return a request that creates an expectation of a connection to this port, with the master below."""
    ends = {"family": 2, "original.source": b"\xc0\0\2\1", "original.destination": b"\xc6\x33\x64\2"}
    ends.update({"original.protocol": 6, "original.source_port": 1000, "original.destination_port": 21})
    master = ENTRIES.encode(ends)
    wanted = ENTRIES.encode({**ends, "original.source_port": 0, "original.destination_port": port})
    mask = dict.fromkeys(("original.source", "original.destination"), b"\xff" * 4)
    masks = ENTRIES.encode({**ends, **mask, "original.source_port": 0, "original.destination_port": 0xFFFF})
    flags = uapi.NLM_F_CREATE | uapi.NLM_F_EXCL
    attributes = (uapi.CTA_EXPECT_MASTER, master), (uapi.CTA_EXPECT_TUPLE, wanted), (uapi.CTA_EXPECT_MASK, masks)
    payload = b"".join(nested(number, encoded[4:]) for number, encoded in attributes)
    return Message(uapi.NFNL_SUBSYS_CTNETLINK_EXP << 8, flags, messages.nfgenmsg(2) + payload)


def expectations_shown(namespace: Namespace) -> dict[int, dict[str, int]]:
    """Return the output of `conntrack -S expect`."""
    shown = {}
    for line in namespace.conntrack("-S", "expect").splitlines():
        numbers = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", line)}
        cpu = numbers.pop("cpu")
        shown[cpu] = {name.partition("_")[2]: value for name, value in numbers.items()}
    return shown


def test_expectations_per_cpu(table: Table, namespace: Namespace) -> None:
    master = samples.flow("ipv4", "tcp", 1000, 21, helper="ftp")
    try:
        table.create(creation(from_document(master)))
    except KernelError:
        pytest.skip("this kernel has no FTP helper")
    table.ask("expecting", expected(5000))
    table.ask("expecting", expected(5001))
    namespace.conntrack("-F", "expect")
    statistics = table.expectation_statistics_per_cpu()
    assert statistics == expectations_shown(namespace)
    assert {name: sum(counters[name] for counters in statistics.values()) for name in ("new", "create", "delete")} == {
        "new": 0,
        "create": 2,
        "delete": 2,
    }
