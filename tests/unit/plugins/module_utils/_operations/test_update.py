# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that an update changes exactly the entries that match and differ, reports them, and is idempotent."""

from __future__ import annotations

import errno
import json
from typing import Any, Dict, Iterator, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._operations.update import (
    UpdateFailed,
    parse_wanted,
    update,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.columns import BATCH
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    ConntrackError,
    InvalidValue,
    Overrun,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import (
    EVERYTHING,
    Match,
    parse_match,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import BATCH_SIZE
from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import UNLIMITED
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import wire
from ansible_collections.netops.conntrack.tests.unit.support.declarations import declarations, filled
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import (
    ASSURED,
    EXPECTED,
    FIXED_TIMEOUT,
    NEW,
    OFFLOAD,
    SEEN_REPLY,
    TCP,
    UDP,
    Connection,
    Ends,
    Fault,
    Kernel,
    Refused,
    Zone,
)
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import DUMP

Document = Dict[str, Any]
State = Dict[str, Any]

#: The number of requests before the first update: one counts the entries, one reads them.
READ = 2
KEYS = {"changed", "matched", "updated", "unchanged", "gone", "refused", "failed_entries", "changes", "diff"}
BITS = {"seen_reply": SEEN_REPLY, "assured": ASSURED, "fixed_timeout": FIXED_TIMEOUT}
MATCHES: dict[str, Any] = {
    '{"protocol": ["tcp", "udp", 47]}': lambda there: there.tuples[0].protocol in (TCP, UDP, 47),
    '{"source": ["10.0.0.1", "2001:db8::1"]}': lambda there: there.tuples[0].source[-1] == 1,
    '{"zone": 0}': lambda there: there.zone == Zone(),
    '{"mark": "0/0x10"}': lambda there: not there.mark & 0x10,
    '{"status_not": ["assured"]}': lambda there: not there.status & ASSURED,
    '{"timeout_above": 100, "except": {"labels": [0]}}': lambda there: (
        not there.status & OFFLOAD and there.deadline > 100 and not there.labels & 1
    ),
}
matches = st.sampled_from(sorted(MATCHES))


def as_match(text: str) -> Match:
    return parse_match(json.loads(text))


# an independent model of an update


class Options(NamedTuple):
    """The options of one run."""

    set: Document
    timeout_min: int = 0


def state(there: Connection, now: float = 0.0) -> State:
    """Return the values of an entry that an update can set."""
    remaining = None if there.status & OFFLOAD else int(there.deadline - now)
    return {
        "mark": there.mark,
        "labels": there.labels,
        "status": there.status,
        "helper": there.helper,
        "timeout": remaining,
    }


def requested_state(there: Connection, requested: Options) -> State:
    """Return the state that the options request, regardless of what the kernel refuses."""
    now, options = state(there), requested.set
    if "mark" in options:
        value, _slash, mask = options["mark"].partition("/")
        bits = int(mask or "0xffffffff", 0)
        now["mark"] = now["mark"] & ~bits | int(value, 0)
    now["labels"] |= sum(1 << bit for bit in options.get("labels_add", []))
    now["labels"] &= ~sum(1 << bit for bit in options.get("labels_remove", []))
    for name in options.get("status", []):
        now["status"] |= BITS[name]
    if "helper" in options:
        now["helper"] = ""
    remaining = now["timeout"]
    if "timeout" in options and remaining is not None and not requested.timeout_min <= remaining <= options["timeout"]:
        now["timeout"] = options["timeout"]
    return now


def refused(there: Connection, requested: Options) -> set[str]:
    """Return the keys that the options would change but the kernel refuses."""
    before, after = state(there), requested_state(there, requested)
    found = set()
    if there.status & EXPECTED and before["helper"] != after["helper"]:
        found.add("helper")
    if there.status & FIXED_TIMEOUT and before["timeout"] != after["timeout"]:
        found.add("timeout")
    return found


def resulting_state(there: Connection, requested: Options) -> State:
    """Return the state of an entry after a run."""
    before = state(there)
    return {**requested_state(there, requested), **{key: before[key] for key in refused(there, requested)}}


def states(kernel: Kernel) -> dict[int, State]:
    return {there.id: state(there, kernel.now) for there in kernel.connections}


# random tables and options


@st.composite
def tables(draw: Any) -> tuple[list[Document], list[int]]:
    """Draw entries, and for each entry a status bit that a declaration cannot set."""
    documents = draw(st.lists(declarations(), max_size=7))
    bit = st.sampled_from([0, 0, 0, EXPECTED, OFFLOAD])
    return documents, draw(st.lists(bit, min_size=7, max_size=7))


def made(table: tuple[list[Document], list[int]], **features: Any) -> Kernel:
    kernel = filled(table[0], **features)
    for there, bit in zip(kernel.connections, table[1]):
        there.status |= bit
    return kernel


@st.composite
def option_sets(draw: Any) -> Options:
    labels = draw(st.permutations([0, 31, 32, 127]))
    options = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "mark": st.sampled_from(["0", "1", "0xff", "0x1/0xf", "0/0xff", "0x10/0x30"]),
                "labels_add": st.just(labels[:2]),
                "labels_remove": st.just(labels[2:]),
                "timeout": st.sampled_from([50, 60, 500, 1000]),
                "status": st.lists(st.sampled_from(sorted(BITS)), min_size=1, unique=True),
                "helper": st.just(""),
            },
        ).filter(bool)
    )
    timeout_min = draw(st.sampled_from([0, 40, 300]))
    return Options(options, timeout_min if timeout_min <= options.get("timeout", 0) else 0)


