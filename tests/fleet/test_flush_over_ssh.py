# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever flushes a firewall's table over SSH is still logged in afterwards.

The gateway drops what belongs to no connection that it knows, and lets a connection begin by its first packet
only: a session whose entry is gone hangs for good.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
from pyroute2 import NFCTSocket

from tests.lab import Flow, Host, Lab, has_ipv6
from tests.lab.namespace import SYSTEM_PATH
from tests.ssh import CAPABLE_PYTHON, PORTS, PYTHON, Operator, Server, skip_unless_possible

Task = dict[str, Any]

CONNTRACK = shutil.which("conntrack", path=SYSTEM_PATH)
IPV4, IPV6, LINK_LOCAL = "192.0.2.1", "2001:db8::1", "fe80::1%gateway"
#: The gateway's address that the operator reaches through a router that translates
BEHIND = "198.51.100.1"
REDIRECTED = 2222
ZONE, SSH_ZONE = 5, 7
#: Seen and tracked in the zone; the others' port is 7.
ZONED_PORT = 9


class Stage(NamedTuple):
    """A gateway to be flushed, and the operator at the other end of the wire."""

    operator: Operator
    client: Host
    gateway: Host

    @contextmanager
    def others(self) -> Iterator[int]:
        """Some dozens of flows, and three who are logged in, none of them the operator's session.

        How many flows there are besides the three.
        """
        with self.gateway.entered(), NFCTSocket() as conntrack:
            conntrack.flush()  # what earlier tests have left
        flows: list[Flow] = []
        with ExitStack() as stack:
            for address in (IPV4, IPV6):
                flows += [self.client.tcp(address, 7) for _unused in range(8)]
                flows += [self.client.udp(address, port) for port in (7, ZONED_PORT) for _unused in range(6)]
            for flow in flows:
                stack.callback(flow.close)
                flow.seen_as()
            sessions = [("bystander", IPV4, 22), ("bystander", IPV6, 2200), ("operator", IPV4, 22)]
            stack.enter_context(self.operator.logged_in(*sessions))
            yield len(flows)

    def left(self) -> Left:
        """What there is in the table."""
        table = self.gateway.table()
        ssh = [flow for flow in table if flow["protocol"] == "tcp" and flow["reply"]["source_port"] in PORTS]
        return Left(ssh, [flow for flow in table if flow not in ssh])


class Left(NamedTuple):
    """The flows of a table that carry SSH, and those that do not."""

    ssh: list[dict[str, Any]]
    others: list[dict[str, Any]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    skip_unless_possible()
    if not has_ipv6():
        pytest.skip("this kernel has no IPv6")
    with Lab() as lab:
        client, gateway = lab.host("client"), lab.host("gateway")
        router = lab.host("router", forwarding=True)
        lab.link(
            client,
            gateway,
            ["192.0.2.2/24", "2001:db8::2/64", "fe80::2/64"],
            [f"{IPV4}/24", f"{IPV6}/64", "fe80::1/64"],
        )
        lab.link(client, router, ["10.0.0.2/24"], ["10.0.0.1/24"])
        lab.link(router, gateway, ["198.51.100.2/24"], [f"{BEHIND}/24"])
        client.route("198.51.100.0/24", "10.0.0.1")
        router.firewall.masquerade(out_interface="gateway")
        gateway.mirror(7)
        gateway.mirror(ZONED_PORT)
        protect(gateway)
        yield Stage(Operator(client, Server(gateway, tmp_path_factory.mktemp("ssh"))), client, gateway)


def protect(gateway: Host) -> None:
    """The rules of a careful administrator."""
    gateway.sysctl("nf_conntrack_tcp_loose", 0)
    firewall = gateway.firewall
    for port, address in ((REDIRECTED, IPV4), (REDIRECTED, IPV6)):
        firewall.dnat(address, 22, protocol="tcp", port=port)
    firewall.zone(ZONE, protocol="udp", port=ZONED_PORT)
    firewall.zone(SSH_ZONE, in_interface="router")
    firewall.zone(SSH_ZONE, chain="raw_output", out_interface="router")
    firewall.accept(state="established")
    firewall.accept(state="related")
    firewall.accept(protocol="icmpv6")
    for port in (22, 2200):
        firewall.accept(state="new", protocol="tcp", port=port)
    for port in (7, ZONED_PORT):
        firewall.accept(state="new", protocol="tcp", port=port)
        firewall.accept(state="new", protocol="udp", port=port)
    firewall.drop()
    firewall.drop("output", state="invalid")


def flush(name: str = "flush", **options: Any) -> Task:
    """A task by its keywords and the module's options."""
    task: Task = {key: options.pop(key) for key in ("async", "poll", "check_mode", "become") if key in options}
    return {"become": True, "name": name, "netops.conntrack.conntrack_flush": options or {"all": True}, **task}


def connection(name: str) -> Task:
    """Which connection the tasks come through; and that they still come through."""
    return {"name": name, "ansible.builtin.command": "printenv SSH_CONNECTION"}


def target(address: str = IPV4, **variables: Any) -> dict[str, Any]:
    return {
        "ansible_host": address,
        "ansible_user": "operator",
        "ansible_pipelining": True,
        "ansible_python_interpreter": PYTHON,
        **variables,
    }


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(
            {"become": True, "name": "flush", "ansible.builtin.command": f"{CONNTRACK} -F"},
            marks=pytest.mark.skipif(not CONNTRACK, reason="the conntrack program is absent"),
        ),
        flush(all=True, keep_ssh=False),
    ],
    ids=["conntrack -F", "keep_ssh: false"],
)
def test_a_session_that_is_not_spared_is_cut(stage: Stage, cut: Task) -> None:
    """The trap is real; without this the tests below would prove nothing."""
    tasks = [connection("before"), cut, connection("after")]
    done = stage.operator.play(tasks, target(), ServerAliveInterval="1")
    assert {name: task.outcome for name, task in done.items()} == {"before": "ok", "flush": "unreachable"}


