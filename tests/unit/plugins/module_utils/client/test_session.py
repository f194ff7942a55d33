# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection that is not recognised as one's own is cut by one's own flush."""

from __future__ import annotations

import socket
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterable, Tuple

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import session
from ansible_collections.netops.conntrack.plugins.module_utils.client.session import (
    Endpoints,
    ancestors,
    carried_by,
    own_connections,
    parse_ssh_connection,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.shape import parse

#: local address, local port, peer's address, peer's port
Ends = Tuple[str, int, str, int]
#: and the state and the inode
Row = Tuple[Ends, str, int]

HOME = ("HOME=/",)
ESTABLISHED, TIME_WAIT, LISTENING = "01", "06", "0A"
MINE = ("192.0.2.1", 22, "198.51.100.7", 50000)
MINE_IN_WORDS = "198.51.100.7 50000 192.0.2.1 22"
OTHER = ("192.0.2.1", 22, "198.51.100.8", 50001)
MINE_IPV6 = ("2001:db8::1", 22, "2001:db8::7", 50000)


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def endpoints(ends: Ends) -> Endpoints:
    return Endpoints(packed(ends[0]), ends[1], packed(ends[2]), ends[3])


def to_port(port: int) -> Endpoints:
    return Endpoints(b"", port, b"", 0)


def as_proc_writes(address: bytes, byte_order: str) -> str:
    """32-bit words in the kernel's own byte order, in capital hexadecimals."""
    words = struct.unpack({"little": "<", "big": ">"}[byte_order] + f"{len(address) // 4}I", address)
    return "".join(f"{word:08X}" for word in words)


class Proc:
    """A tree like that of proc(5), as far as anyone looks into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder)
        self.byte_order: str = sys.byteorder
        (folder / "sys").mkdir()

    def process(
        self,
        pid: int,
        parent: int = 1,
        name: str = "sh",
        environment: Iterable[str] = HOME,
        inodes: Iterable[int] = (),
        namespace: str = "net:[4026531840]",
    ) -> Path:
        own = self.folder / str(pid)
        for part in ("fd", "net", "ns"):
            (own / part).mkdir(parents=True)
        (own / "stat").write_text(f"{pid} ({name}) S {parent} {pid} {pid} 0 -1 4194560 0 0\n")
        (own / "comm").write_text(name[:15] + "\n")
        (own / "environ").write_bytes("".join(variable + "\0" for variable in environment).encode())
        (own / "ns/net").symlink_to(namespace)
        (own / "fd/0").symlink_to("/dev/null")
        (own / "fd/1").symlink_to("pipe:[77]")
        for number, inode in enumerate(inodes, start=3):
            (own / f"fd/{number}").symlink_to(f"socket:[{inode}]")
        return own

    def sockets(self, pid: int, *rows: Row) -> None:
        """What the network namespace of a process has of TCP sockets."""
        of_file: dict[str, list[str]] = {"tcp": [], "tcp6": []}
        for (local, local_port, peer, peer_port), state, inode in rows:
            ends = [
                f"{as_proc_writes(packed(address), self.byte_order)}:{port:04X}"
                for address, port in ((local, local_port), (peer, peer_port))
            ]
            lines = of_file["tcp6" if ":" in local else "tcp"]
            rest = f"{state} 00000000:00000000 02:000A7C00 00000000     0        0 {inode} 4 0 20 4 30 10 -1"
            lines.append(f"{len(lines):4}: {' '.join(ends)} {rest}\n")
        for name, lines in of_file.items():
            heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"
            (self.folder / str(pid) / "net" / name).write_text("".join([heading + "\n", *lines]))

    def own(self, pid: int = 100) -> frozenset[Endpoints]:
        return own_connections(self.path, pid)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """A host with init and an SSH server, in which somebody else is logged in."""
    proc = Proc(tmp_path)
    proc.process(1, 0, "systemd", inodes=[5])
    proc.process(10, name="sshd", inodes=[10])
    proc.process(20, 10, "sshd", inodes=[21])
    return proc


def log_in(proc: Proc, mine: Ends = MINE, server: str = "sshd", environment: Iterable[str] = HOME) -> None:
    """The operator's session: the server's part with privileges and that without, a shell, sudo, the task."""
    proc.process(30, 10, server, inodes=[31, 99])
    proc.process(31, 30, server, inodes=[31])
    proc.process(40, 31, "sh", environment)
    proc.process(50, 40, "sudo", environment)
    proc.process(100, 50, "python3")
    rows = [
        (("0.0.0.0", 22, "0.0.0.0", 0), LISTENING, 10),
        (OTHER, ESTABLISHED, 21),
        (mine, ESTABLISHED, 31),
    ]
    for pid in (10, 20, 30, 31, 40, 50, 100):
        proc.sockets(pid, *rows)


# which connections


@pytest.mark.parametrize("server", ["sshd", "sshd-session", "dropbear"])
def test_the_ancestors_sockets_tell(proc: Proc, server: str) -> None:
    log_in(proc, server=server)
    assert proc.own() == {endpoints(MINE)}


def test_an_environment_tells_where_no_socket_can_be_seen(proc: Proc) -> None:
    """For a user who is not root, sshd's own processes are closed."""
    log_in(proc, environment=[*HOME, f"SSH_CONNECTION={MINE_IN_WORDS}"])
    for pid in (10, 20, 30, 31):
        for link in (proc.folder / str(pid) / "fd").iterdir():
            link.unlink()
        (proc.folder / str(pid) / "fd").rmdir()
    assert proc.own() == {endpoints(MINE)}


def test_this_process_is_asked_for_its_own_variable(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    """What proc shows of it is closed to a process with a file's capabilities."""
    log_in(proc)
    monkeypatch.setattr(session.os, "getpid", lambda: 100)
    monkeypatch.setenv("SSH_CONNECTION", "2001:db8::7 50000 2001:db8::1 22")
    assert own_connections(proc.path) == {endpoints(MINE), endpoints(MINE_IPV6)}


@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("mine", [MINE, MINE_IPV6, ("fe80::1", 22, "fe80::7", 1)], ids=lambda ends: ends[0])
def test_addresses_are_read_in_the_hosts_byte_order(
    proc: Proc, monkeypatch: pytest.MonkeyPatch, byte_order: str, mine: Ends
) -> None:
    sign = {"little": "<", "big": ">"}[byte_order]
    host = SimpleNamespace(pack=lambda form, *values: struct.pack(form.replace("=", sign), *values))
    monkeypatch.setattr(session, "struct", host)
    proc.byte_order = byte_order
    log_in(proc, mine)
    assert proc.own() == {endpoints(mine)}


@pytest.mark.skipif(sys.byteorder != "little", reason="the sample was taken on a little-endian host")
def test_a_line_as_a_kernel_wrote_it(proc: Proc) -> None:
    log_in(proc)
    line = (
        "   1: 0100007F:0016 0200007F:C350 01 00000000:00000000 02:000AF3A7 00000000     0        0 31 2 "
        "0000000000000000 20 4 31 10 -1\n"
    )
    for pid in (30, 31):
        (proc.folder / str(pid) / "net/tcp").write_text("  sl  local_address ...\n" + line)
    assert proc.own() == {endpoints(("127.0.0.1", 22, "127.0.0.2", 50000))}


def test_ipv4_inside_ipv6_is_ipv4_on_the_wire(proc: Proc) -> None:
    """A server that listens on :: holds IPv4 connections as such."""
    log_in(proc, ("::ffff:192.0.2.1", 22, "::ffff:198.51.100.7", 50000))
    assert proc.own() == {endpoints(MINE)}


def test_what_runs_through_the_session_stays_with_it(proc: Proc) -> None:
    """A forwarded port: sshd holds both ends of the way."""
    log_in(proc)
    forwarded = ("192.0.2.1", 40000, "10.0.0.5", 5432)
    for pid in (30, 31):
        proc.sockets(pid, (MINE, ESTABLISHED, 31), (forwarded, ESTABLISHED, 99), (OTHER, TIME_WAIT, 0))
    assert proc.own() == {endpoints(MINE), endpoints(forwarded)}


def test_sockets_are_looked_up_in_their_holders_namespace(proc: Proc) -> None:
    """A task in a network namespace of its own has come through another one."""
    log_in(proc)
    proc.process(110, 50, "python3", inodes=[31], namespace="net:[4026532000]")
    proc.sockets(110, (OTHER, ESTABLISHED, 31))
    assert proc.own(110) == {endpoints(MINE), endpoints(OTHER)}


def test_a_list_that_cannot_be_read_is_read_from_another_process(proc: Proc) -> None:
    log_in(proc)
    for name in ("tcp", "tcp6"):
        (proc.folder / "31/net" / name).unlink()
    assert proc.own() == {endpoints(MINE)}


@pytest.mark.parametrize("name", ["a (b) c", ") S 1 (", "sshd: root@pts/0", "("])
def test_names_may_hold_anything(proc: Proc, name: str) -> None:
    log_in(proc)
    proc.process(101, 40, name)
    assert list(ancestors(proc.path, 101)) == [101, 40, 31, 30, 10, 1]


# nothing to be sure of


def background(proc: Proc, environment: Iterable[str] = HOME) -> None:
    """The task goes on when its session is over, as an asynchronous one does: a child of init."""
    log_in(proc)
    proc.process(200, 1, "python3", environment)


def test_in_the_background_every_ssh_session_counts(proc: Proc) -> None:
    background(proc)
    assert proc.own(200) == {endpoints(MINE), endpoints(OTHER), to_port(22)}


def test_servers_are_found_by_what_they_listen_to(proc: Proc) -> None:
    background(proc)
    for pid in (10, 20, 30, 31):
        proc.sockets(pid, (("::", 2200, "::", 0), LISTENING, 10))
    assert to_port(2200) in proc.own(200)


def test_an_environment_alone_may_be_out_of_date(proc: Proc) -> None:
    """A shell in tmux was begun in one session and is looked at in another."""
    background(proc, ["TERM=screen", "SSH_CONNECTION=203.0.113.9 1024 192.0.2.1 22"])
    former = endpoints(("192.0.2.1", 22, "203.0.113.9", 1024))
    assert proc.own(200) == {former, endpoints(MINE), endpoints(OTHER), to_port(22)}


def test_a_server_that_is_init_carries_nobody(tmp_path: Path) -> None:
    """In a container orphans become children of the server."""
    proc = Proc(tmp_path)
    proc.process(1, 0, "sshd", inodes=[10])
    proc.process(30, 1, "sshd", inodes=[31])
    proc.process(200, 1, "python3", ["SSH_CONNECTION=stale"])
    for pid in (1, 30):
        proc.sockets(pid, (("::", 22, "::", 0), LISTENING, 10), (MINE, ESTABLISHED, 31))
    assert proc.own(200) == {endpoints(MINE), to_port(22)}


def test_without_a_server_in_sight_the_usual_port_counts(tmp_path: Path) -> None:
    """A container with processes of its own in the host's network."""
    proc = Proc(tmp_path)
    proc.process(7, 0, "python3")
    assert proc.own(7) == {to_port(22)}


def test_without_proc_nothing_breaks(tmp_path: Path) -> None:
    assert own_connections(str(tmp_path / "absent"), 100) == {to_port(22)}


@pytest.mark.parametrize("part", ["stat", "environ", "comm", "net/tcp", "net/tcp6", "fd/3"])
@pytest.mark.parametrize("pid", [20, 30, 50])
def test_what_cannot_be_read_is_passed_over(proc: Proc, pid: int, part: str) -> None:
    """Processes end while one looks, and others are closed."""
    log_in(proc)
    path = proc.folder / str(pid) / part
    if path.exists() or path.is_symlink():
        path.unlink()
    path.mkdir()  # to open it is an error, also for root
    assert endpoints(MINE) in proc.own()


@pytest.mark.parametrize("stat", ["", "100", "100 (sh", "100 (sh) S", "100 (sh) S x 1", "100 (sh) S 100 1"])
def test_a_line_of_ancestors_ends_somewhere(proc: Proc, stat: str) -> None:
    proc.process(100)
    (proc.folder / "100/stat").write_text(stat)
    assert list(ancestors(proc.path, 100)) == [100]


def test_a_loop_of_ancestors_ends(proc: Proc) -> None:
    proc.process(100, 101)
    proc.process(101, 100)
    assert list(ancestors(proc.path, 100)) == [100, 101]


# what SSH_CONNECTION says


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        (MINE_IN_WORDS, MINE),
        ("2001:db8::7 50000 2001:db8::1 22", MINE_IPV6),
        ("fe80::7%eth0 1 fe80::1%eth0 22", ("fe80::1", 22, "fe80::7", 1)),
        ("::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22", MINE),
    ],
)
def test_the_variable_is_understood(value: str, ends: Ends) -> None:
    assert parse_ssh_connection(value) == endpoints(ends)