def run(kernel: Kernel, requested: Options, match: Match = EVERYTHING, check: bool = False, **options: Any) -> Document:
    """Run the module once. A failure returns its result, with the message under `msg`."""
    options = {"limit": UNLIMITED, "report_limit": 100, **options}
    try:
        with kernel.table() as table:
            result = update(
                table, match, parse_wanted(requested.set, requested.timeout_min), check_mode=check, **options
            )
    except UpdateFailed as failed:
        result = {"msg": str(failed), **failed.result}
    assert set(result) - {"msg"} == KEYS
    assert ("msg" in result) >= bool(result["failed_entries"])
    return result


def many(number: int, source: bytes = b"\n\0\0\1", first: int = 0, mark: int = 0) -> list[Connection]:
    """Return entries that differ only in their source port."""
    connections = []
    for port in range(first, first + number):
        ends = Ends(source, b"\n\0\0\2", UDP, (port, 53))
        connections.append(Connection(2, ends, ends.inverted(), Zone(), 120))
        connections[-1].id = port
        connections[-1].mark = mark
    return connections


@pytest.mark.parametrize("limit", [UNLIMITED, 9 * BATCH])
def test_entry_without_counters_fails_the_update_before_any_change(limit: int) -> None:
    kernel = Kernel()  # more entries than the module reads ahead
    kernel.connections = many(BATCH + 200)
    for there in kernel.connections[:-1]:
        there.packets, there.bytes = (1, 1), (100, 100)
    match = parse_match({"protocol": "udp", "except": {"bytes_below": 9}})
    with pytest.raises(InvalidValue, match="cannot be evaluated"):
        run(kernel, Options({"mark": 1}), match, limit=limit)
    assert not kernel.writes
    kernel.connections.pop()
    assert run(kernel, Options({"mark": 1}), match, check=True, limit=limit)["updated"] == BATCH + 199


def one(**keys: Any) -> tuple[Kernel, Connection]:
    """Return a kernel with one TCP entry."""
    kernel = filled([{"protocol": "tcp", "original": FTP, "timeout": 600, **keys}])
    return kernel, kernel.connections[0]


FTP = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1000, "destination_port": 21}
#: The keys that identify the entry in a result.
ENTRY = {"family": "ipv4", "protocol": "tcp", "original": FTP}


# which entries and values change


