# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""End the sockets of this host that belong to the flows that a flush removes.

The sockets are destroyed after the table was read and before an entry is deleted: the reset that TCP sends to the peer
then passes NAT and the firewall as a packet of its connection. Without the entry, it would be an invalid packet.
"""

from __future__ import annotations

from typing import AbstractSet

from ..client import uapi
from ..client.codec.codec import Values
from ..client.codec.layout import MessageLayout
from ..client.dump.scan import Action
from ..client.errors import ConntrackError, InvalidValue, answer_lost, kernel_error
from ..client.host.sockets import (
    DIRECTIONS,
    PROTOCOLS,
    LocalSocket,
    check_destroy,
    connected,
    destroy,
    ends_of,
    open_socket,
)
from ..client.host.ssh_session import SessionUnknown, TcpConnection, match_connections, own_connections
from ..client.netlink.socket import Closing
from .flush import LocalSockets, can_return


def sockets_to_end(table: str, keep: AbstractSet[TcpConnection]) -> SocketsToEnd:
    """Return the sockets that a flush of the table is to end, without those of `keep` and of the task's connection.

    Raises `InvalidValue`, `SessionUnknown`, and the errors of `SocketsToEnd`.
    """
    if table != "conntrack":
        raise InvalidValue("end_local_sockets", "expectations have no sockets; leave it out or write table: conntrack")
    if keep:
        return SocketsToEnd(keep)
    try:
        return SocketsToEnd(own_connections())
    except SessionUnknown as error:
        raise SessionUnknown(
            f"{error}. With end_local_sockets, the connection must be found also with keep_ssh: false; leave "
            "end_local_sockets out"
        ) from None


class SocketsToEnd(LocalSockets, Closing):
    """The sockets of the visited entries, except those of the connections in `keep`.

    The constructor reads the sockets of the network namespace of this thread. It raises `KernelError` if the kernel
    cannot list or destroy sockets.
    """

    def __init__(self, keep: AbstractSet[TcpConnection]) -> None:
        self.returning = 0
        self._is_kept = match_connections(keep).compile()
        self._chosen: dict[bytes, LocalSocket] = {}
        self._netlink = open_socket()
        try:
            self._known = connected(self._netlink)
            check_destroy(self._netlink)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._chosen)

    def close(self) -> None:
        self._netlink.close()

    def on(self, layout: MessageLayout) -> Action:
        protocol = layout.constants.get("original.protocol")
        known = [ends[1:] for ends in self._known if ends[0] == protocol]
        if protocol not in PROTOCOLS or not known:
            return _ignore
        tests = []
        for _protocol, *of_direction in DIRECTIONS:
            keys, read = layout.part(of_direction)
            if len(keys) < len(of_direction):
                return lambda data: self.add_all(layout.entries(data))
            places = [of_direction.index(key) for key in keys]
            tests.append((frozenset(tuple(ends[place] for place in places) for ends in known).__contains__, read))

        def act(data: bytes) -> None:
            flags = bytes(map(max, *(map(has, read(data)) for has, read in tests)))
            if 1 in flags:
                self.add_all(layout.entries(layout.choose(data, flags)))

        return act

    def add(self, entry: Values) -> None:
        found = [one for ends in ends_of(entry) for one in self._known.get(ends, ())]
        if found and not self._is_kept(entry):
            self._chosen.update((one.id, one) for one in found)
            self.returning += entry.get("original.protocol") == uapi.IPPROTO_TCP and can_return(entry)

    def end(self) -> None:
        self.ended, failure = destroy(self._netlink, list(self._chosen.values()))
        if failure is None:
            return
        self.may_have_ended = failure.lost
        cause = kernel_error("ending a socket", failure.errno, failure.text)
        if failure.lost:
            cause = answer_lost("ending a socket", failure.errno)
        raise ConntrackError(f"{self.ended} of {len(self)} sockets were ended. The first error: {cause}")


def _ignore(data: bytes) -> None:
    """Ignore messages of flows without sockets."""
