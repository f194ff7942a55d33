# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a flush removes exactly the matching entries, also after errors and concurrent changes."""

from __future__ import annotations

import errno
import itertools
import json
import re
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import (
    DeletionPlan,
    FlushFailed,
    LocalSockets,
    can_return,
    flush,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    ConntrackError,
    InvalidValue,
    Overrun,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import TcpConnection
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import (
    EVERYTHING,
    Match,
    parse_match,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import BATCH_SIZE
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import wire
from ansible_collections.netops.conntrack.tests.unit.support.declarations import FLOW, declarations, filled
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import (
    DELETE,
    GET,
    TCP,
    Connection,
    Ends,
    Fault,
    Kernel,
    Zone,
)

Document = Dict[str, Any]

#: The number of requests before the first deletion: count the entries, check whether they are few, read them.
READ = 3
KEYS = {"changed", "flushed", "kept", "gone", "total", "will_return", "entries", "method", "diff"}
MATCHES: dict[str, Any] = {
    '{"protocol": "tcp"}': lambda there: there.tuples[0].protocol == TCP,
    '{"source": "10.0.0.1"}': lambda there: there.tuples[0].source == b"\n\0\0\1",
    '{"zone": 5}': lambda there: there.zone == Zone(5),
    '{"original_zone": 7}': lambda there: there.zone.of(0) == 7,
    '{"mark": "0x1/0x1"}': lambda there: bool(there.mark & 1),
    '{"nat": "any"}': lambda there: bool(there.status & 0x30),
    '{"address": "0.0.0.0/0", "except": {"protocol": ["tcp", "gre"]}}': lambda there: (
        there.family == 2 and there.tuples[0].protocol not in (TCP, 47)
    ),
}
tables = st.lists(declarations(), max_size=7)
matches = st.sampled_from(sorted(MATCHES))


def as_match(text: str) -> Match:
    return parse_match(json.loads(text))


def test_only_requests_that_are_sent_are_built() -> None:
    """The memory use of a prediction, and of a flush above its limit, must not grow with the table."""
    kernel = filled([{"protocol": "tcp", "original": FLOW, "zone": zone} for zone in range(1, 6)])
    with kernel.table() as table:
        for check, limit, built in ((True, 9, 0), (False, 2, 2), (False, 9, 5)):
            plan = DeletionPlan(table, EVERYTHING, limit=limit, report_limit=3)
            plan.read(check)
            assert (plan.count, len(plan.shown)) == (5, 3)
            assert sum(batch.count for batch in plan._requests.drain(last=True)) == built


def run(kernel: Kernel, match: Match = EVERYTHING, check: bool = False, **options: Any) -> Document:
    """Run the module once. A failure returns its result, with the message under `msg`."""
    try:
        with kernel.table() as table:
            result = flush(DeletionPlan(table, match, **options), check_mode=check)
    except FlushFailed as failed:
        result = {"msg": str(failed), **failed.result}
        assert KEYS - {"diff"} <= set(result)
    else:
        assert set(result) == KEYS
    assert result["changed"] == (result["flushed"] > 0) or ("msg" in result and result["changed"])
    return result


def many(number: int, source: bytes = b"\n\0\0\1") -> list[Connection]:
    """Return entries that differ only in their source port."""
    made = []
    for port in range(number):
        ends = Ends(source, b"\n\0\0\2", 17, (port, 53))
        made.append(Connection(2, ends, ends.inverted(), Zone(), 120))
        made[-1].id = port
    return made


def ids(kernel: Kernel) -> set[int]:
    return {there.id for there in kernel.connections}


# which entries are removed


@examples(60)
@given(tables, matches)
def test_flush_removes_exactly_the_matching_entries_and_is_idempotent(table: list[Document], text: str) -> None:
    kernel = filled(table)
    wanted = {there.id for there in kernel.connections if MATCHES[text](there)}
    left = ids(kernel) - wanted
    predicted = run(kernel, as_match(text), check=True)
    assert not kernel.writes
    done = run(kernel, as_match(text))
    assert predicted == done
    assert ids(kernel) == left
    assert (done["flushed"], done["total"]) == (len(wanted), len(wanted) + len(left))
    assert {entry["id"] for entry in done["entries"]} == wanted
    again = run(kernel, as_match(text))
    assert (again["changed"], again["flushed"], again["diff"]) == (False, 0, {"before": "", "after": ""})


FAULTS = [
    *(Fault(code) for code in (errno.EPERM, errno.EBUSY, errno.ENOMEM)),
    *(Fault(code, True, done) for code in (errno.ENOBUFS, errno.ETIMEDOUT) for done in (False, True)),
]


@examples(60)
@given(tables, matches, st.dictionaries(st.integers(0, 13), st.sampled_from(FAULTS), max_size=4))
def test_faults_never_falsify_the_result_or_remove_other_entries(
    table: list[Document], text: str, faults: dict[int, Fault]
) -> None:
    kernel = filled(table)
    wanted = {there.id for there in kernel.connections if MATCHES[text](there)}
    others = ids(kernel) - wanted
    kernel.faults = {number + READ: fault for number, fault in faults.items()}
    done = run(kernel, as_match(text))
    removed = wanted - ids(kernel)
    assert others <= ids(kernel), "an entry that does not match was removed"
    assert done["gone"] == 0
    assert done["changed"] or not removed
    if "msg" not in done:
        assert (done["flushed"], removed) == (len(wanted), wanted)
    elif not any(fault.lost for fault in faults.values()):
        assert done["flushed"] == len(removed)
        assert f"{len(wanted - removed)} of {len(wanted)} entries were not removed" in done["msg"]
    kernel.faults = {}
    assert "msg" not in run(kernel, as_match(text))
    assert ids(kernel) == others


@pytest.mark.parametrize(
    ("refused", "message"), [(0, "64 entries had been removed until then$"), (1, "until then, 1 not, ")]
)
def test_deletions_before_an_interrupted_dump_are_reported(refused: int, message: str) -> None:
    """The entries found before the error are already deleted, and the result must report each deletion."""
    kernel = Kernel()
    kernel.connections = many(2 * BATCH_SIZE)
    with kernel.table() as table:
        scan = table.scan

        def broken(visitor: Any, where: Any, between: Any) -> None:
            def failing() -> None:
                between()
                if len(kernel.writes) >= BATCH_SIZE:
                    raise Overrun("reading the table", errno.ENOBUFS)

            scan(visitor, where, between=failing)

        table.scan = broken  # type: ignore[method-assign]
        kernel.faults = {1 + BATCH_SIZE // 2: Fault(errno.EPERM)} if refused else {}
        with pytest.raises(FlushFailed, match=message) as failed:
            flush(DeletionPlan(table, EVERYTHING))
    assert failed.value.result["flushed"] == 2 * BATCH_SIZE - len(kernel.connections) == BATCH_SIZE - refused
    assert failed.value.result["changed"]


def test_flush_removes_nothing_before_the_count_is_known() -> None:
    """The first requests must wait even if there are more of them than fit into one window."""
    kernel = Kernel()
    kernel.connections = many(3 * BATCH_SIZE)
    limited = run(kernel, limit=3 * BATCH_SIZE - 1)
    assert f"{3 * BATCH_SIZE} entries match, more than the limit" in limited["msg"]
    assert run(kernel, check=True)["flushed"] == 3 * BATCH_SIZE
    assert not kernel.writes
    assert len(kernel.connections) == 3 * BATCH_SIZE
    assert run(kernel, limit=3 * BATCH_SIZE)["flushed"] == 3 * BATCH_SIZE


def counted(connections: list[Connection]) -> list[Connection]:
    """Give counters to all entries but the last, which is older than accounting."""
    for there in connections[:-1]:
        there.packets, there.bytes = (1, 1), (100, 100)
    return connections


@pytest.mark.parametrize(
    "raw", [{"bytes_above": 1}, {"packets_above": 1}, {"protocol": "udp", "except": {"bytes_below": 9}}]
)
def test_entry_without_counters_fails_the_flush_before_any_deletion(raw: Any) -> None:
    kernel = Kernel()
    kernel.connections = counted(many(3 * BATCH_SIZE))
    with pytest.raises(InvalidValue, match="cannot be evaluated"):
        run(kernel, parse_match(raw))
    assert not kernel.writes
    kernel.connections.pop()
    assert run(kernel, parse_match(raw))["flushed"] == 3 * BATCH_SIZE - 1


def test_failed_count_or_dump_removes_nothing() -> None:
    kernel = Kernel()
    kernel.connections = many(3)
    for number, code in itertools.product((0, 1), (errno.ENOBUFS, errno.ETIMEDOUT, errno.EPERM)):
        kernel.forget()
        kernel.faults = {number: Fault(code, lost=code != errno.EPERM)}
        with pytest.raises(Exception, match="reading the table"):
            run(kernel)
        assert len(kernel.connections) == 3
        assert not kernel.writes


def test_lost_answer_for_a_whole_window_is_recovered() -> None:
    """The receive buffer overran, so the result of 64 requests is unknown."""
    kernel = Kernel()
    kernel.connections = many(200)
    kernel.faults = {70: Fault(errno.ENOBUFS, lost=True, carried_out=True)}
    assert run(kernel)["flushed"] == 200
    assert not kernel.connections


@pytest.mark.parametrize("carried_out", [False, True])
def test_lost_answers_are_reported_as_a_change(carried_out: bool) -> None:
    kernel = Kernel()
    kernel.connections = many(3)
    kernel.faults = {number: Fault(errno.ETIMEDOUT, True, carried_out) for number in range(READ, 100)}
    done = run(kernel)
    assert "3 of 3 entries were not removed" in done["msg"]
    assert done["changed"]


@pytest.mark.parametrize("carried_out", [False, True])
def test_deletion_refused_after_a_lost_answer_is_reported_as_a_change(carried_out: bool) -> None:
    kernel = Kernel()
    kernel.connections = many(1)

    def from_now_on(number: int, request: Any) -> None:
        if request.type == DELETE and not kernel.faults:
            kernel.faults = {number: Fault(errno.ENOBUFS, True, carried_out), number + 1: Fault(errno.EBUSY)}

    kernel.meanwhile = from_now_on
    done = run(kernel)
    assert done["changed"]
    assert "ENOBUFS" in done["msg"]
    assert "EBUSY" in done["msg"]


# between dump and deletion


@examples(40)
@given(tables, matches, st.data())
def test_entries_that_ended_are_counted_and_their_successors_are_kept(
    table: list[Document], text: str, data: Any
) -> None:
    kernel = filled(table)
    wanted = [there for there in kernel.connections if MATCHES[text](there)]
    fates = data.draw(st.lists(st.sampled_from(["stays", "vanishes", "replaced"]), min_size=7, max_size=7))
    successors = []

    def meanwhile(number: int, request: Any) -> None:
        if request.type == DELETE and kernel.meanwhile:
            kernel.meanwhile = None
            for there, fate in zip(wanted, fates):
                if fate == "vanishes":
                    kernel.drop(there)
                elif fate == "replaced":
                    successors.append(kernel.renew(there))

    kernel.meanwhile = meanwhile
    others = ids(kernel) - {there.id for there in wanted}
    done = run(kernel, as_match(text))
    stayed = [fate for there, fate in zip(wanted, fates) if fate == "stays"]
    assert (done["flushed"], done["gone"]) == (len(stayed), len(wanted) - len(stayed))
    assert ids(kernel) == others | {there.id for there in successors}


def test_entries_created_during_the_dump_are_part_of_the_total() -> None:
    """Otherwise the result would report more deletions than entries, and a share above 100 percent."""
    kernel = Kernel()
    kernel.connections = many(5)

    def meanwhile(number: int, request: Any) -> None:
        if number == 1:
            kernel.connections += many(2, source=b"\n\0\0\7")

    kernel.meanwhile = meanwhile
    done = run(kernel, check=True)
    assert (done["flushed"], done["total"]) == (7, 7)


# options


def test_flush_above_the_limit_removes_nothing() -> None:
    kernel = Kernel()
    kernel.connections = many(5)
    for check in (True, False):
        refused = run(kernel, limit=4, check=check)
        names = r"udp \S+ -> \S+, udp \S+ -> \S+, udp \S+ -> \S+, 2 more"
        assert re.match(f"5 entries match, more than the limit of 4: {names}. Nothing was removed", refused["msg"])
        assert len(refused["entries"]) == 3, "the list fits on one line of a terminal"
        assert (refused["flushed"], refused["total"], len(kernel.connections)) == (0, 5, 5)
        assert not kernel.writes
    assert run(kernel, limit=5)["flushed"] == 5
    assert run(kernel, limit=0)["flushed"] == 0


def test_report_limit_shortens_lists_but_not_counts() -> None:
    kernel = Kernel()
    kernel.connections = many(5)
    result = run(kernel, report_limit=2)
    assert (result["flushed"], len(result["entries"])) == (5, 2)
    assert len(result["diff"]["before"].splitlines()) == 2


def test_ssh_session_is_kept_and_counted() -> None:
    ssh = {"protocol": "tcp", "original": {**FLOW, "destination_port": 22}}
    kernel = filled([ssh, {"protocol": "tcp", "original": FLOW}])
    mine = TcpConnection(b"\n\0\0\2", 22, b"\n\0\0\1", 1000)
    result = run(kernel, keep=frozenset({mine}), limit=1)
    assert (result["flushed"], result["kept"], result["total"]) == (1, 1, 2)
    assert [there.tuples[0].more for there in kernel.connections] == [(1000, 22)]
    assert len(result["entries"]) == 1


def test_diff_lists_the_removed_entries() -> None:
    kernel = filled([{"protocol": "tcp", "original": FLOW, "zone": 5}])
    result = run(kernel, check=True)
    assert result["diff"] == {"before": "tcp 10.0.0.1:1000 -> 10.0.0.2:80 (zone 5)\n", "after": ""}


# cost


@pytest.mark.parametrize("number", [0, 1, 64, 65, 1000])
def test_flush_uses_one_dump_and_one_send_per_64_entries(number: int) -> None:
    kernel = Kernel()
    kernel.connections = many(number) + many(500, source=b"\n\0\0\7")
    assert run(kernel, parse_match({"source": "10.0.0.1"}))["flushed"] == number
    assert len(kernel.connections) == 500
    datagrams = [datagram for sender in kernel.sockets for datagram in sender.sent]
    assert len(datagrams) == READ + -(-number // 64)
    assert [request.type for request in kernel.requests].count(GET) == 1
    assert len(kernel.writes) == number


def test_each_deletion_contains_tuple_zone_and_id() -> None:
    kernel = filled([{"protocol": "tcp", "original": FLOW, "zone": 5}])
    run(kernel)
    assert set(wire.tree(kernel.writes[0].payload[4:])) == {1, 12, 18}


# flows that return, and their sockets

TCP_FLOW = {"protocol": "tcp", "original": FLOW}


class Sockets(LocalSockets):
    """Each visited entry has a socket. `end` records how many requests the kernel has received until then."""

    def __init__(self, kernel: Kernel, failure: ConntrackError | None = None) -> None:
        self.kernel = kernel
        self.failure = failure
        self.entries: list[Any] = []
        self.writes_before: int | None = None

    def on(self, layout: Any) -> Any:
        return lambda data: self.add_all(layout.entries(data))

    def add(self, entry: Any) -> None:
        self.entries.append(entry)
        self.returning = len(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def end(self) -> None:
        self.writes_before = len(self.kernel.writes)
        if self.failure is not None:
            self.ended = 1
            raise self.failure
        self.ended = len(self.entries)


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets the value of tcp_loose in the namespace."""
    return lambda value: monkeypatch.setattr(sysctl, "read", {"tcp_loose": value}.__getitem__)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(("value", "expected"), [(1, 2), (0, 0), (None, None)])
def test_flows_return_if_the_kernel_picks_up_connections(loose: Any, check: bool, value: Any, expected: Any) -> None:
    loose(value)
    states = ("established", "time_wait", "close_wait", "syn_sent", "close")
    kernel = filled([{**TCP_FLOW, "zone": zone, "tcp": {"state": state}} for zone, state in enumerate(states, 1)])
    assert run(kernel, check=check)["will_return"] == expected


def test_tcp_loose_is_not_read_without_flows_that_can_return(loose: Any) -> None:
    """`read` would raise KeyError for another name than that of the setting, and nothing for none."""
    loose(None)
    kernel = filled([{"protocol": "udp", "original": FLOW}, {**TCP_FLOW, "tcp": {"state": "close"}}])
    assert run(kernel)["will_return"] == 0
    assert run(kernel)["will_return"] == 0, "an empty table"


def test_an_offloaded_entry_can_return() -> None:
    assert can_return({"original.protocol": TCP})
    assert [state for state in range(10) if can_return({"tcp.state": state})] == [2, 3, 4, 5, 6]


@pytest.mark.parametrize("check", [False, True])
def test_sockets_are_ended_before_the_first_deletion(loose: Any, check: bool) -> None:
    """Entries are not deleted while others are read. Flows whose sockets are ended do not return."""
    loose(1)
    number = 4 * BATCH_SIZE
    kernel = filled([{**TCP_FLOW, "zone": zone, "tcp": {"state": "established"}} for zone in range(1, number + 1)])
    with kernel.table() as table:
        sockets = Sockets(kernel)
        result = flush(DeletionPlan(table, EVERYTHING, sockets=sockets), check_mode=check)
    assert (result["flushed"], result["ended_sockets"], result["will_return"]) == (number, number, 0)
    assert sockets.writes_before == (None if check else 0)
    assert len(kernel.connections) == (number if check else 0)


def test_entries_that_are_added_one_by_one_are_counted(loose: Any) -> None:
    loose(1)
    kernel = filled([])
    entry = {"original.protocol": TCP, "tcp.state": 3}
    with kernel.table() as table:
        sockets = Sockets(kernel)
        plans = [DeletionPlan(table, EVERYTHING, report_limit=0, sockets=each) for each in (None, sockets)]
        for plan in plans:
            plan.read(check_mode=True)
            plan.add(entry)
    assert plans[0].will_return(1) == 1
    assert (sockets.entries, plan.will_return(1)) == ([entry], 0)


@pytest.mark.parametrize(("limit", "failure"), [(1, None), (9, ConntrackError("1 of 2 sockets were ended"))])
def test_no_entry_is_removed_after_a_failure_and_ended_sockets_are_reported(limit: int, failure: Any) -> None:
    """With more entries than the limit, no socket is ended either."""
    kernel = filled([{**TCP_FLOW, "zone": zone} for zone in (1, 2)])
    with kernel.table() as table:
        sockets = Sockets(kernel, failure)
        with pytest.raises(FlushFailed, match="No entry was removed|Nothing was removed") as failed:
            flush(DeletionPlan(table, EVERYTHING, limit=limit, sockets=sockets))
    ended = int(failure is not None)
    assert (failed.value.result["flushed"], failed.value.result["ended_sockets"]) == (0, ended)
    assert failed.value.result["changed"] is (failure is not None)
    assert (sockets.writes_before is None) is (failure is None)
    assert len(kernel.connections) == 2