@examples(100)
@given(tables(), matches, option_sets())
def test_update_changes_exactly_the_matching_entries_and_is_idempotent(
    table: Any, text: str, requested: Options
) -> None:
    kernel = made(table)
    selected = [there for there in kernel.connections if MATCHES[text](there)]
    before = states(kernel)
    after = {**before, **{there.id: resulting_state(there, requested) for there in selected}}
    failing = [there for there in selected if refused(there, requested)]
    differing = [there for there in selected if before[there.id] != after[there.id]]

    predicted = run(kernel, requested, as_match(text), check=True)
    assert not kernel.writes
    done = run(kernel, requested, as_match(text))
    assert predicted == done
    assert states(kernel) == after
    assert done["matched"] == len(selected)
    assert done["updated"] == len([there for there in differing if there not in failing])
    assert done["refused"] == len(done["failed_entries"]) == len(failing)
    assert done["matched"] == done["updated"] + done["unchanged"] + done["refused"]
    assert done["changed"] == bool(differing) == bool(done["changes"])
    assert sorted(change["key"] for change in done["changes"]) == sorted(
        key for number, there in before.items() for key in there if there[key] != after[number][key]
    )

    kernel.forget()
    again = run(kernel, requested, as_match(text))
    assert (again["changed"], again["changes"], again["diff"]) == (False, [], {"before": "", "after": ""})
    assert not kernel.writes
    assert states(kernel) == after


FAULTS = [
    *(Fault(code) for code in (errno.EPERM, errno.EBUSY, errno.EOPNOTSUPP, errno.ENOSPC)),
    *(Fault(code, True, done) for code in (errno.ENOBUFS, errno.ETIMEDOUT) for done in (False, True)),
]


def check_truth(kernel: Kernel, before: dict[int, State], goal: dict[int, State], result: Document) -> None:
    """Check that each value is the old or the requested one, and that the result reports exactly the changes."""
    changed = 0
    for number, after in states(kernel).items():
        for key, value in after.items():
            assert value in (before[number][key], goal[number][key])
            changed += value != before[number][key]
    if any("not read back" in failed["msg"] for failed in result["failed_entries"]):
        assert result["changed"]
        assert len(result["changes"]) <= changed
    else:
        assert len(result["changes"]) == changed
        assert result["changed"] == bool(changed)


@examples(100)
@given(tables(), matches, option_sets(), st.dictionaries(st.integers(0, 20), st.sampled_from(FAULTS), max_size=4))
def test_faults_never_falsify_the_result_or_change_other_entries(
    table: Any, text: str, requested: Options, faults: dict[int, Fault]
) -> None:
    kernel = made(table)
    selected = {there.id: there for there in kernel.connections if MATCHES[text](there)}
    before = states(kernel)
    goal = {**before, **{number: resulting_state(there, requested) for number, there in selected.items()}}
    kernel.faults = {number + READ: fault for number, fault in faults.items()}
    done = run(kernel, requested, as_match(text))
    check_truth(kernel, before, goal, done)
    assert "msg" in done or states(kernel) == goal, "the result reports no error although a change is missing"


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_fault_at_any_message_is_reported_correctly_and_second_run_completes(fault: Fault) -> None:
    requested = Options(
        {
            "mark": "0x1/0xf",
            "labels_add": [0],
            "labels_remove": [127],
            "timeout": 60,
            "status": ["assured"],
            "helper": "",
        }
    )

    def fresh() -> Kernel:
        flows = [{**FTP, "source_port": port} for port in (1000, 1001, 1002)]
        documents = [{"protocol": "tcp", "original": flow, "timeout": 600, "labels": [127]} for flow in flows]
        documents[0]["helper"] = "ftp"
        documents[1]["mark"] = 0xF1
        return filled(documents)

    kernel = fresh()
    before, match = states(kernel), parse_match({"protocol": "tcp"})
    run(kernel, requested, match)
    goal, messages = states(kernel), len(kernel.requests)
    assert messages == READ + 3
    for number in range(messages):
        kernel = fresh()
        kernel.faults = {number: fault}
        try:
            done = run(kernel, requested, match)
        except ConntrackError:
            assert number < READ
            assert states(kernel) == before
        else:
            check_truth(kernel, before, goal, done)
            assert "msg" in done or states(kernel) == goal
        kernel.faults = {}
        assert "msg" not in run(kernel, requested, match)
        assert states(kernel) == goal, number


