# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""FTP through a gateway with NAT. The collection shows the helper's expectations, and the entries of their connections.

The test uses a real server, a real client and the kernel's own helper, in both families and both modes of FTP. Without
it, no test would verify that the master of an expectation, or of a related entry, is the right connection.
"""

from __future__ import annotations

import contextlib
import ftplib
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import (
    PLANS,
    ExpectationDeletionPlan,
    flush,
)
from ansible_collections.netops.conntrack.plugins.module_utils._operations.info import TABLES, collect
from ansible_collections.netops.conntrack.plugins.module_utils._operations.resource import resource_of
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock
from tests.lab import Gateway, Namespace

pytest.importorskip("pyftpdlib")

SERVER = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
FTPHandler.permit_foreign_addresses = True  # the kernel writes IPv6 addresses in full, the server compares texts
FTPHandler.active_dtp.timeout = 300
FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_anonymous(sys.argv[2])
FTPServer((sys.argv[1], 21), FTPHandler).serve_forever()
"""

# The helper follows connections to port 21; the rule also turns on tracking. New connections from outside are
# delayed: in active mode, the server answers only after it is connected, and retries after a second.
HELPER = """
table inet ftp {
  ct helper standard {
    type "ftp" protocol tcp
  }
  chain prerouting {
    type filter hook prerouting priority mangle
    tcp dport 21 ct helper set "standard"
  }
  chain hold {
    type filter hook prerouting priority raw
    iifname "server" tcp flags & (syn | ack) == syn drop
  }
}
"""
RELEASE = "flush chain inet ftp hold"
CONTENT = b"what is in the file\n"
MODES = ("active", "passive")
FAMILIES = ("ipv4", "ipv6")
NO_LABELS = LabelMap()


class Ends(NamedTuple):
    """The addresses of the client and the server."""

    client: str
    outside: str
    server: str


ENDS = {
    "ipv4": Ends("10.1.0.2", Gateway.OUTSIDE[0], Gateway.SERVER),
    "ipv6": Ends("2001:db8:1::2", Gateway.OUTSIDE_IPV6[0], Gateway.SERVER_IPV6),
}


@pytest.fixture
def gateway(gateway_lab: Gateway) -> Namespace:
    """Return the gateway, whose kernel follows FTP."""
    try:
        gateway_lab.gateway.nft(HELPER)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this kernel has no FTP helper (modprobe nf_conntrack_ftp nf_nat_ftp): {error.stderr}")
    return gateway_lab.gateway


@pytest.fixture
def table(gateway: Namespace) -> Iterator[Table]:
    with gateway.entered(), Table() as table:
        yield table


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def session(gateway: Namespace, gateway_lab: Gateway, family: str, tmp_path: Path) -> Iterator[ftplib.FTP]:
    """Return a client that is logged in to the server outside."""
    (tmp_path / "file").write_bytes(CONTENT)
    address = ENDS[family].server
    gateway_lab.server.start([sys.executable, "-W", "ignore", "-c", SERVER, address, str(tmp_path)])
    with contextlib.closing(ftplib.FTP(timeout=clock.HUNG)) as client:

        def is_connected() -> bool:
            try:
                with gateway_lab.client1.entered():
                    client.connect(address)
            except ConnectionRefusedError:  # the server is not ready yet
                return False
            return True

        clock.wait_until(is_connected, pause=0.05)
        client.login()
        client.voidcmd("TYPE I")
        yield client


def read(table: Table, name: str, match: Any = None) -> list[dict[str, Any]]:
    """Return a table as conntrack_info reads it."""
    resource = resource_of(name)
    wanted = EVERYTHING if match is None else resource.parse_match(match, NO_LABELS, "match")
    result = collect(TABLES[name](table, wanted), None, False, 100, NO_LABELS, resource)
    entries: list[dict[str, Any]] = result["entries"]
    return entries


