# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the module identifies the SSH connection that runs the task; a flush would otherwise cut it."""

from __future__ import annotations

import os
import socket
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterable, Tuple

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import ssh_session
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import (
    SessionUnknown,
    TcpConnection,
    ancestors,
    match_connections,
    own_connections,
    parse_ssh_connection,
)

pytestmark = pytest.mark.portability

#: local address, local port, peer's address and peer's port
Ends = Tuple[str, int, str, int]
#: the ends, the state and the inode
Row = Tuple[Ends, str, int]

HOME = ("HOME=/",)
HOST = "net:[4026531840]"
ESTABLISHED, TIME_WAIT, LISTENING = "01", "06", "0A"
MINE = ("192.0.2.1", 22, "198.51.100.7", 50000)
MINE_IN_WORDS = "198.51.100.7 50000 192.0.2.1 22"
OTHER = ("192.0.2.1", 22, "198.51.100.8", 50001)
MINE_IPV6 = ("2001:db8::1", 22, "2001:db8::7", 50000)


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def endpoints(ends: Ends) -> TcpConnection:
    return TcpConnection(packed(ends[0]), ends[1], packed(ends[2]), ends[3])


def to_port(port: int) -> TcpConnection:
    return TcpConnection(b"", port, b"", 0)


def as_proc_writes(address: bytes, byte_order: str) -> str:
    """Return the address as 32-bit words in the kernel's byte order, in uppercase hexadecimal digits."""
    words = struct.unpack({"little": "<", "big": ">"}[byte_order] + f"{len(address) // 4}I", address)
    return "".join(f"{word:08X}" for word in words)


class Proc:
    """A tree like that of proc(5), with the files that the code reads."""

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
        namespace: str = HOST,
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
        """Write the TCP sockets of the network namespace of a process."""
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
        listed = {name: sum(f" {TIME_WAIT} " not in line for line in lines) for name, lines in of_file.items()}
        self.count(pid, sum(listed.values()), listed["tcp"])

    def count(self, pid: int, sockets: int, tcp: int) -> None:
        """Write the numbers of all sockets and of those in the list `tcp`, for the process's network namespace."""
        (self.folder / str(pid) / "net/sockstat").write_text(
            f"sockets: used {sockets}\nTCP: inuse {tcp} orphan 1 tw 1 alloc 5 mem 2\nUDP: inuse 0 mem 0\nRAW: inuse 0\n"
        )

    def own(self, pid: int = 100) -> frozenset[TcpConnection]:
        return own_connections(self.path, pid)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """Return a host with init, an SSH server and the session of another user."""
    proc = Proc(tmp_path)
    proc.process(1, 0, "systemd", inodes=[5])
    proc.process(10, name="sshd", inodes=[10])
    proc.process(20, 10, "sshd", inodes=[21])
    return proc


def log_in(proc: Proc, mine: Ends = MINE, server: str = "sshd", environment: Iterable[str] = HOME) -> None:
    """Add the operator's session: the privileged and the unprivileged sshd process, a shell, sudo and the task."""
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


# selection of connections


@pytest.mark.parametrize("server", ["sshd", "sshd-session", "dropbear"])
def test_connection_is_found_by_the_sockets_of_ancestors(proc: Proc, server: str) -> None:
    log_in(proc, server=server)
    assert proc.own() == {endpoints(MINE)}


def test_connection_is_found_by_the_environment_if_no_socket_is_visible(proc: Proc) -> None:
    """A user other than root cannot read sshd's processes."""
    log_in(proc, environment=[*HOME, f"SSH_CONNECTION={MINE_IN_WORDS}"])
    for pid in (10, 20, 30, 31):
        for link in (proc.folder / str(pid) / "fd").iterdir():
            link.unlink()
        (proc.folder / str(pid) / "fd").rmdir()
    assert proc.own() == {endpoints(MINE)}


