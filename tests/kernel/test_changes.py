# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes of the ruleset and the network by programs, as the running kernel reports them."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import KernelError, NotPermitted
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.changes import (
    KINDS,
    Change,
    ChangeSubscription,
    subscribed,
)
from tests import clock
from tests.lab import Host, Lab, has_ipv6
from tests.modules import run

from .test_errors import drop_capabilities

pytestmark = pytest.mark.oldest_and_newest_kernel

RECEIVE_BUFFER = 1 << 20
RULES = """
table inet filter {
    set seen { type ipv4_addr; flags dynamic, timeout; timeout 10m; }
    chain output {
        type filter hook output priority 0; policy accept;
        ip daddr 10.1.0.2 udp dport 9 add @seen { ip daddr }
        ip daddr 10.1.0.2 udp dport 9 counter
    }
    chain forward {
        type filter hook forward priority 0; policy accept;
        ct state established,related accept
        ip saddr 10.1.0.66 drop
    }
}
table ip nat {
    chain postrouting { type nat hook postrouting priority 100; policy accept; oifname "wan" snat to 203.0.113.1; }
}
"""


class Watch:
    """A router between `lan` and `wan`, and a subscription to its changes."""

    def __init__(self, gateway: Host, subscriptions: list[ChangeSubscription]) -> None:
        self.gateway = gateway
        self._subscriptions = subscriptions

    def received(self) -> list[Change]:
        """Return the messages that have arrived. The kernel sends them before the system call of the change returns."""
        return [change for subscription in self._subscriptions for change in subscription.receive(100_000)]

    def run(self, command: str, text: str | None = None, check: bool = True) -> str:
        """Run a program and return its output."""
        return self.gateway.run(command.split(), input=text, check=check).stdout

    def changes(self, command: str, text: str | None = None, check: bool = True) -> list[Change]:
        """Return the changes that a program makes."""
        self.run(command, text, check)
        return self.received()

    def counts(self, command: str, expected: Mapping[str, int] | None = None) -> dict[str, int]:
        """Return the numbers of changes by kind that a program makes. The expected changes may come later."""
        self.received()  # late messages of earlier changes
        found = Counter(change.kind for change in self.changes(command))

        def is_complete() -> bool:
            found.update(change.kind for change in self.received())
            return all(found[kind] >= count for kind, count in (expected or {}).items())

        with contextlib.suppress(TimeoutError):  # the caller compares them
            clock.wait_until(is_complete, seconds=60)
        return dict(found)


def subscribe(lab: Lab, kinds: tuple[str, ...] = KINDS, receive_buffer: int = RECEIVE_BUFFER) -> Iterator[Watch]:
    gateway, lan, wan = lab.host("gateway", forwarding=True), lab.host("lan"), lab.host("wan")
    lab.link(gateway, lan, ["10.1.0.1/24", "2001:db8:1::1/64"], ["10.1.0.2/24"])
    lab.link(gateway, wan, ["203.0.113.1/24"], ["203.0.113.254/24"])
    gateway.wait_for_links()
    if has_ipv6():
        gateway.sysctl("net.ipv6.conf.default.addr_gen_mode", 1)  # new links get no addresses later
    with gateway.entered():
        subscription = subscribed(kinds, receive_buffer)
        subscriptions = subscription.__enter__()
    try:
        watch = Watch(gateway, subscriptions)
        assert watch.received() == []
        yield watch
    finally:
        subscription.__exit__(None, None, None)


@pytest.fixture
def watch(lab: Lab) -> Iterator[Watch]:
    yield from subscribe(lab)


def test_a_batch_of_nft_is_one_change(watch: Watch) -> None:
    (change,) = watch.changes("nft -f -", RULES)
    assert (change.kind, change.lost) == ("ruleset", False)
    assert change.process is not None
    assert change.process.name == "nft"
    assert change.process.pid > 1
    for command in ("add element inet filter seen { 10.1.0.9 }", "delete table ip nat"):
        assert watch.counts(f"nft {command}") == {"ruleset": 1}, command
    for command in ("list ruleset", "-c add table ip other"):
        assert watch.counts(f"nft {command}") == {}, command
    refused = "add table ip other\nadd rule ip nothing here accept\n"
    assert watch.changes("nft -f -", refused, check=False) == []


def test_packets_that_fill_a_set_are_not_a_change(watch: Watch) -> None:
    watch.gateway.nft(RULES)
    watch.received()
    with watch.gateway.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("10.1.0.2", 9))
    assert watch.received() == []
    assert "elements = { 10.1.0.2" in watch.run("nft list set inet filter seen")


def test_iptables_nft(watch: Watch) -> None:
    (change,) = watch.changes("iptables-nft -A FORWARD -s 10.1.0.66 -j DROP")
    assert (change.kind, change.process is not None and change.process.name) == ("ruleset", "iptables-nft")
    rules = "".join(f"-A FORWARD -s 10.1.0.{number} -j DROP\n" for number in range(2, 200))
    restored = watch.changes("iptables-nft-restore", f"*filter\n:FORWARD ACCEPT [0:0]\n{rules}COMMIT\n")
    assert [change.kind for change in restored] == ["ruleset"]
    assert watch.counts("iptables-nft -S") == {}


