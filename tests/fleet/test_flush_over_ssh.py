# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A flush of a firewall's table over SSH keeps the SSH connection that runs the task.

The gateway drops packets without a known connection, and accepts a new connection only with its first packet. A
session without an entry therefore hangs forever.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest
from pyroute2 import NFCTSocket

from tests.lab import Flow, Host, Lab, has_ipv6
from tests.ssh import BLIND_PYTHON, CAPABLE_PYTHON, OWN, PORTS, PYTHON, Operator, Server, skip_unless_possible

Task = dict[str, Any]

CONNTRACK = shutil.which("conntrack")
IPV4, IPV6, LINK_LOCAL = "192.0.2.1", "2001:db8::1", "fe80::1%gateway"
#: The gateway's address that the operator reaches through a router with destination NAT
BEHIND = "198.51.100.1"
REDIRECTED = 2222
#: The port on which a program on the gateway accepts connections and forwards them to the server.
PROXY_PORT = 443
ZONE, SSH_ZONE = 5, 7
#: A port that is tracked in the zone; the other flows use port 7.
ZONED_PORT = 9


#: Does the same as sslh, haproxy and socat: connects to the server itself and forwards what it reads.
PROXY = f"""
import asyncio, os, sys

async def pass_on(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()

async def accept(reader, writer):
    to_server = await asyncio.open_connection("127.0.0.1", 22)
    await asyncio.gather(pass_on(reader, to_server[1]), pass_on(to_server[0], writer), return_exceptions=True)

async def serve():
    server = await asyncio.start_server(accept, "{IPV4}", {PROXY_PORT})
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)

asyncio.run(serve())
"""


class Stage(NamedTuple):
    """A gateway to be flushed, and the operator on the other side of the link."""

    operator: Operator
    client: Host
    gateway: Host

    @contextmanager
    def others(self) -> Iterator[int]:
        """Open some dozens of flows and three SSH sessions, none of them the operator's session.

        Yield the number of flows besides the three sessions.
        """
        with self.gateway.entered(), NFCTSocket() as conntrack:
            conntrack.flush()  # the flows of earlier tests
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

    @contextmanager
    def proxy(self, *, seen: bool = True, contained: bool = False) -> Iterator[None]:
        """Run a program on the gateway in front of the server.

        :param seen: Its process is visible to the processes of the server.
        :param contained: It has mount and process namespaces of its own.
        """
        server = f"/proc/{self.operator.server.process.pid}/ns"
        among = ["nsenter", f"--mount={server}/mnt", f"--pid={server}/pid_for_children"] if seen else []
        among += OWN if contained else []
        process = self.gateway.start([*among, PYTHON, "-c", PROXY], stdin=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.communicate()  # it ends when its standard input ends

    def left(self) -> Left:
        """Return the flows in the table."""
        table = self.gateway.table()
        ssh = [flow for flow in table if flow["protocol"] == "tcp" and flow["reply"]["source_port"] in PORTS]
        return Left(ssh, [flow for flow in table if flow not in ssh])


class Left(NamedTuple):
    """The flows of a table that carry SSH, and all others."""

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
    """Load the rules of a careful administrator."""
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
    for port in (22, 2200, PROXY_PORT):
        firewall.accept(state="new", protocol="tcp", port=port)
    for port in (7, ZONED_PORT):
        firewall.accept(state="new", protocol="tcp", port=port)
        firewall.accept(state="new", protocol="udp", port=port)
    firewall.drop()
    firewall.drop("output", state="invalid")


def flush(name: str = "flush", **options: Any) -> Task:
    """Return a task with these keywords and options of the module."""
    task: Task = {key: options.pop(key) for key in ("async", "poll", "check_mode", "become") if key in options}
    return {"become": True, "name": name, "netops.conntrack.conntrack_flush": options or {"all": True}, **task}


def connection(name: str) -> Task:
    """Return a task that prints SSH_CONNECTION, and that fails if the connection no longer works."""
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
    "flush_task",
    [
        pytest.param(
            {"become": True, "name": "flush", "ansible.builtin.command": f"{CONNTRACK} -F"},
            marks=[
                pytest.mark.thorough,
                pytest.mark.skipif(not CONNTRACK, reason="the conntrack program is absent"),
            ],
        ),
        flush(all=True, keep_ssh=False),
    ],
    ids=["conntrack -F", "keep_ssh: false"],
)
def test_session_that_is_not_kept_breaks(stage: Stage, flush_task: Task) -> None:
    """A session whose entry is removed breaks. Without this test, the tests below would prove nothing."""
    tasks = [connection("before"), flush_task, connection("after")]
    done = stage.operator.play(tasks, target())
    assert {name: task.outcome for name, task in done.items()} == {"before": "ok", "flush": "unreachable"}


