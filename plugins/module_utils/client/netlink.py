# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netlink over the standard library's sockets: framing, acknowledgements, windows, dumps, errors.

Knows nothing of conntrack. Source: include/uapi/linux/netlink.h, and
Documentation/userspace-api/netlink/intro.rst in the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct
import sys
from _thread import allocate_lock
from typing import Callable, Generator, Iterable, Iterator, NamedTuple

from . import uapi
from .ahead import ahead, beside
from .codec import MalformedMessage, attributes
from .errors import ConntrackError, Unavailable, kernel_error

#: struct nlmsghdr: length, type, flags, sequence, port.
HEADER = struct.Struct("=IHHII")
_ERRNO = struct.Struct("=i")
_OFFSET = struct.Struct("=I")
_SOCK_FILTER_SIZE = 8
_TIMEVAL = struct.Struct("@ll")
#: Where the flags of a netlink header have their lowest eight bits.
_FLAGS_AT = 6 if sys.byteorder == "little" else 7

#: As a plain number: asking an enumeration costs a request one part in twenty.
_TRUNCATED = int(socket.MSG_TRUNC)

#: The kernel fills a dump's datagrams up to 32 KiB when the reader offers that much.
_BUFFER_SIZE = 1 << 16
#: Requests in one send. All of them refused, their answers still fit a default receive buffer.
WINDOW = 64
#: The same for many requests, where the receive buffer could be made that large.
WIDE_WINDOW = 256
#: Bytes of a receive buffer, as the kernel counts, that a refusal with all its text may take.
_REFUSAL_ROOM = 3328
#: The same where each is answered by what was asked for.
ANSWERED_WINDOW = 32
#: Seconds without an answer after which a request's result counts as unknown.
TIMEOUT = 10.0


class Message(NamedTuple):
    """A netlink message without its length and sequence: what is sent, and what is received."""

    type: int
    flags: int
    payload: bytes


class Window(NamedTuple):
    """Requests in one datagram, `count` of them numbered from `first` on; the last alone asks for an
    acknowledgement."""

    frames: bytes
    first: int
    count: int  # type: ignore[assignment]  # of requests; that of values, which tuples have, nobody needs


class Refusal(NamedTuple):
    """An error answer: errno (positive), the kernel's text, and the attribute it points at."""

    errno: int
    text: str | None = None
    attribute: int | None = None


