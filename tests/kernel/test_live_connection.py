# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A TCP connection continues through a gateway that drops invalid packets, after its entry was created again.

A packet takes 20 ms between the client and the gateway, so that a fast transfer needs a window of more than 64 KiB. The
kernel treats packets beyond that window as invalid, unless it has the window scales or the entry has the flag
be_liberal. Only the handshake contains the window scales.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.filter.from_conntrack import from_conntrack
from tests import clock
from tests.lab import Host, Lab
from tests.modules import run

ONE_WAY = 0.02
TCP_ESTABLISHED = "01"  # in /proc/net/tcp
CLIENT, SERVER, PORT = "10.1.0.2", "203.0.113.80", 80
OUTSIDE = "203.0.113.1"
#: A transfer of this size needs a window that exceeds the maximum without a scale.
SIZE = 4 << 20
#: The output formats of the program, with their options.
PRINTED = {
    "text": ("-L",),
    "extended": ("-L", "-o", "extended"),
    "save": ("-L", "-o", "save"),
    "xml": ("-L", "-o", "xml"),
}
DROP_INVALID = """
table inet guard {
    counter invalid { }
    chain forward {
        type filter hook forward priority 0
        ct state invalid counter name invalid drop
    }
}
"""


@pytest.fixture
def gateway(lab: Lab) -> Host:
    client, gateway, server = lab.host("client"), lab.host("gateway", forwarding=True), lab.host("server")
    lab.slow_link(client, gateway, ONE_WAY, [f"{CLIENT}/24"], ["10.1.0.1/24"])
    lab.link(gateway, server, [f"{OUTSIDE}/24"], [f"{SERVER}/24"])
    client.route("default", "10.1.0.1")
    server.route("10.1.0.0/24", OUTSIDE)
    gateway.nft(DROP_INVALID)
    return gateway


@pytest.fixture
def masquerading(gateway: Host) -> Host:
    """Return the gateway, with source NAT for new connections. Request this fixture before the download."""
    gateway.firewall.masquerade(out_interface="server")
    return gateway


@pytest.fixture
def download(lab: Lab, gateway: Host) -> Iterator[socket.socket]:
    """Return the client's socket of a connection. The server sends SIZE bytes for each byte that it receives."""
    with lab.hosts["server"].entered():
        listener = socket.create_server((SERVER, PORT))

    def serve() -> None:
        there = listener.accept()[0]
        # If the gateway has dropped packets, the client closes with unread data, which resets the connection.
        with there, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while there.recv(1):
                there.sendall(bytes(SIZE))

    thread = threading.Thread(target=serve, name="server", daemon=True)
    thread.start()
    with listener, lab.hosts["client"].entered(), socket.create_connection((SERVER, PORT)) as connection:
        connection.settimeout(clock.HUNG)
        yield connection
        connection.close()
        thread.join()


def fetch(connection: socket.socket) -> None:
    connection.sendall(b"!")
    receive(connection)


def receive(connection: socket.socket) -> None:
    left = SIZE
    while left:
        data = connection.recv(left)
        assert data, "the server has closed the connection"
        left -= len(data)


def delete(gateway: Host) -> None:
    """Delete the entry after the last acknowledgements, which would create it again."""
    for _attempt in range(20):
        gateway.conntrack("-F")
        time.sleep(5 * ONE_WAY)
        if not gateway.count():
            return
    raise AssertionError("packets of the connection still arrive")


def wait_for_acknowledgements(lab: Lab) -> None:
    """Return when the server has no reason to send a packet: the client has acknowledged everything.

    If a packet of the server had no entry, the gateway would answer with a reset. Source: get_tcp4_sock in
    net/ipv4/tcp_ipv4.c.
    """

    def are_sent() -> bool:
        with lab.hosts["server"].entered():
            lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
        return all(line.split()[4].startswith("00000000:") for line in lines if line.split()[3] == TCP_ESTABLISHED)

    clock.wait_until(are_sent)


