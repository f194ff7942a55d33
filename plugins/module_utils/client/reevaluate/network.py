# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links, addresses, routes and policy rules of a network namespace: read them, and make the same in another one.

Attributes are copied as bytes, with few exceptions.

Source: rtnetlink(7), include/uapi/linux/rtnetlink.h, net/ipv4/fib_frontend.c, net/ipv6/route.c, net/core/fib_rules.c.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from typing import Iterable, Mapping, NamedTuple, Sequence

from .. import uapi
from ..errors import KernelError, kernel_error
from ..netlink.error import RequestRejected, rejections
from ..netlink.message import Message, attribute, attributes
from ..netlink.socket import DumpInterrupted, NetlinkSocket, NetlinkTransport
from . import numbers as n
from .numbers import NETLINK_ROUTE

_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEXTHOP = struct.Struct("=BBBBI")
_U32 = struct.Struct("=I")
#: Seconds for which an address is preferred, seconds for which it is valid, and two times that the kernel sets.
_CACHEINFO = struct.Struct("=IIII")
_FOREVER = 0xFFFFFFFF

#: Bytes of the networks whose addresses are looked up once, by the bytes of an address.
_PREFIX = {4: 3, 16: 8}
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
#: Kinds of links whose ports have no addresses of their own: packets come in by the master.
AGGREGATES = ("bridge", "bond", "team")
#: The first bytes of the link-local addresses that Linux makes.
_LINK_LOCAL = b"\xfe\x80"
#: How often to read what changes while it is read.
ATTEMPTS = 5
#: Seconds to wait at most for the routes of addresses.
_MOST_SECONDS = 2.0
#: The flags of requests that do not create an object, or one of several that may be equal.
_FLAGS = {n.RTM_DELRULE: 0, n.RTM_NEWROUTE: uapi.NLM_F_CREATE | n.NLM_F_APPEND}
_NOT_COPIED_OF_ROUTES = frozenset({n.RTA_CACHEINFO})
#: Attributes of a dumped route that the kernel refuses in a request with a nexthop object.
_IN_NEXTHOP = frozenset({n.RTA_OIF, n.RTA_GATEWAY, n.RTA_VIA, n.RTA_MULTIPATH, n.RTA_ENCAP, n.RTA_ENCAP_TYPE})


class Link(NamedTuple):
    """A link. `number` is the index in the kernel, and `master` the index of the master, or 0.

    `kind` is "" for hardware.
    """

    number: int
    name: str
    kind: str
    master: int
    group: int
    is_up: bool
    has_xdp: bool


class Network(NamedTuple):
    """The network configuration of a namespace. Requests have the bytes with which to make the same elsewhere."""

    links: tuple[Link, ...]
    addresses: tuple[Message, ...]
    nexthops: tuple[Message, ...]
    routes: tuple[Message, ...]
    rules: tuple[Message, ...]

    def ingress_links(self) -> list[Link]:
        """Return the links, without the loopback, by which packets enter the network layer."""
        return _ingress_links(self.links)

    def local_addresses(self) -> dict[bytes, int]:
        """Return the index of the link of each address."""
        found: dict[bytes, int] = {}
        for message in self.addresses:
            index = _IFADDR.unpack_from(message.payload)[4]
            parsed = attributes_of(message.payload, _IFADDR.size)
            local = parsed.get(n.IFA_LOCAL, parsed.get(n.IFA_ADDRESS))
            if local:
                found.setdefault(local, index)
        return found

    def divided_networks(self) -> frozenset[bytes]:
        """Return the networks of /24 in IPv4 and /64 in IPv6 whose addresses do not all have the same routes and rules.

        Each is the bytes of its prefix.
        """
        found = {address[: _PREFIX[len(address)]] for address in self.local_addresses()}
        for message in (*self.routes, *self.rules):
            family, bits = _ROUTE.unpack_from(message.payload)[:2]
            size = _PREFIX[4 if family == socket.AF_INET else 16]
            if bits > size * 8:
                found.add(attributes_of(message.payload, _ROUTE.size)[n.RTA_DST][:size])
        return frozenset(found)

    def has_multipath(self) -> bool:
        """Whether a route has several next hops, of which the kernel chooses one by a hash."""
        groups = any(n.NHA_GROUP in attributes_of(message.payload, _NEXTHOP.size) for message in self.nexthops)
        return groups or any(n.RTA_MULTIPATH in attributes_of(message.payload, _ROUTE.size) for message in self.routes)