class Refused(ConntrackError):
    """A single request was refused; callers who know what it was about say so."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text or errno.errorcode.get(refusal.errno, str(refusal.errno)))
        self.refusal = refusal


class DumpInterrupted(ConntrackError):
    """The table changed under a dump in a way that may have skipped entries: dump again."""


class Datagrams:
    """A netlink socket as a source and sink of datagrams: all that needs a kernel.

    `groups` are joined after the BPF `program`, an array of struct sock_filter, is in place, so that
    nothing comes in unfiltered. `receive_buffer` is in bytes; beyond net.core.rmem_max it takes
    CAP_NET_ADMIN in the initial user namespace.
    """

    def __init__(
        self,
        timeout: float = TIMEOUT,
        receive_buffer: int | None = None,
        groups: Iterable[int] = (),
        program: bytes = b"",
    ) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, uapi.NETLINK_NETFILTER
            )
        except AttributeError as error:  # not Linux
            raise Unavailable("opening a netfilter netlink socket", errno.EPROTONOSUPPORT) from error
        except OSError as error:
            raise kernel_error("opening a netfilter netlink socket", error.errno or errno.EIO) from error
        self._socket.bind((0, 0))
        seconds, fraction = divmod(timeout, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(int(seconds), int(fraction * 1e6)))
        for option in (uapi.NETLINK_EXT_ACK, uapi.NETLINK_CAP_ACK):
            with contextlib.suppress(OSError):  # before Linux 4.12
                self._socket.setsockopt(uapi.SOL_NETLINK, option, 1)
        self._is_sized = receive_buffer is not None
        if receive_buffer is not None:
            self._set_receive_buffer(receive_buffer)
        try:
            if program:
                self._attach(program)
            for group in groups:
                self._socket.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            self.close()
            raise kernel_error("subscribing to events", error.errno or errno.EIO) from error
        self._buffer = bytearray(_BUFFER_SIZE)

    def _attach(self, program: bytes) -> None:
        import ctypes

        code = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("@HP", len(program) // _SOCK_FILTER_SIZE, ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, uapi.SO_ATTACH_FILTER, fprog)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def receive_buffer(self) -> int:
        """Bytes of the receive buffer, as the kernel counts: twice what was asked for, as far as it was granted."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def grow(self, receive_buffer: int) -> int:
        """Make the receive buffer so many bytes, as far as it is granted; gives how many the kernel counts.

        One that was asked for when the socket was made stays as it is.
        """
        if not self._is_sized:
            self._set_receive_buffer(receive_buffer)
        return self.receive_buffer

    def _set_receive_buffer(self, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, uapi.SO_RCVBUFFORCE, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def send(self, datagram: bytes) -> None:
        self._socket.send(datagram)

    def receive(self) -> bytes:
        """The next datagram of the kernel's.

        Raises `OSError`: ETIMEDOUT where none came in time, ENOBUFS where some were lost (those
        that were not are thrown away, or the next answer would find no room either),
        EMSGSIZE where it was longer than the buffer.
        """
        while True:
            try:
                size, _ancillary, flags, sender = self._socket.recvmsg_into([self._buffer])
            except BlockingIOError:
                raise OSError(errno.ETIMEDOUT, "no answer") from None
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    self._discard()
                raise
            if flags & _TRUNCATED:
                raise OSError(errno.EMSGSIZE, "datagram longer than the buffer")
            if sender[0] == 0:
                return bytes(memoryview(self._buffer)[:size])

    def _discard(self) -> None:
        """Empty the receive buffer: until it is, the kernel drops what it has to say, in silence."""
        while True:
            try:
                self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # it has overrun again meanwhile
                    raise

    def close(self) -> None:
        self._socket.close()


class Socket:
    """Requests and their answers over one netlink socket; one dump at a time."""

    def __init__(self, datagrams: Datagrams | None = None) -> None:
        self._datagrams = datagrams or Datagrams()
        self._last = 0
        # A window may be on its way in a thread of its own while its reader asks something else.
        self._busy = allocate_lock()
        self._wide_window: int | None = None

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._datagrams.close()

    def request(self, message: Message) -> list[Message]:
        """Send one request and return the messages that answer it.

        Raises `Refused` with the kernel's error; `ResultUnknown` (or `Overrun`) where the answer
        did not come.
        """
        sequence = self.numbers(1)
        answers: list[Message] = []
        try:
            with self._busy:
                self._datagrams.send(frame(message, sequence, uapi.NLM_F_ACK))
                for _sequence, answer in self._receive(sequence, sequence):
                    if answer.type == uapi.NLMSG_ERROR:
                        refusal = _refusal(answer, {sequence: message})
                        if refusal is not None:
                            raise Refused(refusal)
                        break
                    answers.append(answer)
        except OSError as error:
            raise kernel_error("waiting for an answer", error.errno or errno.EIO) from error
        return answers

    def numbers(self, count: int) -> int:
        """Sequence numbers for so many requests: the first of them."""
        first = self._last % 0xFF000000 + 1  # of 32 bits, and never 0
        self._last = first + count - 1
        return first

    def carry_out(self, windows: Iterable[Window]) -> Iterator[tuple[Window, dict[int, Refusal]]]:
        """Send windows of requests; each comes back with what was refused of it, by position.

        The next windows are built while one is being sent, and those that are built are sent: a caller who
        stops early finds that up to eight windows more were carried out than came back.

        Within a window only errors and the last request are acknowledged. If an answer is lost, each
        request of the window that was not refused before counts as refused with ENOBUFS or ETIMEDOUT: it
        may have been carried out.
        """
        return beside(self._exchange, windows)

    def wide_window(self) -> int:
        """How many requests a window can have, so that an answer to each of them finds room.

        Makes the receive buffer larger, which takes CAP_NET_ADMIN in the initial user namespace.
        """
        if self._wide_window is None:
            roomy = self._datagrams.grow(WIDE_WINDOW * _REFUSAL_ROOM) >= WIDE_WINDOW * _REFUSAL_ROOM
            self._wide_window = WIDE_WINDOW if roomy else WINDOW
        return self._wide_window

    def ask_all(self, messages: Iterable[Message]) -> Iterator[list[Message] | Refusal]:
        """Send requests in windows; for each, in order, the messages that answer it or why it was refused.

        Where answers are lost, each request that has none yields a refusal with ENOBUFS or ETIMEDOUT.
        """
        for window in self.in_windows(messages, ANSWERED_WINDOW):
            answers: dict[int, list[Message]] = {}
            refusals = self._exchange(window, answers)
            for position in range(window.count):
                if position in refusals and position not in answers:
                    yield refusals[position]
                else:
                    yield answers.get(position, [])

    def in_windows(self, messages: Iterable[Message], size: int = WINDOW) -> Iterator[Window]:
        """Requests in windows of that size, built as they are asked for."""
        source = iter(messages)
        while True:
            some = list(itertools.islice(source, size))
            if not some:
                return
            first = self.numbers(len(some))
            yield window([frame(message, number) for number, message in enumerate(some, first)], first)

    def _exchange(self, window: Window, answers: dict[int, list[Message]] | None = None) -> dict[int, Refusal]:
        first, last = window.first, window.first + window.count - 1
        sent: dict[int, Message] = {}
        refusals: dict[int, Refusal] = {}
        with self._busy:
            try:
                self._datagrams.send(window.frames)
                for sequence, answer in self._receive(first, last):
                    if answer.type == uapi.NLMSG_ERROR:
                        if _errno_of(answer):
                            sent = sent or dict(parse(window.frames))
                            refusal = _refusal(answer, sent)
                            if refusal is not None:
                                refusals[sequence - first] = refusal
                        if sequence == last:
                            break
                    elif answers is not None:
                        answers.setdefault(sequence - first, []).append(answer)
            except OSError as error:
                unknown = Refusal(error.errno or errno.EIO)
                for position in range(window.count):
                    refusals.setdefault(position, unknown)
        return refusals

    def dump(self, message: Message) -> Iterator[Message]:
        """Everything that answers a dump request, to its end. Raises what `scan` does."""
        found: list[Message] = []

        def sort(datagram: bytes) -> list[Message]:
            answers = [answer for _sequence, answer in parse(datagram)]
            found.extend(answer for answer in answers if answer.type >= uapi.NLMSG_MIN_TYPE)
            return [answer for answer in answers if _is_control(answer)]

        for _datagram in self.scan(message, sort):
            yield from found
            found.clear()

    def scan(self, message: Message, feed: Callable[[bytes], Iterable[Message]]) -> Iterator[None]:
        """Give each datagram that answers a dump request to `feed`, and come back after each.

        `feed` returns the control messages in there, and those that say the dump was interrupted. While it
        works, the next datagrams are received. Raises `Refused`, `DumpInterrupted` at the end of a dump that
        the kernel itself calls inconsistent, `Overrun` or `ResultUnknown` where messages were lost.
        """
        sequence = self.numbers(1)
        try:
            with contextlib.closing(self._ahead(message, sequence)) as datagrams:
                interrupted = False
                for datagram in datagrams:
                    ended = False
                    for control in feed(datagram):
                        interrupted = interrupted or bool(control.flags & uapi.NLM_F_DUMP_INTR)
                        ended = ended or _ends_dump(control, {sequence: message})
                    yield
                    if ended and interrupted:
                        raise DumpInterrupted("the table changed while it was read; read it again")
                    if ended:
                        return
        except OSError as error:
            raise kernel_error("reading the table", error.errno or errno.EIO) from error

    def _ahead(self, message: Message, sequence: int) -> Generator[bytes, None, None]:
        """The datagrams that answer a dump request, without an end."""
        self._datagrams.send(frame(message, sequence, uapi.NLM_F_DUMP))

        def fetch() -> bytes:
            while True:
                datagram = self._datagrams.receive()
                if _sequence_of(datagram) == sequence:
                    return datagram

        def wake() -> None:
            self._datagrams.send(frame(Message(uapi.NLMSG_NOOP, 0, b""), sequence, uapi.NLM_F_ACK))

        return ahead(fetch, _looks_last, wake)

    def _receive(self, first: int, last: int) -> Iterator[tuple[int, Message]]:
        """(sequence, message) of all that answers the requests numbered `first` to `last`."""
        while True:
            for sequence, message in parse(self._datagrams.receive()):
                if first <= sequence <= last:
                    yield sequence, message


def frame(message: Message, sequence: int, flags: int = 0) -> bytes:
    """The message with its netlink header, padded to the next one."""
    payload = message.payload
    header = HEADER.pack(
        HEADER.size + len(payload),
        message.type,
        message.flags | flags | uapi.NLM_F_REQUEST,
        sequence,
        0,
    )
    return header + payload + b"\0" * (-len(payload) % 4)


def window(frames: list[bytes], first: int) -> Window:
    """Framed requests as a window; the last is made to ask for an acknowledgement."""
    last = bytearray(frames[-1])
    last[_FLAGS_AT] |= uapi.NLM_F_ACK
    return Window(b"".join(frames[:-1]) + last, first, len(frames))


def parse(datagram: bytes) -> Iterator[tuple[int, Message]]:
    """(sequence, message) for each message in a datagram; `MalformedMessage` if it is none."""
    start, end = 0, len(datagram)
    while start + HEADER.size <= end:
        length, kind, flags, sequence, _port = HEADER.unpack_from(datagram, start)
        if length < HEADER.size or start + length > end:
            raise MalformedMessage(f"a netlink message claims {length} of {end - start} bytes")
        yield sequence, Message(kind, flags, datagram[start + HEADER.size : start + length])
        start += length + 3 & ~3


def _is_control(message: Message) -> bool:
    return message.type < uapi.NLMSG_MIN_TYPE or bool(message.flags & uapi.NLM_F_DUMP_INTR)


def _ends_dump(control: Message, sent: dict[int, Message]) -> bool:
    """Whether a dump is over with this message; `Refused` if that is because of an error."""
    if control.type == uapi.NLMSG_DONE:
        code = -_ERRNO.unpack_from(control.payload)[0] if control.payload else 0
        if code:
            raise Refused(Refusal(code))
        return True
    if control.type == uapi.NLMSG_ERROR:
        refusal = _refusal(control, sent)
        if refusal is not None:
            raise Refused(refusal)
        return True  # an empty answer where the kernel knows no dump of this kind
    return False


def _sequence_of(datagram: bytes) -> int:
    sequence: int = HEADER.unpack_from(datagram)[3] if len(datagram) >= HEADER.size else 0
    return sequence


def _looks_last(datagram: bytes) -> bool:
    """Whether a dump ends with this datagram, as far as its first and its last bytes tell.

    Behind entries the end is a message of a header and a number; when the kernel has more to say, it
    comes alone.
    """
    sequence = _sequence_of(datagram)
    for start in (0, len(datagram) - HEADER.size - _ERRNO.size):
        if start >= 0:
            _length, kind, _flags, of, _port = HEADER.unpack_from(datagram, start)
            if of == sequence and kind in (uapi.NLMSG_DONE, uapi.NLMSG_ERROR):
                return True
    return False


def _errno_of(answer: Message) -> int:
    code: int = -_ERRNO.unpack_from(answer.payload)[0]
    return code


def _refusal(answer: Message, sent: dict[int, Message]) -> Refusal | None:
    """What an NLMSG_ERROR says: None for an acknowledgement."""
    code = _errno_of(answer)
    if code == 0:
        return None
    text = attribute = None
    if answer.flags & uapi.NLM_F_ACK_TLVS:
        echoed = HEADER.size
        length, _type, _flags, sequence, _port = HEADER.unpack_from(answer.payload, _ERRNO.size)
        if not answer.flags & uapi.NLM_F_CAPPED:
            echoed = length + 3 & ~3
        for number, start, end in attributes(answer.payload, _ERRNO.size + echoed, len(answer.payload)):
            value = answer.payload[start:end]
            if number == uapi.NLMSGERR_ATTR_MSG:
                text = value.rstrip(b"\0").decode("utf-8", "replace")
            elif number == uapi.NLMSGERR_ATTR_OFFS and sequence in sent:
                attribute = _attribute_at(sent[sequence], _OFFSET.unpack(value)[0])
    return Refusal(code, text, attribute)


def _attribute_at(message: Message, offset: int) -> int | None:
    """The number of the attribute `offset` bytes into the framed message."""
    start = offset - HEADER.size
    if not 0 <= start <= len(message.payload) - 4:
        return None
    number: int = struct.unpack_from("=HH", message.payload, start)[1]
    return number & uapi.NLA_TYPE_MASK
