# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The class `Conntrack` for Python programs on the running kernel. conntrack(8) shows the resulting table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import Conntrack
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    Exists,
    InvalidValue,
    NotFound,
    PartialFailure,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import DumpInterrupted
from tests import clock
from tests.lab import Namespace

Document = dict[str, Any]


def dns(port: int, **more: Any) -> Document:
    ends = {"source": "10.1.0.2", "destination": "192.0.2.53", "source_port": port, "destination_port": 53}
    return {"protocol": "udp", "original": ends, "timeout": 600, **more}


def ports(entries: Any) -> list[int]:
    return sorted(entry["original"]["source_port"] for entry in entries)


class TestEntries:
    def test_life_cycle_of_an_entry(self, namespace: Namespace) -> None:
        with namespace.entered(), Conntrack() as conntrack:
            conntrack.create(dns(1000, mark=5))
            with pytest.raises(Exists):
                conntrack.create(dns(1000))
            (shown,) = namespace.table()
            assert (shown["protocol"], shown["mark"]) == ("udp", 5)
            conntrack.update(dns(1000, mark=7))
            found = conntrack.get(dns(1000))
            assert (found["mark"], found["family"]) == (7, "ipv4")
            (dumped,) = conntrack.dump()
            assert {**dumped, "timeout": 0, "use": 0} == {**found, "timeout": 0, "use": 0}
            conntrack.delete(found)
            assert namespace.count() == 0
            with pytest.raises(NotFound):
                conntrack.get(found)

    def test_entry_with_another_id_is_not_deleted(self, namespace: Namespace) -> None:
        with namespace.entered(), Conntrack() as conntrack:
            conntrack.create(dns(1000))
            found = conntrack.get(dns(1000))
            with pytest.raises(NotFound):
                conntrack.delete({**found, "id": found["id"] ^ 1})
            assert namespace.count() == 1

    def test_match_selects_entries(self, namespace: Namespace) -> None:
        with namespace.entered(), Conntrack() as conntrack:
            for port in range(1000, 1010):
                conntrack.create(dns(port, mark=port % 2))
            odd = {"mark": 1, "except": {"source_port": 1009}}
            assert ports(conntrack.dump(match=odd)) == [1001, 1003, 1005, 1007]
            assert (conntrack.count(), conntrack.count(match=odd)) == (10, 4)
            assert conntrack.flush(match=odd) == 4
            assert sorted(entry["original"]["source_port"] for entry in namespace.table()) == [
                *(1000, 1002, 1004, 1006, 1008, 1009)
            ]
            assert conntrack.flush() == 6
            assert namespace.count() == 0

    def test_interrupted_flush_reports_the_number_of_deletions(
        self, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with namespace.entered(), Conntrack() as conntrack:
            for port in (1000, 1001):
                conntrack.create(dns(port))
            entries = list(conntrack.table.dump())

            def interrupted(**_options: Any) -> Iterator[Document]:
                yield from entries
                raise DumpInterrupted("the table changed while it was read; read it again")

            deleting = conntrack.table.delete

            def one_by_one(found: Iterator[Document]) -> Iterator[None]:
                for entry in found:
                    deleting(entry)
                    yield None

            monkeypatch.setattr(conntrack.table, "dump", interrupted)
            monkeypatch.setattr(conntrack.table, "delete_all", one_by_one)
            with pytest.raises(PartialFailure, match="read it again. 2 were deleted, 0 were not") as up:
                conntrack.flush()
            assert up.value.result == {"deleted": 2, "failed": 0, "unknown": 0}
            assert namespace.count() == 0

    def test_labels_have_names(self, namespace: Namespace) -> None:
        with namespace.entered(), Conntrack(LabelMap.parse(["3 voip"], "test")) as conntrack:
            namespace.nft("add table ip t\nadd chain ip t c\nadd rule ip t c ct label set 3")
            conntrack.create(dns(1000, labels=["voip"]))
            assert [entry["labels"] for entry in conntrack.dump(match={"labels": ["voip"]})] == [["voip"]]

    def test_statistics_are_per_cpu(self, namespace: Namespace) -> None:
        with namespace.entered(), Conntrack() as conntrack:
            assert all("insert_failed" in counters for counters in conntrack.statistics().values())

    def test_error_names_an_unknown_key(self, namespace: Namespace) -> None:
        with namespace.entered(), Conntrack() as conntrack:
            with pytest.raises(InvalidValue, match=r"original\.source_prt"):
                conntrack.create({"protocol": "udp", "original": {"source_prt": 1}})
            with pytest.raises(InvalidValue, match=r"match\.destination_prt"):
                conntrack.flush(match={"destination_prt": 1})


class TestEvents:
    def test_for_loop(self, namespace: Namespace) -> None:
        with namespace.entered(), Conntrack() as conntrack:
            with conntrack.listen("new", "destroy", match={"destination_port": 53}) as events:
                conntrack.create(dns(1000))
                conntrack.delete(dns(1000))
                received = [next(iter(events)) for _unused in range(2)]
            assert [(event.kind, event.entry["original"]["source_port"]) for event in received] == [
                ("new", 1000),
                ("destroy", 1000),
            ]
            assert list(events) == []

    def test_async_for_loop(self, namespace: Namespace) -> None:
        async def first(conntrack: Conntrack) -> Document:
            with conntrack.listen() as events:
                conntrack.create(dns(1000))
                async for event in events:
                    return dict(event.entry)
            raise AssertionError("no event")

        with namespace.entered(), Conntrack() as conntrack:
            assert asyncio.run(first(conntrack))["original"]["source_port"] == 1000


def test_expectations_have_the_same_methods(namespace: Namespace) -> None:
    master = {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21}
    flow = {"protocol": "tcp", "original": master, "timeout": 600, "helper": "ftp", "tcp": {"state": "established"}}
    expected = {
        "tuple": {
            "protocol": "tcp",
            "source": "192.0.2.21",
            "destination": "10.1.0.2",
            "source_port": 0,
            "destination_port": 4000,
        },
        "master": {"protocol": "tcp", **master},
        "timeout": 600,
    }
    with namespace.entered(), Conntrack() as conntrack:
        conntrack.create(flow)
        conntrack.expectations.create(expected)
        (shown,) = conntrack.expectations.dump(match={"destination_port": 4000})
        assert shown == {**conntrack.expectations.get(expected), "timeout": clock.near(shown["timeout"])}
        assert "dport=4000" in namespace.conntrack("-L", "expect")
        conntrack.expectations.update({**expected, "timeout": 3000})
        assert conntrack.expectations.get(expected)["timeout"] == clock.left_of(3000)
        assert conntrack.expectations.flush(match={"destination_port": 4001}) == 0
        conntrack.expectations.delete(shown)
        conntrack.expectations.create(expected)
        assert conntrack.expectations.flush() == 1
        assert "dport" not in namespace.conntrack("-L", "expect")


def test_timeout_policies_have_the_same_methods(namespace: Namespace) -> None:
    policy = {"name": "short", "family": "ipv4", "protocol": "udp", "timeouts": {"unreplied": 5}}
    with namespace.entered(), Conntrack() as conntrack:
        policies = conntrack.timeout_policies
        policies.create(policy)
        with pytest.raises(Exists):
            policies.create(policy)
        assert policies.get("short")["timeouts"]["unreplied"] == 5
        policies.update({"name": "short", "timeouts": {"replied": 50}})
        policies.update({"name": "short", "timeouts": {"unreplied": 7}})
        assert policies.get("short")["timeouts"] == {"unreplied": 7, "replied": 50}
        with pytest.raises(InvalidValue, match="^name: is missing"):
            policies.update({"timeouts": {"unreplied": 7}})
        with pytest.raises(NotFound):
            policies.update({"name": "missing", "timeouts": {"unreplied": 7}})
        assert [one["name"] for one in policies.dump()] == ["short"]
        policies.create({**policy, "name": "used"})
        assert policies.flush() == 2
        assert list(policies.dump()) == []
        with pytest.raises(NotFound):
            policies.delete("short")