def route_socket() -> NetlinkSocket:
    """Open a socket for links, addresses and routes in the network namespace of this thread."""
    return NetlinkSocket(NetlinkTransport(protocol=NETLINK_ROUTE))


def attributes_of(payload: bytes, start: int) -> dict[int, bytes]:
    """Return the attributes behind a header of `start` bytes by number. Raises `MalformedMessage`."""
    return {number: payload[begin:end] for number, begin, end in attributes(payload, start, len(payload))}


def text_of(data: bytes) -> str:
    """Return the text in an attribute, which ends with a zero byte."""
    return data.rstrip(b"\0").decode("utf-8", "surrogateescape")


def read_network(netlink: NetlinkSocket) -> Network:
    """Read the network configuration of the namespace of a socket. Raises `KernelError` if it changes all the time."""
    for _attempt in range(ATTEMPTS):
        with contextlib.suppress(DumpInterrupted):
            return _read(netlink)
    raise kernel_error("reading links, addresses and routes, which change all the time", errno.EAGAIN)


def _read(netlink: NetlinkSocket) -> Network:
    links = tuple(map(link_of, dump_links(netlink)))
    addresses = [request for message in dump_addresses(netlink) for request in address_requests(message)]
    nexthops: list[Message] = []
    try:
        nexthops += _dump(netlink, "nexthops", n.RTM_GETNEXTHOP, _NEXTHOP)
    except KernelError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
    routes, rules = [], []
    for family in _FAMILIES:
        for message in _dump(netlink, "routes", n.RTM_GETROUTE, _ROUTE, family):
            routes += route_requests(message)
        rules += _dump(netlink, "policy rules", n.RTM_GETRULE, _ROUTE, family)
    # Ports of a bridge have link-local addresses, and routes to them
    copied = {n.LOOPBACK, *(link.number for link in _ingress_links(links))}
    down = {link.number for link in links if not link.is_up}
    return Network(
        links,
        tuple(
            message if _IFADDR.unpack_from(message.payload)[4] in copied else _moved_to_loopback(message)
            for message in addresses
            if _IFADDR.unpack_from(message.payload)[4] in (*copied, *down)
        ),
        tuple(map(_nexthop_request, nexthops)),
        tuple(message for message in routes if link_of_route(message) in (0, *copied)),
        tuple(Message(n.RTM_NEWRULE, 0, message.payload) for message in rules),
    )


def make_network(netlink: NetlinkSocket, network: Network) -> None:
    """Make addresses, routes and policy rules in the namespace of a socket, which has the links already.

    Raises `KernelError` if the kernel refuses one of them.
    """
    # The kernel prefers the IPv6 address that was added last, and lists it first
    ipv4 = [one for one in network.addresses if one.payload[0] == socket.AF_INET]
    ipv6 = [one for one in network.addresses if one.payload[0] == socket.AF_INET6]
    _request_all(netlink, "copying an address", [*ipv4, *reversed(ipv6)])
    by_object = [one for one in network.routes if n.RTA_NH_ID in attributes_of(one.payload, _ROUTE.size)]
    _request_all(netlink, "copying a route", [one for one in network.routes if one not in by_object])
    singles = [one for one in network.nexthops if n.NHA_GROUP not in attributes_of(one.payload, _NEXTHOP.size)]
    groups = [one for one in network.nexthops if one not in singles]
    _request_all(netlink, "copying a nexthop", [*singles, *groups])
    _request_all(netlink, "copying a route", by_object)
    here = [
        message.payload
        for family in _FAMILIES
        for message in _dump(netlink, "policy rules", n.RTM_GETRULE, _ROUTE, family)
    ]
    there = [rule.payload for rule in network.rules]
    _request_all(netlink, "copying a policy rule", [rule for rule in network.rules if rule.payload not in here])
    surplus = [Message(n.RTM_DELRULE, 0, payload) for payload in here if payload not in there]
    _request_all(netlink, "removing a policy rule", surplus)
    _wait_for_addresses(netlink, network)


def _wait_for_addresses(netlink: NetlinkSocket, network: Network) -> None:
    """Wait until packets to IPv6 addresses are local. The kernel makes their routes in the background."""
    end = time.monotonic() + _MOST_SECONDS
    for address in network.local_addresses():
        if len(address) == 16 and not address.startswith(_LINK_LOCAL):
            while time.monotonic() < end:
                path = path_to(netlink, address)
                if path is not None and path.type == n.RTN_LOCAL:
                    break
                time.sleep(0.001)


