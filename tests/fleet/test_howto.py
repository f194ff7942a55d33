# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Follow the how-to pages, one test each: all their commands are run, with real traffic."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import yaml

from tests import clock, programs
from tests.fleet.pages import FOLDER, Page, Reader
from tests.lab import Flow, Gateway, Lab, Machine, Namespace
from tests.lab.handover import PORT, SERVER, Site
from tests.plays import Controller

OLD, NEW = Gateway.OUTSIDE
#: linux/netlink.h

Follow = Callable[..., Reader]


@pytest.fixture
def follow(request: pytest.FixtureRequest, tmp_path: Path) -> Follow:
    """Follow the page after which the test is named, on hosts with the page's names."""
    programs.require("bash", "conntrack", "nft", "nsenter")
    page = Page(FOLDER / f"{request.function.__name__.removeprefix('test_')}.rst")
    return partial(Reader, page, Controller(tmp_path))


def test_every_page_is_followed() -> None:
    pages = {path.stem for path in FOLDER.glob("howto_*.rst")}
    assert pages == {name.removeprefix("test_") for name in globals() if name.startswith("test_howto_")} != set()


def test_howto_stale_flows(tun: None, gateway_lab: Gateway, follow: Follow) -> None:
    """The stale flows use the new address and the new server from their next packets."""
    programs.require("iptables-nft")
    gateway, clients, outside = gateway_lab.gateway, (gateway_lab.client1, gateway_lab.client2), gateway_lab.server
    gateway.firewall.clear("snat")
    rules = """
        table ip nat
        delete table ip nat
        table ip nat {{
            map services {{
                type inet_service : ipv4_addr
                elements = {{ 514 : {server} }}
            }}
            chain prerouting {{
                type nat hook prerouting priority dstnat; policy accept;
                ip daddr 203.0.113.1 dnat to udp dport map @services
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr 10.0.0.0/8 oifname "server" snat to {address} comment "to the internet"
            }}
        }}
    """
    before, after = rules.format(server="10.1.0.14", address=OLD), rules.format(server="10.1.0.14", address=NEW)
    gateway.nft(before)
    gateway.nft(
        """
        table inet filter {
            chain forward {
                type filter hook forward priority filter; policy accept;
                ct state established,related accept
            }
        }
        """
    )
    outside.mirror(5060)
    gateway_lab.client1.address("gateway", "10.1.0.14/24")
    gateway_lab.client2.address("gateway", "10.2.0.14/24", "10.2.0.25/24")
    for server in clients:
        server.mirror(514)
        server.mirror(8125)
    with (
        clients[0].udp(gateway_lab.SERVER, 5060, source_port=5060) as trunk,
        clients[0].tcp(gateway_lab.SERVER, gateway_lab.PORT, source_port=40001) as connection,
        clients[0].udp(gateway_lab.SERVER, 5060, source_port=5061) as phone,
        clients[1].udp(gateway_lab.SERVER, 5060, source_port=5060) as blocked,
        outside.udp(OLD, 514, source_port=40514) as log,
        outside.udp(OLD, 8125, source_port=48125) as metrics,
    ):
        log.seen_as()
        assert [flow.seen_as().address for flow in (trunk, connection)] == [OLD, OLD]
        gateway.nft(after)
        assert trunk.seen_as().address == OLD, "the flow must be stale"
        with follow({"gw1": gateway}) as reader:
            reader.run_commands(to="--reply-dst 203.0.113.2")
            assert trunk.seen_as().address == NEW
            assert connection.seen_as().address == OLD, "the TCP flow must not change"
            reader.run_commands(to="8125")
            with pytest.raises(ConnectionRefusedError):
                metrics.seen_as()  # by the gateway itself, which has no listener on this port
            reader.run_commands(to="--orig-port-src 5061")
            gateway.nft("flush chain ip nat postrouting")
            phone.send()  # the server has no route to a source address without NAT
            gateway.nft(
                f"add rule ip nat postrouting ip saddr 10.0.0.0/8 oifname server snat to {NEW} comment "
                '"to the internet"'
            )
            blocked.seen_as()
            reader.run_commands(to="netops.conntrack.flush")
            assert phone.seen_as().address == NEW
            metrics.seen_as()
            for flow in (connection, blocked):
                with pytest.raises((TimeoutError, ConnectionError)):
                    flow.seen_as(timeout=1)
            follow_again(gateway, before, trunk, log)
            gateway.nft(rules.format(server="10.2.0.14", address=NEW))
            reader.run_commands(to="--reply-src 10.2.0.14")
            assert trunk.seen_as().address == NEW
            log.seen_as()
            reader.run_commands()


