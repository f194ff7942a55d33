# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replay the first packet of a flow in the scratch namespace, and read the resulting entry and trace.

The kernel processes a packet completely within the system call that sends it. Its event and its trace exist when that
returns. Only packets that come in again by the loopback may wait for the kernel's thread for them (ksoftirqd).
"""

from __future__ import annotations

import errno
import time
from typing import Any, Iterable, Iterator, NamedTuple

from .. import uapi
from ..ctnetlink.messages import nfgenmsg
from ..dump.scan import DumpDecoder, Entries
from ..entry.entry import Entry
from ..entry.tuple import tuple_key
from ..errors import kernel_error
from ..netlink.message import Message, parse
from . import numbers as n
from .expressions import ALWAYS, TRACED
from .flow import Flow, FlowKeys, flow_of
from .network import Network, has_default_route, path_to
from .ruleset import DELIVERED, LEFT, RECEIVED, UNTRACKED_CHAINS
from .scratch import Scratch
from .trace import Step, parse_step

#: The way of packets that a socket of the host sends. Other ways are numbers of links.
FROM_HOST = 0
#: Packets after which the scratch table is emptied. Its entries have expired, but they count.
_EMPTY_AFTER = 32768
#: Seconds to wait for a packet that comes in by the loopback, and between two looks.
_LOOPBACK_TIMEOUT, _LOOPBACK_PAUSE = 1.0, 0.001
#: Errors of a packet that a rule or a route refuses: EPERM, and those of unreachable, prohibited and blackhole routes.
_REFUSED = (errno.EPERM, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
#: The maximum number of cached ways.
_MOST_WAYS = 65536
_READING_TRACE = "reading the trace of the scratch namespace"


class Outcome(NamedTuple):
    """The result of one replayed packet: the entry that the kernel made, or None, and the steps of the trace.

    `is_sent` is False if the packet could not be sent, which gives no information about the flow.
    """

    entry: Entry | None
    steps: tuple[Step, ...]
    is_sent: bool = True


def receiver_of(entry: Entry, made: Entry | None) -> bytes:
    """Return the destination address of the first packet after NAT. `made` is the entry that the kernel made."""
    receiver: bytes = entry["original.destination"] if made is None else made["reply.source"]
    return receiver


class Replay:
    """Sends packets into the scratch namespace, and reads events and traces."""

    def __init__(self, scratch: Scratch, network: Network, own_table: str) -> None:
        self._scratch = scratch
        self._own_table = own_table
        self._events = scratch.listen(uapi.NFNLGRP_CONNTRACK_NEW)
        self._traces = scratch.listen(n.NFNLGRP_NFTRACE)
        self._local = network.local_addresses()
        self._divided, self._is_multipath = network.divided_networks(), network.has_multipath()
        self._ingress = {link.number for link in network.ingress_links()}
        self._ways: dict[Any, tuple[int, ...]] = {}
        self._entries, self._keys = Entries(), FlowKeys()
        self._decoder, self._key_decoder = DumpDecoder(self._entries), DumpDecoder(self._keys)
        self._sent = 0

    def is_local(self, address: bytes) -> bool:
        """Whether an address is one of the host, also by the network of the loopback."""
        return address in self._local or (len(address) == 4 and address[0] == 127)

    def ways_of(self, flow: Flow) -> tuple[int, ...]:
        """Return the ways by which the first packet of a flow can have come in. Empty if there is none.

        That is the link of the route back to its source. If there is none or that is a default route, and another
        link has the destination address, it may have come in by that one.
        """
        source, answering, destination = flow.layout.addresses(flow.values)
        network = source[:3] if len(source) == 4 else source[:8]
        key = (
            source if self._is_multipath or network in self._divided else network,
            answering if answering in self._local else b"",
            destination if destination in self._local else b"",
        )
        found = self._ways.get(key)
        if found is None:
            if len(self._ways) >= _MOST_WAYS:
                self._ways.clear()
            found = self._ways[key] = tuple(dict.fromkeys(self._find_ways(source, answering, destination)))
        return found

    def _find_ways(self, source: bytes, answering: bytes, destination: bytes) -> Iterator[int]:
        back = path_to(self._scratch.routes, source)
        if back is not None and back.type == n.RTN_LOCAL:
            yield FROM_HOST
            return
        own = next((each for each in (destination, answering) if each in self._local), b"")
        if own:
            back = path_to(self._scratch.routes, source, own) or back
        if back is not None and back.type == n.RTN_UNICAST:
            yield back.link
        other = self._local.get(destination)
        if other in self._ingress and (back is None or has_default_route(self._scratch.routes, source, own)):
            yield other

    def way_out(self, entry: Entry) -> int | None:
        """Return the link by which packets of a flow leave, None if they do not."""
        path = path_to(self._scratch.routes, entry["reply.source"])
        return path.link if path is not None and path.type == n.RTN_UNICAST else None

    def send(self, flow: Flow, way: int, control: int = 0) -> bool:
        """Send the first packet of a flow with some bits of the control word. Return False if it cannot be sent."""
        self._sent += 1
        if self._sent >= _EMPTY_AFTER:
            self._empty()
        packet = flow.layout.packet(flow.values, ALWAYS | control)
        if way != FROM_HOST:
            return self._scratch.receive_on(way, packet)
        source, _answering, destination = flow.layout.addresses(flow.values)
        try:
            self._scratch.send_from_host(source, destination, packet)
        except OSError as error:
            return error.errno in _REFUSED
        return True

    def trace(self, entry: Entry, way: int, number: int = 0) -> Outcome:
        """Send the first packet of a flow, with the number of an undecidable rule that is to match, and trace it."""
        is_sent = self.send(flow_of(entry), way, TRACED | number)
        key = tuple_key(entry, "original")
        made = next((one for one in self.new_entries() if tuple_key(one, "original") == key), None)
        steps = list(self.steps())
        if self.is_by_loopback(way, receiver_of(entry, made)):
            until = time.monotonic() + _LOOPBACK_TIMEOUT
            while not self._has_ended(steps) and time.monotonic() < until:
                time.sleep(_LOOPBACK_PAUSE)
                steps += self.steps()
        return Outcome(made, tuple(steps), is_sent)

    def is_by_loopback(self, way: int, *receivers: bytes) -> bool:
        """Whether a packet goes from the host to itself. It comes in again after its entry was made."""
        return way == FROM_HOST and any(map(self.is_local, receivers))

    def is_delivered(self, steps: Iterable[Step]) -> bool:
        """Whether a packet has passed all rules to the host itself."""
        return self._reached(DELIVERED, steps)

    def is_untracked(self, steps: Iterable[Step]) -> bool:
        """Whether a packet has passed all rules, and a rule has excluded it from tracking."""
        return any(self._reached(chain, steps) for chain in UNTRACKED_CHAINS)

    def is_received(self, steps: Iterable[Step]) -> bool:
        """Return whether the rules have processed a packet that came in by a link."""
        return any(step.chain == RECEIVED and step.rule[1] == self._own_table for step in steps)

    def has_left(self, steps: Iterable[Step]) -> bool:
        """Whether a packet has passed all rules out of the host."""
        return self._reached(LEFT, steps)

    def _reached(self, chain: str, steps: Iterable[Step]) -> bool:
        """Whether the packet came to a chain of the own table. The chain's rule matches no other packet.

        The ends of the chain, which have no handle, are those of any packet.
        """
        return any(step.chain == chain and step.rule[1] == self._own_table and step.rule[2] for step in steps)

    def _has_ended(self, steps: Iterable[Step]) -> bool:
        return self.is_delivered(steps) or any(step.verdict == n.NF_DROP for step in steps)

    def new_entries(self) -> list[Entry]:
        """Return the entries that were made since the last call."""
        self._decoder.feed(self._new_events())
        found = self._entries.found[:]
        self._entries.found.clear()
        return found

    def new_flows(self) -> set[tuple[Any, ...]]:
        """Return the first two fields of the flows whose entries were made since the last call."""
        self._key_decoder.feed(self._new_events())
        found = self._keys.found.copy()
        self._keys.found.clear()
        return found

    def _new_events(self) -> bytes:
        try:
            return self._events.pending()
        except OSError as error:
            raise kernel_error("reading the events of the scratch namespace", error.errno or errno.EIO) from error

    def steps(self) -> Iterator[Step]:
        """Yield the steps that were traced since the last call."""
        try:
            for _sequence, message in parse(self._traces.pending()):
                step = parse_step(message)
                if step is not None:
                    yield step
        except OSError as error:
            raise kernel_error(_READING_TRACE, error.errno or errno.EIO) from error

    def is_traced(self) -> bool:
        """Return whether a packet was traced since the last call. Lost messages were of a trace, too."""
        is_lost = False
        while True:
            try:
                return bool(self._traces.pending()) or is_lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise kernel_error(_READING_TRACE, error.errno or errno.EIO) from error
                is_lost = True

    def _empty(self) -> None:
        """Delete all entries of the scratch namespace."""
        self._sent = 0
        self._scratch.ruleset.request(Message(uapi.IPCTNL_MSG_CT_DELETE, 0, nfgenmsg()))