def set_up(netlink: NetlinkSocket, index: int, group: int = 0) -> None:
    """Set a link up, in a group."""
    payload = _IFINFO.pack(0, 0, index, n.IFF_UP, n.IFF_UP)
    if group:
        payload += attribute(n.IFLA_GROUP, _U32.pack(group))
    with rejections("setting a link up"):
        netlink.request(Message(n.RTM_NEWLINK, 0, payload))


class Path(NamedTuple):
    """Where packets to an address go: the type of the route (RTN_*), and the index of the link."""

    type: int
    link: int


def path_to(netlink: NetlinkSocket, destination: bytes, source: bytes = b"") -> Path | None:
    """Return the path to an address in the namespace of a socket, None without a route."""
    answer = _find_route(netlink, destination, source)
    if answer is None:
        return None
    kind = _ROUTE.unpack_from(answer.payload)[7]
    link = attributes_of(answer.payload, _ROUTE.size).get(n.RTA_OIF)
    return Path(kind, _U32.unpack(link)[0]) if link else None


def has_default_route(netlink: NetlinkSocket, destination: bytes, source: bytes = b"") -> bool:
    """Whether a default route leads to an address."""
    answer = _find_route(netlink, destination, source, n.RTM_F_FIB_MATCH)
    return answer is not None and _ROUTE.unpack_from(answer.payload)[1] == 0


def _find_route(netlink: NetlinkSocket, destination: bytes, source: bytes, flags: int = 0) -> Message | None:
    bits = len(destination) * 8
    family = socket.AF_INET if bits == 32 else socket.AF_INET6
    payload = _ROUTE.pack(family, bits, bits if source else 0, 0, 0, 0, 0, 0, flags) + attribute(n.RTA_DST, destination)
    if source:
        payload += attribute(n.RTA_SRC, source)
    try:
        return next(iter(netlink.request(Message(n.RTM_GETROUTE, 0, payload))), None)
    except RequestRejected:  # unreachable, prohibited, no route
        return None


def _dump(netlink: NetlinkSocket, what: str, kind: int, header: struct.Struct, family: int = 0) -> list[Message]:
    with rejections(f"reading {what}"):
        return list(netlink.dump(Message(kind, 0, bytes([family]) + bytes(header.size - 1))))


def _request_all(netlink: NetlinkSocket, doing: str, requests: Iterable[Message]) -> None:
    """Send requests to create objects. Objects that exist already are skipped.

    A route whose gateway can be reached by a later one only is sent again.
    """
    waiting = list(requests)
    while waiting:
        refused: list[tuple[Message, RequestRejected]] = []
        for message in waiting:
            flags = _FLAGS.get(message.type, uapi.NLM_F_CREATE | uapi.NLM_F_EXCL)
            try:
                netlink.request(message._replace(flags=flags))
            except RequestRejected as error:
                if error.refusal.errno not in (errno.EEXIST, errno.EPERM if message.type == n.RTM_DELRULE else 0):
                    refused.append((message, error))
        if len(refused) == len(waiting):
            with rejections(doing):
                raise refused[0][1]
        waiting = [message for message, _error in refused]


def dump_links(netlink: NetlinkSocket) -> list[Message]:
    """Return a message for each link of the namespace of a socket."""
    return _dump(netlink, "links", n.RTM_GETLINK, _IFINFO)


def dump_addresses(netlink: NetlinkSocket) -> list[Message]:
    """Return a message for each address of the namespace of a socket."""
    return _dump(netlink, "addresses", n.RTM_GETADDR, _IFADDR)


def shows_link(message: Message) -> bool:
    """Return whether a message shows a whole link: not only its state as a port of a bridge, or a wireless event."""
    family: int = _IFINFO.unpack_from(message.payload)[0]
    return family == socket.AF_UNSPEC and n.IFLA_WIRELESS not in attributes_of(message.payload, _IFINFO.size)


def link_of(message: Message) -> Link:
    """Return the link that a message shows."""
    _family, _type, index, flags, _change = _IFINFO.unpack_from(message.payload)
    parsed = attributes_of(message.payload, _IFINFO.size)
    info = attributes_of(parsed.get(n.IFLA_LINKINFO, b""), 0)
    xdp = attributes_of(parsed.get(n.IFLA_XDP, b""), 0)
    return Link(
        index,
        text_of(parsed[n.IFLA_IFNAME]),
        text_of(info.get(n.IFLA_INFO_KIND, b"")),
        _number(parsed.get(n.IFLA_MASTER)),
        _number(parsed.get(n.IFLA_GROUP)),
        bool(flags & n.IFF_UP),
        bool(xdp.get(n.IFLA_XDP_ATTACHED, b"\0")[0]),
    )