#: Commands of ip(8), with the changes that each command makes.
COMMANDS = [
    ("address add 203.0.113.7/24 dev wan", {"address": 1}),
    ("address change 203.0.113.7/24 dev wan valid_lft 1000 preferred_lft 900", {}),
    ("address delete 203.0.113.7/24 dev wan", {"address": 1}),
    ("address add 10.9.0.1/24 dev wan", {"address": 1, "route": 1}),
    # Without nodad, the kernel would send the message later
    ("-6 address add 2001:db8:9::1/64 dev wan", {"address": 1, "route": 1}),
    ("-6 address change 2001:db8:9::1/64 dev wan valid_lft 1000 preferred_lft 900", {}),
    ("route add 192.0.2.0/24 via 203.0.113.254", {"route": 1}),
    ("route replace 192.0.2.0/24 via 203.0.113.253", {"route": 1}),
    ("route delete 192.0.2.0/24", {"route": 1}),
    ("-6 route add 2001:db8:77::/48 via 2001:db8:1::2", {"route": 1}),
    ("nexthop add id 5 via 203.0.113.254 dev wan", {"route": 1}),
    ("rule add from 10.5.0.0/16 table 100", {"rule": 1}),
    ("rule delete from 10.5.0.0/16 table 100", {"rule": 1}),
    ("-6 rule add from 2001:db8:5::/48 table 100", {"rule": 1}),
    ("link add bridge type bridge", {}),
    ("link set dev bridge mtu 1400", {}),
    ("link set dev bridge alias uplink", {}),
    ("link set dev bridge name uplink", {}),
    ("link set dev uplink up", {"link": 1}),
    ("link set dev uplink down", {"link": 1}),
    ("link set dev wan group 7", {"link": 1}),
    ("link set dev lan master uplink", {"link": 1}),
    ("link set dev lan nomaster", {"link": 1}),
    ("link delete uplink", {}),
    ("neighbour add 203.0.113.9 lladdr 02:00:00:00:00:09 dev wan", {}),
]


def test_commands_of_ip(watch: Watch) -> None:
    found = []
    commands = [(command, counts) for command, counts in COMMANDS if has_ipv6() or not command.startswith("-6")]
    for command, counts in commands:
        of_command = watch.counts(f"ip {command}", counts)
        # A new master also changes routes of the link
        found.append((command, {kind: of_command.get(kind, 0) for kind in counts or of_command}))
    assert found == commands


def test_link_down_and_link_up_are_one_change_each(watch: Watch) -> None:
    """The kernel removes the IPv4 routes of the link without a message about a route."""
    watch.run("ip route add 192.0.2.0/24 via 203.0.113.254")
    if has_ipv6():
        watch.gateway.sysctl("net.ipv6.conf.wan.disable_ipv6", 1)
    watch.received()
    assert watch.counts("ip link set dev wan down", {"link": 1}) == {"link": 1}
    assert "192.0.2.0" not in watch.run("ip route")
    assert watch.counts("ip link set dev wan up", {"link": 1})["link"] == 1


def test_links_that_are_bridge_ports_are_ignored(watch: Watch) -> None:
    """Packets arrive on the bridge, so the addresses and routes of the link are unused while it is a port."""
    watch.run("ip link add bridge up type bridge")
    watch.received()
    for command in (
        "link add veth0 type veth peer name veth1",
        "link set dev veth0 master bridge",
        "link set dev veth0 up",
        "address add 10.8.0.1/24 dev veth0",
        "link set dev veth0 down",
        "link delete veth0",
        "link add veth0 type veth peer name veth1",
        "link set dev veth0 master bridge",
        "link set dev veth0 up",
    ):
        assert watch.counts(f"ip {command}") == {}, command
    assert watch.counts("ip link delete bridge", {"link": 2})["link"] == 2, "the bridge and its port"
    made = {"address": 1, "route": 1}
    assert watch.counts("ip address add 10.8.0.1/24 dev veth0", made) == made


@pytest.mark.parametrize("kind", KINDS)
def test_only_selected_kinds_are_received(lab: Lab, kind: str) -> None:
    for watch in subscribe(lab, (kind,)):
        watch.gateway.nft("add table ip other")
        for command in ("address add 10.9.0.1/24 dev wan", "rule add table 100", "link set dev lan group 7"):
            watch.run(f"ip {command}")
        assert {change.kind for change in watch.received()} == {kind}


def test_evaluation_of_flows_is_not_a_change(tun: None, watch: Watch) -> None:
    """Otherwise, a flush after each change would never end."""
    watch.gateway.nft(RULES)
    entry = {
        "protocol": "udp",
        "original": {"source": "10.1.0.66", "destination": "203.0.113.80", "source_port": 1, "destination_port": 53},
        "nat": {"source": {"address": "203.0.113.1"}},
        "timeout": 600,
    }
    run(watch.gateway, "conntrack_entries", entries=[entry])
    assert [change.kind for change in watch.received()] == ["ruleset"]
    result = run(watch.gateway, "conntrack_flush", stale=True)
    assert (result["flushed"], result["verdicts"]["refused"]) == (1, 1)
    assert watch.received() == []


def test_overrun_is_reported_for_each_kind(lab: Lab) -> None:
    for watch in subscribe(lab, ("rule", "link"), receive_buffer=1):
        rules = "".join(f"rule add from 10.5.{number}.0/24 table 100\n" for number in range(200))
        changes = watch.changes("ip -batch -", rules)
        assert {change.kind for change in changes if change.lost} == {"rule", "link"}
        assert sum(change.kind == "rule" for change in changes) < 200
        assert watch.changes("ip rule add table 101") == [Change("rule")]


def test_without_the_capability(lab: Lab) -> None:
    gateway = lab.host("gateway")
    name, code, text = gateway.call(failure)
    assert (name, code) == (NotPermitted.__name__, errno.EPERM)
    assert text.startswith("reading the ruleset: ")
    assert "CAP_NET_ADMIN" in text


def failure() -> tuple[str, int, str]:
    """Return the error of a subscription without any capability. Call this in a child process."""
    drop_capabilities()
    try:
        with subscribed(KINDS, RECEIVE_BUFFER):
            return "none", 0, ""
    except KernelError as error:
        return type(error).__name__, error.errno, str(error)
