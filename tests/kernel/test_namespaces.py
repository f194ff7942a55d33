# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run modules over all namespaces of a machine, with real packets. conntrack(8) reads each table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Gateway, Machine, Namespace

Document = dict[str, Any]

#: The ports of the clients' connections.
PORTS = {"blue": 40001, "red": 40002}


class Site:
    """A gateway with two namespaces that have names, `blue` and `red`, and one that only processes are in."""

    def __init__(self, topology: Gateway) -> None:
        self.gateway, self.container = topology.gateway, topology.server
        self.named = {"blue": topology.client1, "red": topology.client2}
        for each in (*self.named.values(), self.container):
            each.firewall.track()
        for name, namespace in self.named.items():
            namespace.tcp(topology.SERVER, topology.PORT, source_port=PORTS[name]).seen_as()
        self.machine = Machine(self.gateway, self.named)

    def all(self) -> list[Namespace]:
        """Return the namespaces in the order of the results."""
        return [self.gateway, *self.named.values(), self.container]

    def ports(self) -> list[list[int]]:
        """Return the source ports of the connections in each table."""
        return [ports(namespace.table()) for namespace in self.all()]


@pytest.fixture
def site(gateway_lab: Gateway) -> Iterator[Site]:
    site = Site(gateway_lab)
    with site.machine:
        for _process in range(2):
            site.machine.start_in(site.container)
        site.machine.start_in(site.named["red"])
        yield site


def ports(flows: list[Document]) -> list[int]:
    return sorted(flow["original"]["source_port"] for flow in flows if flow["protocol"] == "tcp")


TCP = {"protocol": "tcp", "destination_port": Gateway.PORT}
EACH = [[40001, 40002], [40001], [40002], [40001, 40002]]


@pytest.mark.oldest_and_newest_kernel
def test_all_namespaces_are_read_in_one_task(site: Site) -> None:
    assert site.ports() == EACH
    found = site.machine.module("conntrack_info", netns="all", match=TCP)
    assert [ports(each["entries"]) for each in found["namespaces"]] == site.ports()
    assert [each["matched"] for each in found["namespaces"]] == [2, 1, 1, 2]
    assert (found["matched"], found["truncated"]) == (6, False)
    assert "entries" not in found

    own, blue, red, container = found["namespaces"]
    assert [each["netns"] for each in (blue, red)] == ["blue", "red"]
    assert own["netns"] == "/proc/1/ns/net"
    assert container["netns"] == f"/proc/{container['processes'][0]['pid']}/ns/net"
    assert [len(each["processes"]) for each in (blue, red, container)] == [0, 1, 2]
    assert {process["name"] for process in container["processes"]} == {"sleep"}

    path = container["netns"]
    chosen = site.machine.module("conntrack_info", netns=["red", path, "/run/netns/red"], match=TCP)
    assert [ports(each["entries"]) for each in chosen["namespaces"]] == [EACH[2], EACH[3]]
    assert [each["netns"] for each in chosen["namespaces"]] == ["red", path]


def test_facts_of_all_namespaces(site: Site) -> None:
    result = site.machine.module("conntrack_facts", netns="all", gather_subset=["summary", "capabilities"])
    facts = result["ansible_facts"]["conntrack"]
    counts = [int(namespace.conntrack("-C")) for namespace in site.all()]
    assert [each["count"] for each in facts["namespaces"]] == counts
    assert (facts["count"], facts["matched"]) == (sum(counts), sum(counts))
    assert [each["by_protocol"]["tcp"] for each in facts["namespaces"]] == [2, 1, 1, 2]
    assert facts["capabilities"]["probed"]
    assert not any("capabilities" in each for each in facts["namespaces"])


