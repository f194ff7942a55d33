# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netlink over sockets of the standard library: requests and acknowledgements, batches, and dumps.

This module is independent of conntrack.

Source: include/uapi/linux/netlink.h, and Documentation/userspace-api/netlink/intro.rst in the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct
from _thread import allocate_lock
from typing import Any, Callable, Generator, Iterable, Iterator, TypeVar

from .. import uapi
from ..errors import ConntrackError, KernelError, MalformedMessage, Unavailable, answer_lost, kernel_error
from .error import ERRNO, ErrorReply, RequestRejected, errno_of, errno_of_failure, error_reply
from .message import HEADER, Message, RequestBatch, frame, is_control, parse, request_batch

_Thing = TypeVar("_Thing")
_Closing = TypeVar("_Closing", bound="Closing")

_SOCK_FILTER_SIZE = 8
_TIMEVAL = struct.Struct("@ll")

#: A plain integer, because an enumeration member makes each request 5 % slower.
_TRUNCATED = int(socket.MSG_TRUNC)

#: Length, type, sequence and error number of an answer, and the length of an acknowledgement that repeats the header.
_ANSWER, _ACKNOWLEDGEMENT = struct.Struct("=IH2xI4xi"), 2 * HEADER.size + ERRNO.size

#: The size of the read buffer. The kernel fills the datagrams of a dump up to 32 KiB if the buffer is large enough.
_BUFFER_SIZE = 1 << 16
#: The number of datagrams of a dump that are received without a thread, whose start takes more time than it saves.
_FEW_DATAGRAMS = 8
#: The number of requests in a batch. If all are refused, the errors still fit into a default receive buffer.
BATCH_SIZE = 64
#: The number of requests in a batch if the receive buffer could be enlarged.
MAX_BATCH_SIZE = 256
#: The maximum number of bytes that an error reply takes in a receive buffer, as the kernel counts.
_REFUSAL_ROOM = 3328
#: The number of requests in a batch if each has an answer besides errors.
ANSWERED_BATCH_SIZE = 32
#: The number of seconds without an answer after which the result of a request is unknown.
TIMEOUT = 10.0


class DumpInterrupted(ConntrackError):
    """The table changed during a dump, and entries may be missing. Dump again."""


class Closing:
    """Closes itself at the end of a `with` block."""

    def __enter__(self: _Closing) -> _Closing:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError


_OPENING = "opening a netlink socket"


