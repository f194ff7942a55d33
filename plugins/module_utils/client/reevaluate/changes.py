# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of a network namespace after which existing flows may be stale.

The kernel sends messages about the ruleset, links, addresses, routes and policy rules. A message is a change if it
changes what a `Reevaluation` reads. The kernel also sends messages about the carrier of a link, the lifetime of an
address, and wireless networks. A copy of the links and addresses shows which messages are changes.

No message reports packets that fill a set, elements of a set that expire, tables that the kernel removes when their
owner exits, or sysctls.

Source: nf_tables_gen_notify in net/netfilter/nf_tables_api.c; rtnetlink(7).
"""

from __future__ import annotations

import contextlib
import errno
import select
import struct
from typing import Callable, Collection, Iterable, Iterator, NamedTuple

from ..ctnetlink.messages import nfgenmsg
from ..errors import ResultUnknown, kernel_error
from ..netlink.message import Message, parse
from ..netlink.socket import Closing, DumpInterrupted, NetlinkSocket, NetlinkTransport
from . import numbers as n
from .expressions import number_of
from .network import (
    AGGREGATES,
    ATTEMPTS,
    address_key,
    address_requests,
    attributes_of,
    dump_addresses,
    dump_links,
    link_of,
    link_of_route,
    route_requests,
    shows_link,
)
from .ruleset import generation

Connect = Callable[..., NetlinkTransport]

RULESET = "ruleset"
#: The multicast groups of rtnetlink for each kind of change of the network configuration.
_GROUPS = {
    "address": (n.RTNLGRP_IPV4_IFADDR, n.RTNLGRP_IPV6_IFADDR),
    "route": (n.RTNLGRP_IPV4_ROUTE, n.RTNLGRP_IPV6_ROUTE, n.RTNLGRP_NEXTHOP),
    "rule": (n.RTNLGRP_IPV4_RULE, n.RTNLGRP_IPV6_RULE),
    "link": (n.RTNLGRP_LINK,),
}
#: The kinds of changes.
KINDS = (RULESET, *_GROUPS)

_INSTRUCTION = struct.Struct("=HBBI")
_TYPE_OFFSET = 4
_PASS = 0xFFFFFFFF


class Process(NamedTuple):
    """A process: the first 15 bytes of the name of its program, and its id in the initial PID namespace."""

    name: str
    pid: int


class Change(NamedTuple):
    """A change.

    `kind` is one of `KINDS`. `process` is the process that changed the ruleset, None for other changes. If `lost` is
    True, the kernel dropped messages, and one of them may have been about such a change.
    """

    kind: str
    process: Process | None = None
    lost: bool = False


class ChangeSubscription(Closing):
    """The changes of some kinds in the network namespace of this thread. Close it after use."""

    def __init__(self, kinds: Iterable[str], datagrams: NetlinkTransport) -> None:
        self._kinds = tuple(kinds)
        self._datagrams = datagrams
        self._poll = select.poll()
        self._poll.register(self.fileno(), select.POLLIN)

    def close(self) -> None:
        self._datagrams.close()

    def fileno(self) -> int:
        """Return the file descriptor, which is readable if there are messages."""
        return self._datagrams.fileno()

    def receive(self, most: int) -> list[Change]:
        """Return the changes in the datagrams that have arrived, at most `most`, without waiting.

        If the kernel dropped messages, the list has a change of each kind with `lost`.
        """
        changes: list[Change] = []
        for _datagram in range(most):
            if not self._poll.poll(0):
                break
            try:
                datagram = self._datagrams.receive()
            except OSError as error:
                if error.errno == errno.ETIMEDOUT:
                    break
                if error.errno != errno.ENOBUFS:
                    raise kernel_error("receiving changes", error.errno or errno.EIO) from error
                self._read_again()
                changes += [Change(kind, lost=True) for kind in self._kinds]
                continue
            for _sequence, message in parse(datagram):
                change = self._change_of(message)
                if change is not None:
                    changes.append(change)
        return changes

    def _read_again(self) -> None:
        """Read again what messages are compared with, after some were dropped."""

    def _change_of(self, message: Message) -> Change | None:
        """Return the change that a message reports, or None."""
        raise NotImplementedError


class RulesetChanges(ChangeSubscription):
    """Changes of the nftables ruleset, also by iptables-nft: one for each transaction, however many rules it has.

    Raises `Unavailable` if the kernel has no nf_tables, and `NotPermitted` without CAP_NET_ADMIN.
    """

    def __init__(self, receive_buffer: int, connect: Connect = NetlinkTransport) -> None:
        # The kernel lets a socket join the group even if it has no nf_tables
        with NetlinkSocket(connect()) as netlink:
            generation(netlink)
        program = _pass_only(n.NFT_MSG_NEWGEN)
        groups = (n.NFNLGRP_NFTABLES,)
        super().__init__((RULESET,), connect(receive_buffer=receive_buffer, groups=groups, program=program))

    def _change_of(self, message: Message) -> Change | None:
        if message.type != n.NFT_MSG_NEWGEN:
            return None
        parsed = attributes_of(message.payload, len(nfgenmsg()))
        name, pid = parsed.get(n.NFTA_GEN_PROC_NAME), parsed.get(n.NFTA_GEN_PROC_PID)
        if name is None or pid is None:
            return Change(RULESET)
        return Change(RULESET, Process(name.rstrip(b"\0").decode("utf-8", "replace"), number_of(pid)))


class NetworkChanges(ChangeSubscription):
    """Changes of addresses, routes, policy rules and links, as far as `kinds` has them.

    These are changes:

    - an address is added, removed, or deprecated, but not if only its lifetime changes
    - a route or a nexthop object is added, replaced or removed, without the routes that the kernel adds for each
      address in the table `local`
    - a policy rule is added or removed
    - a link is set up or down, or while it is up, is removed or renamed, or gets another master or group

    With "link" among the kinds, the messages about the ports of a bridge, a bond or a team, and about their addresses
    and routes, are not changes. A `Reevaluation` reads only those of the master.
    """

    def __init__(self, kinds: Collection[str], receive_buffer: int, connect: Connect = NetlinkTransport) -> None:
        groups = [group for kind in kinds for group in _GROUPS[kind]]
        super().__init__(kinds, connect(receive_buffer=receive_buffer, groups=groups, protocol=n.NETLINK_ROUTE))
        self._connect = connect
        #: Links by which packets come in by their index, and the requests for addresses by their keys.
        self._known: dict[object, object] = {}
        #: The indexes of bridges, bonds and teams, and of their ports.
        self._aggregates: set[int] = set()
        self._ports: set[int] = set()
        self._is_complete = False
        try:
            self._read_again()
        except BaseException:
            self.close()
            raise

    def _read_again(self) -> None:
        for known in (self._known, self._aggregates, self._ports):
            known.clear()
        self._is_complete = False
        with NetlinkSocket(self._connect(protocol=n.NETLINK_ROUTE)) as netlink:
            for _attempt in range(ATTEMPTS):
                with contextlib.suppress(DumpInterrupted, ResultUnknown):
                    links = dump_links(netlink) if "link" in self._kinds else []
                    addresses = dump_addresses(netlink) if "address" in self._kinds else []
                    for message in (*links, *links, *addresses):  # a port may come before its master
                        self._is_news(message)
                    self._is_complete = True
                    return
        # They change too often to be read. The next message about each one then counts as a change

    def _change_of(self, message: Message) -> Change | None:
        kind = _KINDS_BY_TYPE.get(message.type)
        return Change(kind) if kind in self._kinds and self._is_news(message) else None

    def _is_news(self, message: Message) -> bool:
        """Return whether a message changes what is known, and remember it."""
        if message.type in (n.RTM_NEWROUTE, n.RTM_DELROUTE):
            return bool(route_requests(message)) and link_of_route(message) not in self._ports
        if message.type in (n.RTM_NEWLINK, n.RTM_DELLINK):
            if not shows_link(message):
                return False
            return self._is_link_news(message)
        if message.type in (n.RTM_NEWADDR, n.RTM_DELADDR):
            requests = [] if message.type == n.RTM_DELADDR else address_requests(message)
            key = address_key(message)
            return self._remember(key, requests or None) and key[0] not in self._ports
        return True

    def _is_link_news(self, message: Message) -> bool:
        link = link_of(message)
        exists = message.type == n.RTM_NEWLINK
        is_port = link.master in self._aggregates
        for numbers, has in ((self._aggregates, link.kind in AGGREGATES), (self._ports, is_port)):
            if exists and has:
                numbers.add(link.number)
            else:
                numbers.discard(link.number)
        return self._remember(link.number, link if exists and link.is_up and not is_port else None)

    def _remember(self, key: object, value: object) -> bool:
        """Remember a link or an address, None if it is gone or has no effect. Return whether that is a change."""
        is_news = self._known.get(key) != value or not (self._is_complete or key in self._known)
        if value is None:
            self._known.pop(key, None)
        else:
            self._known[key] = value
        return is_news


_KINDS_BY_TYPE = {
    **dict.fromkeys((n.RTM_NEWLINK, n.RTM_DELLINK), "link"),
    **dict.fromkeys((n.RTM_NEWADDR, n.RTM_DELADDR), "address"),
    **dict.fromkeys((n.RTM_NEWROUTE, n.RTM_DELROUTE, n.RTM_NEWNEXTHOP, n.RTM_DELNEXTHOP), "route"),
    **dict.fromkeys((n.RTM_NEWRULE, n.RTM_DELRULE), "rule"),
}


@contextlib.contextmanager
def subscribed(kinds: Collection[str], receive_buffer: int) -> Iterator[list[ChangeSubscription]]:
    """Subscribe to changes of these kinds during the block, with one or two sockets. Raises the errors of both."""
    network = [kind for kind in kinds if kind != RULESET]
    with contextlib.ExitStack() as opened:
        subscriptions: list[ChangeSubscription] = []
        if network:
            subscriptions.append(opened.enter_context(NetworkChanges(network, receive_buffer)))
        if RULESET in kinds:
            subscriptions.append(opened.enter_context(RulesetChanges(receive_buffer)))
        yield subscriptions


def _pass_only(kind: int) -> bytes:
    """Return a BPF program with which a socket receives only messages of a type.

    A ruleset may have thousands of rules, and the kernel sends them all before the message about the transaction.
    """
    loaded = int.from_bytes(struct.pack("=H", kind), "big")
    return b"".join(
        _INSTRUCTION.pack(*instruction)
        for instruction in (
            (n.BPF_LD_H_ABS, 0, 0, _TYPE_OFFSET),
            (n.BPF_JEQ_K, 0, 1, loaded),
            (n.BPF_RET_K, 0, 0, _PASS),
            (n.BPF_RET_K, 0, 0, 0),
        )
    )
