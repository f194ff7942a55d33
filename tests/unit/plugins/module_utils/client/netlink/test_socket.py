# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that each error belongs to its request and that a lost answer does not count as success."""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct
import sys
from typing import Any, Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    MalformedMessage,
    Overrun,
    ResultUnknown,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink import pipeline
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink import socket as netlink
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.error import ErrorReply, RequestRejected
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message, frame, parse
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import (
    ANSWERED_BATCH_SIZE,
    BATCH_SIZE,
    DumpInterrupted,
    NetlinkSocket,
)
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import corpus, fake_socket, wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import FakeDatagrams, Reply

pytestmark = pytest.mark.portability

REQUEST = Message(0x0101, 0, b"\2\1\0\0")
DUMP_INTR = 0x10


def numbered(count: int) -> list[Message]:
    """Return requests that contain their own number."""
    return [Message(0x0100, 0, struct.pack("=I", index)) for index in range(count)]


def request_all(socket: NetlinkSocket, messages: Iterable[Message]) -> Iterator[ErrorReply | None]:
    """Yield None or the error of each request, in order."""
    for batch, refusals in socket.send_batches(socket.in_batches(messages)):
        for position in range(batch.count):
            yield refusals.get(position)


def refusing(codes: dict[int, int]) -> fake_socket.Respond:
    """Return the answers of a kernel that refuses the requests with these numbers."""

    def respond(request: wire.Framed) -> Iterable[Reply]:
        code = codes.get(struct.unpack("=I", request.payload[:4])[0], 0)
        return [fake_socket.refusal(request, code)] if code else fake_socket.acknowledge(request)

    return respond


def answering(*replies: Reply) -> NetlinkSocket:
    """Return a socket that answers the next request with these replies."""
    return NetlinkSocket(FakeDatagrams(lambda request: replies))


def answers_to_first(build: Any) -> NetlinkSocket:
    return NetlinkSocket(FakeDatagrams(build))


# Framing


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.lists(st.binary(max_size=9)))
@examples(60)
def test_frames_are_read_by_an_independent_reader(kind: int, flags: int, sequence: int, payloads: list[bytes]) -> None:
    datagram = b"".join(frame(Message(kind, flags, payload), sequence) for payload in payloads)
    assert [tuple(message) for message in wire.messages(datagram)] == [
        (kind, flags | 1, sequence, payload) for payload in payloads
    ]
    assert list(parse(datagram)) == [(sequence, Message(kind, flags | 1, payload)) for payload in payloads]


@given(st.binary(max_size=80))
@examples(60)
def test_random_bytes_are_messages_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedMessage):
        assert sum(16 + len(message.payload) for _unused, message in parse(data)) <= len(data)


def test_a_length_beyond_the_datagram_is_malformed() -> None:
    whole = frame(REQUEST, 1)
    for cut in range(16, len(whole)):
        with pytest.raises(MalformedMessage):
            list(parse(whole[:cut]))
    with pytest.raises(MalformedMessage):
        list(parse(struct.pack("=IHHII", 15, 2, 0, 1, 0)))


# One request


def test_an_acknowledgement_ends_a_request() -> None:
    socket = NetlinkSocket(FakeDatagrams(fake_socket.acknowledge))
    assert socket.request(REQUEST) == []


def test_get_has_a_multipart_answer_without_done() -> None:
    payload = corpus.ANSWERS[0].data
    socket = answers_to_first(
        lambda request: [fake_socket.entry_message(request, payload), fake_socket.refusal(request, 0)]
    )
    assert socket.request(REQUEST) == [Message(0x0100, 2, payload)]
    assert socket.request(REQUEST) == [Message(0x0100, 2, payload)], "no answer remains for the next request"


def test_answers_and_acknowledgement_can_share_a_datagram() -> None:
    socket = answers_to_first(
        lambda request: [fake_socket.entry_message(request, b"\2\0\0\0") + fake_socket.refusal(request, 0)]
    )
    assert len(socket.request(REQUEST)) == 1


def test_a_refusal_is_raised_with_its_errno() -> None:
    socket = answers_to_first(lambda request: [fake_socket.refusal(request, errno.ENOENT)])
    with pytest.raises(RequestRejected) as caught:
        socket.request(REQUEST)
    assert caught.value.refusal == ErrorReply(errno.ENOENT)


@pytest.mark.parametrize("answer", [corpus.CAPPED, corpus.UNCAPPED], ids=["capped", "uncapped"])
def test_refusal_has_the_text_and_the_attribute_of_the_kernel(answer: bytes) -> None:
    ((sequence, request),) = parse(corpus.REFUSED)
    assert sequence == 1
    with pytest.raises(RequestRejected) as caught:
        answering(answer).request(request._replace(flags=0x600))
    assert caught.value.refusal == ErrorReply(errno.ERANGE, "Attribute failed policy validation", 8)
    assert next(request_all(answering(answer), [request])) == caught.value.refusal


