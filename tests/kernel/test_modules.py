# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run modules in a separate process each; conntrack(8) reads the results.

Some kernels ignore filters that they do not support, so a flush by zone or by status would empty the table. The tests
try each match with entries that it must keep.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import table_reader
from tests import clock
from tests.lab import Namespace
from tests.lab.table import Flow
from tests.modules import run, run_in_new_process

pytestmark = pytest.mark.every_kernel

Document = dict[str, Any]

IPV4 = ("10.1.0.2", "10.1.0.3", "10.2.0.2")
IPV6 = ("2001:db8:1::2", "2001:db8:1::3", "2001:db8:2::2")
SERVER = {"ipv4": "192.0.2.80", "ipv6": "2001:db8:ffff::80"}

#: In each family one entry in a zone, one assured, one marked, one of another protocol, and one of another network
ENTRIES = "".join(
    f"-I -p {protocol} -s {addresses[client]} -d {SERVER[family]} --sport {port} --dport {to} -t 600 {more}\n"
    for family, addresses in (("ipv4", IPV4), ("ipv6", IPV6))
    for client, protocol, port, to, more in (
        (0, "udp", 1, 53, ""),
        (0, "udp", 2, 53, "-w 5"),
        (0, "udp", 3, 53, "-u SEEN_REPLY,ASSURED"),
        (1, "udp", 4, 53, "-m 0x61"),
        (1, "tcp", 5, 443, "--state ESTABLISHED"),
        (2, "udp", 6, 443, "-m 0x10"),
    )
)

#: Matches, with the entries to select, as a condition on the list of conntrack(8)
WAYS: dict[str, tuple[Document, Callable[[Flow], bool]]] = {
    "zone": ({"match": {"zone": 5}}, lambda flow: flow.get("zone") == 5),
    "zone-none": ({"match": {"zone": 0}}, lambda flow: "zone" not in flow),
    "zone-empty": ({"match": {"zone": 9}}, lambda flow: False),
    "status": ({"match": {"status": ["assured"]}}, lambda flow: "assured" in flow["status"]),
    "status-unused": ({"match": {"status": ["fixed_timeout"]}}, lambda flow: False),
    "status-not": ({"match": {"status_not": ["assured"]}}, lambda flow: "assured" not in flow["status"]),
    "mark": ({"match": {"mark": 0x61}}, lambda flow: flow["mark"] == 0x61),
    "mark-masked": ({"match": {"mark": "0x60/0xf0"}}, lambda flow: flow["mark"] & 0xF0 == 0x60),
    "mark-none": ({"match": {"mark": 0}}, lambda flow: flow["mark"] == 0),
    "mark-unused": ({"match": {"mark": 0x99}}, lambda flow: False),
    "ipv4-source": ({"match": {"source": IPV4[0]}}, lambda flow: flow["original"]["source"] == IPV4[0]),
    "ipv4-network": ({"match": {"source": "10.1.0.0/24"}}, lambda flow: flow["original"]["source"] in IPV4[:2]),
    "ipv4-source-unused": ({"match": {"source": "10.9.9.9"}}, lambda flow: False),
    "ipv6-source": ({"match": {"source": IPV6[0]}}, lambda flow: flow["original"]["source"] == IPV6[0]),
    "ipv6-destination": ({"match": {"destination": SERVER["ipv6"]}}, lambda flow: flow["family"] == "ipv6"),
    "ipv6-network": ({"match": {"source": "2001:db8:1::/64"}}, lambda flow: flow["original"]["source"] in IPV6[:2]),
    "ipv6-source-unused": ({"match": {"source": "2001:db8:9::9"}}, lambda flow: False),
    "ipv6-source-in-a-zone": (
        {"match": {"source": IPV6[0], "zone": 5}},
        lambda flow: flow["original"]["source"] == IPV6[0] and flow.get("zone") == 5,
    ),
    "family-ipv4": ({"match": {"family": "ipv4"}}, lambda flow: flow["family"] == "ipv4"),
    "family-ipv6": ({"match": {"family": "ipv6"}}, lambda flow: flow["family"] == "ipv6"),
    "protocol-and-port": (
        {"match": {"protocol": "udp", "destination_port": 443}},
        lambda flow: flow["protocol"] == "udp" and flow["original"]["destination_port"] == 443,
    ),
    "protocol-and-port-ipv4": (
        {"match": {"family": "ipv4", "protocol": "tcp", "destination_port": 443}},
        lambda flow: flow["family"] == "ipv4" and flow["protocol"] == "tcp",
    ),
    "protocol-and-port-ipv6": (
        {"match": {"family": "ipv6", "protocol": "udp", "destination_port": 53}},
        lambda flow: flow["family"] == "ipv6" and flow["original"]["destination_port"] == 53,
    ),
    "several-keys": (
        {"match": {"protocol": "udp", "source": "10.1.0.2", "zone": 0, "mark": 0, "status": ["assured"]}},
        lambda flow: flow["family"] == "ipv4" and "assured" in flow["status"],
    ),
    "either": (
        {"match": [{"zone": 5}, {"source": IPV6[2]}]},
        lambda flow: flow.get("zone") == 5 or flow["original"]["source"] == IPV6[2],
    ),
    "except": (
        {"match": {"protocol": "udp"}, "except": [{"zone": 5}, {"source": IPV6[0]}]},
        lambda flow: flow["protocol"] == "udp" and flow.get("zone") != 5 and flow["original"]["source"] != IPV6[0],
    ),
    "all-except": (
        {"all": True, "except": {"status": ["assured"]}},
        lambda flow: "assured" not in flow["status"],
    ),
    "all": ({"all": True}, lambda flow: True),
}