def follow_again(gateway: Namespace, rules: str, *flows: Flow) -> None:
    """Start flows with these rules, and one more flow that no match of the page concerns."""
    gateway.nft(rules)
    gateway.empty()
    for flow in flows:
        flow.seen_as()
    gateway.conntrack(
        "-I", *"-p tcp -s 10.1.0.2 -d 203.0.113.80 --sport 1 --dport 2 -t 600 --state ESTABLISHED".split()
    )


def test_howto_drain(gateway_lab: Gateway, follow: Follow) -> None:
    """The wait ends when the clients have left; the new backend resets the connection that remains."""
    gateway, outside = gateway_lab.gateway, gateway_lab.server
    rules = """
        table ip nat
        delete table ip nat
        table ip nat {{
            chain prerouting {{
                type nat hook prerouting priority dstnat; policy accept;
                ip daddr 203.0.113.1 tcp dport 443 dnat to {backend}
            }}
        }}
    """
    before, after = (rules.format(backend=address) for address in Gateway.CLIENTS)
    for backend in (gateway_lab.client1, gateway_lab.client2):
        backend.mirror(443)
    gateway.nft(before)
    clients = [outside.tcp(OLD, 443, source_port=40001 + number) for number in range(2)]
    gateway.nft(after)
    with follow({"gw1": gateway}) as reader:
        reader.run_commands(to="netops.conntrack.drain")
        with once_a_process_listens(gateway, lambda: [client.close() for client in clients]):
            reader.run_next()
        reader.run_commands(to="remove_rest")
        gateway.nft(before)
        with outside.tcp(OLD, 443, source_port=40003) as client:
            gateway.nft(after)
            reader.run_next()
            with pytest.raises(ConnectionResetError):
                client.seen_as()
        reader.run_commands()


@contextmanager
def once_a_process_listens(host: Namespace, act: Callable[[], Any]) -> Iterator[None]:
    """Call `act` as soon as a process has subscribed to events and read the table, while the block runs."""

    def wait() -> None:
        clock.wait_until(lambda: over.is_set() or any(host.subscriptions()))
        if not over.is_set():
            host.wait_for_reader()
        act()

    over = Event()
    thread = Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.thorough
def test_howto_move_gateway(lab: Lab, follow: Follow) -> None:
    """A connection continues through the new gateway, and the far end receives the same address and port."""
    site = Site(lab)
    with site.client.tcp(SERVER["ipv4"], PORT, source_port=40001) as connection:
        before = connection.seen_as()
        assert before.address == "198.51.100.1"
        with follow({"gw1": site.old, "gw2": site.new, "core": site.client, "edge": site.server}) as reader:
            reader.run_commands()
        assert connection.seen_as() == before