def check_survival(stage: Stage, variables: dict[str, Any], *, persist: bool = True, **options: Any) -> dict[str, Any]:
    """Flush everything, continue on the same connection, and return the result of the module."""
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
    [(True, True), pytest.param(False, True, marks=pytest.mark.thorough), (True, False)],
    ids=["pipelining", "files", "one connection per task"],
)
def test_with_sudo(stage: Stage, pipelining: bool, persist: bool) -> None:
    result = check_survival(stage, target(ansible_pipelining=pipelining), persist=persist)
    assert result["kept"] == 1


@pytest.mark.thorough
def test_with_su(stage: Stage) -> None:
    result = check_survival(stage, target(ansible_become_method="su"))
    assert result["kept"] == 1


@pytest.mark.thorough
def test_as_root(stage: Stage) -> None:
    result = check_survival(stage, target(ansible_user="root"), become=False)
    assert result["kept"] == 1


@pytest.mark.thorough
def test_with_one_capability(stage: Stage) -> None:
    """A user other than root may not read the processes of sshd, not even the one of this session."""
    result = check_survival(stage, target(ansible_python_interpreter=CAPABLE_PYTHON), become=False)
    assert result["kept"] == 1


@pytest.mark.parametrize(
    ("address", "port"),
    [
        (IPV6, 22),
        pytest.param(LINK_LOCAL, 22, marks=pytest.mark.thorough),
        pytest.param(IPV4, REDIRECTED, marks=pytest.mark.thorough),
        pytest.param(IPV6, 2200, marks=pytest.mark.thorough),
        (BEHIND, 22),
    ],
    ids=["IPv6", "link-local", "redirected", "another port", "NATed, in a zone"],
)
def test_other_addresses_and_ports(stage: Stage, address: str, port: int) -> None:
    result = check_survival(stage, target(address, ansible_port=port))
    assert result["kept"] == 1


@pytest.mark.parametrize("contained", [False, True], ids=["on the host", "in a container"])
def test_through_a_program_on_the_gateway(stage: Stage, contained: bool) -> None:
    """The peer of the server is the gateway itself."""
    tasks = [connection("before"), flush(), connection("after")]
    with stage.proxy(contained=contained), stage.others():
        done = stage.operator.play(tasks, target(ansible_port=PROXY_PORT))
    assert {name: task.outcome for name, task in done.items()} == dict.fromkeys(("before", "flush", "after"), "ok")
    assert done["after"].result["stdout"] == done["before"].result["stdout"]
    # The operator's connection to the program, and the program's connection to the server
    assert done["flush"].result["kept"] == 2


@pytest.mark.thorough
def test_through_a_hidden_program(stage: Stage) -> None:
    tasks = [connection("before"), flush(), connection("after")]
    with stage.proxy(seen=False), stage.others() as others:
        done = stage.operator.play(tasks, target(ansible_port=PROXY_PORT))
        left = stage.left()
    assert {name: task.outcome for name, task in done.items()} == {"before": "ok", "flush": "failed"}
    assert "comes from a program on this host (127.0.0.1 port" in done["flush"].result["msg"]
    assert len(left.others) >= others


@pytest.mark.thorough
def test_through_a_program_of_another_user(stage: Stage) -> None:
    """A task without root cannot see the program's connections, and removes nothing."""
    tasks = [connection("before"), flush(become=False), connection("after")]
    variables = target(ansible_port=PROXY_PORT, ansible_python_interpreter=CAPABLE_PYTHON)
    with stage.proxy(), stage.others() as others:
        done = stage.operator.play(tasks, variables)
        left = stage.left()
    assert {name: task.outcome for name, task in done.items()} == {"before": "ok", "flush": "failed"}
    assert "run as root on the host itself" in done["flush"].result["msg"]
    assert len(left.others) >= others


