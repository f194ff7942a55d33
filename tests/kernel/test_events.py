# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Events of the running kernel: all events, filtered events, and reports of lost events."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import platform
import re
import select
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given

from ansible_collections.netops.conntrack.plugins.module_utils.client import uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink.messages import nfgenmsg, parse_entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, Overrun, Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.events import subscription as events
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.follower import Follower
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.overrun import Resync
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import (
    Event,
    EventsOff,
    Subscription,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.bpf import ProgramTooLong, compile_filter
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import (
    EVERYTHING,
    Match,
    parse_match,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import Message
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkTransport
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.tests.unit.support import strategies
from tests import clock, features, programs, samples
from tests.lab import Gateway, Namespace
from tests.lab.table import from_program
from tests.profiles import examples

pytestmark = pytest.mark.every_kernel

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
FLOOD = 50_000


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        yield table


def udp(port: int, destination: int = 53, **more: Any) -> Entry:
    return creation(from_document(samples.flow("ipv4", "udp", port, destination, **{"timeout": 600, **more})))


def flood(table: Table, first: int = 0, count: int = FLOOD, every: int = 500) -> None:
    """Create entries. One in `every` has the port 53."""
    plain = udp(1, 54)
    entries = (
        {
            **plain,
            "original.source_port": number,
            "reply.destination_port": number,
            "original.destination_port": 54 if number % every else 53,
            "reply.source_port": 54 if number % every else 53,
        }
        for number in range(first, first + count)
    )
    assert not any(table.create_all(entries))


def gist(document: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values that identify an entry and that every reader shows."""
    return (
        document["family"],
        document["protocol"],
        *(tuple(sorted((k, v) for k, v in document[way].items() if k != "zone")) for way in ("original", "reply")),
        document.get("zone", 0),
        document.get("mark", 0),
    )


def listed(namespace: Namespace) -> list[tuple[Any, ...]]:
    """Return the table as conntrack(8) lists it."""
    return sorted(map(gist, from_program(namespace.conntrack("-L", "-o", "extended,id"))), key=str)


def followed_entries(follower: Follower) -> list[tuple[Any, ...]]:
    return sorted((gist(to_document(entry)) for entry in follower.entries.values()), key=str)


def drain(follower: Follower) -> list[Any]:
    """Return everything that the follower can report now."""
    returned: list[Any] = []
    while True:
        waiting = follower.subscription.wait(0)
        returned += follower.receive(0)
        if not waiting:
            return returned


def read_lines(descriptor: int, count: int) -> list[str]:
    """Wait for this number of lines of a program, and return them with those that follow immediately."""
    found: list[str] = []
    rest = b""
    os.set_blocking(descriptor, False)
    while select.select([descriptor], [], [], clock.HUNG if len(found) < count else 0.1)[0]:
        read = os.read(descriptor, 1 << 16)
        if not read:
            break
        *lines, rest = (rest + read).split(b"\n")
        found += [line.decode() for line in lines]
    return found


class Watch:
    """`conntrack -E`, which runs at the same time as the test."""

    LINE = re.compile(r"\[(NEW|UPDATE|DESTROY)\]\s+(ipv[46] .*)")

    def __init__(self, namespace: Namespace) -> None:
        self.process = namespace.start(["conntrack", "-E", "-o", "extended,id"], stderr=subprocess.DEVNULL)
        namespace.wait_for_subscriber()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.process.terminate()
        self.process.wait()

    def read(self, count: int) -> list[tuple[Any, ...]]:
        """Return this number of events. Fail if more follow immediately."""
        found: list[tuple[Any, ...]] = []
        output = self.process.stdout
        assert output is not None
        for line in read_lines(output.fileno(), count):
            parsed = self.LINE.search(line)
            assert parsed is not None, line
            kind, rest = parsed.groups()
            if " tcp " in rest and not re.search(r" [A-Z][A-Z_0-9]+ src", rest):
                rest = rest.replace(" src=", " NONE src=", 1)  # an update that changed no state
            found.append((kind.lower(), *gist(from_program(rest)[0])))
        return found


class TestPortId:
    def test_port_id_agrees_with_conntrack(self, gateway_lab: Gateway) -> None:
        """Events of packets have no port ID. Events of a program's requests have the port ID of that program."""
        namespace = gateway_lab.gateway
        namespace.conntrack("--version")  # skips the test without the program
        watch = namespace.start(["conntrack", "-E", "-o", "userspace"], stderr=subprocess.DEVNULL)
        namespace.wait_for_subscriber()
        with namespace.entered(), Table() as table, Subscription() as subscription, Follower(check=None) as follower:
            with gateway_lab.client1.tcp(gateway_lab.SERVER, gateway_lab.PORT):
                pass
            table.create(udp(1))
            table.update({**udp(1), "mark": 7})
            namespace.conntrack("-D", "-p", "udp", "--orig-port-src", "1")
            # Nothing follows the last packet of the connection
            clock.wait_until(lambda: [flow["state"] for flow in namespace.table() if "state" in flow] == ["time_wait"])
            found = []
            while subscription.wait(0):
                found += subscription.receive()
            followed = [returned for returned in drain(follower) if isinstance(returned, Event)]
        assert watch.stdout is not None
        shown = read_lines(watch.stdout.fileno(), len(found))
        watch.terminate()
        assert len(shown) == len(found) > 6
        expected = [int((re.findall(r"\[USERSPACE\] portid=(\d+)", line) or [0])[0]) for line in shown]
        assert [event.port_id for event in found] == expected
        assert expected[0] == 0
        ours = [event.port_id for event in found if event.entry["original.protocol"] == 17]
        assert len(ours) == 3
        assert ours[0] == ours[1] != ours[2] != 0
        assert [event.port_id for event in followed if event.entry["original.protocol"] == 17] == ours


#: Other tests use the samples with a helper or a master.
FREE_STANDING = [each for each in samples.SAMPLES if not each[1].needs]


class TestEveryProtocol:
    @pytest.mark.parametrize("sample", [each[1] for each in FREE_STANDING], ids=[each[0] for each in FREE_STANDING])
    def test_three_readers_receive_the_same_events(self, emptied_namespace: Namespace, sample: samples.Sample) -> None:
        features.needs(sample.needs)
        programs.require("conntrack")
        entry = from_document({**sample.declared, "timeout": 600})
        with (
            Watch(emptied_namespace) as watch,
            emptied_namespace.entered(),
            Table() as table,
            Subscription() as subscription,
            emptied_namespace.events() as changes,
        ):
            table.create(entry)
            whole = table.get(entry)
            table.update(
                {**{k: v for k, v in entry.items() if k.startswith(("family", "original", "zone"))}, "mark": 7}
            )
            table.delete(entry)
            received = [event for _number in range(3) for event in subscription.receive()]
            assert not subscription.wait(0.02)
            shown_by_program = watch.read(3)
        assert [event.kind for event in received] == ["new", "update", "destroy"] == changes.kinds()
        assert all(event.entry["id"] == whole["id"] for event in received)
        assert [event.entry.get("mark", 0) for event in received] == [entry.get("mark", 0), 7, 7]
        here = [(event.kind, *gist(to_document(event.entry))) for event in received]
        assert here == [(change["event"], *gist(change)) for change in changes]
        assert here == shown_by_program
        shown = to_document(received[0].entry)
        for key in ("status", "nat", "tcp", "sctp", "original", "reply"):
            assert shown.get(key) == to_document(whole).get(key), key

    @pytest.mark.parametrize(
        ("match", "matching"),
        [({"zone": 0}, [1, 3]), ({"zone": 5}, [2]), ({"family": "ipv4", "except": {"zone": 5}}, [1, 3])],
        ids=["default", "one", "others"],
    )
    def test_events_of_a_zone(self, table: Table, match: dict[str, Any], matching: list[int]) -> None:
        with Subscription(["new"], parse_match(match)) as subscription:
            assert subscription.filtered
            for port, zone in ((1, 0), (2, 5), (3, 0)):
                table.create(udp(port, zone=zone))
            received = [subscription.receive()[0].entry["original.source_port"] for _port in matching]
            assert received == matching
            assert not subscription.wait(0.02)

    def test_time_of_an_event(self, table: Table) -> None:
        """The kernel reports the time since Linux 6.14, and only with nf_conntrack_timestamp."""
        with Subscription(["new"]) as subscription:
            table.create(udp(1))
            assert "timestamps.event" not in subscription.receive()[0].entry
            sysctl.write("timestamps", 1)
            before = time.time_ns()
            table.create(udp(2))
            entry = subscription.receive()[0].entry
        release = tuple(map(int, platform.release().split(".")[:2]))
        if release < (6, 14):
            assert "timestamps.event" not in entry
        else:
            assert before <= entry["timestamps.event"] <= time.time_ns()

    def test_events_of_real_traffic(self, gateway_lab: Gateway) -> None:
        """A connection through NAT, from its first packet to its end."""
        gateway = gateway_lab.gateway
        with gateway.entered(), Follower(check=None) as follower, Subscription() as subscription:
            before = len(follower.entries)
            with gateway_lab.client1.tcp(gateway_lab.SERVER, gateway_lab.PORT) as flow:
                assert flow.seen_as().address == gateway_lab.OUTSIDE[0]
                returned = drain(follower)
                assert returned[0].kind == "new"
                assert {event.kind for event in returned[1:]} == {"update"}
                assert len(follower.entries) == before + 1
                assert followed_entries(follower) == listed(gateway)
                (entry,) = (e for e in follower.entries.values() if e.get("tcp.state"))
                assert to_document(entry)["tcp"]["state"] == "established"
                assert "assured" in to_document(entry)["status"]
                assert to_document(entry)["nat"]["source"]["address"] == gateway_lab.OUTSIDE[0]
                gateway.conntrack("-F")
                # A delayed acknowledgement creates the entry again.
                deleted = (event for event in drain(follower) if event.kind == "destroy")
                (last,) = (event for event in deleted if to_document(event.entry)["protocol"] == "tcp")
                assert last.entry["tcp.state"] == entry["tcp.state"]
            kinds = []
            while subscription.wait(0):
                kinds += [event.kind for event in subscription.receive() if event.entry["original.protocol"] == 6]
            assert kinds[0] == "new"


class TestFilter:
    """The filter program in the kernel must have the same result as the match in Python."""

    @pytest.mark.running_kernel_only
    @examples(400, suppress_health_check=list(HealthCheck))
    @given(strategies.live_entries(), strategies.matches())
    def test_filter_agrees_with_the_match(self, entry: Entry, raw: Any) -> None:
        """Attached to a socket of another kind, the same program reads the same bytes, and needs no capability."""
        try:
            match = parse_match(raw)
        except InvalidValue:
            return
        payload = nfgenmsg(entry["family"]) + ENTRIES.encode(entry)
        message = struct.pack("=IHHII", 16 + len(payload), uapi.IPCTNL_MSG_CT_NEW, uapi.NLM_F_CREATE, 0, 0) + payload
        program = compile_filter(match.term)
        wanted = match(parse_entry(Message(uapi.IPCTNL_MSG_CT_NEW, 0, payload)))
        passes = passes_kernel(program, message)
        assert passes or not wanted
        if not re.search("bytes|packets|age|timeout|helper|labels", str(raw)):
            assert passes == wanted

    @pytest.mark.running_kernel_only
    @examples(300, suppress_health_check=list(HealthCheck))
    @given(strategies.matches())
    def test_kernel_accepts_every_program(self, raw: Any) -> None:
        with contextlib.suppress(InvalidValue):
            assert isinstance(passes_kernel(compile_filter(parse_match(raw).term), b"\0" * 64), bool)

    @pytest.mark.parametrize("count", [100, 1000, 4000])
    def test_long_programs(self, namespace: Namespace, table: Table, count: int) -> None:
        """A socket has limited space for a program. With a longer program, events arrive without a filter."""
        match = parse_match({"destination_port": list(range(0, 2 * count, 2))})
        with Subscription(match=match) as subscription:
            assert count > 1000 or subscription.filtered
            flood(table, 1, 3, every=1)
            table.create(udp(9, 54))
            received: list[int] = []
            while not received:  # without a filter, the subscription receives and skips events that do not match
                received += [event.entry["original.destination_port"] for event in subscription.receive()]
            assert received == [54]

    def test_program_that_is_too_long(self, namespace: Namespace, table: Table) -> None:
        match = parse_match({"port": list(range(0, 10000, 2))})
        with pytest.raises(ProgramTooLong):
            compile_filter(match.term)
        with Subscription(match=match) as subscription:
            assert not subscription.filtered
            table.create(udp(1, 53))
            table.create(udp(1, 54))
            assert [event.entry["original.destination_port"] for event in subscription.receive()] == []
            assert [event.entry["original.destination_port"] for event in subscription.receive()] == [54]


def passes_kernel(program: bytes, message: bytes) -> bool:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        code = ctypes.create_string_buffer(program, len(program))
        fprog = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
        other.setsockopt(socket.SOL_SOCKET, uapi.SO_ATTACH_FILTER, fprog)
        one.send(message)
        return bool(select.select([other], [], [], 0)[0])


class Counting(NetlinkTransport):
    """Count the datagrams that arrive at the socket, before any code handles them."""

    arrived = 0

    def receive(self) -> bytes:
        datagram = super().receive()
        type(self).arrived += 1
        return datagram


@pytest.mark.running_kernel_only
class TestFlood:
    def test_only_matching_events_arrive(self, namespace: Namespace, table: Table) -> None:
        Counting.arrived = 0
        match = parse_match({"protocol": "udp", "destination_port": 53})
        with Subscription(match=match, connect=Counting) as subscription, namespace.entered():
            flood(table)
            received = []
            while subscription.wait(0):
                received += subscription.receive()
        assert namespace.count() == FLOOD
        assert len(received) == FLOOD // 500 == Counting.arrived
        assert {event.entry["original.destination_port"] for event in received} == {53}
        assert subscription.overruns == 0

    def test_events_lost_by_a_small_buffer_are_reported(self, namespace: Namespace, table: Table) -> None:
        flood(table, count=1000)
        with Follower(receive_buffer=1, check=None) as follower:
            assert not follower.subscription.filtered
            flood(table, 1000)
            gone = [{**udp(number, 54 if number % 500 else 53)} for number in range(100, 200)]
            assert not any(table.delete_all(gone))
            returned = drain(follower)
            (resync,) = (each for each in returned if isinstance(each, Resync))
            assert resync.overrun
            assert follower.subscription.overruns == 1
            # Every entry was reported once, by an event or by the table.
            assert sum(each.kind == "new" for each in returned if isinstance(each, Event)) == FLOOD
            assert sum(each.kind == "destroy" for each in returned if isinstance(each, Event)) == 100
            assert resync.new == sum(each.missed and each.kind == "new" for each in returned if isinstance(each, Event))
            assert resync.new > FLOOD - 1000
            assert followed_entries(follower) == listed(namespace)
            assert len(follower.entries) == FLOOD + 900

    def test_follower_is_correct_after_a_flood(self, namespace: Namespace, table: Table) -> None:
        """A follower that reads during the flood, with a buffer that is too small, has the correct table at the end."""

        def create_and_delete() -> None:
            with namespace.entered(), Table() as other:
                flood(other, count=10_000)
                every_third = ({**udp(number, 54 if number % 500 else 53)} for number in range(0, 10_000, 3))
                assert not any(other.delete_all(every_third))

        with Follower(receive_buffer=20_000) as follower:
            thread = threading.Thread(target=create_and_delete)
            thread.start()
            reconstructed: dict[Any, Any] = {}
            while thread.is_alive() or follower.subscription.wait(0.1):
                for each in follower.receive(0.1):
                    if isinstance(each, Resync):
                        continue
                    key = each.entry["original.source_port"]
                    if each.kind == "destroy":
                        del reconstructed[key]
                    else:
                        reconstructed[key] = each.entry
            thread.join()
            drain(follower)
            assert follower.subscription.overruns >= 1
            assert followed_entries(follower) == listed(namespace)
            assert len(reconstructed) == len(follower.entries) == 6_666

    def test_subscription_continues_after_an_overrun(self, namespace: Namespace, table: Table) -> None:
        """After an overrun, the buffer has no old events, and new events arrive."""
        with Subscription(receive_buffer=1) as subscription:
            flood(table, count=100)
            with pytest.raises(Overrun, match="receive buffer overran"):
                list(subscription)
            assert not subscription.wait(0)
            table.delete(udp(1, 54))
            assert [event.kind for event in subscription.receive()] == ["destroy"]


class TestFollower:
    @pytest.mark.parametrize(
        "match", [EVERYTHING, parse_match({"mark": 1}), parse_match({"port": 53, "except": {"mark": 2}})]
    )
    def test_follower_has_the_entries_of_the_table(self, namespace: Namespace, table: Table, match: Match) -> None:
        for port in range(1, 9):
            table.create(udp(port, 53 + port % 2, mark=port % 3))
        with Follower(match, check=None) as follower:
            for port in range(3, 7):
                table.update({**udp(port, 53 + port % 2), "mark": (port + 1) % 3})
            for port in (1, 2, 3):
                table.delete(udp(port, 53 + port % 2))
            table.create(udp(2, 53, mark=2))
            table.create(udp(20, 53, mark=1))
            returned = drain(follower)
            assert returned
            wanted = sorted((gist(to_document(e)) for e in table.dump() if match(e)), key=str)
            assert followed_entries(follower) == wanted
            assert follower.resync() == [Resync(0, 0, 0, False)]

    def test_labels_and_helper(self, namespace: Namespace, table: Table) -> None:
        namespace.firewall.use_labels()
        table.create(udp(1, labels=[3]))
        match = parse_match({"labels": [3]})
        with Follower(match, check=None) as follower:
            (first,) = follower.entries.values()
            assert first["labels"] == 8
            table.update({**udp(1), "mark": 5})
            table.update({**udp(1), "labels": 0})
            kinds = [event.kind for event in drain(follower)]
            assert kinds[-1] == "destroy"
            assert not follower.entries

    def test_entry_is_created_again(self, namespace: Namespace, table: Table) -> None:
        table.create(udp(1))
        with Follower(check=None) as follower:
            for _round in range(3):
                table.delete(udp(1))
                table.create(udp(1))
            assert [event.kind for event in drain(follower)] == ["destroy", "new"] * 3
            assert followed_entries(follower) == listed(namespace)


def needs_mode(mode: int) -> None:
    """Skip the test for events on demand (mode 2) on kernels before Linux 5.19."""
    if mode == 2:
        features.needs("events_on_demand")


class TestMode:
    def test_off(self, namespace: Namespace) -> None:
        namespace.sysctl("nf_conntrack_events", 0)
        with namespace.entered(), pytest.raises(EventsOff, match="nf_conntrack_events=1"):
            Subscription()

    @pytest.mark.parametrize("mode", [1, 2])
    def test_on(self, namespace: Namespace, table: Table, mode: int) -> None:
        needs_mode(mode)
        namespace.sysctl("nf_conntrack_events", mode)
        with Subscription() as subscription:
            assert subscription.mode == mode
            table.create(udp(1))
            assert [event.kind for event in subscription.receive()] == ["new"]

    @pytest.mark.parametrize("before", [0, 2])
    def test_entries_without_events_are_unannounced(self, namespace: Namespace, table: Table, before: int) -> None:
        """The kernel sends no events about these entries. The follower reports this, and finds the changes."""
        needs_mode(before)
        namespace.sysctl("nf_conntrack_events", before)
        for port in (1, 2, 3):
            table.create(udp(port))
        namespace.sysctl("nf_conntrack_events", before or 1)
        with Subscription() as subscription, Follower(check=2) as follower:
            assert len(follower.unannounced) == 3
            table.create(udp(4))
            table.delete(udp(1))
            table.update({**udp(2), "mark": 9})
            table.delete(udp(4))
            received = []
            while subscription.wait(0):
                received += [(event.kind, event.entry["original.source_port"]) for event in subscription.receive()]
            assert received == [("new", 4), ("destroy", 4)]
            returned: list[Any] = []
            while not any(isinstance(each, Resync) for each in returned):
                returned += follower.receive()
            assert [each.kind for each in returned[:2]] == ["new", "destroy"]
            assert returned[2] == Resync(0, 1, 1, False)
            assert {(each.kind, each.entry["original.source_port"]) for each in returned[3:]} == {
                ("update", 2),
                ("destroy", 1),
            }
            assert all(each.missed for each in returned[3:])
            assert followed_entries(follower) == listed(namespace)
            assert len(follower.unannounced) == 2

    def test_entry_with_an_event_is_announced(self, namespace: Namespace, table: Table) -> None:
        table.create(udp(1))
        with Follower(check=None) as follower:
            assert len(follower.unannounced) == 1
            table.update({**udp(1), "mark": 1})
            drain(follower)
            assert not follower.unannounced


class TestBuffer:
    SIZE = 64 << 20

    def test_size_for_root(self, namespace: Namespace) -> None:
        with namespace.entered(), Subscription(receive_buffer=self.SIZE) as subscription:
            if subscription.receive_buffer != 2 * self.SIZE:
                with open("/proc/self/uid_map", encoding="ascii") as file:
                    assert file.read().split()[2] != "4294967295", "root may have any size"
                pytest.skip("root only in its own user namespace")
            with socket.socket(fileno=os.dup(subscription.fileno())) as other:
                assert other.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * self.SIZE

    def test_size_in_a_user_namespace(self, namespace: Namespace) -> None:
        """In a user namespace, the kernel grants no more than net.core.rmem_max."""
        try:
            with open("/proc/sys/net/core/rmem_max", encoding="ascii") as file:
                highest = int(file.read())
        except OSError:
            pytest.skip("net.core.rmem_max cannot be read")
        size, kinds = namespace.call(in_a_user_namespace, max(self.SIZE, highest + 1))
        assert size == 2 * highest
        assert kinds == ["new"]

    def test_small_size(self, namespace: Namespace) -> None:
        with namespace.entered(), Subscription(receive_buffer=100_000) as subscription:
            assert subscription.receive_buffer == 200_000


def in_a_user_namespace(receive_buffer: int) -> tuple[int, list[str]]:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise pytest.skip.Exception("this machine forbids user namespaces")
    with Table() as table:
        table.count()
        with Subscription(receive_buffer=receive_buffer) as subscription:
            table.create(udp(1))
            return subscription.receive_buffer, [event.kind for event in subscription.receive()]


class TestAsyncio:
    def run(self, test: Any) -> None:
        asyncio.run(asyncio.wait_for(test, clock.HUNG))

    def test_async_iteration(self, namespace: Namespace, table: Table) -> None:
        async def test() -> None:
            with Subscription() as subscription:

                async def change() -> None:
                    for port in range(1, 101):
                        table.create(udp(port))
                        await asyncio.sleep(0)

                task = asyncio.ensure_future(change())
                ports = []
                async for event in subscription:
                    ports.append(event.entry["original.source_port"])
                    if len(ports) == 100:
                        break
                assert ports == list(range(1, 101))
                await task

        self.run(test())

    def test_several_tasks_and_cancellation(self, namespace: Namespace, table: Table) -> None:
        """Tasks share a subscription. A cancelled task loses no event."""

        async def test() -> None:
            with Subscription() as subscription:
                ports: list[int] = []

                async def read() -> None:
                    async for event in subscription:
                        ports.append(event.entry["original.source_port"])  # noqa: PERF401

                tasks = [asyncio.ensure_future(read()) for _number in range(4)]
                for port in range(1, 201):
                    table.create(udp(port))
                    await asyncio.sleep(0)
                    if port == 100:
                        tasks[0].cancel()
                        tasks[3].cancel()
                while len(ports) < 200:
                    await asyncio.sleep(0.001)
                assert sorted(ports) == list(range(1, 201))
                tasks[1].cancel()
                tasks[2].cancel()
                done = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(each, asyncio.CancelledError) for each in done)

        self.run(test())

    def test_overrun(self, namespace: Namespace, table: Table) -> None:
        async def test() -> None:
            with Subscription(receive_buffer=1) as subscription:
                flood(table, count=1000)

                async def read() -> None:
                    async for event in subscription:
                        assert event.kind == "new"

                with pytest.raises(Overrun):
                    await read()
                table.create(udp(5, 55))
                async for event in subscription:
                    assert event.kind == "new"
                    break

        self.run(test())

    @pytest.mark.running_kernel_only
    def test_follower_through_a_flood(self, namespace: Namespace, table: Table) -> None:
        """Other tasks continue while the follower reads the table."""

        async def test() -> None:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            with Follower(receive_buffer=1, check=None) as follower:
                flood(table, count=20_000)
                task = asyncio.ensure_future(other())
                async for each in follower:
                    if isinstance(each, Resync):
                        break
                assert turns >= 20
                assert followed_entries(follower) == listed(namespace)
                task.cancel()

        self.run(test())

    def test_closing_during_a_reading_ends_the_iteration(self, table: Table) -> None:
        async def test() -> None:
            with Follower(receive_buffer=1, check=None) as follower:
                flood(table, count=20_000)
                read = follower._read

                def closing(*found: Any) -> Iterator[None]:
                    for number, _step in enumerate(read(*found)):
                        if number == 2:
                            follower.close()
                        yield

                follower._read = closing  # type: ignore[method-assign]
                assert [change async for change in follower if isinstance(change, Resync)] == []

        self.run(test())


#: The data connection of an FTP session.
ANNOUNCED: dict[str, Any] = {
    "tuple": {
        "protocol": "tcp",
        "source": samples.SERVER["ipv4"],
        "destination": samples.CLIENT["ipv4"],
        "destination_port": 4000,
    },
    "master": samples.ends("ipv4", **samples.ports(1400, 21)),
}


class TestExpectations:
    def test_with_entries_on_one_subscription(self, namespace: Namespace, table: Table) -> None:
        control = from_document(samples.flow("ipv4", "tcp", 1400, 21, helper="ftp", timeout=600))
        with Subscription(events.GROUPS, parse_match({"protocol": "tcp"})) as subscription:
            try:
                table.create(control)
            except Unsupported:
                pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
            expectation.create(table, expectation.from_document(ANNOUNCED))
            (whole,) = expectation.read_all(table)
            table.create(udp(1))  # does not match
            table.delete(control)
            received: list[Event] = []
            while subscription.wait(0):
                received += subscription.receive()
        assert sorted(event.kind for event in received) == ["destroy", "expectation_destroy", "expectation_new", "new"]
        assert received[0].kind == "new"
        assert received[0].entry["helper"] == "ftp"
        assert received[1].kind == "expectation_new"
        shown = expectation.to_document(received[1].entry)
        assert {**shown, "timeout": 0} == {**expectation.to_document(whole), "timeout": 0}
        assert shown["master"]["destination_port"] == 21
        (gone,) = (event for event in received if event.kind == "expectation_destroy")
        assert gone.entry["id"] == whole["id"]

    def test_expectations_without_entries(self, namespace: Namespace, table: Table) -> None:
        """With nf_conntrack_events=2, a subscription to expectations alone also turns on events."""
        needs_mode(2)
        namespace.sysctl("nf_conntrack_events", 2)
        with Subscription(["expectation_new"]) as subscription:
            try:
                table.create(from_document(samples.flow("ipv4", "tcp", 1400, 21, helper="ftp", timeout=600)))
            except Unsupported:
                pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
            expectation.create(table, expectation.from_document(ANNOUNCED))
            assert [event.kind for event in subscription.receive()] == ["expectation_new"]
