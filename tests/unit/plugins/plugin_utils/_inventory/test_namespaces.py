# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each namespace becomes a host with variables for its contents; namespaces that disappear are left out.

Errors are reported. The kernel's messages are imitated here; tests/fleet/test_inventory_netns.py has real ones.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import namespace
from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.namespaces import _entered, chosen, hosts_of

pyroute2 = pytest.importorskip("pyroute2")

Document = dict[str, Any]
DEFAULTS: Document = {"folder": "", "include": ["*"], "exclude": [], "max_routes": 1000}


class Message(Document):
    """The fields and the attributes of an rtnetlink message."""

    def __init__(self, attributes: Document, **fields: Any) -> None:
        super().__init__(fields)
        self.attributes = attributes

    def get_attr(self, name: str) -> Any:
        return self.attributes.get(name)


LINKS = [
    Message({"IFLA_IFNAME": "lo", "IFLA_ADDRESS": "00:00:00:00:00:00", "IFLA_OPERSTATE": "UNKNOWN", "IFLA_MTU": 65536}),
    Message(
        {
            "IFLA_IFNAME": "{{ 7 * 7 }}",
            "IFLA_ADDRESS": "02:00:00:00:00:01",
            "IFLA_OPERSTATE": "UP",
            "IFLA_MTU": 1500,
            "IFLA_LINKINFO": Message({"IFLA_INFO_KIND": "veth"}),
            "IFLA_MASTER": 3,
        }
    ),
    Message({"IFLA_IFNAME": "lan", "IFLA_OPERSTATE": "DOWN", "IFLA_LINKINFO": Message({"IFLA_INFO_KIND": "bridge"})}),
]
for _index, _link in enumerate(LINKS, 1):
    _link["index"] = _index
ADDRESSES = [
    Message({"IFA_ADDRESS": "10.0.0.2", "IFA_LOCAL": "10.0.0.1"}, index=2, prefixlen=32),  # of a tunnel
    Message({"IFA_ADDRESS": "2001:db8::1"}, index=2, prefixlen=64),
    Message({"IFA_ADDRESS": "10.0.0.3"}, index=9, prefixlen=8),  # of a link that appeared after the links were read
]
UNICAST: Document = {"type": 1, "table": 254}
ROUTES = {
    2: [
        Message({"RTA_GATEWAY": "10.0.0.254", "RTA_OIF": 2, "RTA_PREFSRC": "10.0.0.1"}, dst_len=0, **UNICAST),
        Message({"RTA_DST": "10.0.0.1", "RTA_TABLE": 255}, dst_len=32, type=2, table=255),
        Message({"RTA_DST": "10.5.0.0", "RTA_TABLE": 1000, "RTA_PRIORITY": 7}, dst_len=16, type=6, table=252),
        Message(
            {
                "RTA_DST": "10.6.0.0",
                "RTA_MULTIPATH": [
                    Message({"RTA_GATEWAY": "10.0.0.8"}, oif=2),
                    Message({"RTA_VIA": {"family": 10, "addr": "2001:db8::8"}}, oif=8),
                ],
            },
            dst_len=16,
            **UNICAST,
        ),
    ],
    10: [Message({"RTA_DST": "2001:db8::", "RTA_OIF": 3, "RTA_PRIORITY": 256}, dst_len=64, **UNICAST)],
}


