# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of a host that are not copied and can decide about packets, such as IPVS and IPsec policies.

A flow that would be stale is uncertain if one of these may decide about it.

Source: Documentation/networking/ipvs-sysctl.rst, include/uapi/linux/xfrm.h, include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import contextlib
import struct
from typing import NamedTuple

from ..errors import KernelError
from ..netlink.error import RequestRejected
from ..netlink.message import Message
from ..netlink.socket import NetlinkSocket, NetlinkTransport
from . import numbers as n
from .network import Network, attributes_of, text_of

_TCMSG = struct.Struct("=BxxxiIII")
_NETLINK = "/proc/thread-self/net/netlink"
_IPVS = "/proc/thread-self/net/ip_vs"
#: The lines before the first service in the list of IPVS.
_IPVS_HEAD = 3
_BRIDGED = ("/proc/sys/net/bridge/bridge-nf-call-iptables", "/proc/sys/net/bridge/bridge-nf-call-ip6tables")
#: Queueing disciplines whose filters see packets before the rules do.
_FILTERING = ("clsact", "ingress")


class Environment(NamedTuple):
    """Reasons for which flows that would be stale are uncertain: of all flows, and of those by a link (its number).

    `bridges` are links whose ports may be both ends of a flow, which rules then see only because of bridge netfilter.
    """

    everywhere: str
    by_link: dict[int, str]
    bridges: frozenset[int]

    def reason(self, way: int, way_out: int | None) -> str:
        """Return the reason for a flow that comes in by one link and leaves by another, "" if there is none."""
        if self.everywhere:
            return self.everywhere
        if way in self.bridges and way == way_out:
            return "bridge netfilter may decide"
        return self.by_link.get(way, "")


def read_environment(routes: NetlinkSocket, network: Network) -> Environment:
    """Read what decides besides rules and routes in the network namespace of this thread and of a route socket."""
    by_link = {link.number: f"XDP on {link.name} may decide" for link in network.links if link.has_xdp}
    names = {link.number: link.name for link in network.links}
    for number in _links_with_filters(routes):
        by_link.setdefault(number, f"traffic control on {names.get(number, number)} may decide")
    bridges = {link.number for link in network.links if link.kind == "bridge"}
    return Environment(_everywhere(), by_link, frozenset(bridges if _sees_bridged_packets() else ()))


def _everywhere() -> str:
    with contextlib.suppress(OSError), open(_IPVS, encoding="ascii") as file:
        if len(file.readlines()) > _IPVS_HEAD:
            return "IPVS may decide"
    return "an IPsec policy may decide" if _has_ipsec_policies() else ""


def _has_ipsec_policies() -> bool:
    if not _has_netlink_protocol(n.NETLINK_XFRM):  # opening such a socket would load the kernel module
        return False
    try:
        with NetlinkSocket(NetlinkTransport(protocol=n.NETLINK_XFRM)) as xfrm:
            return any(True for _policy in xfrm.dump(Message(n.XFRM_MSG_GETPOLICY, 0, b"")))
    except (KernelError, RequestRejected):
        return True


def _has_netlink_protocol(protocol: int) -> bool:
    """Whether the kernel listens to a netlink protocol, which is the second column of its list of sockets."""
    with contextlib.suppress(OSError), open(_NETLINK, encoding="ascii") as file:
        return any(line.split()[1] == str(protocol) for line in file.readlines()[1:])
    return True


def _links_with_filters(routes: NetlinkSocket) -> set[int]:
    found = set()
    with contextlib.suppress(RequestRejected):
        for message in routes.dump(Message(n.RTM_GETQDISC, 0, _TCMSG.pack(0, 0, 0, 0, 0))):
            if text_of(attributes_of(message.payload, _TCMSG.size).get(n.TCA_KIND, b"")) in _FILTERING:
                found.add(_TCMSG.unpack_from(message.payload)[1])
    return found


def _sees_bridged_packets() -> bool:
    for path in _BRIDGED:
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            if file.read().strip() == "1":
                return True
    return False