def test_howto_block_host(gateway_lab: Gateway, follow: Follow) -> None:
    """A connection that outlives a new rule is removed, that of another host is kept, and every step can be undone."""
    gateway, host, other = gateway_lab.gateway, gateway_lab.client1, gateway_lab.client2
    gateway.nft(
        """
        table inet filter {
            set blocked { type ipv4_addr; }
            chain forward {
                type filter hook forward priority filter; policy drop;
                ct state established,related accept
                ip saddr @blocked drop
                ip daddr @blocked drop
                ip saddr 10.0.0.0/8 accept
            }
        }
        """
    )
    with (
        host.tcp(gateway_lab.SERVER, gateway_lab.PORT, source_port=40001) as connection,
        other.tcp(gateway_lab.SERVER, gateway_lab.PORT) as others,
    ):
        connection.seen_as()
        gateway.nft("add element inet filter blocked { 10.1.0.2 }")
        connection.seen_as()  # the subject of the page
        gateway.nft("delete element inet filter blocked { 10.1.0.2 }")
        with follow({"gw1": gateway}) as reader:
            reader.run_commands(to="conntrack -L -s 10.1.0.2")
            with pytest.raises(TimeoutError):
                connection.seen_as(timeout=2)
            others.seen_as()
            reader.run_commands()
        host.tcp(gateway_lab.SERVER, gateway_lab.PORT).close()


@pytest.mark.thorough
def test_howto_watch_table(gateway_lab: Gateway, follow: Follow) -> None:
    """The page shows the usage of the table and the hosts with most entries, and the alarm goes off."""
    programs.require("java")
    if not Path(sys.executable).with_name("ansible-rulebook").exists():
        pytest.skip("ansible-rulebook is absent (pip install ansible-rulebook)")
    gateway = gateway_lab.gateway
    number = int(gateway.sysctl("nf_conntrack_max")) // 500
    with follow({"gw1": gateway}) as reader:
        fill(gateway, number)
        reader.run_commands()


def test_howto_snat_ports(gateway_lab: Gateway, follow: Follow) -> None:
    """A client has all ports that the rule of the gateway allows, and its next packets are dropped."""
    gateway = gateway_lab.gateway
    gateway.firewall.clear("snat")
    gateway.nft(
        "table ip range { chain postrouting { type nat hook postrouting priority srcnat\n"
        f'oifname "server" meta l4proto udp snat to {OLD}:1024-1033\n}}\n}}'
    )
    with ExitStack() as stack:
        for _flow in range(12):
            stack.enter_context(gateway_lab.client1.udp(gateway_lab.SERVER, gateway_lab.PORT)).send()
        with follow({"gw1": gateway}) as reader:
            reader.run_commands()


@pytest.mark.thorough
def test_howto_line_use(gateway_lab: Gateway, follow: Follow) -> None:
    """The client that sends most now comes first, although the other one has sent more before."""
    gateway, server = gateway_lab.gateway, gateway_lab.server
    server.mirror(5060)
    over = Event()
    with (
        follow({"gw1": gateway}) as reader,
        gateway_lab.client1.udp(gateway_lab.SERVER, 5060, source_port=4001) as old,
        gateway_lab.client2.udp(gateway_lab.SERVER, 5060, source_port=4002) as new,
    ):
        reader.run_commands(to="rates.yml")
        for _turn in range(500):
            old.send(bytes(1000))

        def send() -> None:
            for turn in count():
                if over.wait(0.005):
                    return
                new.send(bytes(1000))
                if not turn % 100:
                    old.send()

        sender = Thread(target=send, name="sender")
        sender.start()
        try:
            reader.run_commands()
        finally:
            over.set()
            sender.join()


def fill(namespace: Namespace, number: int) -> None:
    """Create this number of flows of one host, which does not wait for a reply."""
    flow = "-A -t 600 -u SEEN_REPLY -p udp -s 10.1.0.2 -d 203.0.113.80 --dport 53"
    flows = "".join(f"{flow} --sport {1024 + port}\n" for port in range(number))
    namespace.conntrack("-R", "-", input=flows)


@pytest.mark.thorough
def test_howto_ci_facts(gateway_lab: Gateway, follow: Follow) -> None:
    """The pipeline succeeds, and fails if there are more entries than allowed."""
    gateway = gateway_lab.gateway
    with follow({"gw1": gateway}) as reader:
        fill(gateway, 3)
        reader.run_commands()