def dropped(gateway: Host) -> int:
    """Return the number of packets that the gateway has dropped as invalid."""
    listed = json.loads(gateway.run(["nft", "-j", "list", "counter", "inet", "guard", "invalid"]).stdout)
    packets: int = next(one["counter"]["packets"] for one in listed["nftables"] if "counter" in one)
    return packets


def entry(download: socket.socket) -> dict[str, Any]:
    """Return the connection as a user declares it, who has only its addresses, ports and state."""
    ends = {"source": CLIENT, "destination": SERVER}
    ports = {"source_port": download.getsockname()[1], "destination_port": PORT}
    return {
        "protocol": "tcp",
        "original": {**ends, **ports},
        "tcp": {"state": "established"},
        "status": ["seen_reply", "assured"],
        "timeout": 600,
    }


@pytest.mark.parametrize("way", ["entry", *PRINTED, "conntrack -R"])
def test_connection_continues_with_an_entry_without_flags(gateway: Host, download: socket.socket, way: str) -> None:
    fetch(download)
    printed = gateway.conntrack(*PRINTED.get(way, PRINTED["save"]), "-p", "tcp")
    delete(gateway)
    if way == "conntrack -R":
        gateway.conntrack("-R", "-", input=printed)
    elif way == "entry":
        assert run(gateway, "conntrack_entry", **entry(download))["operation"] == "created"
    else:
        entries = from_conntrack(printed)
        assert not any("flags" in end for one in entries for end in one["tcp"].values() if isinstance(end, dict))
        assert run(gateway, "conntrack_entries", entries=entries)["counts"]["created"] == 1
    fetch(download)
    assert dropped(gateway) == 0


def test_empty_list_of_flags_sets_no_flags(gateway: Host, download: socket.socket) -> None:
    """Control test: the flags make the difference in the test above."""
    fetch(download)
    delete(gateway)
    none = {"flags": []}
    declared = {**entry(download), "tcp": {"state": "established", "original": none, "reply": none}}
    assert run(gateway, "conntrack_entry", **declared)["operation"] == "created"
    download.sendall(b"!")
    clock.wait_until(lambda: dropped(gateway) > 0)
    # With every packet beyond the window dropped, TCP would wait longer each time before it sends again
    gateway.run(["nft", "delete", "table", "inet", "guard"])
    receive(download)


@pytest.mark.parametrize("way", ["entry", "extended", "save", "conntrack -R", "conntrack -I"])
def test_masqueraded_connection_continues(lab: Lab, masquerading: Host, download: socket.socket, way: str) -> None:
    gateway = masquerading
    fetch(download)
    wait_for_acknowledgements(lab)
    printed = gateway.conntrack(*PRINTED.get(way, PRINTED["save"]), "-p", "tcp")
    delete(gateway)
    nat = {"source": {"address": OUTSIDE}}
    if way == "conntrack -R":
        gateway.conntrack("-R", "-", input=printed)
    elif way == "conntrack -I":
        port = str(download.getsockname()[1])
        ends = ["-s", CLIENT, "-d", SERVER, "--sport", port, "--dport", str(PORT), "-n", OUTSIDE]
        state = ["--state", "ESTABLISHED", "-u", "SEEN_REPLY,ASSURED", "-t", "600"]
        gateway.conntrack("-I", "-p", "tcp", *ends, *state)
    elif way == "entry":
        assert run(gateway, "conntrack_entry", **entry(download), nat=nat)["operation"] == "created"
    else:
        entries = from_conntrack(printed)
        if way == "extended":  # this format shows the addresses after NAT, but not that there is NAT
            assert not any("nat" in one for one in entries)
            entries = [{**one, "nat": nat} for one in entries]
        assert run(gateway, "conntrack_entries", entries=entries)["counts"]["created"] == 1
    fetch(download)
    assert dropped(gateway) == 0