@pytest.mark.parametrize(
    ("remaining", "timeout_min", "after"),
    [(600, 0, 60), (61, 0, 60), (60, 0, 60), (59, 0, 59), (1, 0, 1), (30, 31, 60), (31, 31, 31), (60, 60, 60)],
)
def test_timeout_is_shortened_or_extended_only_on_request(remaining: int, timeout_min: int, after: int) -> None:
    kernel, there = one()
    there.deadline = remaining
    result = run(kernel, Options({"timeout": 60}, timeout_min))
    assert there.deadline == after
    assert result["changed"] == (remaining != after) == bool(kernel.writes)
    expected = [(remaining, 60)] if result["changed"] else []
    assert [(change["before"], change["after"]) for change in result["changes"]] == expected


def test_fixed_timeout_is_a_failure_only_if_it_differs() -> None:
    kernel, there = one(status=["fixed_timeout"], mark=1)
    assert run(kernel, Options({"timeout": 600}))["unchanged"] == 1
    result = run(kernel, Options({"timeout": 60, "mark": "2"}))
    assert (there.mark, there.deadline) == (2, 600), "the other values are changed"
    assert (result["updated"], result["refused"], [change["key"] for change in result["changes"]]) == (0, 1, ["mark"])
    sentence = (
        "tcp 10.0.0.1:1000 -> 10.0.0.2:21: timeout cannot be changed, its timeout is fixed (status fixed_timeout)"
    )
    assert result["failed_entries"] == [{"entry": ENTRY, "msg": sentence}]
    assert result["msg"].endswith(f"1 of 1 entries were not changed, or not in full, the first because: {sentence}")


def test_timeout_of_an_offloaded_entry_is_unchanged() -> None:
    kernel, there = one()
    there.status |= OFFLOAD
    assert run(kernel, Options({"timeout": 60}))["unchanged"] == 1
    assert there.deadline == 600


# which requests are sent


def test_only_differing_values_are_sent() -> None:
    """A value that is already set can change before the request arrives, and each update sends an event."""
    kernel, _there = one(mark="0x11", labels=[1])
    requested = Options({"mark": "0x1/0xf", "labels_add": [1, 100], "timeout": 700, "status": ["seen_reply"]})
    run(kernel, requested)
    (request,) = kernel.writes
    sent = wire.tree(request.payload[4:])
    assert set(sent) == {1, 3, 22, 23}
    assert [len(sent[22]), len(sent[23])] == [16, 16], "shorter ones would clear the rest"


def test_bits_outside_the_mask_keep_concurrent_changes() -> None:
    kernel, there = one(mark="0x10", labels=[1])

    def meanwhile(number: int, request: Any) -> None:
        if request.type == NEW:
            there.mark, there.labels = 0x20, 1 << 2

    kernel.meanwhile = meanwhile
    run(kernel, Options({"mark": "0x1/0xf", "labels_add": [5], "labels_remove": [1]}))
    assert (there.mark, there.labels) == (0x21, 1 << 2 | 1 << 5)


