# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Flows with real packets go on when their gateway is changed under them, with the playbook migrate."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Lab
from tests.lab.lab import Host, has_ipv6
from tests.plays import Controller

PORT = 7
FAMILIES = ["ipv4", "ipv6"] if has_ipv6() else ["ipv4"]
SERVER = {"ipv4": "203.0.113.80", "ipv6": "2001:db8:ffff::80"}
#: What the old gateway translates to, and what the new one would.
OLD = {"ipv4": "198.51.100.1", "ipv6": "2001:db8:9::1"}
NEW = {"ipv4": "198.51.100.2", "ipv6": "2001:db8:9::2"}

#: The routes by the new gateway: of the client to the world, and of the server to what is translated to.
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


class Site:
    """A client and a server with two gateways between them, of which all packets take the old one.

    ::

        client 10.1.0.2 ── inside ┬─ old 10.1.0.1, 203.0.113.1 ─┬ outside ── server 203.0.113.80
                                  └─ new 10.1.0.3, 203.0.113.3 ─┘
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.client, self.server = lab.host("client"), lab.host("server")
        self.old, self.new = lab.host("old", forwarding=True), lab.host("new", forwarding=True)
        inside, outside = lab.switch("inside"), lab.switch("outside")
        lab.link(self.client, inside, ("10.1.0.2/24", "2001:db8:1::2/64"))
        lab.link(self.server, outside, ("203.0.113.80/24", "2001:db8:ffff::80/64"))
        for number, gateway, to in ((1, self.old, OLD), (3, self.new, NEW)):
            lab.link(gateway, inside, (f"10.1.0.{number}/24", f"2001:db8:1::{number}/64"))
            lab.link(gateway, outside, (f"203.0.113.{number}/24", f"2001:db8:ffff::{number}/64"))
            for family in FAMILIES:
                gateway.firewall.snat(to[family], out_interface="outside")
        self.client.route("default", "10.1.0.1")
        self.client.route("default", "2001:db8:1::1")
        self.server.route("198.51.100.0/24", "203.0.113.1")
        self.server.route("2001:db8:9::/64", "2001:db8:ffff::1")
        self.server.mirror(PORT)
        # Behind a switch, addresses of IPv6 take a second to settle.
        assert all(any(self.client.ping(SERVER[family]) for _attempt in range(5)) for family in FAMILIES)
        for gateway in (self.old, self.new):
            gateway.conntrack("-F")


@pytest.fixture
def site(lab: Lab) -> Site:
    return Site(lab)


@pytest.fixture
def migrate(site: Site, tmp_path: Path) -> Iterator[Callable[..., tuple[int, str]]]:
    """Run the playbook; its exit status and what it printed."""
    controller = Controller(tmp_path)
    switch = tmp_path / "switch.yml"
    switch.write_text(SWITCH if has_ipv6() else SWITCH.partition('    - {host: client, family: "-6"')[0])

    def run(*options: str, **variables: Any) -> tuple[int, str]:
        variables = {"from_host": "old", "to_host": "new", "switch": str(switch), **variables}
        given = {key: value for key, value in variables.items() if value is not None}
        hosts = {name: {"ansible_netns_name": path} for name, path in site.lab.paths().items()}
        return controller.play("migrate", hosts, *options, **given)

    before = places()
    yield run
    assert places() == before, "a place for a snapshot was left behind"


def places() -> set[Path]:
    """Where the playbook keeps snapshots while it moves them."""
    return set(Path(tempfile.gettempdir()).glob("*.conntrack"))


def packets(gateway: Host) -> int:
    """How many packets a gateway has forwarded on translated flows, as conntrack(8) counts them."""
    listed = gateway.conntrack("-L", "--src-nat") + gateway.conntrack("-L", "-f", "ipv6", "--src-nat")
    return sum(int(word[8:]) for word in listed.split() if word.startswith("packets="))


def test_live_connections_go_on_through_the_new_gateway(site: Site, migrate: Callable[..., tuple[int, str]]) -> None:
    """TCP and UDP, IPv4 and IPv6: the far end sees the same address and port before and after, and no reset."""
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
        assert packets(site.old) == at_old, "they still go by the old gateway"
        assert packets(site.new) > at_new
    finally:
        for flow in flows.values():
            flow.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_dies_without_it(site: Site, family: str) -> None:
    """What the test above would be worth if it did not."""
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


def test_check_mode_moves_nothing_and_says_what_it_would(site: Site, migrate: Callable[..., tuple[int, str]]) -> None:
    with site.client.tcp(SERVER["ipv4"], PORT) as flow:
        flow.seen_as()
        status, printed = migrate("--check")
    assert status == 0
    assert '"created": 1' in printed
    assert site.new.conntrack("-C").strip() == "0"


def test_some_flows_alone_are_moved_and_leave_the_old_gateway(
    site: Site, migrate: Callable[..., tuple[int, str]]
) -> None:
    with site.client.udp(SERVER["ipv4"], PORT) as some, site.client.tcp(SERVER["ipv4"], PORT) as other:
        some.seen_as()
        other.seen_as()
        status, printed = migrate(switch=None, match={"protocol": "udp"}, remove_from_old=True)
        assert status == 0, printed
        assert "tcp" not in site.new.conntrack("-L")
        assert site.new.conntrack("-L").count("dst=198.51.100.1") == 1
        assert site.old.conntrack("-L").count("udp") == 0
        assert site.old.conntrack("-L").count("tcp") == 1


@pytest.mark.parametrize(
    "variables",
    [{"from_host": None}, {"to_host": None}, {"to_host": "old"}, {"to_host": "old:new"}, {"from_host": "x"}],
)
def test_without_two_gateways_nothing_is_begun(
    site: Site, migrate: Callable[..., tuple[int, str]], variables: dict[str, Any]
) -> None:
    with site.client.tcp(SERVER["ipv4"], PORT) as flow:
        flow.seen_as()
        assert migrate(**variables)[0] != 0
    assert site.new.conntrack("-C").strip() == "0"
