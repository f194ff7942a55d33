# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The named network namespaces of this machine with their links, addresses and routes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError, InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import namespace
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.namespaces import GONE, names_in

#: The directory in which the connection plugin looks up names.
FOLDER = namespace.FOLDER
CONNECTION = "netops.conntrack.netns"

#: Routing tables with predefined names, and the one that the kernel maintains.
_TABLES = {253: "default", 254: "main"}
_LOCAL = 255
#: Route types from linux/rtnetlink.h.
_TYPES = dict(
    enumerate("unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat".split(), 1)
)


def hosts_of(options: Mapping[str, Any], below: str) -> dict[str, dict[str, Any]]:
    """The variables of the namespaces that the options select, by name.

    Paths are relative to `below`. Raises `ConntrackError`.
    """
    if options["max_routes"] < 0:
        raise InvalidValue("max_routes", f"{options['max_routes']} is negative; write 0 or more")
    try:
        from pyroute2 import IPRoute
    except ImportError:
        raise ConntrackError(
            "This inventory requires the Python package pyroute2, which is not installed; install it beside "
            "ansible-core, for example with pip install pyroute2"
        ) from None
    folder = os.path.join(below, options["folder"])
    try:
        there = names_in(folder)
    except OSError as error:
        problem = f"{folder} cannot be read: {error.strerror}; write the path of a directory"
        raise InvalidValue("folder", problem) from None
    names = chosen(there, options["include"], options["exclude"])

    def work() -> dict[str, dict[str, Any]]:
        found = {}
        for name in names:
            path = os.path.join(folder, name)
            if not _entered(path):
                continue
            with IPRoute() as rtnetlink:
                found[name] = _variables(name, path, rtnetlink, options["max_routes"])
        return found

    return namespace.run_in_thread(work)


def chosen(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The sorted names that match a pattern of `include` and none of `exclude`."""
    return [
        name
        for name in sorted(names)
        if any(fnmatchcase(name, pattern) for pattern in include)
        and not any(fnmatchcase(name, pattern) for pattern in exclude)
    ]


def _entered(path: str) -> bool:
    """Enter the namespace. False if it no longer exists."""
    try:
        namespace.enter(path)
    except OSError as error:
        if error.errno in GONE:
            return False
        raise ConntrackError(f"cannot enter the namespace {path}: {error.strerror}; run as root") from None
    return True


def _variables(name: str, path: str, rtnetlink: Any, max_routes: int) -> dict[str, Any]:
    links = {link["index"]: _link(link) for link in rtnetlink.get_links()}
    addresses = []
    for message in rtnetlink.get_addr():
        address = f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
        addresses.append(address)
        if message["index"] in links:
            links[message["index"]]["addresses"].append(address)
    known = {index: link["name"] for index, link in links.items()}
    for link in links.values():
        if "master" in link:
            link["master"] = known.get(link["master"], link["master"])
    routes = list(islice(_routes(rtnetlink, known), max_routes + 1))
    return {
        "ansible_connection": CONNECTION,
        "ansible_netns_name": name if os.path.realpath(path) == os.path.realpath(f"{FOLDER}/{name}") else path,
        "netns_name": name,
        "netns_path": path,
        "netns_links": [links[index] for index in sorted(links)],
        "netns_addresses": addresses,
        "netns_routes": routes[:max_routes],
        "netns_routes_cut": len(routes) > max_routes,
    }


def _link(message: Any) -> dict[str, Any]:
    about = message.get_attr("IFLA_LINKINFO")
    kind = None if about is None else about.get_attr("IFLA_INFO_KIND")
    found = {
        "name": message.get_attr("IFLA_IFNAME"),
        "index": message["index"],
        "kind": kind,
        "mac": message.get_attr("IFLA_ADDRESS"),
        "state": str(message.get_attr("IFLA_OPERSTATE") or "unknown").lower(),
        "mtu": message.get_attr("IFLA_MTU"),
        "addresses": [],
    }
    master = message.get_attr("IFLA_MASTER")
    return found if master is None else {**found, "master": master}


def _routes(rtnetlink: Any, links: Mapping[int, str]) -> Iterator[dict[str, Any]]:
    for name, family in (("ipv4", socket.AF_INET), ("ipv6", socket.AF_INET6)):
        for message in rtnetlink.get_routes(family=int(family)):
            table = message.get_attr("RTA_TABLE") or message["table"]
            if table == _LOCAL:
                continue
            destination, length = message.get_attr("RTA_DST"), message["dst_len"]
            route = {
                "family": name,
                "destination": f"{destination}/{length}" if destination else "default",
                "type": _TYPES.get(message["type"], message["type"]),
                "table": _TABLES.get(table, table),
                "metric": message.get_attr("RTA_PRIORITY") or 0,
                **_hop(message, links),
            }
            source, hops = message.get_attr("RTA_PREFSRC"), message.get_attr("RTA_MULTIPATH")
            if source:
                route["source"] = source
            if hops:
                route["nexthops"] = [_hop(hop, links) for hop in hops]
            yield route


def _hop(message: Any, links: Mapping[int, str]) -> dict[str, Any]:
    """The gateway and the link of a route or next hop, if it has them."""
    hop = {}
    gateway = message.get_attr("RTA_GATEWAY") or (message.get_attr("RTA_VIA") or {}).get("addr")
    if gateway:
        hop["gateway"] = gateway
    index = message.get_attr("RTA_OIF") or message.get("oif")
    if index:
        hop["link"] = links.get(index, index)
    return hop