@pytest.mark.parametrize("number", [0, 1, 64, 65, 1000])
def test_update_uses_one_dump_and_one_send_per_64_entries(number: int) -> None:
    kernel = Kernel()
    kernel.connections = many(number) + many(300, source=b"\n\0\0\7") + many(200, first=5000, mark=7)
    result = run(kernel, Options({"mark": "7"}), parse_match({"source": "10.0.0.1"}))
    assert (result["matched"], result["updated"], result["unchanged"]) == (number + 200, number, 200)
    assert sorted({there.mark for there in kernel.connections[number : number + 300]}) == [0]
    datagrams = [datagram for sender in kernel.sockets for datagram in sender.sent]
    assert len(datagrams) == READ + -(-number // BATCH_SIZE)
    assert [request.flags & DUMP == DUMP for request in kernel.requests].count(True) == 1
    assert len(kernel.writes) == number


def test_entries_are_changed_while_the_table_is_still_being_read() -> None:
    """A million plans in memory at once would need a gigabyte."""
    kernel = Kernel()
    kernel.connections = many(5000)
    ahead, sent = [], []

    def meanwhile(number: int, request: Any) -> None:
        if request.type == NEW:
            sent.append(number)

    kernel.meanwhile = meanwhile
    with kernel.table() as table:
        dump = table.dump

        def watched(*arguments: Any, **options: Any) -> Iterator[Any]:
            for count, entry in enumerate(dump(*arguments, **options)):
                ahead.append(count - len(sent))
                yield entry

        table.dump = watched  # type: ignore[method-assign]
        assert update(table, EVERYTHING, parse_wanted({"mark": "1"}))["updated"] == 5000
    assert max(ahead) < 4000


@pytest.mark.parametrize("refusals", [0, 1])
def test_changes_before_an_interrupted_dump_are_reported(refusals: int) -> None:
    """The entries found before the error are already changed, and the result must report each of these changes."""
    kernel = Kernel()
    kernel.connections = many(4000)
    kernel.faults = {5: Fault(errno.EPERM)} if refusals else {}
    with kernel.table() as table:
        dump = table.dump

        def broken(*arguments: Any, **options: Any) -> Iterator[Any]:
            for entry in dump(*arguments, **options):
                if entry["id"] == 3000:
                    raise Overrun("reading the table", errno.ENOBUFS)
                yield entry

        table.dump = broken  # type: ignore[method-assign]
        with pytest.raises(UpdateFailed, match="entries had been changed until then") as failed:
            update(table, EVERYTHING, parse_wanted({"mark": "1"}))
    changed = sum(there.mark for there in kernel.connections)
    assert failed.value.result["updated"] == changed > 1000
    assert failed.value.result["refused"] == refusals
    assert ("1 not, the first because: updating" in str(failed.value)) == bool(refusals)


def test_failed_dump_changes_nothing() -> None:
    for code in (errno.ENOBUFS, errno.ETIMEDOUT, errno.EPERM):
        kernel = Kernel()
        kernel.connections = many(3)
        kernel.faults = {0: Fault(code, lost=code != errno.EPERM)}
        with pytest.raises(ConntrackError, match="reading the table"):
            run(kernel, Options({"mark": "1"}))
        assert not kernel.writes


# what the kernel refuses


class Linux72(Kernel):
    """A kernel that refuses to remove the helper of an entry, as Linux 7.2 does."""

    def _change_helper(self, found: Connection, name: str) -> None:
        raise Refused(errno.EOPNOTSUPP)


def test_refused_helper_removal_does_not_prevent_other_changes() -> None:
    """The kernel processes the helper first, and ignores the rest of the request after a refusal."""
    old, there = one(helper="ftp", labels=[1])
    kernel = Linux72()
    kernel.connections = old.connections
    result = run(kernel, Options({"helper": "", "mark": "5", "timeout": 60, "labels_remove": [1]}))
    assert state(there) == {**state(there), "helper": "ftp", "mark": 5, "timeout": 60, "labels": 0}
    assert (result["changed"], result["updated"], result["refused"]) == (True, 0, 1)
    assert {change["key"] for change in result["changes"]} == {"mark", "timeout", "labels"}
    (failed,) = result["failed_entries"]
    assert "This kernel cannot remove the helper of an entry (as Linux 7.2)" in failed["msg"]
    assert failed["msg"].endswith(". These were changed: mark, labels, timeout")


def test_labels_without_a_rule_do_not_prevent_other_changes() -> None:
    kernel, there = one()
    kernel.label_rule = False
    result = run(kernel, Options({"mark": "5", "labels_add": [1]}))
    assert (there.mark, there.labels) == (5, 0)
    assert [change["key"] for change in result["changes"]] == ["mark"]
    assert "add one, such as 'ct label set' in nftables" in result["failed_entries"][0]["msg"]
    assert len(kernel.writes) == 1, "the values applied before it need not be sent again"


def test_entry_with_two_refusals_counts_as_one_failure() -> None:
    """The predicted reason and the kernel's error are two reasons, and each appears once."""
    kernel, there = one(status=["fixed_timeout"])
    kernel.label_rule = False
    result = run(kernel, Options({"timeout": 60, "mark": "5", "labels_add": [1]}))
    assert (result["matched"], result["updated"], result["refused"], there.mark) == (1, 0, 1, 5)
    first, second = (failed["msg"] for failed in result["failed_entries"])
    assert "timeout cannot be changed" in first
    assert "timeout cannot be changed" not in second
    assert second.endswith("'-m connlabel' in iptables. These were changed: mark")


def test_helper_is_removed_except_from_expected_connections() -> None:
    flows = [{**FTP, "source_port": port} for port in (1, 2)]
    kernel = filled([{"protocol": "tcp", "original": flow, "helper": "ftp"} for flow in flows])
    kernel.connections[0].status |= EXPECTED
    predicted = run(kernel, Options({"helper": ""}), check=True)
    assert run(kernel, Options({"helper": ""})) == predicted
    assert [there.helper for there in kernel.connections] == ["ftp", ""]
    assert (predicted["updated"], predicted["refused"], len(kernel.writes)) == (1, 1, 1)


def test_status_bit_set_by_a_concurrent_packet_is_not_a_refusal() -> None:
    """The packet sets a status bit that the request does not contain, so the kernel would have to clear it."""
    kernel, there = one()

    def meanwhile(number: int, request: Any) -> None:
        if request.type == NEW:
            there.status |= SEEN_REPLY

    kernel.meanwhile = meanwhile
    result = run(kernel, Options({"status": ["assured"]}))
    assert (result["updated"], result["refused"]) == (1, 0)
    assert there.status & (SEEN_REPLY | ASSURED) == SEEN_REPLY | ASSURED


def test_lost_answer_for_a_whole_window_is_recovered() -> None:
    """The receive buffer overran, so the result of 64 requests is unknown."""
    for carried_out in (True, False):
        kernel = Kernel()
        kernel.connections = many(200)
        kernel.faults = {70: Fault(errno.ENOBUFS, lost=True, carried_out=carried_out)}
        assert run(kernel, Options({"mark": "1"}))["updated"] == 200
        assert {there.mark for there in kernel.connections} == {1}


def test_answer_lost_while_reading_back_is_requested_again() -> None:
    kernel, there = one()
    kernel.faults = {1: Fault(errno.ENOBUFS, True, True), 2: Fault(errno.ENOBUFS, True)}
    result = run(kernel, Options({"mark": "1"}))
    assert (result["updated"], result["refused"], there.mark) == (1, 0, 1)


def test_retries_end_if_all_answers_are_lost() -> None:
    kernel, there = one()
    kernel.faults = {number: Fault(errno.ETIMEDOUT, lost=True) for number in range(1, 200, 2)}
    result = run(kernel, Options({"mark": "1"}))
    assert (result["refused"], result["changed"], there.mark) == (1, False, 0)
    assert "unknown" in result["failed_entries"][0]["msg"]


# between dump and change


@examples(40)
@given(tables(), matches, st.data())
def test_entries_that_ended_are_counted_and_are_not_failures(table: Any, text: str, data: Any) -> None:
    kernel = made(table)
    selected = [there for there in kernel.connections if MATCHES[text](there)]
    vanishing = data.draw(st.lists(st.booleans(), min_size=7, max_size=7))

    def meanwhile(number: int, request: Any) -> None:
        if request.type == NEW and kernel.meanwhile:
            kernel.meanwhile = None
            for there, vanishes in zip(selected, vanishing):
                if vanishes:
                    kernel.drop(there)

    kernel.meanwhile = meanwhile
    differ = [there.mark != 0x77 for there in selected]
    done = run(kernel, Options({"mark": "0x77"}), as_match(text))
    assert "msg" not in done
    assert done["gone"] == sum(map(min, zip(differ, vanishing)))
    assert done["updated"] == sum(differ) - done["gone"]
    assert all(there.mark == 0x77 for there in selected if there in kernel.connections)


def test_refused_entry_that_then_ends_is_counted_once() -> None:
    kernel, there = one(status=["fixed_timeout"])

    def meanwhile(number: int, request: Any) -> None:
        if request.type == NEW:
            kernel.drop(there)

    kernel.meanwhile = meanwhile
    result = run(kernel, Options({"timeout": 60, "mark": "5"}))
    assert (result["refused"], result["gone"], kernel.connections) == (1, 0, [])
    assert result["matched"] == result["updated"] + result["unchanged"] + result["gone"] + result["refused"] == 1


def test_successor_found_while_reading_back_is_unchanged() -> None:
    kernel, there = one()
    successors = []

    def meanwhile(number: int, request: Any) -> None:
        if request.type == NEW and not successors:
            successors.append(kernel.renew(there))

    kernel.meanwhile = meanwhile
    kernel.faults = {1: Fault(errno.ENOBUFS, lost=True)}
    result = run(kernel, Options({"mark": "5"}))
    assert (result["gone"], result["changed"], successors[0].mark) == (1, False, 0)


def test_update_that_may_have_changed_a_successor_is_reported_as_a_change() -> None:
    kernel, there = one()

    def meanwhile(number: int, request: Any) -> None:
        if request.type == NEW:
            kernel.renew(there)
            kernel.meanwhile = None

    kernel.meanwhile = meanwhile
    kernel.faults = {1: Fault(errno.ENOBUFS, lost=True, carried_out=True)}
    result = run(kernel, Options({"mark": "5"}))
    assert (result["gone"], result["changed"], kernel.connections[0].mark) == (1, True, 5)


# options


def test_update_above_the_limit_changes_nothing() -> None:
    kernel = Kernel()
    kernel.connections = many(3 * BATCH_SIZE)
    requested = Options({"mark": "1"})
    for check in (True, False):
        limited = run(kernel, requested, limit=3 * BATCH_SIZE - 1, check=check)
        head = f"{3 * BATCH_SIZE} entries match, more than the limit of {3 * BATCH_SIZE - 1}: udp 10."
        assert limited["msg"].startswith(head)
        assert f", {3 * BATCH_SIZE - 3} more. Nothing was changed" in limited["msg"]
        assert (limited["matched"], limited["updated"], limited["changes"]) == (3 * BATCH_SIZE, 0, [])
        assert not kernel.writes
    assert run(kernel, requested, limit=3 * BATCH_SIZE)["updated"] == 3 * BATCH_SIZE
    assert run(Kernel(), requested, limit=0)["matched"] == 0


def test_update_stops_at_the_limit_if_the_table_grows() -> None:
    kernel = Kernel()
    kernel.connections = many(3)
    dumps = []

    def meanwhile(number: int, request: Any) -> None:
        if request.flags & DUMP == DUMP:
            dumps.append(number)
            if len(dumps) == 2:
                kernel.connections += many(2, first=100)

    kernel.meanwhile = meanwhile
    result = run(kernel, Options({"mark": "1"}), limit=4)
    assert "5 entries match now, more than the limit of 4: no entry after the first 4 was changed" in result["msg"]
    assert (result["updated"], sum(there.mark for there in kernel.connections)) == (4, 4)


def test_report_limit_shortens_lists_but_not_counts() -> None:
    kernel = Kernel(label_rule=False)
    kernel.connections = many(5)
    result = run(kernel, Options({"mark": "1", "labels_add": [1]}), report_limit=2)
    assert (result["refused"], len(result["failed_entries"]), len(result["changes"])) == (5, 2, 2)
    assert len(result["diff"]["before"].splitlines()) == 2
    kernel.label_rule = True
    result = run(kernel, Options({"labels_add": [1]}), report_limit=0)
    assert (result["updated"], result["changes"], result["changed"]) == (5, [], True)


def test_diff_has_a_line_per_change_with_only_the_requested_bits() -> None:
    kernel, _there = one(mark="0x11", labels=[1, 2], helper="ftp", zone=5)
    requested = Options({"mark": "0x2/0xf", "labels_add": [3], "labels_remove": [2], "timeout": 60, "helper": ""})
    result = run(kernel, requested, check=True)
    flow = "tcp 10.0.0.1:1000 -> 10.0.0.2:21 (zone 5): "
    before = [f"{flow}helper ftp", f"{flow}labels 2", f"{flow}mark 0x1/0xf", f"{flow}timeout 600"]
    after = [f"{flow}helper none", f"{flow}labels 3", f"{flow}mark 0x2/0xf", f"{flow}timeout 60"]
    assert result["diff"] == {"before": "\n".join(before) + "\n", "after": "\n".join(after) + "\n"}


def test_changes_show_a_declarable_entry_and_label_names() -> None:
    kernel, _there = one(zone=5)
    with kernel.table() as table:
        names = LabelMap({"customer": 3})
        result = update(table, EVERYTHING, parse_wanted({"labels_add": ["customer"]}, 0, names))
    assert result["changes"] == [{"entry": {**ENTRY, "zone": 5}, "key": "labels", "before": [], "after": ["customer"]}]


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        (Options({}), "^set: specifies nothing; write one or more of mark, "),
        (Options({"mark": None}), "^set: specifies nothing"),
        (Options({"mark": "pink"}), "^set.mark: 'pink' is not a number"),
        (Options({"mark": "0x10/0x0f"}), "^set.mark: '0x10/0x0f' has bits outside its mask"),
        (Options({"mark": "0/0"}), "^set.mark: has a mask of 0, so it would set nothing"),
        (Options({"labels_add": []}), "^set.labels_add: an empty list sets nothing"),
        (Options({"labels_add": ["nonesuch"]}), "^set.labels_add: 'nonesuch' is not a label"),
        (Options({"labels_remove": [128]}), "^set.labels_remove: 128 is not a label"),
        (Options({"labels_add": [1, 2], "labels_remove": ["2"]}), "^set.labels_remove: labels_add has 2, too; write a"),
        (Options({"timeout": 0}), "^set.timeout: 0 is out of range; write an integer from 1 "),
        (Options({"mark": "1"}, 5), "^timeout_min: there is no timeout to set; write set.timeout too"),
        (Options({"timeout": 60}, 61), "^timeout_min: 61 is above set.timeout, .*; write 60 or less"),
        (Options({"status": []}), "^set.status: an empty list sets nothing"),
        (Options({"status": ["assurred"]}), "^set.status: 'assurred' is not a known status bit"),
        (
            Options({"status": ["seen_reply", "src_nat"]}),
            "^set.status: src_nat can be set only by the kernel; write one or",
        ),
        (Options({"helper": "ftp"}), "^set.helper: 'ftp' can be attached only when an entry is created; write \"\" to"),
    ],
)
def test_invalid_options_are_refused_with_one_sentence(requested: Options, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        parse_wanted(requested.set, requested.timeout_min)


def test_match_that_cannot_be_evaluated_changes_nothing() -> None:
    """The match compares bytes, but the entry is older than accounting and has no counters."""
    kernel = Kernel()
    kernel.connections = many(3)
    with pytest.raises(InvalidValue, match="cannot be evaluated"):
        run(kernel, Options({"mark": "1"}), parse_match({"bytes_above": 0}))
    assert not kernel.writes