class NetlinkTransport:
    """A netlink socket that sends and receives datagrams. This class is the only part that needs a kernel.

    `program` is a BPF program, an array of struct sock_filter. It is attached before the multicast `groups` are joined,
    so that all messages are filtered. `receive_buffer` is in bytes. Above net.core.rmem_max, it requires CAP_NET_ADMIN
    in the initial user namespace. `protocol` is a netlink protocol such as NETLINK_NETFILTER.
    """

    def __init__(
        self,
        timeout: float = TIMEOUT,
        receive_buffer: int | None = None,
        groups: Iterable[int] = (),
        program: bytes = b"",
        protocol: int = uapi.NETLINK_NETFILTER,
    ) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        except AttributeError as error:  # not Linux
            raise Unavailable(_OPENING, errno.EPROTONOSUPPORT) from error
        except OSError as error:
            raise kernel_error(_OPENING, error.errno or errno.EIO) from error
        self._is_sized = receive_buffer is not None
        doing = _OPENING
        try:
            self._socket.bind((0, 0))
            seconds, fraction = divmod(timeout, 1)
            waiting = _TIMEVAL.pack(int(seconds), int(fraction * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, waiting)
            for option in (uapi.NETLINK_EXT_ACK, uapi.NETLINK_CAP_ACK):
                with contextlib.suppress(OSError):  # before Linux 4.12
                    self._socket.setsockopt(uapi.SOL_NETLINK, option, 1)
            if receive_buffer is not None:
                self._set_receive_buffer(receive_buffer)
            doing = "subscribing to events"
            if program:
                self._attach(program)
            for group in groups:
                self._socket.setsockopt(uapi.SOL_NETLINK, uapi.NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            self.close()
            raise kernel_error(doing, error.errno or errno.EIO) from error
        self._buffer = bytearray(_BUFFER_SIZE)

    def _attach(self, program: bytes) -> None:
        from array import array  # unlike ctypes, array is in every Python, also in that of OpenWrt

        code = array("B", program)
        address, _length = code.buffer_info()
        fprog = struct.pack("@HP", len(program) // _SOCK_FILTER_SIZE, address)
        self._socket.setsockopt(socket.SOL_SOCKET, uapi.SO_ATTACH_FILTER, fprog)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def receive_buffer(self) -> int:
        """The size of the receive buffer in bytes, as the kernel counts: twice the size that was granted."""
        try:
            return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        except OSError as error:
            raise kernel_error("reading the size of the receive buffer", error.errno or errno.EIO) from error

    def grow(self, receive_buffer: int) -> int:
        """Set the receive buffer to this size, as far as the kernel permits. Return its size as the kernel counts.

        A size that was given when the socket was created is not changed.
        """
        if not self._is_sized:
            self._set_receive_buffer(receive_buffer)
        return self.receive_buffer

    def _set_receive_buffer(self, size: int) -> None:
        """Set the size of the receive buffer. It stays as it is if setting it is forbidden."""
        for option in (uapi.SO_RCVBUFFORCE, socket.SO_RCVBUF):
            with contextlib.suppress(PermissionError):
                self._socket.setsockopt(socket.SOL_SOCKET, option, size)
                return

    def send(self, datagram: bytes) -> None:
        self._socket.send(datagram)

    def receive(self) -> bytes:
        """Return the next datagram from the kernel.

        Raises `OSError`: ETIMEDOUT if none arrived in time, ENOBUFS if datagrams were lost, EMSGSIZE if the datagram is
        longer than the buffer. After ENOBUFS, the other datagrams are discarded, to make room for the next answer.
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

    def pending(self) -> bytes:
        """Return the messages that have arrived, without waiting. Raises `OSError` if some were lost."""
        receive, dont_wait = self._socket.recv, int(socket.MSG_DONTWAIT)
        datagrams = []
        try:
            while True:
                datagrams.append(receive(_BUFFER_SIZE, dont_wait))
        except BlockingIOError:
            return b"".join(datagrams)

    def _discard(self) -> None:
        """Empty the receive buffer. Until it is empty, the kernel silently drops messages."""
        while True:
            try:
                self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # it overran again meanwhile
                    raise

    def close(self) -> None:
        self._socket.close()


class NetlinkSocket(Closing):
    """Sends requests and receives their answers over one netlink socket. It can run one dump at a time."""

    def __init__(self, datagrams: NetlinkTransport | None = None) -> None:
        self._datagrams = datagrams or NetlinkTransport()
        self._last = 0
        # A thread may be sending a batch while the caller sends a request.
        self._busy = allocate_lock()
        self._batch_size: int | None = None
        #: Iterators that use threads, until they end or the socket is closed.
        self._running: list[Generator[Any, None, None]] = []
        self._is_closed = False

    def close(self) -> None:
        """Close the socket, and end its unfinished iterators, which then raise `ConntrackError`."""
        self._is_closed = True
        try:
            while self._running:
                self._running.pop().close()
        finally:
            self._datagrams.close()

    @contextlib.contextmanager
    def _threaded(self, things: Generator[_Thing, None, None]) -> Iterator[Generator[_Thing, None, None]]:
        """Close the iterator after the `with` block, or with this socket."""
        self._running.append(things)
        try:
            yield things
        finally:
            things.close()
            with contextlib.suppress(ValueError):  # closed with the socket
                self._running.remove(things)

    def request(self, message: Message) -> list[Message]:
        """Send one request and return the messages that answer it.

        Raises `RequestRejected` with the error of the kernel, and `ResultUnknown` (or `Overrun`) if the answer was
        lost. Raises `KernelError` if the request could not be sent.
        """
        sequence = self.reserve_sequence(1)
        answers: list[Message] = []
        with self._busy:
            self._send(frame(message, sequence, uapi.NLM_F_ACK))
            receive = self._datagrams.receive
            try:
                while True:
                    datagram = receive()
                    if len(datagram) == _ACKNOWLEDGEMENT and _ANSWER.unpack_from(datagram) == (
                        _ACKNOWLEDGEMENT,
                        uapi.NLMSG_ERROR,
                        sequence,
                        0,
                    ):
                        return answers  # the usual acknowledgement, without general parsing
                    for of, answer in parse(datagram):
                        if of != sequence:
                            continue
                        if answer.type != uapi.NLMSG_ERROR:
                            answers.append(answer)
                            continue
                        refusal = error_reply(answer, {sequence: message})
                        if refusal is not None:
                            raise RequestRejected(refusal)
                        return answers
            except (OSError, MalformedMessage) as error:
                raise answer_lost("waiting for an answer", errno_of_failure(error)) from error

    def _send(self, datagram: bytes) -> None:
        """Send requests. Raises `KernelError` if the system call fails: the kernel has then received none of them."""
        try:
            self._datagrams.send(datagram)
        except OSError as error:
            raise kernel_error("sending a request", error.errno or errno.EIO) from error

    def reserve_sequence(self, count: int) -> int:
        """Reserve sequence numbers for `count` requests, and return the first."""
        first = self._last % 0xFF000000 + 1  # 32 bits, never 0
        self._last = first + count - 1
        return first

    def send_batches(self, batches: Iterable[RequestBatch]) -> Iterator[tuple[RequestBatch, dict[int, ErrorReply]]]:
        """Send batches of requests. Yields each with the errors of its requests, by position.

        The next batches are built while one is being sent. If the caller stops early, up to eight more batches than it
        has received may have been sent.

        Within a batch, the kernel reports only errors and acknowledges the last request. If an answer is lost, each
        request of the batch without an error gets one that is `lost`: the kernel may have carried it out.
        """
        from .pipeline import overlap  # as `prefetch`, only for tasks with many entries

        with self._threaded(overlap(self._send_and_collect, batches)) as results:
            yield from results
        if self._is_closed:
            raise ConntrackError("the table was closed before all requests were sent")

    def max_batch_size(self) -> int:
        """Return the maximum number of requests in a batch for which the receive buffer can hold an error of each.

        The first call tries to enlarge the receive buffer, which requires CAP_NET_ADMIN in the initial user namespace.
        """
        if self._batch_size is None:
            roomy = self._datagrams.grow(MAX_BATCH_SIZE * _REFUSAL_ROOM) >= MAX_BATCH_SIZE * _REFUSAL_ROOM
            self._batch_size = MAX_BATCH_SIZE if roomy else BATCH_SIZE
        return self._batch_size

    def request_many(self, messages: Iterable[Message]) -> Iterator[list[Message] | ErrorReply]:
        """Send requests in batches. Yields the answers or the error of each request, in order.

        If answers are lost, the error of each request without an answer is `lost`.
        """
        for batch in self.in_batches(messages, ANSWERED_BATCH_SIZE):
            answers: dict[int, list[Message]] = {}
            refusals = self._send_and_collect(batch, answers)
            for position in range(batch.count):
                if position in refusals and position not in answers:
                    yield refusals[position]
                else:
                    yield answers.get(position, [])

    def in_batches(self, messages: Iterable[Message], size: int = BATCH_SIZE) -> Iterator[RequestBatch]:
        """Yield requests in batches of that size. Each batch is built when it is fetched."""
        source = iter(messages)
        while True:
            some = list(itertools.islice(source, size))
            if not some:
                return
            first = self.reserve_sequence(len(some))
            yield request_batch([frame(message, number) for number, message in enumerate(some, first)], first)

    def _send_and_collect(
        self, batch: RequestBatch, answers: dict[int, list[Message]] | None = None
    ) -> dict[int, ErrorReply]:
        first, last = batch.first, batch.first + batch.count - 1
        sent: dict[int, Message] = {}
        refusals: dict[int, ErrorReply] = {}
        with self._busy:
            try:
                self._send(batch.frames)
            except KernelError as error:
                return dict.fromkeys(range(batch.count), ErrorReply(error.errno))
            try:
                for sequence, answer in self._receive(first, last):
                    if answer.type == uapi.NLMSG_ERROR:
                        if errno_of(answer):
                            sent = sent or dict(parse(batch.frames))
                            refusal = error_reply(answer, sent)
                            if refusal is not None:
                                refusals[sequence - first] = refusal
                        if sequence == last:
                            break
                    elif answers is not None:
                        answers.setdefault(sequence - first, []).append(answer)
            except (OSError, MalformedMessage) as error:
                unknown = ErrorReply(errno_of_failure(error), lost=True)
                for position in range(batch.count):
                    refusals.setdefault(position, unknown)
        return refusals

    def dump(self, message: Message) -> Iterator[Message]:
        """Yield all answers to a dump request. Raises the same errors as `scan`."""
        found: list[Message] = []

        def sort(datagram: bytes) -> list[Message]:
            answers = [answer for _sequence, answer in parse(datagram)]
            found.extend(answer for answer in answers if answer.type >= uapi.NLMSG_MIN_TYPE)
            return [answer for answer in answers if is_control(answer)]

        for _datagram in self.scan(message, sort):
            yield from found
            found.clear()

    def scan(self, message: Message, feed: Callable[[bytes], Iterable[Message]]) -> Iterator[None]:
        """Call `feed` with each datagram that answers a dump request, and yield after each.

        `feed` returns the control messages in it, and those with the flag of an interrupted dump. Meanwhile, a thread
        receives the next datagrams. Raises `RequestRejected`; `DumpInterrupted` at the end of a dump that the kernel
        marks as inconsistent; and `Overrun` or `ResultUnknown` if messages were lost.
        """
        sequence = self.reserve_sequence(1)
        try:
            with self._threaded(self._ahead(message, sequence)) as datagrams:
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
            raise ConntrackError("the table was closed before it was read to its end")
        except OSError as error:
            raise answer_lost("reading the table", errno_of_failure(error)) from error

    def _ahead(self, message: Message, sequence: int) -> Generator[bytes, None, None]:
        """Yield the datagrams that answer a dump request, endlessly. After the first ones, a thread receives them."""
        self._send(frame(message, sequence, uapi.NLM_F_DUMP))

        def fetch() -> bytes:
            while True:
                datagram = self._datagrams.receive()
                # A datagram with an incomplete header may be a part of the answer, and must not be ignored
                if len(datagram) < HEADER.size or _sequence_of(datagram) == sequence:
                    return datagram

        def wake() -> None:
            with contextlib.suppress(OSError):  # then the timeout ends it
                self._datagrams.send(frame(Message(uapi.NLMSG_NOOP, 0, b""), sequence, uapi.NLM_F_ACK))

        for _count in range(_FEW_DATAGRAMS):
            yield fetch()
        from .pipeline import prefetch  # only for tables with many entries

        yield from prefetch(fetch, _may_end_dump, wake)

    def exchange(self, frames: bytes, first: int, last: int) -> Iterator[tuple[int, Message]]:
        """Send framed requests, and yield (sequence, message) for each answer to those numbered `first` to `last`.

        The caller stops at the last answer. Raises `KernelError` if they could not be sent, and `OSError` and
        `MalformedMessage` while waiting.
        """
        with self._busy:
            self._send(frames)
            yield from self._receive(first, last)

    def _receive(self, first: int, last: int) -> Iterator[tuple[int, Message]]:
        """Yield (sequence, message) for each answer to the requests numbered `first` to `last`."""
        while True:
            for sequence, message in parse(self._datagrams.receive()):
                if first <= sequence <= last:
                    yield sequence, message


def _ends_dump(control: Message, sent: dict[int, Message]) -> bool:
    """Return whether a message ends a dump. Raises `RequestRejected` if it is an error."""
    if control.type == uapi.NLMSG_DONE:
        code = errno_of(control) if control.payload else 0
        if code:
            raise RequestRejected(ErrorReply(code))
        return True
    if control.type == uapi.NLMSG_ERROR:
        refusal = error_reply(control, sent)
        if refusal is not None:
            raise RequestRejected(refusal)
        return True  # an acknowledgement: the kernel does not have this kind of dump
    return False


def _sequence_of(datagram: bytes) -> int:
    sequence: int = HEADER.unpack_from(datagram)[3] if len(datagram) >= HEADER.size else 0
    return sequence


def _may_end_dump(datagram: bytes) -> bool:
    """Return whether a datagram may end a dump, according to its first and its last message.

    After entries, the end is a message with a header and an error number. An end message with more data comes in its
    own datagram.
    """
    if len(datagram) < HEADER.size:
        return False
    sequence = _sequence_of(datagram)
    for start in (0, len(datagram) - HEADER.size - ERRNO.size):
        if start >= 0:
            _length, kind, _flags, of, _port = HEADER.unpack_from(datagram, start)
            if of == sequence and kind in (uapi.NLMSG_DONE, uapi.NLMSG_ERROR):
                return True
    return False
