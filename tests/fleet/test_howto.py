# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pages that tell how to do something, one test each: all their commands are run, with real traffic under them."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import yaml

from tests import clock
from tests.fleet.pages import FOLDER, Page, Reader
from tests.lab import Flow, Gateway, Lab, Namespace
from tests.lab.handover import PORT, SERVER, Site
from tests.lab.namespace import SYSTEM_PATH
from tests.plays import Controller

OLD, NEW = Gateway.OUTSIDE
#: linux/netlink.h

Follow = Callable[[Mapping[str, Namespace]], Reader]


@pytest.fixture
def follow(request: pytest.FixtureRequest, tmp_path: Path) -> Follow:
    """Take the page that the test is named after to hosts by its names."""
    for program in ("bash", "conntrack", "nft", "nsenter"):
        if not shutil.which(program, path=SYSTEM_PATH):
            pytest.skip(f"the {program} program is absent")
    page = Page(FOLDER / f"{request.function.__name__.removeprefix('test_')}.rst")
    return partial(Reader, page, Controller(tmp_path))


def test_every_page_is_followed() -> None:
    pages = {path.stem for path in FOLDER.glob("howto_*.rst")}
    assert pages == {name.removeprefix("test_") for name in globals() if name.startswith("test_howto_")} != set()


def test_howto_stale_flows(gateway_lab: Gateway, follow: Follow) -> None:
    """The flows that were left behind take the new address and the new server with their next packets."""
    if not shutil.which("iptables-nft", path=SYSTEM_PATH):
        pytest.skip("the iptables-nft program is absent")
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
    before, after = rules.format(server="10.1.0.2", address=OLD), rules.format(server="10.1.0.2", address=NEW)
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
        assert trunk.seen_as().address == OLD, "that is what the page is about"
        with follow({"gw1": gateway}) as reader:
            reader.go_on(to="--reply-dst 203.0.113.2")
            assert trunk.seen_as().address == NEW
            assert connection.seen_as().address == OLD, "TCP was left alone"
            reader.go_on(to="8125")
            with pytest.raises(ConnectionRefusedError):
                metrics.seen_as()  # by the gateway itself, where nobody listens
            reader.go_on(to="--orig-port-src 5061")
            gateway.nft("flush chain ip nat postrouting")
            phone.send()  # nobody knows the way back to an address that was not translated
            gateway.nft(
                f"add rule ip nat postrouting ip saddr 10.0.0.0/8 oifname server snat to {NEW} comment "
                '"to the internet"'
            )
            blocked.seen_as()
            reader.go_on(to="netops.conntrack.flush")
            assert phone.seen_as().address == NEW
            metrics.seen_as()
            for flow in (connection, blocked):
                with pytest.raises((TimeoutError, ConnectionError)):
                    flow.seen_as(timeout=1)
            follow_again(gateway, before, trunk, log)
            gateway.nft(rules.format(server="10.2.0.2", address=NEW))
            reader.go_on(to="--reply-src 10.2.0.2")
            assert trunk.seen_as().address == NEW
            log.seen_as()
            reader.go_on()


def follow_again(gateway: Namespace, rules: str, *flows: Flow) -> None:
    """Let flows begin by these rules, and one more that no match of the page is about."""
    gateway.nft(rules)
    gateway.empty()
    for flow in flows:
        flow.seen_as()
    gateway.conntrack(
        "-I", *"-p tcp -s 10.1.0.2 -d 203.0.113.80 --sport 1 --dport 2 -t 600 --state ESTABLISHED".split()
    )


def test_howto_drain(gateway_lab: Gateway, follow: Follow) -> None:
    """The wait is over when clients have left; one that stays is sent to the new backend, which resets it."""
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
        reader.go_on(to="netops.conntrack.drain")
        with as_soon_as_one_listens(gateway, lambda: [client.close() for client in clients]):
            reader.run_next()
        reader.go_on(to="remove_rest")
        gateway.nft(before)
        with outside.tcp(OLD, 443, source_port=40003) as client:
            gateway.nft(after)
            reader.run_next()
            with pytest.raises(ConnectionResetError):
                client.seen_as()
        reader.go_on()


@contextmanager
def as_soon_as_one_listens(host: Namespace, act: Callable[[], Any]) -> Iterator[None]:
    """Do this as soon as a program has subscribed to events of conntrack and read the table, while the block is run."""

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
    """A connection goes on through the new gateway, and the far end sees the same address and port."""
    site = Site(lab)
    with site.client.tcp(SERVER["ipv4"], PORT, source_port=40001) as connection:
        before = connection.seen_as()
        assert before.address == "198.51.100.1"
        with follow({"gw1": site.old, "gw2": site.new, "core": site.client, "edge": site.server}) as reader:
            reader.go_on()
        assert connection.seen_as() == before


def test_howto_block_host(gateway_lab: Gateway, follow: Follow) -> None:
    """A connection that a new rule does not end is ended, that of another host is not, and all can be undone."""
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
        connection.seen_as()  # that is what the page is about
        gateway.nft("delete element inet filter blocked { 10.1.0.2 }")
        with follow({"gw1": gateway}) as reader:
            reader.go_on(to="conntrack -L -s 10.1.0.2")
            with pytest.raises(TimeoutError):
                connection.seen_as(timeout=2)
            others.seen_as()
            reader.go_on()
        host.tcp(gateway_lab.SERVER, gateway_lab.PORT).close()


def test_howto_watch_table(gateway_lab: Gateway, follow: Follow) -> None:
    """It is told how full a table is and who fills it, and the alarm goes off."""
    if not Path(sys.executable).with_name("ansible-rulebook").exists() or not shutil.which("java", path=SYSTEM_PATH):
        pytest.skip("ansible-rulebook, or the Java for it, is absent")
    gateway = gateway_lab.gateway
    number = int(gateway.sysctl("nf_conntrack_max")) // 500
    with follow({"gw1": gateway}) as reader:
        fill(gateway, number)
        reader.go_on()


def fill(namespace: Namespace, number: int) -> None:
    """So many flows of one host, which does not wait for an answer."""
    flow = "-A -t 600 -u SEEN_REPLY -p udp -s 10.1.0.2 -d 203.0.113.80 --dport 53"
    flows = "".join(f"{flow} --sport {1024 + port}\n" for port in range(number))
    namespace.conntrack("-R", "-", input=flows)


def test_howto_ci_facts(gateway_lab: Gateway, follow: Follow) -> None:
    """The pipeline is green, and red where there is more than there may be."""
    gateway = gateway_lab.gateway
    with follow({"gw1": gateway}) as reader:
        fill(gateway, 3)
        reader.go_on()


def test_howto_awx(follow: Follow) -> None:
    """What the page shows makes the context of an image, with the collection, ansible-core and SSH in it."""
    if not Path(sys.executable).with_name("ansible-builder").exists():
        pytest.skip("ansible-builder is absent (pip install ansible-builder)")
    with follow({}) as reader:
        reader.go_on()
    context = reader.folder / "context"
    recipe = (context / "Containerfile").read_text()
    assert "quay.io/fedora/fedora:42" in recipe
    assert "ansible-core >=2.19, <2.22" in recipe
    assert re.search(r"ansible-galaxy collection install .*requirements\.yml", recipe)
    assert yaml.safe_load((context / "_build/requirements.yml").read_text()) == {"collections": ["netops.conntrack"]}
    assert "openssh-clients" in (context / "_build/bindep.txt").read_text()