class Rtnetlink:
    """The part of pyroute2 that reads a namespace; all namespaces have the same contents."""

    def __enter__(self) -> Rtnetlink:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def get_links(self) -> Iterable[Message]:
        return iter(LINKS)

    def get_addr(self) -> Iterable[Message]:
        return iter(ADDRESSES)

    def get_routes(self, family: int) -> Iterable[Message]:
        return iter(ROUTES[family])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create three namespaces, and replace the function with which a thread enters them."""

    def enter(path: str) -> None:
        assert threading.current_thread() is not threading.main_thread(), "the main thread must keep its namespace"
        os.stat(path)

    monkeypatch.setattr(namespace, "enter", enter)
    monkeypatch.setattr(pyroute2, "IPRoute", Rtnetlink)
    for name in ("blue", "green", "{{ 7 * 7 }}"):
        (tmp_path / name).touch()
    return tmp_path


def hosts(folder: Path, **options: Any) -> dict[str, Document]:
    return hosts_of({**DEFAULTS, "folder": str(folder), **options}, "/")


def test_host_has_the_documented_variables(folder: Path) -> None:
    found = hosts(folder)
    assert list(found) == ["blue", "green", "{{ 7 * 7 }}"]
    assert found["blue"] == {
        "ansible_connection": "netops.conntrack.netns",
        "ansible_netns_name": str(folder / "blue"),
        "netns_name": "blue",
        "netns_path": str(folder / "blue"),
        "netns_links": [
            {
                "name": "lo",
                "index": 1,
                "kind": None,
                "mac": "00:00:00:00:00:00",
                "state": "unknown",
                "mtu": 65536,
                "addresses": [],
            },
            {
                "name": "{{ 7 * 7 }}",
                "index": 2,
                "kind": "veth",
                "mac": "02:00:00:00:00:01",
                "state": "up",
                "mtu": 1500,
                "addresses": ["10.0.0.1/32", "2001:db8::1/64"],
                "master": "lan",
            },
            {"name": "lan", "index": 3, "kind": "bridge", "mac": None, "state": "down", "mtu": None, "addresses": []},
        ],
        "netns_addresses": ["10.0.0.1/32", "2001:db8::1/64", "10.0.0.3/8"],
        "netns_routes": [
            {
                "family": "ipv4",
                "destination": "default",
                "type": "unicast",
                "table": "main",
                "metric": 0,
                "gateway": "10.0.0.254",
                "link": "{{ 7 * 7 }}",
                "source": "10.0.0.1",
            },
            {"family": "ipv4", "destination": "10.5.0.0/16", "type": "blackhole", "table": 1000, "metric": 7},
            {
                "family": "ipv4",
                "destination": "10.6.0.0/16",
                "type": "unicast",
                "table": "main",
                "metric": 0,
                "nexthops": [
                    {"gateway": "10.0.0.8", "link": "{{ 7 * 7 }}"},
                    {"gateway": "2001:db8::8", "link": 8},
                ],
            },
            {
                "family": "ipv6",
                "destination": "2001:db8::/64",
                "type": "unicast",
                "table": "main",
                "metric": 256,
                "link": "lan",
            },
        ],
        "netns_routes_cut": False,
    }


def test_routes_above_the_limit_are_cut_and_reported(folder: Path) -> None:
    """Otherwise a namespace with all routes of the internet would fill the whole inventory."""
    found = hosts(folder, max_routes=2)["blue"]
    assert (len(found["netns_routes"]), found["netns_routes_cut"]) == (2, True)
    assert hosts(folder, max_routes=4)["blue"]["netns_routes_cut"] is False


def test_patterns_select_names() -> None:
    names = ["tenant-b", "tenant-a", "tenant-old", "Tenant-c", "gateway"]
    assert chosen(names, ["*"], []) == ["Tenant-c", "gateway", "tenant-a", "tenant-b", "tenant-old"]
    assert chosen(names, ["tenant-*", "gate*"], ["*-old"]) == ["gateway", "tenant-a", "tenant-b"]
    assert chosen(names, [], []) == []


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EINVAL])
def test_namespace_that_disappears_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Either the name or the namespace may have disappeared."""

    def enter(path: str) -> None:
        if path.endswith("green"):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(namespace, "enter", enter)
    assert list(hosts(folder)) == ["blue", "{{ 7 * 7 }}"]


def test_fifo_is_not_a_namespace(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert not _entered(str(tmp_path / "fifo"))


def problem(folder: Path, **options: Any) -> str:
    with pytest.raises(ConntrackError) as caught:
        hosts(folder, **options)
    return str(caught.value)


def test_missing_privilege_is_reported_with_a_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def enter(path: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(namespace, "enter", enter)
    error_text = problem(folder)
    assert error_text == f"cannot enter the namespace {folder}/blue: Operation not permitted; run as root"


def test_missing_pyroute2_is_reported_with_a_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    assert problem(folder).endswith("install it beside ansible-core, for example with pip install pyroute2")


def test_error_names_the_option_and_the_remedy(folder: Path) -> None:
    assert problem(folder, max_routes=-1) == "max_routes: -1 is negative; write 0 or more"
    text = problem(folder / "blue")
    assert text.startswith(f"folder: {folder}/blue cannot be read: Not a directory; write the path of a directory")


def test_missing_folder_has_no_namespaces(folder: Path) -> None:
    """ip(8) creates the folder with the first namespace."""
    assert hosts(folder / "gone") == {}


def test_name_is_enough_in_the_default_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory import namespaces

    monkeypatch.setattr(namespaces, "FOLDER", str(folder))
    assert hosts(folder)["blue"]["ansible_netns_name"] == "blue"
