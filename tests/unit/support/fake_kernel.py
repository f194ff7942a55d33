# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of the kernel's connection tracking table that answers ctnetlink's messages.

It reads and writes the bytes without the client's codec, and behaves like Linux, errno by errno: both directions
are searched, an update is applied attribute by attribute up to the refused one, and labels without a rule are lost
without an error. A test can make it fail at any message, or change the table between two messages.
"""

from __future__ import annotations

import errno
import itertools
import struct
from typing import Any, Callable, Dict, Iterable, NamedTuple

from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkSocket
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.tests.unit.support import wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import (
    ACK,
    CREATE,
    DUMP,
    EXCL,
    MULTI,
    FakeDatagrams,
    Reply,
    done,
    entry_message,
    refusal,
)

#: Types below it belong to netlink itself.
FIRST_TYPE = 0x10
NEW, GET, DELETE, GET_ZERO, GET_STATS_CPU, GET_STATS, GET_DYING, GET_UNCONFIRMED = range(0x0100, 0x0108)
WRITES = (NEW, DELETE)

EXPECTED, SEEN_REPLY, ASSURED, CONFIRMED = 1, 2, 4, 8
SRC_NAT, DST_NAT, SEQ_ADJUST, SRC_NAT_DONE, DST_NAT_DONE = 0x10, 0x20, 0x40, 0x80, 0x100
DYING, FIXED_TIMEOUT, HELPER, OFFLOAD = 0x200, 0x400, 0x2000, 0x4000
#: The status bits that an update may neither set nor clear.
GUARDED = 0x1000 | 0x800 | OFFLOAD | 0x8000 | 0x1F0 | EXPECTED | CONFIRMED | DYING
SCALED = 1
LONGEST_TIMEOUT = 8_589_934

ICMP, TCP, UDP, DCCP, GRE, ICMPV6, SCTP, UDPLITE = 1, 6, 17, 33, 47, 58, 132, 136
ANSWERS = {8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17, 128: 129, 129: 128, 139: 140, 140: 139}

Attributes = Dict[int, Any]
#: The header of an attribute
HEADER = struct.Struct("=HH").pack


class Refused(Exception):
    """The error with which the kernel answers; `code` is its errno."""

    def __init__(self, code: int) -> None:
        super().__init__(errno.errorcode[code])
        self.code = code


class Ends(NamedTuple):
    """A tuple: two addresses, the protocol, and the values that distinguish its flows.

    `more` is (source, destination) port or key, or (id, type, code) of ICMP.
    """

    source: bytes
    destination: bytes
    protocol: int
    more: tuple[int, ...] = ()

    def inverted(self) -> Ends:
        more = self.more
        if len(more) == 2:
            more = (more[1], more[0])
        elif len(more) == 3:
            more = (more[0], ANSWERS[more[1]], more[2])
        return self._replace(source=self.destination, destination=self.source, more=more)


class Zone(NamedTuple):
    """A number, and the directions (0 original, 1 reply) that are in the zone with that number."""

    number: int = 0
    directions: tuple[int, ...] = (0, 1)

    def of(self, direction: int) -> int:
        return self.number if direction in self.directions else 0


DEFAULT_ZONE = Zone()


class Connection:
    """One entry of the table."""

    #: No entry of any table ever had an earlier deadline
    earliest = float("inf")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "deadline":
            Connection.earliest = min(Connection.earliest, value)
        assert name != "tuples" or name not in self.__dict__, "tables find entries by their tuples"
        super().__setattr__(name, value)

    def __init__(self, family: int, original: Ends, reply: Ends, zone: Zone, deadline: float) -> None:
        self.family = family
        self.tuples = (original, reply)
        self.zone = zone
        self.deadline = deadline
        self.status = CONFIRMED
        self.mark = 0
        self.labels = 0
        self.helper = ""
        self.master: Connection | None = None
        self.state = 0
        self.scales = [0, 0]
        self.flags = [0, 0]
        self.tags = [0, 0]
        self.adjustments = [(0, 0, 0), (0, 0, 0)]
        self.synproxy: tuple[int, ...] = (0, 0, 0)
        self.id = 0
        self.packets: tuple[int, int] | None = None
        self.bytes: tuple[int, int] | None = None

    @property
    def key(self) -> Any:
        """Return the values that identify the connection."""
        return self.family, self.tuples[0], self.zone.of(0), self.zone.of(1)


class Fault(NamedTuple):
    """The way in which a message fails: refused with `errno`, or executed (or not) without an answer."""

    errno: int
    lost: bool = False
    carried_out: bool = False


class Kernel:
    """The tables of one network namespace, and the sockets connected to it."""

    def __init__(self, label_rule: bool = True, helpers: dict[str, int] | None = None) -> None:
        self.label_rule = label_rule
        self.helpers = {"ftp": TCP, "sip": UDP} if helpers is None else helpers
        #: Protocols without a tracker. Their tuples contain no ports
        self.untracked = {DCCP, UDPLITE}
        #: Filters that the kernel supports, such as ("dump", "mark"); without support, a filter by tuple is an error
        self.filters = {(work, by) for work in ("dump", "flush") for by in ("mark", "status", "zone", "tuple")}
        self.connections: list[Connection] = []
        self.now = 0.0
        self.faults: dict[int, Fault] = {}
        #: Called before each message with its number, to simulate changes by other processes
        self.meanwhile: Callable[[int, wire.Framed], None] | None = None
        self.sockets: list[FakeDatagrams] = []
        self._served = itertools.count()
        self._ids = itertools.count(1000)
        #: The entries that `_holders` has indexed, and the same by tuple
        self._indexed: list[Connection] = []
        self._by_tuple: dict[Ends, list[Connection]] = {}

    def connect(self) -> NetlinkSocket:
        self.sockets.append(FakeDatagrams(self.respond))
        return NetlinkSocket(self.sockets[-1])

    def table(self) -> Table:
        """Return the client's view of this table."""
        return Table(self.connect)

    @property
    def requests(self) -> list[wire.Framed]:
        """Return every message that was sent, on any socket."""
        return [request for datagrams in self.sockets for request in datagrams.requests]

    @property
    def writes(self) -> list[wire.Framed]:
        """Return every message that changes something."""
        return [request for request in self.requests if request.type in WRITES]

    def forget(self) -> None:
        """Count messages from 0 again."""
        self.sockets = []
        self._served = itertools.count()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= Connection.earliest:
            self.connections = [there for there in self.connections if there.deadline > self.now]

    def snapshot(self) -> list[Any]:
        """Return all values that a change could affect, for a comparison."""
        return sorted((there.key, repr(sorted(self._shown(there).items(), key=str))) for there in self.connections)

    def drop(self, connection: Connection) -> None:
        place = self.connections.index(connection)
        del self.connections[place]
        if place < len(self._indexed) and self._indexed[place] is connection:
            del self._indexed[place]
            for ends in dict.fromkeys(connection.tuples):
                self._by_tuple[ends].remove(connection)

    def renew(self, connection: Connection) -> Connection:
        """Replace an entry as a packet does right after its deletion: the same tuples in another entry."""
        self.drop(connection)
        other = Connection(connection.family, *connection.tuples, connection.zone, self.now + 30)
        other.id = next(self._ids)
        self.connections.append(other)
        return other

    # messages

    def respond(self, request: wire.Framed) -> Iterable[Reply]:
        number = next(self._served)
        if self.meanwhile is not None:
            self.meanwhile(number, request)
        fault = self.faults.get(number)
        if fault is not None and not fault.carried_out:
            return [OSError(fault.errno, "lost") if fault.lost else refusal(request, fault.errno)]
        try:
            answers = self._answers(request)
        except Refused as refused:
            answers = [refusal(request, refused.code)]
        if fault is not None:
            return [OSError(fault.errno, "lost")]
        return answers

    def _answers(self, request: wire.Framed) -> list[Reply]:
        if request.type < FIRST_TYPE:  # only an acknowledgement
            return [refusal(request, 0)] if request.flags & ACK else []
        family, version = request.payload[:2]
        attributes = wire.tree(request.payload[4:])
        if request.flags & DUMP == DUMP and request.type in (GET, GET_ZERO):
            shown = [
                entry_message(request, self._payload(there))
                for there in self.connections
                if family in (0, there.family) and self._passes("dump", attributes, family, there)
            ]
            return [*shown, done(request)]
        if request.flags & DUMP == DUMP:
            return [done(request)]
        answers: list[Reply] = []
        if request.type == NEW:
            self._new(family, attributes, request.flags)
        elif request.type in (GET, GET_ZERO):
            answers.append(entry_message(request, self._payload(self._get(family, attributes))))
        elif request.type == DELETE and (25 in attributes or not {1, 2} & set(attributes)):
            assert version == 1, "a flush of version 0 takes every family"
            removed = [
                there
                for there in self.connections
                if family in (0, there.family) and self._passes("flush", attributes, family, there)
            ]
            self.connections = [there for there in self.connections if there not in removed]
        elif request.type == DELETE:
            found = self._get(family, attributes)
            if 12 in attributes and number(attributes[12]) != found.id:
                raise Refused(errno.ENOENT)
            self.drop(found)
        elif request.type == GET_STATS:
            counts = encoded({1: u32(len(self.connections)), 2: u32(262_144)})
            answers.append(wire.framed(GET_STATS, MULTI, request.sequence, b"\0\0\0\0" + counts))
        else:
            raise Refused(errno.EINVAL)
        return answers + ([refusal(request, 0)] if request.flags & ACK else [])

    def _passes(self, work: str, attributes: Attributes, family: int, there: Connection) -> bool:
        """Return whether a filtered dump or flush includes the entry, on a kernel that supports these `filters`."""

        def heeded(by: str, attribute: int) -> bool:
            return attribute in attributes and (work, by) in self.filters

        if 25 in attributes and not heeded("tuple", 25):
            raise Refused(errno.EINVAL)
        if heeded("mark", 8) and (there.mark ^ number(attributes[8])) & number(attributes.get(21, b"\xff" * 4)):
            return False
        if heeded("status", 3) and there.status & number(attributes.get(26) or attributes[3]) != number(attributes[3]):
            return False
        if heeded("zone", 18) and there.zone.of(0) != number(attributes[18]):
            return False
        flags = struct.unpack("=I", attributes[25][1])[0] if 25 in attributes else 0
        return not flags & 1 or there.tuples[0].source == attributes[1][1][1]

    # searching

    def _get(self, family: int, attributes: Attributes) -> Connection:
        zone = self._zone_in(attributes)
        for key in (1, 2):
            if key in attributes:
                found = self.find(family, self._ends_in(attributes[key]), zone)
                if found is None:
                    raise Refused(errno.ENOENT)
                return found
        raise Refused(errno.EINVAL)

    def find(self, family: int, wanted: Ends, zone: Zone = DEFAULT_ZONE) -> Connection | None:
        """Return the entry that has a tuple in either direction."""
        self.pass_time(0)
        for there in self._holders(wanted):
            for direction in (0, 1):
                same = there.tuples[direction] == wanted and there.family == family
                if same and there.zone.of(direction) == zone.of(direction):
                    return there
        return None

    def _holders(self, ends: Ends) -> list[Connection]:
        """Return the entries with this tuple, in the order of the table. Tests may change the table in any way."""
        known = len(self._indexed)
        if self.connections[:known] != self._indexed:
            self._indexed, self._by_tuple, known = [], {}, 0
        for there in self.connections[known:]:
            self._indexed.append(there)
            for each in dict.fromkeys(there.tuples):
                self._by_tuple.setdefault(each, []).append(there)
        return self._by_tuple.get(ends, [])

    def _taken(self, wanted: Connection) -> bool:
        """Return whether an existing entry already has one of these tuples in the same zone."""
        for there in (*self._holders(wanted.tuples[0]), *self._holders(wanted.tuples[1])):
            for direction, ours in itertools.product((0, 1), (0, 1)):
                same = there.tuples[direction] == wanted.tuples[ours] and there.family == wanted.family
                if same and there.zone.of(direction) == wanted.zone.of(direction) == wanted.zone.of(ours):
                    return True
        return False

    def _zone_in(self, attributes: Attributes) -> Zone:
        found = [Zone(number(attributes[18]))] if 18 in attributes else []
        for direction in (0, 1):
            below = attributes.get(direction + 1, {})
            if 3 in below:
                found.append(Zone(number(below[3]), (direction,)))
        if len(found) > 1:
            raise Refused(errno.EINVAL)
        return found[0] if found else DEFAULT_ZONE

    def _ends_in(self, below: Attributes) -> Ends:
        try:
            addresses, there = below[1], below[2]
            protocol = number(there[1])
            source, destination = (addresses[1], addresses[2]) if 1 in addresses else (addresses[3], addresses[4])
            if protocol in self.untracked:
                return Ends(source, destination, protocol)
            if protocol in (TCP, UDP, DCCP, GRE, SCTP, UDPLITE):
                return Ends(source, destination, protocol, (number(there[2]), number(there[3])))
            if protocol in (ICMP, ICMPV6):
                first = 4 if protocol == ICMP else 7
                more = tuple(number(there[first + step]) for step in range(3))
                if more[1] not in ANSWERS:
                    raise Refused(errno.EINVAL)
                return Ends(source, destination, protocol, more)
        except KeyError:
            raise Refused(errno.EINVAL) from None
        return Ends(source, destination, protocol)

    # changing

    def _new(self, family: int, attributes: Attributes, flags: int) -> None:
        zone = self._zone_in(attributes)
        if 27 in attributes or not {1, 2} & set(attributes):
            raise Refused(errno.EINVAL)
        found = self.find(family, self._ends_in(attributes[1 if 1 in attributes else 2]), zone)
        if found is None and not flags & CREATE:
            raise Refused(errno.ENOENT)
        if found is None:
            self._create(family, attributes, zone)
        elif flags & EXCL:
            raise Refused(errno.EEXIST)
        else:
            self._update(found, attributes)

    def _create(self, family: int, attributes: Attributes, zone: Zone) -> None:
        if not {1, 2, 7} <= set(attributes):
            raise Refused(errno.EINVAL)
        original, reply = self._ends_in(attributes[1]), self._ends_in(attributes[2])
        if original.protocol != reply.protocol:
            raise Refused(errno.EINVAL)
        made = Connection(family, original, reply, zone, self.now + min(number(attributes[7]), LONGEST_TIMEOUT))
        if 5 in attributes:
            made.helper = text(attributes[5][1])
            if self.helpers.get(made.helper) != original.protocol:
                raise Refused(errno.EOPNOTSUPP)
        self._translate(made, attributes)
        if self.label_rule:
            made.labels = labels(attributes.get(22, b""))
        if 3 in attributes:
            self._change_status(made, number(attributes[3]))
        self._change_protocol_state(made, attributes.get(4, {}))
        self._change_rest(made, attributes)
        made.mark = number(attributes.get(8, b"\0"))
        if 14 in attributes:
            made.master = self.find(family, self._ends_in(attributes[14]), zone)
            if made.master is None:
                raise Refused(errno.ENOENT)
            made.status |= EXPECTED
        if self._taken(made):
            raise Refused(errno.EEXIST)
        made.id = next(self._ids)
        self.connections.append(made)

    def _translate(self, made: Connection, attributes: Attributes) -> None:
        if not {6, 13} & set(attributes):
            return
        original = made.tuples[0]
        for attribute, bit in ((13, DST_NAT), (6, SRC_NAT)):
            made.status |= SRC_NAT_DONE | DST_NAT_DONE
            current = made.tuples[1].inverted()
            source = bit == SRC_NAT
            wanted = self._translated(made, current, attributes.get(attribute, {}), source)
            if wanted != current:
                made.status |= bit
                made.__dict__["tuples"] = (original, wanted.inverted())  # in no table yet

    def _translated(self, made: Connection, current: Ends, nat: Attributes, source: bool) -> Ends:
        end = "source" if source else "destination"
        low = nat.get(1, nat.get(4))
        if low is not None and not low <= getattr(current, end) <= nat.get(2, nat.get(5, low)):
            current = current._replace(**{end: low})
        at = 0 if source or len(current.more) == 3 else 1
        if not current.more or (not source and 3 not in nat):  # the kernel searches no other destination port
            return current
        first, last = (number(nat[3][1]), number(nat[3].get(2, nat[3][1]))) if 3 in nat else (0, 0xFFFF)
        candidates = [current.more[at], *range(first, min(last, first + 64) + 1)]
        for candidate in candidates:
            more = (*current.more[:at], candidate, *current.more[at + 1 :])
            wanted = current._replace(more=more)
            used = self.find(made.family, wanted.inverted(), made.zone)
            if first <= candidate <= last and (used is None or first == last):
                return wanted
        return current

    def _update(self, found: Connection, attributes: Attributes) -> None:
        if {6, 13, 14} & set(attributes):
            raise Refused(errno.EOPNOTSUPP)
        if 5 in attributes:
            self._change_helper(found, text(attributes[5][1]))
        if 7 in attributes:
            if found.status & FIXED_TIMEOUT:
                raise Refused(errno.EPERM)
            found.deadline = self.now + min(number(attributes[7]), LONGEST_TIMEOUT)
        if 3 in attributes:
            self._change_status(found, number(attributes[3]))
        self._change_protocol_state(found, attributes.get(4, {}))
        if 8 in attributes:
            mask = number(attributes.get(21, b"\xff" * 4))
            found.mark = found.mark & ~mask ^ number(attributes[8])
        self._change_rest(found, attributes)
        if 22 in attributes:
            if not self.label_rule:
                raise Refused(errno.ENOSPC)
            mask = labels(attributes.get(23, b"\xff" * 16))
            found.labels = found.labels & ~mask ^ labels(attributes[22])

    def _change_helper(self, found: Connection, name: str) -> None:
        if found.status & EXPECTED:
            raise Refused(errno.EBUSY)
        if not name:
            found.helper = ""
        elif not found.helper:
            raise Refused(errno.EOPNOTSUPP)
        elif name != found.helper:
            raise Refused(errno.EBUSY)

    def _change_status(self, found: Connection, status: int) -> None:
        different = found.status ^ status
        if different & (EXPECTED | CONFIRMED | DYING):
            raise Refused(errno.EBUSY)
        if different & found.status & (SEEN_REPLY | ASSURED):
            raise Refused(errno.EBUSY)
        found.status |= status & ~GUARDED

    def _change_protocol_state(self, found: Connection, state: Attributes) -> None:
        protocol = found.tuples[0].protocol
        if protocol == TCP and 1 in state:
            there = state[1]
            if 1 in there:
                if number(there[1]) > 9:
                    raise Refused(errno.ERANGE)
                found.state = number(there[1])
            for direction in (0, 1):
                if 4 + direction in there:
                    value, mask = there[4 + direction]
                    found.flags[direction] = found.flags[direction] & ~mask | value & mask
            if {2, 3} <= set(there) and found.flags[0] & found.flags[1] & SCALED:
                found.scales = [number(there[2]), number(there[3])]
        elif protocol == SCTP and 3 in state:
            there = state[3]
            if not {1, 2, 3} <= set(there):
                raise Refused(errno.EINVAL)
            if number(there[1]) > 8:
                raise Refused(errno.ERANGE)
            found.state, found.tags = number(there[1]), [number(there[2]), number(there[3])]

    def _change_rest(self, found: Connection, attributes: Attributes) -> None:
        for direction in (0, 1):
            there = attributes.get(15 + direction)
            if there is not None:
                if not {1, 2, 3} <= set(there):
                    raise Refused(errno.EINVAL)
                found.adjustments[direction] = struct.unpack(">Iii", there[1] + there[2] + there[3])
                found.status |= SEQ_ADJUST
        if 24 in attributes:
            if not {1, 2, 3} <= set(attributes[24]):
                raise Refused(errno.EINVAL)
            found.synproxy = tuple(number(attributes[24][member]) for member in (1, 2, 3))

    # showing

    def _payload(self, there: Connection) -> bytes:
        return bytes([there.family, 1, 0, 0]) + encoded(self._shown(there))

    def _shown(self, there: Connection) -> Attributes:
        protocol = there.tuples[0].protocol
        shown: Attributes = {}
        for direction in (0, 1):
            shown[direction + 1] = tuple_attributes(there.family, there.tuples[direction])
            if there.zone.directions == (direction,):
                shown[direction + 1][3] = u16(there.zone.number)
        if there.zone.directions == (0, 1) and there.zone.number:
            shown[18] = u16(there.zone.number)
        shown[3] = u32(there.status)
        if not there.status & OFFLOAD:
            shown[7] = u32(max(0, int(there.deadline - self.now)))
            if protocol == TCP:
                flags = [bytes([value, 0]) for value in there.flags]
                shown[4] = {
                    1: {1: u8(there.state), 2: u8(there.scales[0]), 3: u8(there.scales[1]), 4: flags[0], 5: flags[1]}
                }
            elif protocol == SCTP:
                shown[4] = {3: {1: u8(there.state), 2: u32(there.tags[0]), 3: u32(there.tags[1])}}
        if there.packets is not None and there.bytes is not None:
            for direction in (0, 1):
                counts = {1: struct.pack(">Q", there.packets[direction]), 2: struct.pack(">Q", there.bytes[direction])}
                shown[9 + direction] = counts
        if there.helper:
            shown[5] = {1: there.helper.encode() + b"\0"}
        shown[8] = u32(there.mark)
        if there.master is not None:
            shown[14] = tuple_attributes(there.family, there.master.tuples[0])
        if there.status & SEQ_ADJUST:  # of both directions or of neither
            for direction, (position, before, after) in enumerate(there.adjustments):
                shown[15 + direction] = {1: u32(position), 2: struct.pack(">i", before), 3: struct.pack(">i", after)}
        if there.labels:
            shown[22] = struct.pack("=4I", *(there.labels >> shift & 0xFFFFFFFF for shift in range(0, 128, 32)))
        shown[24] = {member: u32(value) for member, value in enumerate(there.synproxy, 1)}
        shown[12] = u32(there.id)
        shown[11] = u32(2)
        return shown