@pytest.mark.thorough
def test_in_the_background_through_a_program(stage: Stage) -> None:
    """The flush also keeps future connections to the program."""
    tasks = [connection("before"), flush(all=True, **{"async": 300, "poll": 1}), connection("after")]
    with stage.proxy(), stage.others():
        done = stage.operator.play(tasks, target(ansible_port=PROXY_PORT), persist=False)
    assert {name: task.outcome for name, task in done.items()} == dict.fromkeys(("before", "flush", "after"), "ok")


@pytest.mark.thorough
@pytest.mark.parametrize(
    "variables",
    [
        {"ansible_user": "root", "ansible_become": False},
        {"ansible_become_flags": "-H -S -n --preserve-env=SSH_CONNECTION"},
    ],
    ids=["as root", "with sudo that keeps SSH_CONNECTION"],
)
def test_without_proc(stage: Stage, variables: dict[str, Any]) -> None:
    """SSH_CONNECTION identifies the connection.

    It is unknown whether the task is a child of sshd, so the flush also keeps other connections to port 22.
    """
    task = flush()
    del task["become"]
    tasks = [connection("before"), task, connection("after")]
    variables = {"ansible_become": True, **variables, "ansible_python_interpreter": BLIND_PYTHON}
    with stage.others() as others:
        done = stage.operator.play(tasks, target(**variables))
        left = stage.left()
    assert {name: task.outcome for name, task in done.items()} == dict.fromkeys(("before", "flush", "after"), "ok")
    assert done["flush"].result["flushed"] >= others
    assert done["after"].result["stdout"] == done["before"].result["stdout"]
    assert {flow["reply"]["source_port"] for flow in left.ssh} == {22}
    assert left.others == []


@pytest.mark.thorough
def test_without_proc_and_variable(stage: Stage) -> None:
    """Nothing identifies the connection, and the module removes nothing."""
    with stage.others() as others:
        done = stage.operator.play([flush()], target(ansible_python_interpreter=BLIND_PYTHON))
        left = stage.left()
    assert done["flush"].outcome == "failed"
    assert "/proc is not mounted and SSH_CONNECTION is not set" in done["flush"].result["msg"]
    assert len(left.others) >= others


def test_except_excludes_the_connection(stage: Stage) -> None:
    """The user excludes the connection, because the module cannot always identify it."""
    options = {"all": True, "keep_ssh": False, "except": {"protocol": "tcp", "destination_port": [22, 2200]}}
    tasks = [connection("before"), flush(**options), connection("after")]
    with stage.others() as others:
        done = stage.operator.play(tasks, target())
        left = stage.left()
    assert {name: task.outcome for name, task in done.items()} == dict.fromkeys(("before", "flush", "after"), "ok")
    assert (done["flush"].result["flushed"] >= others, left.others) == (True, [])
    assert done["after"].result["stdout"] == done["before"].result["stdout"]


def test_match_includes_the_connection(stage: Stage) -> None:
    """Check mode predicts which connections are kept."""
    match = {"destination_port": 22}
    tasks = [flush("predict", match=match, check_mode=True), flush("flush", match=match), connection("after")]
    with stage.others() as others:
        done = stage.operator.play(tasks, target())
        left = stage.left()
    assert done["after"].outcome == "ok"
    for name in ("predict", "flush"):
        result = done[name].result
        # Two of the three other sessions use this port.
        assert (result["flushed"], result["kept"]) == (2, 1), name
    assert len(left.others) >= others


@pytest.mark.parametrize(
    ("user", "persist"),
    [pytest.param("operator", True, marks=pytest.mark.thorough), ("root", False)],
    ids=["with sudo", "one connection per task"],
)
def test_in_the_background(stage: Stage, user: str, persist: bool) -> None:
    """The task is no longer a child of sshd, and Ansible polls it through future connections: all SSH sessions stay."""
    options: dict[str, Any] = {"async": 300, "poll": 1, "become": user != "root"}
    result = check_survival(stage, target(ansible_user=user), persist=persist, **options)
    assert result["kept"] >= 3
