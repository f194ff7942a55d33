# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Flows with real packets continue when the playbook migrate moves them to another gateway."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab, has_ipv6
from tests.lab.handover import FAMILIES, OLD, PORT, SERVER, Site
from tests.lab.lab import Host
from tests.plays import Controller

#: The routes through the new gateway: from the client to the world, and from the server to the translated addresses.
SWITCH = """
- name: Let all packets take the new gateway
  ansible.builtin.command: ip {{ item.family }} route replace {{ item.route }}
  delegate_to: "{{ item.host }}"
  changed_when: true
  loop:
    - {host: client, family: "-4", route: default via 10.1.0.3}
    - {host: server, family: "-4", route: 198.51.100.0/24 via 203.0.113.3}
    - {host: client, family: "-6", route: "default via 2001:db8:1::3"}
    - {host: server, family: "-6", route: "2001:db8:9::/64 via 2001:db8:ffff::3"}
"""


@pytest.fixture
def site(lab: Lab) -> Site:
    return Site(lab)


@pytest.fixture
def migrate(site: Site, tmp_path: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Run the playbook, with variables of hosts if given; return its exit status and output."""
    controller = Controller(tmp_path)
    switch = tmp_path / "switch.yml"
    switch.write_text(SWITCH if has_ipv6() else SWITCH.partition('    - {host: client, family: "-6"')[0])

    def run(*options: str, of_hosts: dict[str, dict[str, Any]] | None = None, **variables: Any) -> tuple[int, str]:
        variables = {"from_host": "old", "to_host": "new", "conntrack_switch": str(switch), **variables}
        given = {key: value for key, value in variables.items() if value is not None}
        hosts = {
            name: {"ansible_netns_name": path, **(of_hosts or {}).get(name, {})}
            for name, path in site.lab.paths().items()
        }
        return controller.play("migrate", hosts, *options, **given)

    places = tmp_path / "places"
    places.mkdir()
    controller.environment["TMPDIR"] = str(places)
    yield run
    assert not list(places.iterdir()), "a folder for a snapshot remains"


def summary(printed: str) -> dict[str, Any]:
    """Return the summary at the end of the output."""
    found = re.search(r"\[Show what was moved\].*?=> (\{\n.*?\n\})", printed, re.DOTALL)
    assert found is not None, printed
    shown: dict[str, Any] = json.loads(found[1])["msg"]
    return shown


def some(**counts: int) -> dict[str, int]:
    """Return counts with these values; all others are 0."""
    return {**dict.fromkeys(("created", "updated", "replaced", "deleted", "unchanged", "failed"), 0), **counts}


def packets(gateway: Host) -> int:
    """Return the number of packets that a gateway has forwarded on NATed flows, according to conntrack(8)."""
    listed = gateway.conntrack("-L", "--src-nat") + gateway.conntrack("-L", "-f", "ipv6", "--src-nat")
    return sum(int(word[8:]) for word in listed.split() if word.startswith("packets="))


def test_live_connections_continue_through_the_new_gateway(site: Site, migrate: Callable[..., tuple[int, str]]) -> None:
    """For TCP and UDP, IPv4 and IPv6, the far end receives the same address and port before and after, and no reset."""
    for gateway in (site.old, site.new):
        gateway.sysctl("nf_conntrack_acct", 1)
    flows = {}
    for family in FAMILIES:
        flows[f"tcp {family}"] = site.client.tcp(SERVER[family], PORT)
        flows[f"udp {family}"] = site.client.udp(SERVER[family], PORT)
    try:
        before = {name: flow.seen_as() for name, flow in flows.items()}
        assert {end.address for end in before.values()} == {OLD[family] for family in FAMILIES}
        status, printed = migrate()
        assert status == 0, printed
        at_old, at_new = packets(site.old), packets(site.new)
        assert {name: flow.seen_as() for name, flow in flows.items()} == before
        assert packets(site.old) == at_old, "packets still pass through the old gateway"
        assert packets(site.new) > at_new
    finally:
        for flow in flows.values():
            flow.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_connection_breaks_without_migration(site: Site, family: str) -> None:
    """Without this check, the test above would prove nothing."""
    with site.client.tcp(SERVER[family], PORT) as flow:
        flow.seen_as()
        for host, route in ((site.client, "default"), (site.server, "198.51.100.0/24")):
            if family == "ipv4":
                via = "10.1.0.3" if host is site.client else "203.0.113.3"
            else:
                route = "default" if host is site.client else "2001:db8:9::/64"
                via = "2001:db8:1::3" if host is site.client else "2001:db8:ffff::3"
            with host.entered():
                subprocess.run(["ip", "route", "replace", route, "via", via], check=True)
        with pytest.raises((ConnectionError, TimeoutError)):
            flow.seen_as()


@pytest.mark.thorough
def test_check_mode_moves_nothing_and_shows_the_plan(site: Site, migrate: Callable[..., tuple[int, str]]) -> None:
    with site.client.tcp(SERVER["ipv4"], PORT) as flow:
        flow.seen_as()
        status, printed = migrate("--check", conntrack_remove_from_old=True)
    assert status == 0
    assert summary(printed) == {
        "flows of the old gateway": 1,
        "expectations of the old gateway": 0,
        "would be restored": some(created=1),
        "restored after it": "no switch",
        "would be removed from the old gateway": 1,
        "failed": [],
    }
    assert site.new.conntrack("-C").strip() == "0"
    assert site.old.conntrack("-C").strip() == "1"


@pytest.mark.thorough
def test_matching_flows_are_moved_and_removed_from_the_old_gateway(
    site: Site, migrate: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """A flow that reaches the old gateway after the save is not on the new gateway, and stays on the old one."""
    late = "-I -p udp -s 10.1.0.9 -d 203.0.113.80 --sport 9 --dport 7 -t 600"
    script = tmp_path / "script"
    script.write_text(f'#!/bin/sh\nnsenter --net={site.old.path} conntrack {late} >&2\nexec nsenter "$@"\n')
    script.chmod(0o755)
    of_new = {"ansible_netns_nsenter": f"{{{{ '{script}' if _conntrack_saved is defined else 'nsenter' }}}}"}
    with site.client.udp(SERVER["ipv4"], PORT) as some, site.client.tcp(SERVER["ipv4"], PORT) as other:
        some.seen_as()
        other.seen_as()
        status, printed = migrate(
            conntrack_switch=None,
            conntrack_match={"protocol": "udp"},
            conntrack_remove_from_old=True,
            of_hosts={"new": of_new},
        )
        assert status == 0, printed
        shown = summary(printed)
        assert (shown["flows of the old gateway"], shown["removed from the old gateway"]) == (1, 1)
        assert "tcp" not in site.new.conntrack("-L")
        assert site.new.conntrack("-L").count("dst=198.51.100.1") == 1
        assert "10.1.0.9" in site.old.conntrack("-L")
        assert site.old.conntrack("-L").count("udp") == 1
        assert site.old.conntrack("-L").count("tcp") == 1


def test_flows_above_the_removal_limit_are_not_moved(site: Site, migrate: Callable[..., tuple[int, str]]) -> None:
    """Otherwise a million flows would fill the memory of both hosts, and the limit would fail after the switch."""
    for port in (1, 2):
        site.old.conntrack(*f"-I -p udp -s 10.1.0.2 -d 203.0.113.80 --sport {port} --dport 7 -t 600".split())
    status, printed = migrate(conntrack_remove_from_old=True, conntrack_remove_limit=1)
    assert status != 0
    assert "2 entries match, more than the limit of 1" in printed
    shown = summary(printed)
    assert (shown["restored"], shown["removed from the old gateway"]) == ("nothing", "nothing")
    assert [int(gateway.conntrack("-C")) for gateway in (site.old, site.new)] == [2, 0]


@pytest.mark.thorough
def test_no_flow_is_removed_if_some_are_not_moved(site: Site, migrate: Callable[..., tuple[int, str]]) -> None:
    """The playbook reports the completed steps even if it ends there."""
    for gateway, client, port in ((site.old, "10.1.0.2", 1), (site.old, "10.1.0.2", 2), (site.new, "10.1.0.9", 2)):
        flow = f"-I -p udp -s {client} -d 203.0.113.80 --sport {port} --dport 7 -t 600 --src-nat 198.51.100.1"
        gateway.conntrack(*flow.split())

    status, printed = migrate(conntrack_remove_from_old=True)
    assert status != 0
    shown = summary(printed)
    (failed,) = shown.pop("failed")
    assert failed["entry"]["original"]["source_port"] == 2
    assert shown == {
        "flows of the old gateway": 2,
        "expectations of the old gateway": 0,
        "restored": some(created=1, failed=1),
        "restored after it": "not switched",
        "removed from the old gateway": "nothing, because some could not be moved",
    }

    status, printed = migrate(conntrack_switch=None, conntrack_remove_from_old=True, conntrack_allow_failures=True)
    assert status == 0
    shown = summary(printed)
    assert shown["restored"] == some(unchanged=1, failed=1)
    assert shown["removed from the old gateway"] == "nothing, because some could not be moved"

    refused = {"ansible_netns_nsenter": "setpriv --bounding-set=-net_admin nsenter"}
    status, printed = migrate(
        conntrack_switch=None, conntrack_remove_from_old=True, conntrack_allow_failures=True, of_hosts={"new": refused}
    )
    assert status != 0, "conntrack_allow_failures must not accept the failure of all flows"
    assert summary(printed)["restored"] == some()
    assert site.old.conntrack("-C").strip() == "2"


@pytest.mark.parametrize(
    "variables",
    [{"from_host": None}, {"to_host": None}, {"to_host": "old"}, {"to_host": "old:new"}, {"from_host": "x"}],
)
def test_nothing_starts_without_two_gateways(
    site: Site, migrate: Callable[..., tuple[int, str]], variables: dict[str, Any]
) -> None:
    with site.client.tcp(SERVER["ipv4"], PORT) as flow:
        flow.seen_as()
        assert migrate(**variables)[0] != 0
    assert site.new.conntrack("-C").strip() == "0"
