# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""pyroute2 creates, changes and deletes entries, and the client reads them; and the reverse."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pyroute2 import NFCTSocket
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples, views
from tests.lab import Namespace

NUMBERS = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        yield table


def tuple_of(family: str, protocol: int, source: int, destination: int) -> NFCTAttrTuple:
    return NFCTAttrTuple(
        family=NUMBERS[family],
        saddr=samples.CLIENT[family],
        daddr=samples.SERVER[family],
        proto=protocol,
        sport=source,
        dport=destination,
    )


@pytest.mark.parametrize("family", samples.FAMILIES)
class TestEachOperation:
    def entry(self, family: str, command: str, **more: Any) -> list[Any]:
        original = tuple_of(family, 17, 1, 53)
        with NFCTSocket(nfgen_family=NUMBERS[family]) as conntrack:
            if command == "add":
                more["tuple_reply"] = original.reverse()
            answers: list[Any] = conntrack.entry(command, tuple_orig=original, **more)
            return answers

    def test_pyroute2_adds(self, table: Table, family: str) -> None:
        self.entry(family, "add", timeout=300, mark=7)
        (found,) = (to_document(entry) for entry in table.dump())
        wanted = samples.flow(family, "udp", 1, 53, mark=7, timeout=300, status=["confirmed"])
        assert found == {**views.near(wanted), "id": found["id"], "use": 1}

    def test_pyroute2_changes(self, table: Table, family: str) -> None:
        wanted = from_document(samples.flow(family, "udp", 1, 53))
        table.create(wanted)
        self.entry(family, "set", mark=9)
        assert table.get(wanted)["mark"] == 9

    def test_pyroute2_deletes(self, table: Table, family: str) -> None:
        table.create(from_document(samples.flow(family, "udp", 1, 53)))
        self.entry(family, "del")
        assert list(table.dump()) == []

    def test_pyroute2_gets(self, table: Table, namespace: Namespace, family: str) -> None:
        table.create(from_document(samples.flow(family, "udp", 1, 53, mark=3)))
        message, *_unused = self.entry(family, "get")
        assert message.get_attr("CTA_MARK") == 3

    def test_client_updates_and_deletes(self, table: Table, namespace: Namespace, family: str) -> None:
        self.entry(family, "add", timeout=300)
        wanted = from_document(samples.flow(family, "udp", 1, 53, mark=5))
        table.update(wanted)
        assert [entry["mark"] for entry in views.by_pyroute2(namespace)] == [5]
        table.delete(table.get(wanted))
        with pytest.raises(NetlinkError) as refusal:
            self.entry(family, "get")
        assert refusal.value.code == errno.ENOENT


def test_statistics(table: Table, namespace: Namespace) -> None:
    for port in range(1, 12):
        table.create(from_document(samples.flow("ipv4", "udp", port, 53)))
    with NFCTSocket() as conntrack:
        (message,) = conntrack.count()
        per_cpu = conntrack.stat()
    assert table.statistics() == {
        "entries": message.get_attr("CTA_STATS_GLOBAL_ENTRIES"),
        "max_entries": message.get_attr("CTA_STATS_GLOBAL_MAX_ENTRIES"),
    }
    assert table.count() == 11
    inserted = {cpu["res_id"]: cpu.get_attr("CTA_STATS_INSERT") for cpu in per_cpu}
    ours = table.statistics_per_cpu()
    assert sorted(inserted.values()) == sorted(counters["insert"] for counters in ours.values())