@pytest.mark.parametrize(
    "value",
    ["", "stale", "UNKNOWN 65535 UNKNOWN 65535", "1.2.3.4 x 5.6.7.8 22", "1.2.3.4 1 5.6.7.8", MINE_IN_WORDS + " 1"],
)
def test_a_variable_that_says_nothing(value: str) -> None:
    assert parse_ssh_connection(value) is None


# which entries


Half = Tuple[str, int, str, int]


def entry(original: Half, reply: Half | None = None, protocol: str = "tcp", **more: Any) -> Any:
    names = ("source", "source_port", "destination", "destination_port")
    document = {"protocol": protocol, "original": dict(zip(names, original)), **more}
    if reply is not None:
        document["reply"] = dict(zip(names, reply))
    return parse(document)


CLIENT, SERVER = ("198.51.100.7", 50000), ("192.0.2.1", 22)
OUTSIDE, INSIDE = ("203.0.113.1", 2222), ("10.0.0.1", 61000)


@pytest.mark.parametrize(
    ("original", "reply"),
    [
        (CLIENT + SERVER, SERVER + CLIENT),
        (SERVER + CLIENT, CLIENT + SERVER),  # picked up in the middle, by a packet of ours
        (CLIENT + OUTSIDE, SERVER + CLIENT),  # the destination is translated here
        (SERVER + INSIDE, INSIDE + OUTSIDE),  # the source is, of a flow that we began
        (INSIDE + OUTSIDE, SERVER + CLIENT),  # both are
    ],
    ids=["incoming", "outgoing", "destination NAT", "source NAT", "both"],
)
def test_a_flow_is_recognised_whichever_way_it_runs(original: Half, reply: Half) -> None:
    seen = INSIDE if INSIDE in (original[2:], reply[:2]) else CLIENT
    mine = Endpoints(packed(SERVER[0]), SERVER[1], packed(seen[0]), seen[1])
    assert carried_by({mine}).compile()(entry(original, reply))
    assert carried_by({mine}).compile()(entry(original, reply, zone=5))