def _ingress_links(links: Sequence[Link]) -> list[Link]:
    masters = {link.number for link in links if link.kind in AGGREGATES}
    return [link for link in links if link.is_up and link.name != "lo" and link.master not in masters]


def link_of_route(request: Message) -> int:
    """Return the index of the link of a route, 0 if it has none or several."""
    return _number(attributes_of(request.payload, _ROUTE.size).get(n.RTA_OIF))


def _number(value: bytes | None) -> int:
    number: int = _U32.unpack(value)[0] if value else 0
    return number


def _joined(header: bytes, parsed: Mapping[int, bytes], without: Sequence[int] | frozenset[int] = ()) -> bytes:
    return header + b"".join(attribute(number, value) for number, value in parsed.items() if number not in without)


def address_key(message: Message) -> tuple[object, ...]:
    """Return what identifies an address in its namespace: link, family, prefix length, address and peer."""
    family, bits, _flags, _scope, index = _IFADDR.unpack_from(message.payload)
    parsed = attributes_of(message.payload, _IFADDR.size)
    return index, family, bits, parsed.get(n.IFA_LOCAL), parsed.get(n.IFA_ADDRESS)


def address_requests(message: Message) -> list[Message]:
    """Return the request for an address: without duplicate address detection, and without a prefix route."""
    family, bits, flags, scope, index = _IFADDR.unpack_from(message.payload)
    parsed = attributes_of(message.payload, _IFADDR.size)
    flags = _number(parsed.get(n.IFA_FLAGS)) or flags
    if flags & n.IFA_F_DADFAILED:
        return []
    flags &= ~(n.IFA_F_TENTATIVE | n.IFA_F_PERMANENT | n.IFA_F_MANAGETEMPADDR)
    flags |= n.IFA_F_NOPREFIXROUTE | (n.IFA_F_NODAD if family == socket.AF_INET6 else 0)
    parsed[n.IFA_FLAGS] = _U32.pack(flags)
    payload = _joined(_IFADDR.pack(family, bits, 0, scope, index), parsed, (n.IFA_CACHEINFO, n.IFA_TARGET_NETNSID))
    if flags & n.IFA_F_DEPRECATED:  # the kernel avoids it as a source
        payload += attribute(n.IFA_CACHEINFO, _CACHEINFO.pack(0, _FOREVER, 0, 0))
    return [Message(n.RTM_NEWADDR, 0, payload)]


def _nexthop_request(message: Message) -> Message:
    """Return the request for a nexthop object, without the scope, which the kernel finds out."""
    family, _scope, protocol, _reserved, flags = _NEXTHOP.unpack_from(message.payload)
    header = _NEXTHOP.pack(family, 0, protocol, 0, flags & n.RTNH_F_ONLINK)
    parsed = attributes_of(message.payload, _NEXTHOP.size)
    without = [number for number in parsed if number >= n.NHA_RES_GROUP]  # buckets, flags of the dump, statistics
    return Message(n.RTM_NEWNEXTHOP, 0, _joined(header, parsed, without))


def _moved_to_loopback(request: Message) -> Message:
    """Return the request for an address of a link that is down. The host still accepts packets to it."""
    family, bits, flags, scope, _index = _IFADDR.unpack_from(request.payload)
    header = _IFADDR.pack(family, bits, flags, scope, n.LOOPBACK)
    return request._replace(payload=header + request.payload[_IFADDR.size :])


def route_requests(message: Message) -> list[Message]:
    """Return the request for a route. The kernel adds the routes to its own addresses itself."""
    family, dst, src, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(message.payload)
    parsed = attributes_of(message.payload, _ROUTE.size)
    if flags & n.RTM_F_CLONED or (
        (_number(parsed.get(n.RTA_TABLE)) or table) == n.RT_TABLE_LOCAL and protocol == n.RTPROT_KERNEL
    ):
        return []
    if kind in (n.RTN_BROADCAST, n.RTN_ANYCAST, n.RTN_MULTICAST) and protocol == n.RTPROT_KERNEL:
        return []
    without = _NOT_COPIED_OF_ROUTES | (_IN_NEXTHOP if n.RTA_NH_ID in parsed else frozenset())
    header = _ROUTE.pack(family, dst, src, tos, table, protocol, scope, kind, flags & n.RTNH_F_ONLINK)
    return [Message(n.RTM_NEWROUTE, 0, _joined(header, parsed, without))]