def check_survival(stage: Stage, variables: dict[str, Any], *, persist: bool = True, **options: Any) -> dict[str, Any]:
    """Flush everything, and carry on by the same connection; what the module returned."""
    tasks = [connection("before"), flush(**options), connection("after")]
    with stage.others() as others:
        done = stage.operator.play(tasks, variables, persist)
        left = stage.left()
    assert {name: task.outcome for name, task in done.items()} == dict.fromkeys(("before", "flush", "after"), "ok")
    result = done["flush"].result
    assert result["flushed"] >= others
    assert left.others == []
    if persist:
        assert done["after"].result["stdout"] == done["before"].result["stdout"]
        assert len(left.ssh) == result["kept"]
    return result


@pytest.mark.parametrize(
    ("pipelining", "persist"),
    [(True, True), (False, True), (True, False)],
    ids=["pipelining", "files", "a connection each"],
)
def test_with_sudo(stage: Stage, pipelining: bool, persist: bool) -> None:
    result = check_survival(stage, target(ansible_pipelining=pipelining), persist=persist)
    assert result["kept"] == 1


def test_with_su(stage: Stage) -> None:
    result = check_survival(stage, target(ansible_become_method="su"))
    assert result["kept"] == 1


def test_as_root_itself(stage: Stage) -> None:
    result = check_survival(stage, target(ansible_user="root"), become=False)
    assert result["kept"] == 1


def test_with_one_capability(stage: Stage) -> None:
    """A user who is not root may not look into the processes of sshd, not even into this one."""
    result = check_survival(stage, target(ansible_python_interpreter=CAPABLE_PYTHON), become=False)
    assert result["kept"] == 1


@pytest.mark.parametrize(
    ("address", "port"),
    [(IPV6, 22), (LINK_LOCAL, 22), (IPV4, REDIRECTED), (IPV6, 2200), (BEHIND, 22)],
    ids=["IPv6", "link-local", "redirected", "another port", "translated, in a zone"],
)
def test_by_another_way(stage: Stage, address: str, port: int) -> None:
    result = check_survival(stage, target(address, ansible_port=port))
    assert result["kept"] == 1


def test_when_the_match_names_it(stage: Stage) -> None:
    """Check mode says beforehand what is kept."""
    match = {"destination_port": 22}
    tasks = [flush("predict", match=match, check_mode=True), flush("flush", match=match), connection("after")]
    with stage.others() as others:
        done = stage.operator.play(tasks, target())
        left = stage.left()
    assert done["after"].outcome == "ok"
    for name in ("predict", "flush"):
        result = done[name].result
        # Two of the three others who are logged in came to this port.
        assert (result["flushed"], result["kept"]) == (2, 1), name
    assert len(left.others) >= others


@pytest.mark.parametrize(
    ("user", "persist"), [("operator", True), ("root", False)], ids=["with sudo", "a connection each"]
)
def test_in_the_background(stage: Stage, user: str, persist: bool) -> None:
    """The task is no child of sshd any more and is asked after through connections to come: all of them stay."""
    options: dict[str, Any] = {"async": 30, "poll": 1, "become": user != "root"}
    result = check_survival(stage, target(ansible_user=user), persist=persist, **options)
    assert result["kept"] >= 3