#: Filters that old kernels ignore, as measured (see the client's module narrowing)
IGNORED = {
    "5.10": {"dump_by_status", "dump_by_zone", "flush_by_status", "flush_by_zone", "flush_by_tuple"},
    "6.1": {"dump_by_zone", "flush_by_zone", "flush_by_tuple"},
}


@pytest.fixture(autouse=True)
def _filters_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the kernel's filters also for small tables, because the tests must cover them on old kernels."""
    monkeypatch.setattr(table_reader, "FEW", 0)


@pytest.fixture
def filled(emptied_namespace: Namespace) -> Namespace:
    emptied_namespace.conntrack("-R", "-", input=ENTRIES)
    return emptied_namespace


def ports(flows: list[Flow]) -> list[tuple[str, int]]:
    """Return the family and the source port of each entry."""
    return sorted((flow["family"], flow["original"]["source_port"]) for flow in flows)


@pytest.mark.parametrize("way", WAYS)
def test_flush_removes_only_matching_entries(filled: Namespace, way: str) -> None:
    arguments, matches = WAYS[way]
    before = filled.table()
    assert len(before) == ENTRIES.count("\n")
    matching = ports([flow for flow in before if matches(flow)])

    predicted = run(filled, "conntrack_flush", check_mode=True, **arguments)
    assert (predicted["changed"], predicted["flushed"]) == (bool(matching), len(matching))
    assert ports(filled.table()) == ports(before), "check mode changed something"

    done = run(filled, "conntrack_flush", **arguments)
    assert ports(filled.table()) == [each for each in ports(before) if each not in matching]
    assert (done["changed"], done["flushed"], done["gone"]) == (bool(matching), len(matching), 0)
    assert ports(done["entries"]) == ports(predicted["entries"]) == matching


def test_flush_above_the_limit_removes_nothing(filled: Namespace) -> None:
    done = run(filled, "conntrack_flush", match={"zone": 5}, limit=1)
    assert done["failed"]
    assert "2 entries match, more than the limit of 1" in done["msg"]
    assert filled.count() == ENTRIES.count("\n")