class Transfer:
    """A data connection in two steps: the control connection announces it, and then it is opened."""

    def __init__(self, session: ftplib.FTP, gateway_lab: Gateway, mode: str) -> None:
        self._session, self._lab, self._mode = session, gateway_lab, mode
        self._closing = contextlib.ExitStack()
        self._thread: threading.Thread | None = None
        if mode == "passive":
            self._there = session.makepasv()  # PASV, or EPSV
            self.port = self._there[1]
        else:
            self._announce()

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            if self._session.sock is not None:  # end the wait of the thread for an answer
                with contextlib.suppress(OSError):
                    self._session.sock.shutdown(socket.SHUT_RDWR)
            self._session.close()
            self._thread.join()
        self._closing.close()

    def _announce(self) -> None:
        """Send PORT or EPRT, which the server does not answer before it is connected."""
        host = self._session.sock.getsockname()[0]
        with self._lab.client1.entered():
            self._listener = self._closing.enter_context(socket.create_server((host, 0), family=self._session.af))
        self.port = self._listener.getsockname()[1]
        self._listener.settimeout(clock.HUNG)
        send = self._session.sendport if self._session.af == socket.AF_INET else self._session.sendeprt
        self._thread = threading.Thread(target=self._send, args=(send, host), daemon=True)
        self._thread.start()
        clock.wait_until(
            # The server may have connected already
            lambda: self._lab.gateway.expectations() or select.select([self._listener], [], [], 0)[0],
            lambda: "the helper created no expectation",
        )

    def _send(self, send: Callable[[str, int], str], host: str) -> None:
        with contextlib.suppress(ftplib.Error, OSError, EOFError):
            send(host, self.port)

    def connect(self, timeout: float = clock.HUNG) -> socket.socket:
        """Wait for the connection of the server, or in passive mode, connect to the server."""
        if self._mode == "active":
            self._listener.settimeout(timeout)
            data = self._listener.accept()[0]
        else:
            with self._lab.client1.entered():
                data = socket.create_connection(self._there, timeout=timeout)
        data.settimeout(clock.HUNG)
        return self._closing.enter_context(data)

    def receive(self, data: socket.socket) -> bytes:
        """Receive the file and return its content."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        assert self._session.sendcmd("RETR file").startswith("1")
        content = b"".join(iter(lambda: data.recv(4096), b""))
        self._session.voidresp()
        return content


def announced(ends: Ends, mode: str, port: int) -> dict[str, Any]:
    """Return the tuple that the helper expects: as it arrives at the gateway, from any port."""
    if mode == "active":
        return {
            "protocol": "tcp",
            "source": ends.server,
            "destination": ends.outside,
            "source_port": 0,
            "destination_port": port,
        }
    return {
        "protocol": "tcp",
        "source": ends.client,
        "destination": ends.server,
        "source_port": 0,
        "destination_port": port,
    }


@pytest.mark.parametrize("mode", MODES)
def test_a_transfer(
    gateway: Namespace, gateway_lab: Gateway, table: Table, session: ftplib.FTP, family: str, mode: str
) -> None:
    ends = ENDS[family]
    (control,) = read(table, "conntrack", {"helper": "ftp"})
    assert control["nat"]["source"]["address"] == ends.outside
    assert read(table, "expect") == []

    with Transfer(session, gateway_lab, mode) as transfer:
        (expected,) = read(table, "expect", {"helper": "ftp", "family": family})
        assert expected["tuple"] == announced(ends, mode, transfer.port)
        assert expected["master"] == {"protocol": "tcp", **control["original"]}
        assert (expected["family"], expected["function"]) == (family, "nat-follow-master")
        assert expected["nat"]["direction"] == ("reply" if mode == "active" else "original")
        assert expected["nat"]["tuple"]["source_port"] == transfer.port

        (seen,) = gateway.expectations()
        for part in ("tuple", "mask", "master"):
            assert seen[part] == {key: value for key, value in expected[part].items() if key != "protocol"}
        assert (seen["protocol"], seen["class"], seen["helper"]) == ("tcp", expected["class"], "ftp")
        assert seen["timeout"] == clock.near(expected["timeout"])

        # The tuple of a master is a match for the control connection, and for no other entry
        (master,) = read(table, "conntrack", expected["master"])
        assert master["id"] == control["id"]

        gateway.nft(RELEASE)
        data = transfer.connect()
        assert read(table, "expect") == []
        assert gateway.expectations() == []
        (related,) = read(table, "conntrack", {"expected": True})
        assert related["master"] == expected["master"]
        assert "expected" in related["status"]
        keys = ("source", "destination", "destination_port")
        assert {key: related["original"][key] for key in keys} == {key: expected["tuple"][key] for key in keys}
        if mode == "active":
            assert related["nat"]["destination"] == {"address": ends.client, "port": transfer.port}
        else:
            assert related["nat"]["source"]["address"] == ends.outside
        (seen,) = (entry for entry in gateway.table() if entry["id"] == related["id"])
        assert (seen["original"], seen["reply"]) == (related["original"], related["reply"])
        (master,) = read(table, "conntrack", related["master"])
        assert master["id"] == control["id"]
        assert transfer.receive(data) == CONTENT


def removed(table: Table, name: str, match: Any) -> dict[str, Any]:
    """Return the result of conntrack_flush with this match."""
    wanted = resource_of(name).parse_match(match, NO_LABELS, "match")
    result: dict[str, Any] = flush(PLANS[name](table, wanted, limit=1))
    return result


@pytest.mark.parametrize("mode", MODES)
def test_data_connections_are_flushed_by_their_master(
    gateway: Namespace, gateway_lab: Gateway, table: Table, session: ftplib.FTP, family: str, mode: str
) -> None:
    """An example of conntrack_flush: behind NAT, only the master has the address of the client in both modes."""
    client = ENDS[family].client
    (control,) = read(table, "conntrack", {"helper": "ftp"})
    others = {"master": {"source": ENDS[family].server}}
    data_of_client = {"master": {"protocol": "tcp", "source": client, "destination_port": 21}}
    gateway.nft(RELEASE)
    if mode == "passive":  # in active mode, the server does not wait
        with Transfer(session, gateway_lab, mode):
            assert removed(table, "expect", {"helper": "ftp", **others})["flushed"] == 0
            assert removed(table, "expect", {"helper": "ftp", "master": {"source": client}})["flushed"] == 1
            assert gateway.expectations() == []
    with Transfer(session, gateway_lab, mode) as transfer:
        transfer.connect()
        (data,) = read(table, "conntrack", {"expected": True})
        assert removed(table, "conntrack", others)["flushed"] == 0
        result = removed(table, "conntrack", data_of_client)
        assert [entry["id"] for entry in result["entries"]] == [data["id"]]
        assert (result["flushed"], result["gone"]) == (1, 0)
        ids = [entry["id"] for entry in gateway.table()]
        assert data["id"] not in ids
        assert control["id"] in ids


@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_gateway_accepts_only_expected_connections(
    gateway: Namespace, gateway_lab: Gateway, table: Table, session: ftplib.FTP, family: str, mode: str, flushed: bool
) -> None:
    """The gateway accepts only related connections. After the expectation is removed, it drops the connection."""
    firewall = gateway.firewall
    firewall.drop("forward", "new", protocol="tcp")  # related connections are not new
    with Transfer(session, gateway_lab, mode) as transfer:
        match = expectation.parse_match({"helper": "ftp", "destination_port": transfer.port}, NO_LABELS)
        result = flush(ExpectationDeletionPlan(table, match, limit=1), check_mode=not flushed)
        assert (result["flushed"], result["gone"], len(result["entries"])) == (1, 0, 1)
        assert len(gateway.expectations()) == (0 if flushed else 1)
        gateway.nft(RELEASE)
        if flushed:
            with pytest.raises(TimeoutError):
                transfer.connect(timeout=1.5)
            assert read(table, "conntrack", {"expected": True}) == []
        else:
            assert transfer.receive(transfer.connect()) == CONTENT
    assert len(read(table, "conntrack", {"helper": "ftp"})) == 1
