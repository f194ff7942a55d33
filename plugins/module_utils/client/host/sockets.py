# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The TCP and UDP sockets of a network namespace: list them, find those of an entry, and destroy them.

A socket belongs to an entry if its local end and its peer are the source and destination of one of the two tuples. The
socket of a client has the original tuple, because the kernel applies source NAT after the socket and reverses it before
the socket. The socket of a server has the reply tuple, in which destination NAT has been applied. Sockets have no zone.

Source: include/uapi/linux/sock_diag.h and inet_diag.h; sock_diag(7); net/ipv4/inet_diag.c, tcp_diag.c and udp_diag.c.
"""

from __future__ import annotations

import errno
import struct
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence, Tuple

from .. import uapi
from ..codec.types import AF_INET, AF_INET6
from ..errors import KernelError, Unsupported
from ..netlink.error import ErrorReply, RequestRejected, rejections
from ..netlink.message import Message, attributes
from ..netlink.socket import NetlinkSocket, NetlinkTransport

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
#: The protocols whose sockets are read.
PROTOCOLS = (uapi.IPPROTO_TCP, uapi.IPPROTO_UDP)

# include/net/tcp_states.h; a UDP socket is established if it has a peer, otherwise closed
ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, _TIME_WAIT, CLOSED, CLOSE_WAIT, LAST_ACK, _LISTEN, CLOSING = (
    range(1, 12)
)
#: The states of sockets with a peer. A socket in TIME_WAIT is left out: it belongs to no process, and receives nothing.
_WITH_PEER = (ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING)
#: The states of UDP sockets with and without a peer.
_UDP = (ESTABLISHED, CLOSED)
#: Whether a socket of IPv6 does not receive packets of IPv4 (INET_DIAG_SKV6ONLY).
_SKV6ONLY = 11

#: struct inet_diag_req_v2: family, protocol, bit mask of the states, and the socket.
_REQUEST = struct.Struct("=BBxxI48s")
#: struct inet_diag_sockid: ports, addresses, interface, and cookie.
_SOCKET = struct.Struct("!HH16s16s")
#: struct inet_diag_msg: family, state, the socket, user and inode.
_ANSWER = struct.Struct("=BBxx48s12xII")
_MAPPED = bytes(10) + b"\xff\xff"

#: The errors of a socket that has ended, or that another one has replaced.
_ENDED = (errno.ENOENT, errno.ESTALE)
_NO_DIAG = "The kernel cannot list sockets: it needs CONFIG_INET_DIAG, for UDP also CONFIG_INET_UDP_DIAG"
_NO_DESTROY = "The kernel cannot end sockets: it was built without CONFIG_INET_DIAG_DESTROY"

#: The protocol, and source and destination as seen from one end.
Ends = Tuple[int, bytes, int, bytes, int]

#: The keys of each direction of an entry, in the order of `Ends`.
_KEYS = ("protocol", "source", "source_port", "destination", "destination_port")
DIRECTIONS = tuple(tuple(f"{direction}.{key}" for key in _KEYS) for direction in ("original", "reply"))


class LocalSocket(NamedTuple):
    """A socket of this host. `user` is the ID of its owner.

    `inode` identifies the socket in /proc, and is 0 if no process has it. `family` and `id` identify it for the kernel.
    """

    ends: Ends
    user: int
    inode: int
    family: int
    id: bytes
    only_ipv6: bool = False


def open_socket() -> NetlinkSocket:
    """Open a netlink socket for the sockets of the network namespace of this thread."""
    try:
        return NetlinkSocket(NetlinkTransport(protocol=NETLINK_SOCK_DIAG))
    except KernelError as error:
        raise error.with_hint(_NO_DIAG) from None


def ends_of(entry: Mapping[str, Any]) -> Iterator[Ends]:
    """Yield the ends that a socket of an entry has, of the end that began the connection first."""
    for keys in DIRECTIONS:
        if all(key in entry for key in keys):
            protocol, source, source_port, destination, destination_port = (entry[key] for key in keys)
            yield protocol, source, source_port, destination, destination_port


def connected(netlink: NetlinkSocket) -> dict[Ends, list[LocalSocket]]:
    """Return the TCP and UDP sockets with a peer by their ends. Raises `KernelError`."""
    return _by_ends(one for protocol in PROTOCOLS for one in _dump(netlink, protocol, _WITH_PEER))


def receiving(netlink: NetlinkSocket) -> dict[Ends, list[LocalSocket]]:
    """Return the sockets with a peer, and the UDP sockets without one, by their ends. Raises `KernelError`.

    The ends of the latter have no peer, and may have an unspecified address: see `without_peer`.
    """
    tcp, udp = (_dump(netlink, protocol, states) for protocol, states in zip(PROTOCOLS, (_WITH_PEER, _UDP)))
    found = _by_ends((*tcp, *udp))
    for ends, sockets in list(found.items()):
        if ends == (uapi.IPPROTO_UDP, bytes(16), ends[2], b"", 0):
            found.setdefault((ends[0], bytes(4), *ends[2:]), [one for one in sockets if not one.only_ipv6])
    return found


def without_peer(ends: Ends) -> tuple[Ends, Ends]:
    """Return the ends of the sockets without a peer that receive packets to these ends, the most specific first."""
    protocol, address, port = ends[:3]
    return (protocol, address, port, b"", 0), (protocol, bytes(len(address)), port, b"", 0)


def _by_ends(sockets: Iterable[LocalSocket]) -> dict[Ends, list[LocalSocket]]:
    found: dict[Ends, list[LocalSocket]] = {}
    for one in sockets:
        found.setdefault(one.ends, []).append(one)
    return found


def _dump(netlink: NetlinkSocket, protocol: int, states: Iterable[int]) -> Iterator[LocalSocket]:
    mask = sum(1 << state for state in states)
    for family in (AF_INET, AF_INET6):
        try:
            with rejections("listing sockets"):
                for answer in netlink.dump(_request(SOCK_DIAG_BY_FAMILY, family, protocol, mask, bytes(48))):
                    yield _parse(answer.payload, protocol)
        except KernelError as error:
            raise error.with_hint(_NO_DIAG) if error.errno in (errno.ENOENT, errno.EINVAL) else error from None


def _request(kind: int, family: int, protocol: int, states: int, identity: bytes) -> Message:
    return Message(kind, 0, _REQUEST.pack(family, protocol, states, identity))


def _parse(payload: bytes, protocol: int) -> LocalSocket:
    family, state, identity, user, inode = _ANSWER.unpack_from(payload)
    local_port, peer_port, local, peer = _SOCKET.unpack_from(identity)
    if state != CLOSED:
        ends = protocol, _address(family, local), local_port, _address(family, peer), peer_port
        return LocalSocket(ends, user, inode, family, identity)
    more = {number: payload[start:end] for number, start, end in attributes(payload, _ANSWER.size, len(payload))}
    only_ipv6 = more.get(_SKV6ONLY) == b"\1"
    return LocalSocket(
        (protocol, _address(family, local), local_port, b"", 0), user, inode, family, identity, only_ipv6
    )


def _address(family: int, address: bytes) -> bytes:
    """Return an address in the length of its family, that of IPv4 also for an IPv4-mapped address."""
    if family == AF_INET:
        return address[:4]
    return address[12:] if address.startswith(_MAPPED) else address


def check_destroy(netlink: NetlinkSocket) -> None:
    """Raise `KernelError` if the kernel cannot destroy sockets. The test is a request for one that cannot exist."""
    # No socket has the cookie 0. Without a cookie, a BPF program for lookups could select a socket to be ended
    nothing = _SOCKET.pack(0, 0, b"", b"") + bytes(4) + bytes(8)
    for protocol in PROTOCOLS:
        try:
            netlink.request(_request(SOCK_DESTROY, AF_INET, protocol, 0, nothing))
        except RequestRejected as error:
            if error.refusal.errno == errno.EOPNOTSUPP:
                raise Unsupported("ending sockets", errno.EOPNOTSUPP, hint=_NO_DESTROY) from None
            if error.refusal.errno not in _ENDED:
                with rejections("ending sockets"):
                    raise


def destroy(netlink: NetlinkSocket, sockets: Sequence[LocalSocket]) -> tuple[int, ErrorReply | None]:
    """Destroy sockets. Return the number of sockets that have ended now, and the first error of another one.

    TCP sends a reset to the peer. The next call of the process on the socket fails with ECONNABORTED. Older kernels do
    not destroy the rest of a closed connection, which has a timeout (EOPNOTSUPP). These sockets are not counted.
    """
    requests = (_request(SOCK_DESTROY, one.family, one.ends[0], 0, one.id) for one in sockets)
    ended, failure = 0, None
    for answer in netlink.request_many(requests):
        if not isinstance(answer, ErrorReply) or (answer.errno in _ENDED and not answer.lost):
            ended += 1
        elif answer.lost or answer.errno != errno.EOPNOTSUPP:
            failure = failure or answer
    return ended, failure