@pytest.mark.parametrize("offset", [0, 3, 15, 137, 140, 1 << 20, 0xFFFFFFFF])
def test_invalid_offset_names_no_attribute(offset: int) -> None:
    place = corpus.CAPPED.index(struct.pack("=I", 0x84))
    answer = corpus.CAPPED[:place] + struct.pack("=I", offset) + corpus.CAPPED[place + 4 :]
    ((_unused, request),) = parse(corpus.REFUSED)
    with pytest.raises(RequestRejected) as caught:
        answering(answer).request(request)
    assert caught.value.refusal.attribute is None
    assert caught.value.refusal.text


def test_answers_to_other_requests_are_ignored() -> None:
    def respond(request: wire.Framed) -> Iterable[Reply]:
        stranger = request._replace(sequence=request.sequence + 7)
        event = request._replace(sequence=0)
        return [
            fake_socket.refusal(stranger, errno.EPERM),
            fake_socket.entry_message(event, b"\2\0\0\0"),
            fake_socket.entry_message(request, b"\2\0\0\1"),
            fake_socket.refusal(event, errno.EEXIST) + fake_socket.refusal(request, 0),
        ]

    assert answers_to_first(respond).request(REQUEST) == [Message(0x0100, 2, b"\2\0\0\1")]


def test_late_answer_is_not_assigned_to_the_next_request() -> None:
    late: list[bytes] = []

    def respond(request: wire.Framed) -> Iterable[Reply]:
        replies = [*late, fake_socket.refusal(request, 0)] if late else []
        late.append(fake_socket.refusal(request, errno.EEXIST))
        return replies

    socket = answers_to_first(respond)
    with pytest.raises(ResultUnknown):
        socket.request(REQUEST)
    assert socket.request(REQUEST) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ETIMEDOUT, ResultUnknown),
        (errno.ENOBUFS, Overrun),
        (errno.EMSGSIZE, ResultUnknown),
        (errno.EIO, ResultUnknown),
        (errno.EACCES, ResultUnknown),
    ],
)
def test_a_lost_answer_leaves_the_result_unknown(code: int, kind: type) -> None:
    with pytest.raises(kind) as caught:
        answering(OSError(code, "lost")).request(REQUEST)
    assert caught.value.__class__ is kind
    with pytest.raises(kind):
        list(answering(OSError(code, "lost")).dump(REQUEST))


def test_truncated_datagram_is_not_an_answer() -> None:
    def respond(request: wire.Framed) -> Iterable[Reply]:
        return [fake_socket.refusal(request, 0)[:-4]]

    with pytest.raises(ResultUnknown):
        answers_to_first(respond).request(REQUEST)
    assert list(request_all(answers_to_first(respond), [REQUEST])) == [ErrorReply(errno.EBADMSG, lost=True)]
    with pytest.raises(MalformedMessage):
        list(answers_to_first(respond).dump(REQUEST))


# Batches


@given(st.integers(0, 4 * BATCH_SIZE), st.data())
@examples(40)
def test_every_error_is_assigned_to_its_request(count: int, draws: Any) -> None:
    places = st.integers(0, max(count - 1, 0)) | st.sampled_from([0, BATCH_SIZE - 1, BATCH_SIZE, 2 * BATCH_SIZE - 1])
    codes = draws.draw(st.dictionaries(places, st.sampled_from([errno.EEXIST, errno.ENOENT, errno.EINVAL])))
    datagrams = FakeDatagrams(refusing(codes))
    results = list(request_all(NetlinkSocket(datagrams), numbered(count)))
    assert results == [ErrorReply(codes[index]) if index in codes else None for index in range(count)]


@pytest.mark.parametrize("count", [0, 1, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 1, 1000])
def test_many_requests_take_few_sends(count: int) -> None:
    datagrams = FakeDatagrams(refusing({}))
    assert list(request_all(NetlinkSocket(datagrams), numbered(count))) == [None] * count
    assert len(datagrams.sent) == -(-count // BATCH_SIZE)
    acknowledged = [request for request in datagrams.requests if request.flags & fake_socket.ACK]
    assert len(acknowledged) == len(datagrams.sent), "one acknowledgement to a batch"
    assert len({request.sequence for request in datagrams.requests}) == count


def test_window_is_sent_on_demand() -> None:
    datagrams = FakeDatagrams(refusing({}))
    results = request_all(NetlinkSocket(datagrams), numbered(3 * BATCH_SIZE))
    assert not datagrams.sent
    next(results)
    assert len(datagrams.sent) == 1, "a caller that stops early has sent only one batch"


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.ETIMEDOUT, errno.EMSGSIZE])
def test_lost_answer_affects_only_unanswered_requests_of_its_window(code: int) -> None:
    errors = {
        3: errno.EEXIST,
        BATCH_SIZE + 5: errno.ENOENT,
        BATCH_SIZE + 9: errno.EEXIST,
        2 * BATCH_SIZE + 1: errno.EINVAL,
    }
    usual = refusing(errors)

    def respond(request: wire.Framed) -> Iterable[Reply]:
        number = struct.unpack("=I", request.payload[:4])[0]
        if number == BATCH_SIZE + 7:
            return [OSError(code, "lost")]
        return usual(request)

    results = list(request_all(answers_to_first(respond), numbered(3 * BATCH_SIZE)))
    for index, result in enumerate(results):
        if index in (3, BATCH_SIZE + 5, 2 * BATCH_SIZE + 1):
            assert result == ErrorReply(errors[index])
        elif BATCH_SIZE <= index < 2 * BATCH_SIZE:
            assert result == ErrorReply(code, lost=True), "the kernel may have applied the request"
        else:
            assert result is None