def test_variable_of_this_process_is_read_from_its_own_environment(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel hides the environment of a process in /proc if its file has capabilities."""
    log_in(proc)
    monkeypatch.setattr(ssh_session.os, "getpid", lambda: 100)
    monkeypatch.setenv("SSH_CONNECTION", "2001:db8::7 50000 2001:db8::1 22")
    assert own_connections(proc.path) == {endpoints(MINE), endpoints(MINE_IPV6)}


def test_this_process_has_the_id_that_proc_shows(tmp_path: Path) -> None:
    """/proc can be that of another PID namespace, where the own ID is that of another process."""
    (tmp_path / "self").symlink_to("2500")
    assert ssh_session._own_pid(str(tmp_path)) == 2500
    assert ssh_session._own_pid(str(tmp_path / "absent")) == os.getpid()


@pytest.mark.parametrize("byte_order", ["little", "big"])
@pytest.mark.parametrize("mine", [MINE, MINE_IPV6, ("fe80::1", 22, "fe80::7", 1)], ids=lambda ends: ends[0])
def test_addresses_are_read_in_the_hosts_byte_order(
    proc: Proc, monkeypatch: pytest.MonkeyPatch, byte_order: str, mine: Ends
) -> None:
    sign = {"little": "<", "big": ">"}[byte_order]
    host = SimpleNamespace(pack=lambda form, *values: struct.pack(form.replace("=", sign), *values))
    monkeypatch.setattr(ssh_session, "struct", host)
    proc.byte_order = byte_order
    log_in(proc, mine)
    assert proc.own() == {endpoints(mine)}


@pytest.mark.skipif(sys.byteorder != "little", reason="the sample was taken on a little-endian host")
def test_line_of_a_real_kernel_is_parsed(proc: Proc) -> None:
    log_in(proc)
    line = (
        "   1: 0100007F:0016 0200007F:C350 01 00000000:00000000 02:000AF3A7 00000000     0        0 31 2 "
        "0000000000000000 20 4 31 10 -1\n"
    )
    for pid in (30, 31):
        (proc.folder / str(pid) / "net/tcp").write_text("  sl  local_address ...\n" + line)
    assert proc.own() == {endpoints(("127.0.0.1", 22, "127.0.0.2", 50000))}


def test_ipv4_mapped_address_is_treated_as_ipv4(proc: Proc) -> None:
    """A server that listens on :: has IPv4 connections with IPv4-mapped IPv6 addresses."""
    log_in(proc, ("::ffff:192.0.2.1", 22, "::ffff:198.51.100.7", 50000))
    assert proc.own() == {endpoints(MINE)}


def test_forwarded_connections_belong_to_the_session(proc: Proc) -> None:
    """sshd holds both connections of a forwarded port."""
    log_in(proc)
    forwarded = ("192.0.2.1", 40000, "10.0.0.5", 5432)
    for pid in (30, 31):
        proc.sockets(pid, (MINE, ESTABLISHED, 31), (forwarded, ESTABLISHED, 99), (OTHER, TIME_WAIT, 0))
    assert proc.own() == {endpoints(MINE), endpoints(forwarded)}


def test_sockets_are_looked_up_in_the_namespace_of_their_process(proc: Proc) -> None:
    """If the task is in a network namespace of its own, its connection is in another one."""
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
def test_process_names_can_contain_any_character(proc: Proc, name: str) -> None:
    log_in(proc)
    proc.process(101, 40, name)
    assert list(ancestors(proc.path, 101)) == [101, 40, 31, 30, 10, 1]


# uncertain cases


def background(proc: Proc, environment: Iterable[str] = HOME) -> None:
    """Add a task that continues after the end of its session, as an `async` task does: it is a child of init."""
    log_in(proc)
    proc.process(200, 1, "python3", environment)


def test_background_task_keeps_every_ssh_session(proc: Proc) -> None:
    background(proc)
    assert proc.own(200) == {endpoints(MINE), endpoints(OTHER), to_port(22)}


def test_servers_are_found_by_their_listening_ports(proc: Proc) -> None:
    background(proc)
    for pid in (10, 20, 30, 31):
        proc.sockets(pid, (("::", 2200, "::", 0), LISTENING, 10))
    assert to_port(2200) in proc.own(200)


def test_environment_alone_can_be_outdated(proc: Proc) -> None:
    """A shell in tmux can start in one session and be used in another."""
    background(proc, ["TERM=screen", "SSH_CONNECTION=203.0.113.9 1024 192.0.2.1 22"])
    former = endpoints(("192.0.2.1", 22, "203.0.113.9", 1024))
    assert proc.own(200) == {former, endpoints(MINE), endpoints(OTHER), to_port(22)}


def test_child_of_a_server_that_is_init_is_a_background_task(tmp_path: Path) -> None:
    """In a container, orphaned processes become children of the server."""
    proc = Proc(tmp_path)
    proc.process(1, 0, "sshd", inodes=[10])
    proc.process(30, 1, "sshd", inodes=[31])
    proc.process(200, 1, "python3", ["SSH_CONNECTION=stale"])
    for pid in (1, 30):
        proc.sockets(pid, (("::", 22, "::", 0), LISTENING, 10), (MINE, ESTABLISHED, 31))
    assert proc.own(200) == {endpoints(MINE), to_port(22)}


def test_default_port_is_kept_if_no_server_is_visible(tmp_path: Path) -> None:
    """The container has its own processes and shares the host's network."""
    proc = Proc(tmp_path)
    proc.process(7, 0, "python3")
    assert proc.own(7) == {to_port(22)}


@pytest.fixture
def without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the path for a chroot without /proc, on a host with the server's address."""
    monkeypatch.setattr(ssh_session, "is_local", lambda address: address in (packed("127.0.0.1"), packed("192.0.2.1")))
    return str(tmp_path / "absent")


def test_without_proc_the_variable_is_enough(without_proc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", MINE_IN_WORDS)
    assert endpoints(MINE) in own_connections(without_proc)


def test_connection_is_unknown_without_proc_and_variable(without_proc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sudo removes the variable, and the server can listen on any port."""
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    with pytest.raises(SessionUnknown, match=r"absent is not mounted.*env_keep in sudoers.*keep_ssh: false"):
        own_connections(without_proc)


def test_forwarding_program_cannot_be_followed_without_proc(without_proc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "127.0.0.1 40000 127.0.0.1 22")
    with pytest.raises(SessionUnknown, match=r"program on this host \(127\.0\.0\.1 port 40000\).*mount .*absent"):
        own_connections(without_proc)


@pytest.mark.parametrize("part", ["stat", "environ", "comm", "net/tcp", "net/tcp6", "fd/3"])
@pytest.mark.parametrize("pid", [20, 30, 50])
def test_unreadable_files_are_skipped(proc: Proc, pid: int, part: str) -> None:
    """Processes end during the search, and some processes cannot be read."""
    log_in(proc)
    path = proc.folder / str(pid) / part
    if path.exists() or path.is_symlink():
        path.unlink()
    path.mkdir()  # opening a directory fails, also for root
    assert endpoints(MINE) in proc.own()


@pytest.mark.parametrize("stat", ["", "100", "100 (sh", "100 (sh) S", "100 (sh) S x 1", "100 (sh) S 100 1"])
def test_invalid_stat_ends_the_list_of_ancestors(proc: Proc, stat: str) -> None:
    proc.process(100)
    (proc.folder / "100/stat").write_text(stat)
    assert list(ancestors(proc.path, 100)) == [100]


def test_a_loop_of_ancestors_ends(proc: Proc) -> None:
    proc.process(100, 101)
    proc.process(101, 100)
    assert list(ancestors(proc.path, 100)) == [100, 101]


# a program on this host forwards the connection to the server

PASSED_ON = ("127.0.0.1", 22, "127.0.0.1", 40000)
FROM_OPERATOR = ("192.0.2.1", 443, "198.51.100.7", 50000)


def turned(ends: Ends) -> Ends:
    """Return the connection as its other end shows it."""
    return (*ends[2:], *ends[:2])


def connected(proc: Proc, *rows: Row, server: Ends = PASSED_ON) -> None:
    """Add a session whose peer is a program on this host; `rows` are the sockets of such programs."""
    log_in(proc, server)
    own = [(("0.0.0.0", 22, "0.0.0.0", 0), LISTENING, 10), (OTHER, ESTABLISHED, 21), (server, ESTABLISHED, 31)]
    for folder in proc.folder.glob("[0-9]*"):
        if os.readlink(folder / "ns/net") == HOST:
            proc.sockets(int(folder.name), *own, *rows)


def test_local_peer_is_followed(proc: Proc) -> None:
    """haproxy and socat hold both connections in one process."""
    proc.process(60, name="haproxy", inodes=[60, 61, 62])
    connected(
        proc,
        (("0.0.0.0", 443, "0.0.0.0", 0), LISTENING, 60),
        (turned(PASSED_ON), ESTABLISHED, 61),
        (FROM_OPERATOR, ESTABLISHED, 62),
        (("192.0.2.1", 8443, "198.51.100.9", 50009), ESTABLISHED, 63),
    )
    assert proc.own() == {endpoints(PASSED_ON), endpoints(turned(PASSED_ON)), endpoints(FROM_OPERATOR)}


def test_transparent_proxy_is_followed(proc: Proc) -> None:
    """The program connects from the operator's address, so the server's peer appears to be remote."""
    transparent = ("192.0.2.1", 22, "198.51.100.7", 50000)
    proc.process(60, name="sslh", inodes=[61, 62])
    connected(proc, (turned(transparent), ESTABLISHED, 61), (FROM_OPERATOR, ESTABLISHED, 62), server=transparent)
    assert endpoints(FROM_OPERATOR) in proc.own()


def test_chained_programs_and_containers_are_followed(proc: Proc) -> None:
    """docker-proxy forwards connections to a container, and haproxy in the container forwards them to the host."""
    in_container, to_host = ("172.17.0.2", 443, "172.17.0.1", 41000), ("172.17.0.1", 22, "172.17.0.2", 40000)
    proc.process(60, name="haproxy", inodes=[60, 61, 62], namespace="net:[4026532000]")
    proc.sockets(
        60,
        (("::", 443, "::", 0), LISTENING, 60),
        (turned(to_host), ESTABLISHED, 61),
        (("::ffff:172.17.0.2", 443, "::ffff:172.17.0.1", 41000), ESTABLISHED, 62),
    )
    proc.process(70, name="docker-proxy", inodes=[71, 72])
    connected(proc, (turned(in_container), ESTABLISHED, 71), (FROM_OPERATOR, ESTABLISHED, 72), server=to_host)
    expected = {to_host, turned(to_host), in_container, turned(in_container), FROM_OPERATOR}
    assert proc.own() == set(map(endpoints, expected))


@pytest.mark.parametrize(
    ("addresses", "sockets", "tcp", "is_read"),
    [
        (("172.17.0.1", "172.17.0.2"), 9, 1, True),
        (("172.17.0.1", "172.17.0.2"), 9, 0, False),
        (("fd00::1", "fd00::2"), 9, 0, True),  # there is no reliable count of TCP over IPv6
        (("fd00::1", "fd00::2"), 0, 0, False),
    ],
)
def test_the_lists_of_namespaces_without_sockets_are_not_read(
    proc: Proc, addresses: tuple[str, str], sockets: int, tcp: int, is_read: bool
) -> None:
    """Each list takes a millisecond, and a host of containers has hundreds of namespaces."""
    to_host = (addresses[0], 22, addresses[1], 40000)
    proc.process(60, name="haproxy", inodes=[61], namespace="net:[4026532000]")
    proc.sockets(60, (turned(to_host), ESTABLISHED, 61))
    proc.count(60, sockets, tcp)
    connected(proc, server=to_host)
    assert proc.own() == {endpoints(to_host), *([endpoints(turned(to_host))] if is_read else [])}


def test_servers_behind_the_program_are_not_followed(proc: Proc) -> None:
    """The connections of a web server that the same program also uses do not belong to the session."""
    to_web, of_web = ("127.0.0.1", 40001, "127.0.0.1", 80), ("127.0.0.1", 40002, "10.0.0.9", 5432)
    rows = [
        (turned(PASSED_ON), ESTABLISHED, 61),
        (FROM_OPERATOR, ESTABLISHED, 62),
        (to_web, ESTABLISHED, 63),
        (("0.0.0.0", 80, "0.0.0.0", 0), LISTENING, 70),
        (turned(to_web), ESTABLISHED, 71),
        (of_web, ESTABLISHED, 72),
    ]
    proc.process(60, name="haproxy", inodes=[61, 62, 63])
    proc.process(70, name="nginx", inodes=[70, 71, 72])
    connected(proc, *rows)
    found = proc.own()
    assert endpoints(FROM_OPERATOR) in found
    assert endpoints(of_web) not in found


def test_background_task_keeps_later_connections_to_the_program(proc: Proc) -> None:
    proc.process(60, name="sslh", inodes=[60, 61, 62])
    proc.process(200, 1, "python3")
    connected(
        proc,
        (("0.0.0.0", 443, "0.0.0.0", 0), LISTENING, 60),
        (turned(PASSED_ON), ESTABLISHED, 61),
        (FROM_OPERATOR, ESTABLISHED, 62),
    )
    assert proc.own(200) >= {endpoints(FROM_OPERATOR), to_port(443), to_port(22)}


def test_several_processes_can_hold_one_socket(proc: Proc) -> None:
    """A launcher, or the file descriptor store of systemd, holds the socket that it passed to the program."""
    proc.process(59, name="launcher", inodes=[61])
    proc.process(60, name="sslh", inodes=[61, 62])
    connected(proc, (turned(PASSED_ON), ESTABLISHED, 61), (FROM_OPERATOR, ESTABLISHED, 62))
    assert endpoints(FROM_OPERATOR) in proc.own()


def test_invisible_program_is_reported(proc: Proc) -> None:
    """Without root, /proc hides other users' sockets; in a container, it also hides the host's processes."""
    proc.process(60, name="sslh")
    connected(proc, (turned(PASSED_ON), ESTABLISHED, 61), (FROM_OPERATOR, ESTABLISHED, 62))
    with pytest.raises(SessionUnknown, match=r"\(127\.0\.0\.1 port 40000\).*run as root.*keep_ssh: false"):
        proc.own()


@pytest.mark.parametrize("event", ["closed", "passed on"])
def test_socket_can_change_during_the_search(proc: Proc, monkeypatch: pytest.MonkeyPatch, event: str) -> None:
    """Between two reads of /proc, an unrelated SSH client on this host ends, or a program forks."""
    proc.process(60, name="ssh")
    connected(proc, (turned(PASSED_ON), ESTABLISHED, 61))
    original = ssh_session.socket_inodes

    def changing(path: str, pid: int) -> set[str]:
        inodes = original(path, pid)
        if pid == 60 and event == "passed on" and not (proc.folder / "61").exists():
            proc.process(61, name="ssh", inodes=[61])
            proc.sockets(61, (turned(PASSED_ON), ESTABLISHED, 61))
        elif pid == 60 and event == "closed":
            for folder in proc.folder.glob("[0-9]*/net"):
                (folder / "tcp").write_text("")
        return inodes

    monkeypatch.setattr(ssh_session, "socket_inodes", changing)
    expected = {endpoints(PASSED_ON), *([endpoints(turned(PASSED_ON))] if event == "passed on" else [])}
    assert proc.own() == expected


def test_socket_that_no_process_holds_is_skipped(proc: Proc) -> None:
    connected(proc, (turned(PASSED_ON), ESTABLISHED, 0))
    assert proc.own() == {endpoints(PASSED_ON)}


# content of SSH_CONNECTION


@pytest.mark.parametrize(
    ("value", "ends"),
    [
        (MINE_IN_WORDS, MINE),
        ("2001:db8::7 50000 2001:db8::1 22", MINE_IPV6),
        ("fe80::7%eth0 1 fe80::1%eth0 22", ("fe80::1", 22, "fe80::7", 1)),
        ("::ffff:198.51.100.7 50000 ::ffff:192.0.2.1 22", MINE),
    ],
)
def test_variable_is_parsed(value: str, ends: Ends) -> None:
    assert parse_ssh_connection(value) == [endpoints(ends)]


@pytest.mark.parametrize(
    "value",
    ["", "stale", "UNKNOWN 65535 UNKNOWN 65535", "1.2.3.4 x 5.6.7.8 22", "1.2.3.4 1 5.6.7.8", MINE_IN_WORDS + " 1"],
)
def test_invalid_variable_is_ignored(value: str) -> None:
    assert parse_ssh_connection(value) == []


# selection of entries


Half = Tuple[str, int, str, int]


def entry(original: Half, reply: Half | None = None, protocol: str = "tcp", **more: Any) -> Any:
    names = ("source", "source_port", "destination", "destination_port")
    document = {"protocol": protocol, "original": dict(zip(names, original)), **more}
    if reply is not None:
        document["reply"] = dict(zip(names, reply))
    return from_document(document)


CLIENT, SERVER = ("198.51.100.7", 50000), ("192.0.2.1", 22)
OUTSIDE, INSIDE = ("203.0.113.1", 2222), ("10.0.0.1", 61000)


@pytest.mark.parametrize(
    ("original", "reply"),
    [
        (CLIENT + SERVER, SERVER + CLIENT),
        (SERVER + CLIENT, CLIENT + SERVER),  # picked up in the middle, from a packet of this host
        (CLIENT + OUTSIDE, SERVER + CLIENT),  # destination NAT on this host
        (SERVER + INSIDE, INSIDE + OUTSIDE),  # source NAT of a flow that this host began
        (INSIDE + OUTSIDE, SERVER + CLIENT),  # both
    ],
    ids=["incoming", "outgoing", "destination NAT", "source NAT", "both"],
)
def test_flow_is_recognised_in_either_direction(original: Half, reply: Half) -> None:
    seen = INSIDE if INSIDE in (original[2:], reply[:2]) else CLIENT
    mine = TcpConnection(packed(SERVER[0]), SERVER[1], packed(seen[0]), seen[1])
    assert match_connections({mine}).compile()(entry(original, reply))
    assert match_connections({mine}).compile()(entry(original, reply, zone=5))


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
def test_other_flows_are_not_recognised(original: Half) -> None:
    assert not match_connections({endpoints(MINE)}).compile()(entry(original))


@pytest.mark.parametrize("protocol", ["udp", "sctp"])
def test_only_tcp_flows_are_recognised(protocol: str) -> None:
    assert not match_connections({endpoints(MINE), to_port(22)}).compile()(entry(CLIENT + SERVER, protocol=protocol))


def test_entry_can_lack_a_tuple() -> None:
    known = entry(CLIENT + SERVER)
    original_only = {key: value for key, value in known.items() if not key.startswith("reply.")}
    assert match_connections({endpoints(MINE)}).compile()(original_only)
    without_ports = {key: value for key, value in original_only.items() if not key.endswith("_port")}
    assert not match_connections({endpoints(MINE), to_port(22)}).compile()(without_ports)


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the server's address to this host."""
    monkeypatch.setattr(ssh_session, "is_local", lambda address: address == packed(SERVER[0]))


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
def test_later_connections_are_those_that_this_host_answers(original: Half, reply: Half, answer: bool) -> None:
    assert match_connections({to_port(22)}).compile()(entry(original, reply)) is answer


@pytest.mark.parametrize(
    ("address", "answer"), [("127.0.0.1", True), ("192.0.2.250", False), ("2001:db8::250", False), ("fe80::1", True)]
)
def test_this_hosts_addresses(address: str, answer: bool) -> None:
    assert ssh_session.is_local(packed(address)) is answer