@pytest.mark.parametrize(
    "original",
    [
        ("198.51.100.7", 50001, *SERVER),
        ("198.51.100.8", 50000, *SERVER),
        (*CLIENT, "192.0.2.1", 2200),
        (*CLIENT, "192.0.2.2", 22),
        ("198.51.100.7", 22, "192.0.2.1", 50000),
        ("192.0.2.1", 50000, "198.51.100.7", 22),
    ],
)
def test_no_other_flow_is_taken_for_it(original: Half) -> None:
    assert not carried_by({endpoints(MINE)}).compile()(entry(original))


@pytest.mark.parametrize("protocol", ["udp", "sctp"])
def test_only_tcp_carries_ssh(protocol: str) -> None:
    assert not carried_by({endpoints(MINE), to_port(22)}).compile()(entry(CLIENT + SERVER, protocol=protocol))


def test_an_entry_may_lack_a_tuple() -> None:
    known = entry(CLIENT + SERVER)
    original_only = {key: value for key, value in known.items() if not key.startswith("reply.")}
    assert carried_by({endpoints(MINE)}).compile()(original_only)
    without_ports = {key: value for key, value in original_only.items() if not key.endswith("_port")}
    assert not carried_by({endpoints(MINE), to_port(22)}).compile()(without_ports)


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """This host has the server's address."""
    monkeypatch.setattr(session, "_is_local", lambda address: address == packed(SERVER[0]))