def test_limit_of_a_flush_applies_to_all_namespaces(site: Site) -> None:
    refused = site.machine.module("conntrack_flush", netns="all", match=TCP, limit=5)
    assert refused["msg"] == (
        f"6 entries match in 4 namespaces, more than the limit of 5: 2 in /proc/1/ns/net, "
        f"2 in {refused['namespaces'][3]['netns']}, 1 in blue, 1 more. Nothing was removed: narrow the match or raise "
        "the limit"
    )
    assert (refused["changed"], refused["flushed"]) == (False, 0)
    assert site.ports() == EACH

    predicted = site.machine.module("conntrack_flush", check_mode=True, netns="all", match=TCP, limit=6)
    assert (predicted["changed"], predicted["flushed"]) == (True, 6)
    assert site.ports() == EACH

    # The entries with port 40002 do not match, so they remain
    match = {**TCP, "source_port": 40001}
    done = site.machine.module("conntrack_flush", netns="all", match=match, limit=3, report_limit=2)
    assert site.ports() == [[40002], [], [40002], [40002]]
    assert (done["changed"], done["flushed"], done["kept"], done["gone"]) == (True, 3, 0, 0)
    assert [each["flushed"] for each in done["namespaces"]] == [1, 1, 0, 1]
    assert [ports(each["entries"]) for each in done["namespaces"]] == [[40001], [40001], [], []]
    assert [diff["before_header"] for diff in done["diff"] if diff["before"]] == ["/proc/1/ns/net", "blue"]


@pytest.mark.oldest_and_newest_kernel
def test_flush_of_all_namespaces_keeps_each_entry_of_the_session(site: Site) -> None:
    """The gateway translates the address of the client, so the entry of the client itself is not that of the server."""
    session = {"SSH_CONNECTION": f"203.0.113.1 40001 {Gateway.SERVER} {Gateway.PORT}"}
    done = site.machine.module("conntrack_flush", netns="all", match=TCP, env=session)
    assert site.ports() == [[40001], [], [], [40001]]
    assert (done["flushed"], done["kept"], done["changed"]) == (4, 2, True)
    assert [each["kept"] for each in done["namespaces"]] == [1, 0, 0, 1]


def test_error_in_one_namespace_does_not_stop_the_others(site: Site) -> None:
    """Without accounting, the kernel does not record the bytes that the match needs."""
    for namespace in site.all():
        namespace.sysctl("nf_conntrack_acct", int(namespace is not site.named["red"]))
    match = {**TCP, "bytes_below": 1 << 40}
    names = ["blue", "red", "/proc/1/ns/net"]
    for namespace in site.all():
        namespace.empty()
    flows = "-I -p tcp -s 10.1.0.2 -d 203.0.113.80 --sport 40003 --dport 7 -t 600 --state ESTABLISHED".split()
    for namespace in site.all():
        namespace.conntrack(*flows)
    failed = site.machine.module("conntrack_flush", netns=names, match=match)
    assert failed["failed"]
    assert failed["msg"].startswith(
        "netns: the task failed in 1 of 3 namespaces, first in red: match or except: requires accounting"
    )
    assert (failed["changed"], failed["flushed"]) == (True, 2)
    assert [each.get("flushed") for each in failed["namespaces"]] == [1, None, 1]
    assert "accounting" in failed["namespaces"][1]["msg"]
    assert site.ports() == [[], [], [40003], [40003]]


def test_file_that_is_not_a_namespace_is_refused_first(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = site.ports()
    failed = site.machine.module("conntrack_flush", netns=["blue", str(tmp_path / "file")], all=True)
    assert failed["msg"].startswith(f"netns: cannot enter {tmp_path}/file: it is not a network namespace; name a")
    assert (failed["changed"], site.ports()) == (False, before)


def test_stale_entries_of_all_namespaces(site: Site, tun: None) -> None:
    """The rules of each namespace judge its entries."""
    site.named["red"].nft("add table inet f; add chain inet f o { type filter hook output priority 0; policy drop; }")
    found = site.machine.module("conntrack_info", netns=["blue", "red"], match=TCP, stale=["refused"])
    assert [each["matched"] for each in found["namespaces"]] == [0, 1]
    assert (found["matched"], found["verdicts"]["refused"], found["verdicts"]["unchanged"]) == (1, 1, 1)
    hook = "{ type filter hook output priority 0; policy drop; }"
    site.named["blue"].nft(f"add table inet f; add chain inet f o {hook}; add rule inet f o limit rate 5/second accept")
    uncertain = site.machine.module("conntrack_info", netns=["blue", "red"], match=TCP, stale=True)
    (warning,) = uncertain["warnings"]
    assert "blue: 1 of 1 flows are uncertain" in str(warning)
    refused = site.machine.module("conntrack_info", netns="all", stale=True, ruleset="/etc/hosts", remote_src=True)
    assert refused["msg"].startswith("ruleset: is the ruleset of one namespace, and netns names several")