def test_a_missing_acknowledgement_leaves_the_whole_window_unknown() -> None:
    results = list(request_all(NetlinkSocket(FakeDatagrams(lambda request: [])), numbered(3)))
    assert results == [ErrorReply(errno.ETIMEDOUT, lost=True)] * 3


def test_late_answers_to_a_window_are_not_assigned_to_the_next() -> None:
    state: list[bytes] = []

    def respond(request: wire.Framed) -> Iterable[Reply]:
        number = struct.unpack("=I", request.payload[:4])[0]
        if number < BATCH_SIZE:  # all answers of the first batch arrive too late
            state.append(fake_socket.refusal(request, errno.EEXIST))
            return [OSError(errno.ENOBUFS, "lost")] if number == 0 else []
        replies = [*state, *fake_socket.acknowledge(request)]
        state.clear()
        return replies

    results = list(request_all(answers_to_first(respond), numbered(BATCH_SIZE + 2)))
    assert results == [ErrorReply(errno.ENOBUFS, lost=True)] * BATCH_SIZE + [None, None]


# Dumps


def dump_of(count: int, *, end: int | None = 0, flags: int = 0, each: int = 3) -> fake_socket.Respond:
    """Return a dump of numbered messages, several in a datagram, with the end in its own datagram."""

    def respond(request: wire.Framed) -> Iterable[Reply]:
        assert request.flags & fake_socket.DUMP == fake_socket.DUMP
        found = [
            fake_socket.entry_message(request, struct.pack("=I", i), fake_socket.MULTI | flags) for i in range(count)
        ]
        for start in range(0, count, each):
            yield b"".join(found[start : start + each])
        if end is not None:
            yield fake_socket.done(request, end)

    return respond


def test_dump_takes_one_send() -> None:
    datagrams = FakeDatagrams(dump_of(100))
    found = [struct.unpack("=I", message.payload)[0] for message in NetlinkSocket(datagrams).dump(REQUEST)]
    assert found == list(range(100))
    assert len(datagrams.sent) == 1