@pytest.mark.usefixtures("addresses")
@pytest.mark.parametrize(
    ("original", "reply", "answer"),
    [
        (CLIENT + SERVER, SERVER + CLIENT, True),
        (SERVER + CLIENT, CLIENT + SERVER, True),
        (CLIENT + OUTSIDE, SERVER + CLIENT, True),
        (INSIDE + ("10.0.0.9", 22), ("10.0.0.9", 22) + INSIDE, False),
        (("192.0.2.1", 40000, "10.0.0.9", 22), ("10.0.0.9", 22, "192.0.2.1", 40000), False),
        (CLIENT + SERVER, ("10.0.0.9", 22) + CLIENT, False),
        (CLIENT + ("192.0.2.1", 80), ("192.0.2.1", 80) + CLIENT, False),
    ],
    ids=["incoming", "picked up", "redirected", "routed", "outgoing", "passed on", "another port"],
)
def test_connections_to_come_are_those_that_this_host_answers(original: Half, reply: Half, answer: bool) -> None:
    assert carried_by({to_port(22)}).compile()(entry(original, reply)) is answer


@pytest.mark.parametrize(
    ("address", "answer"), [("127.0.0.1", True), ("192.0.2.250", False), ("2001:db8::250", False), ("fe80::1", True)]
)
def test_this_hosts_addresses(address: str, answer: bool) -> None:
    assert session._is_local(packed(address)) is answer