@pytest.mark.parametrize(("client", "server"), [(IPV4[0], SERVER["ipv4"]), (IPV6[0], SERVER["ipv6"])])
def test_life_cycle_of_an_entry(filled: Namespace, client: str, server: str) -> None:
    """Declare an entry twice, change it and delete it. The entry with the same tuple in no zone does not change."""
    tuple_ = {"source": client, "destination": server, "source_port": 1, "destination_port": 53}
    declared = {"protocol": "udp", "zone": 7, "original": tuple_, "timeout": 300, "mark": 3}
    others = ports(filled.table())

    assert run(filled, "conntrack_entry", check_mode=True, **declared)["operation"] == "created"
    assert ports(filled.table()) == others
    assert run(filled, "conntrack_entry", **declared)["operation"] == "created"
    (made,) = (flow for flow in filled.table() if flow.get("zone") == 7)
    assert (made["original"], made["mark"], made["timeout"]) == (tuple_, 3, clock.left_of(300))
    assert run(filled, "conntrack_entry", **declared)["operation"] == "unchanged"
    assert run(filled, "conntrack_entry", **{**declared, "mark": 4})["operation"] == "updated"
    assert [flow["mark"] for flow in filled.table() if flow.get("zone") == 7] == [4]
    assert run(filled, "conntrack_entry", **{**declared, "state": "absent"})["operation"] == "deleted"
    assert ports(filled.table()) == others


@pytest.mark.parametrize("module", ["conntrack_entry", "conntrack_entries"])
def test_entry_with_nat_is_deleted_by_its_reply_tuple(namespace: Namespace, module: str) -> None:
    """`conntrack -D -r -q` can also do this."""
    ends = {"source": "10.0.0.1", "destination": SERVER["ipv4"], "source_port": 1, "destination_port": 53}
    reply = {"source": SERVER["ipv4"], "destination": "192.0.2.1", "source_port": 53, "destination_port": 4000}
    nat = {"source": {"address": "192.0.2.1", "port": 4000}}
    for zone in (0, 5):
        run(namespace, "conntrack_entry", protocol="udp", original=ends, nat=nat, timeout=600, zone=zone)
    assert [flow["reply"] for flow in namespace.table()] == [reply, reply]
    declared: Document = {"protocol": "udp", "reply": reply, "zone": 5}
    if module == "conntrack_entries":
        declared = {"entries": [declared]}
    assert run(namespace, module, check_mode=True, state="absent", **declared)["changed"]
    assert namespace.count() == 2
    assert run(namespace, module, state="absent", **declared)["changed"]
    assert [flow.get("zone") for flow in namespace.table()] == [None]
    assert not run(namespace, module, state="absent", **declared)["changed"]


def test_facts(filled: Namespace) -> None:
    facts = run_in_new_process(filled, "conntrack_facts")["ansible_facts"]["conntrack"]
    assert facts["count"] == int(filled.conntrack("-C")) == ENTRIES.count("\n")
    assert facts["by_zone"]["5"] == 2
    assert facts["by_protocol"] == {"tcp": 2, "udp": 10}
    assert facts["status"]["assured"] == 2
    assert facts["settings"]["max"] == int(filled.sysctl("nf_conntrack_max"))
    assert filled.count() == ENTRIES.count("\n")


def test_capabilities(filled: Namespace, record_testsuite_property: Callable[[str, object], None]) -> None:
    """The capabilities are those measured on this kernel, if any. The report lists the missing ones."""
    facts = run(filled, "conntrack_facts", gather_subset=["!all", "capabilities"])["ansible_facts"]["conntrack"]
    capabilities = facts["capabilities"]
    assert capabilities["probed"]
    lacking = {name for name, present in capabilities.items() if not present}
    record_testsuite_property("lacking", " ".join(sorted(lacking)))
    ignored = next((them for kernel, them in IGNORED.items() if platform.release().startswith(f"{kernel}.")), set())
    assert {name for name in lacking if name.startswith(("dump_", "flush_"))} == ignored
    assert filled.count() == ENTRIES.count("\n")