@pytest.mark.parametrize(("datagrams", "threads"), [(1, 0), (7, 0), (20, 1)])
def test_only_a_long_dump_is_received_in_a_thread(
    datagrams: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    prefetch = pipeline.prefetch
    monkeypatch.setattr(pipeline, "prefetch", lambda *arguments: started.append(arguments) or prefetch(*arguments))
    assert len(list(answers_to_first(dump_of(datagrams, each=1)).dump(REQUEST))) == datagrams
    assert len(started) == threads


def test_an_empty_dump() -> None:
    assert list(answers_to_first(dump_of(0)).dump(REQUEST)) == []
    done = wire.framed(3, 2, 1, b"")
    assert list(answering(done).dump(REQUEST)) == []
    assert list(answers_to_first(lambda request: [fake_socket.refusal(request, 0)]).dump(REQUEST)) == []


def test_dump_that_ends_with_an_error_is_incomplete() -> None:
    for respond in (dump_of(5, end=errno.EINTR), lambda request: [fake_socket.refusal(request, errno.EINTR)]):
        with pytest.raises(RequestRejected) as caught:
            list(answers_to_first(respond).dump(REQUEST))
        assert caught.value.refusal.errno == errno.EINTR


def test_interrupted_dump_is_incomplete() -> None:
    reading = answers_to_first(dump_of(5, flags=DUMP_INTR)).dump(REQUEST)
    assert len(list(itertools.islice(reading, 5))) == 5
    with pytest.raises(DumpInterrupted, match="read it again"):
        next(reading)
    end = wire.framed(3, 2 | DUMP_INTR, 1, struct.pack("=i", 0))
    with pytest.raises(DumpInterrupted):
        list(answering(end).dump(REQUEST))


def test_dump_without_an_end_is_incomplete() -> None:
    with pytest.raises(ResultUnknown):
        list(answers_to_first(dump_of(5, end=None)).dump(REQUEST))


def test_rest_of_an_abandoned_dump_does_not_reach_the_next() -> None:
    socket = answers_to_first(dump_of(9, each=1))
    next(socket.dump(REQUEST))
    assert len(list(socket.dump(REQUEST))) == 9


def test_socket_closes_its_transport() -> None:
    datagrams = FakeDatagrams(fake_socket.acknowledge)
    with NetlinkSocket(datagrams):
        pass
    assert datagrams.closed


class GivenDatagrams:
    """A socket with given datagrams, each with its sender."""

    def __init__(self, *datagrams: tuple[bytes, int, int]) -> None:
        self.datagrams = list(datagrams)

    def recvmsg_into(self, buffers: Any) -> Any:
        if not self.datagrams:
            raise BlockingIOError(errno.EAGAIN, "timed out")
        data, flags, sender = self.datagrams.pop(0)
        buffers[0][: len(data)] = data
        return len(data), [], flags, (sender, 0)


def datagrams_over(*datagrams: tuple[bytes, int, int]) -> netlink.NetlinkTransport:
    made = netlink.NetlinkTransport.__new__(netlink.NetlinkTransport)
    made._socket = GivenDatagrams(*datagrams)  # type: ignore[assignment]
    made._buffer = bytearray(64)
    return made


def test_datagrams_from_other_senders_are_ignored() -> None:
    datagrams = datagrams_over((b"forged", 0, 4711), (b"true", 0, 0))
    assert datagrams.receive() == b"true"
    with pytest.raises(OSError, match="no answer") as caught:
        datagrams.receive()
    assert caught.value.errno == errno.ETIMEDOUT


def test_datagram_larger_than_the_buffer_is_an_error() -> None:
    with pytest.raises(OSError, match="longer") as caught:
        datagrams_over((b"part", 0x20, 0)).receive()
    assert caught.value.errno == errno.EMSGSIZE


def echoing(refused: dict[int, int], lost: frozenset[int] = frozenset()) -> fake_socket.Respond:
    """Return the answers of a kernel that returns each request's number, refuses some, and loses later answers."""

    def respond(request: wire.Framed) -> Iterable[Reply]:
        (number,) = struct.unpack("=I", request.payload[:4])
        if number in lost:
            return [OSError(errno.ENOBUFS, "lost")]
        if number in refused:
            return [fake_socket.refusal(request, refused[number])]
        return [wire.framed(0x0100, 2, request.sequence, request.payload), *fake_socket.acknowledge(request)]

    return respond


class TestAnswersToMany:
    COUNT = 2 * ANSWERED_BATCH_SIZE + 3

    def test_each_request_has_its_own_answer(self) -> None:
        refused = {0: errno.ENOENT, ANSWERED_BATCH_SIZE - 1: errno.EPERM, ANSWERED_BATCH_SIZE + 1: errno.ENOENT}
        datagrams = FakeDatagrams(echoing(refused))
        for index, answer in enumerate(NetlinkSocket(datagrams).request_many(numbered(self.COUNT))):
            if index in refused:
                assert answer == ErrorReply(refused[index])
            else:
                assert [message.payload for message in answer] == [struct.pack("=I", index)]
        assert len(datagrams.sent) == 3

    def test_answers_before_a_loss_are_kept(self) -> None:
        """The answer contains the value of a counter that was reset, so it must not be discarded with the lost ones."""
        answers = list(
            NetlinkSocket(FakeDatagrams(echoing({}, lost=frozenset({5})))).request_many(numbered(self.COUNT))
        )
        assert [isinstance(answer, ErrorReply) for answer in answers[:6]] == [False] * 5 + [True]
        assert answers[5:ANSWERED_BATCH_SIZE] == [ErrorReply(errno.ENOBUFS, lost=True)] * (ANSWERED_BATCH_SIZE - 5)
        assert not any(isinstance(answer, ErrorReply) for answer in answers[ANSWERED_BATCH_SIZE:])

    def test_none(self) -> None:
        assert list(NetlinkSocket(FakeDatagrams(echoing({}))).request_many([])) == []


def test_a_filter_is_attached_without_ctypes(monkeypatch: pytest.MonkeyPatch) -> None:
    """On OpenWrt, for example, ctypes is a separate package."""
    monkeypatch.setitem(sys.modules, "ctypes", None)
    with contextlib.closing(netlink.NetlinkTransport.__new__(netlink.NetlinkTransport)) as datagrams:
        datagrams._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        datagrams._attach(struct.pack("=HBBI", 6, 0, 0, 0))  # return 0: drop everything
        with other:
            other.send(b"dropped")
            with pytest.raises(BlockingIOError):
                datagrams._socket.recv(1, socket.MSG_DONTWAIT)