# bytes


def number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def text(data: bytes) -> str:
    return data.rstrip(b"\0").decode()


def labels(data: bytes) -> int:
    if len(data) % 4:
        raise Refused(errno.EINVAL)
    return sum(word << 32 * at for at, (word,) in enumerate(struct.iter_unpack("=I", data)))


def u8(value: int) -> bytes:
    return struct.pack(">B", value)


def u16(value: int) -> bytes:
    return struct.pack(">H", value)


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def encoded(attributes: Attributes) -> bytes:
    """Encode a tree of attributes, each with its length and padding."""
    parts = []
    for kind, value in attributes.items():
        if isinstance(value, dict):
            value, kind = encoded(value), kind | wire.NESTED
        length = len(value)
        parts += HEADER(4 + length, kind), value, wire.PADDING[length % 4]
    return b"".join(parts)


def tuple_attributes(family: int, ends: Ends) -> Attributes:
    first = 1 if family == 2 else 3
    shown: Attributes = {1: {first: ends.source, first + 1: ends.destination}, 2: {1: u8(ends.protocol)}}
    if len(ends.more) == 2:
        shown[2].update({2: u16(ends.more[0]), 3: u16(ends.more[1])})
    elif len(ends.more) == 3:
        first = 4 if ends.protocol == ICMP else 7
        shown[2].update({first: u16(ends.more[0]), first + 1: u8(ends.more[1]), first + 2: u8(ends.more[2])})
    return shown