def test_howto_prometheus(gateway_lab: Gateway, follow: Follow, tmp_path: Path) -> None:
    """The file has the flows of the gateway, and promtool accepts all files of the page."""
    collected = "/var/lib/prometheus/node-exporter"
    programs.require("promtool", "prometheus-node-exporter")
    gateway = gateway_lab.gateway
    with follow({"gw1": gateway}, folders=[collected]) as reader:
        (reader.folder / ".ansible").mkdir()
        (reader.folder / ".ansible/collections").symlink_to(tmp_path)
        flows = [
            gateway_lab.client1.udp(gateway_lab.SERVER, gateway_lab.PORT, source_port=n) for n in (5060, 5061, 5062)
        ]
        for flow in flows:
            assert flow.seen_as().address == OLD
        reader.run_commands()


#: A program with this name that answers on a port of an address.
PROGRAM = """
import socket, sys
open("/proc/self/comm", "w").write(sys.argv[1])
with socket.create_server((sys.argv[2], int(sys.argv[3]))) as server:
    print("ready", flush=True)
    connection, _peer = server.accept()
    while data := connection.recv(1024):
        connection.sendall(b"192.0.2.10 1")
"""


def test_howto_flow_owner(lab: Lab, follow: Follow) -> None:
    """The owners of a flow to the host, and of one to a container, are found, as ss does."""
    programs.require("ss")
    host, client, container = lab.host("host1", forwarding=True), lab.host("client"), lab.host("container")
    lab.link(client, host, ["192.0.2.10/24"], ["192.0.2.1/24"])
    lab.link(container, host, ["172.17.0.2/16"], ["172.17.0.1/16"])
    container.route("default", "172.17.0.1")
    host.firewall.dnat("172.17.0.2", 80, destination="192.0.2.1", protocol="tcp", port=8080)
    for place, name, address, port in (
        (host, "postgres", "192.0.2.1", "5432"),
        (container, "nginx", "172.17.0.2", "80"),
    ):
        program = place.start([sys.executable, "-c", PROGRAM, name, address, port])
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
    with client.tcp("192.0.2.1", 5432, source_port=40001) as one, client.tcp("192.0.2.1", 8080, 40002) as other:
        one.seen_as()
        other.seen_as()
        with follow({"host1": host}) as reader:
            reader.run_commands()


def test_howto_awx(follow: Follow) -> None:
    """The files of the page create the build context of an image with the collection, ansible-core and SSH."""
    if not Path(sys.executable).with_name("ansible-builder").exists():
        pytest.skip("ansible-builder is absent (pip install ansible-builder)")
    with follow({}) as reader:
        reader.run_commands()
    context = reader.folder / "context"
    recipe = (context / "Containerfile").read_text()
    assert "quay.io/fedora/fedora:42" in recipe
    assert "ansible-core >=2.19, <2.22" in recipe
    assert re.search(r"ansible-galaxy collection install .*requirements\.yml", recipe)
    assert yaml.safe_load((context / "_build/requirements.yml").read_text()) == {"collections": ["netops.conntrack"]}
    assert "openssh-clients" in (context / "_build/bindep.txt").read_text()


@pytest.mark.thorough
def test_howto_all_namespaces(gateway_lab: Gateway, follow: Follow) -> None:
    """The page finds the connections of two containers on the host and in each, and ends them."""
    named = {"blue": gateway_lab.client1, "red": gateway_lab.client2}
    for namespace in named.values():
        namespace.firewall.track()
        namespace.tcp(gateway_lab.SERVER, gateway_lab.PORT).seen_as()
    with Machine(gateway_lab.gateway, named) as machine, follow({"node1": machine}) as reader:
        reader.run_commands(to="flush.yml -i inventory.yml --check")
        reader.run_next()
        assert all(namespace.count() for namespace in named.values()), "check mode removed entries"
        reader.run_commands()
