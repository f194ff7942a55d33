# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a restore recreates the table, changes no other entry and reports each value that it cannot restore."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from typing import Any, Dict, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.expectation import (
    reconcile,
)
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot import restore as module
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import Header, Snapshot, Writer
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.restore import RestoreFailed, restore
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.save import save
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document as parse_entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError, InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation.expectation import (
    from_document as parse_expectation,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.ssh_session import TcpConnection
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING, parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import BATCH_SIZE
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils._reconcile.test_expectation import (
    CONTROL,
    ExpectingKernel,
    announced,
)
from ansible_collections.netops.conntrack.tests.unit.support.declarations import FLOW, declarations, filled
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import (
    DCCP,
    DELETE,
    GET,
    GET_STATS,
    NEW,
    Connection,
    Ends,
    Fault,
    Kernel,
    Zone,
)
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import CREATE, DUMP

Document = Dict[str, Any]

KEYS = {
    "changed", "snapshot", "checksum", "counts", "expectation_counts", "kept", "unknown", "failed_entries", "diff",
}  # fmt: skip
UDP: Document = {"protocol": "udp", "original": FLOW}
COUNTS = ("created", "updated", "replaced", "deleted", "unchanged", "failed")
SCOPES: list[Any] = [{"protocol": "tcp"}, {"family": "ipv6"}, {"zone": 5}, [{"mark": 0}, {"port": 80}]]
LIMIT = 1000
tables = st.lists(declarations(), max_size=7)
#: For tables with other entries: an entry with a zone in one direction can hide another entry, also from a plan.
existing_tables = st.lists(declarations().filter(lambda document: "zone" not in document["original"]), max_size=7)


@pytest.fixture(scope="module")
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        yield name


@pytest.fixture
def path(folder: str) -> str:
    return os.path.join(folder, "snapshot")


def saved(kernel: Kernel, path: str, match: Any = None, check: bool = False) -> Document:
    kernel.forget()
    with kernel.table() as table:
        result = save(table, path, EVERYTHING if match is None else parse_match(match), LabelMap(), check)
    assert not kernel.writes
    kernel.forget()
    return result


def run(
    kernel: Kernel, path: str, check: bool = False, match: Any = None, scope: Any = None, **policy: Any
) -> Document:
    """Run the module once. A failure returns its result, with the message under `msg`."""
    keep = policy.pop("keep", frozenset())
    limit = policy.pop("limit", LIMIT)
    requested = EVERYTHING if match is None else parse_match(match)
    where = None if scope is None else parse_match(scope)
    policy = {"on_existing": "keep", **policy}
    kernel.forget()
    with Snapshot(path) as snapshot, kernel.table() as table:
        try:
            result = restore(table, snapshot, requested, Policy(**policy), LabelMap(), check, limit, where, keep)
            assert set(result) - {"warnings"} == KEYS
        except RestoreFailed as failure:
            result = {"msg": str(failure), **failure.result}
            assert set(result) - {"warnings"} == KEYS | {"msg"}
        assert not snapshot._opened.close()
    if check:
        assert not kernel.writes
    return result


def restorable_state(kernel: Kernel) -> list[Any]:
    """Return the table without ids and the NAT status of entries without NAT, which a snapshot cannot restore."""
    found = []
    for there in kernel.connections:
        shown = kernel._shown(there)
        status = int.from_bytes(shown[3], "big")
        shown[3] = status if status & 0x30 else status & ~0x180
        del shown[12]
        found.append(repr(sorted(shown.items())))
    return sorted(found)


def emptied(kernel: Kernel) -> Kernel:
    empty = Kernel(kernel.label_rule, kernel.helpers)
    empty.untracked = kernel.untracked
    return empty


def numbers(result: Document) -> Document:
    return {key: count for key, count in result["counts"].items() if count}


def write(path: str, *documents: Document) -> None:
    """Write a snapshot of these records without the code that saves a table."""
    with Writer(path, Header("gw1", "6.1", "2030-01-31T12:00:00Z", {})) as writer:
        for document in documents:
            writer.write("entries", {key: [value] for key, value in document.items()}, ("family", "protocol"))


def flow(port: int, **more: Any) -> Document:
    """Return a record."""
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": port, "destination_port": 80}
    return {"family": "ipv4", "protocol": "tcp", **{f"original.{key}": end for key, end in ends.items()}, **more}


def declared(port: int, **more: Any) -> Document:
    return {"protocol": "tcp", "original": {**FLOW, "source_port": port}, "timeout": 600, **more}


def ports(kernel: Kernel) -> list[int]:
    return sorted(there.tuples[0].more[0] for there in kernel.connections)


# complete restores


@examples(120)
@given(tables)
def test_restored_table_equals_the_saved_table(folder: str, table: list[Document]) -> None:
    kernel = filled(table)
    path = os.path.join(folder, "random")
    result = saved(kernel, path)
    assert result["snapshot"]["entries"] == len(kernel.connections)
    other = emptied(kernel)
    predicted = run(other, path, check=True)
    done = run(other, path)
    assert predicted == done
    assert restorable_state(other) == restorable_state(kernel)
    assert numbers(done) == ({"created": len(kernel.connections)} if kernel.connections else {})
    assert done["changed"] == bool(kernel.connections)
    again = run(other, path)
    assert (again["changed"], again["diff"]) == (False, {"before": "", "after": ""})
    assert numbers(again) == ({"unchanged": len(kernel.connections)} if kernel.connections else {})


@examples(80)
@given(tables, existing_tables, st.sampled_from(["keep", "update", "fail"]), st.booleans())
def test_check_mode_predicts_the_run_on_an_existing_table(
    folder: str, table: list[Document], there: list[Document], on_existing: str, replace: bool
) -> None:
    path = os.path.join(folder, "random")
    saved(filled(table), path)
    kernel = filled(there)
    before = {connection.id: kernel._shown(connection) for connection in kernel.connections}
    predicted = run(kernel, path, check=True, on_existing=on_existing, replace=replace)
    done = run(kernel, path, on_existing=on_existing, replace=replace)
    assert predicted["counts"] == done["counts"]
    assert predicted["diff"] == done["diff"]
    assert [one["index"] for one in predicted["failed_entries"]] == [one["index"] for one in done["failed_entries"]]
    if on_existing == "keep":
        after = {connection.id: kernel._shown(connection) for connection in kernel.connections}
        assert {number: after[number] for number in before} == before
    assert sum(done["counts"].values()) == done["snapshot"]["entries"]
    again = run(kernel, path, on_existing=on_existing, replace=replace)
    assert not set(numbers(again)) - {"unchanged", "failed"}
    assert numbers(again).get("failed") == numbers(done).get("failed")


@pytest.mark.parametrize("direction", ["", "original", "reply"])
def test_masters_are_saved_before_their_children(path: str, direction: str) -> None:
    """The chain of masters can have any length and order, and its entries can have a zone in one direction."""
    family = [declared(port, helper="ftp") for port in range(1, 5)]
    for child, master in zip(family[1:], family):
        child["master"] = {"protocol": "tcp", **master["original"]}
    for entry in family if direction else []:
        entry[direction] = {**entry.get(direction, {}), "zone": 5}
    kernel = filled(family)
    assert [there.master and there.master.tuples[0].more[0] for there in kernel.connections] == [None, 1, 2, 3]
    kernel.connections.reverse()
    saved(kernel, path)
    with Snapshot(path) as snapshot:
        recorded = [dict(zip(block.keys, row)) for block in snapshot.blocks("entries") for row in block.rows]
    assert [record["original.source_port"] for record in recorded] == [1, 2, 3, 4]
    other = emptied(kernel)
    predicted = run(other, path, check=True)
    assert numbers(predicted) == numbers(run(other, path)) == {"created": 4}
    assert restorable_state(other) == restorable_state(kernel)


def test_a_child_without_its_master_is_reported_and_the_rest_restored(path: str) -> None:
    kernel = filled([declared(1), declared(2, master={"protocol": "tcp", **declared(1)["original"]}), declared(3)])
    saved(kernel, path, match={"source_port": [2, 3]})
    other = emptied(kernel)
    predicted, done = run(other, path, check=True), run(other, path)
    assert predicted["counts"] == done["counts"]
    assert numbers(done) == {"created": 1, "failed": 1}
    assert "there is no entry with the tuple of its master" in done["failed_entries"][0]["msg"]
    assert done["failed_entries"][0]["entry"]["original"]["source_port"] == 2
    assert done["failed_entries"][0]["index"] == 1
    assert ports(other) == [3]


def test_tcp_flags_are_those_of_the_snapshot_or_of_a_new_entry(path: str) -> None:
    """Offloaded entries have no recorded flags; other entries have recorded flags, which can be empty."""
    write(path, flow(1, **{"tcp.original.flags": [], "tcp.reply.flags": ["window_scale"]}))
    kernel = Kernel()
    assert numbers(run(kernel, path)) == {"created": 1}
    assert kernel.connections[0].flags == [0, 1]
    write(path, *map(flow, range(2, 8)))
    assert numbers(run(kernel, path)) == {"created": 6}
    assert [there.flags for there in kernel.connections[1:]] == [[10, 10]] * 6


def test_timeout_continues_from_the_saved_value(path: str) -> None:
    kernel = filled([declared(1)])
    kernel.pass_time(100)
    saved(kernel, path)
    kernel.pass_time(1000)
    other = emptied(kernel)
    run(other, path)
    assert other.connections[0].deadline == 500


def test_expiring_entry_is_restored_with_a_timeout_of_one_second(path: str) -> None:
    kernel = filled([declared(1)])
    kernel.pass_time(599.5)
    saved(kernel, path)
    other = emptied(kernel)
    run(other, path)
    assert other.connections[0].deadline == 1


def test_expiring_expectation_is_restored_with_a_timeout_of_one_second(path: str) -> None:
    master = {"protocol": "tcp", "original": CONTROL, "helper": "ftp", "timeout": 600}
    expected = parse_expectation({"tuple": announced(), "master": CONTROL})
    kernel = ExpectingKernel()
    with kernel.table() as table:
        table.create(parse_entry(master))
        reconcile(table, expected, Policy(), False)
    kernel.expectations[0].deadline = 0.5
    assert saved(kernel, path)["snapshot"]["expectations"] == 1
    other = ExpectingKernel()
    assert run(other, path)["expectation_counts"]["created"] == 1
    assert [one.deadline for one in other.expectations] == [1]


# selection of entries


def test_match_selects_the_saved_and_the_restored_entries(path: str) -> None:
    kernel = filled([declared(port, mark=port % 2) for port in range(6)])
    assert saved(kernel, path, match={"source_port": "1-5"})["snapshot"]["entries"] == 5
    for check in (True, False):
        other = emptied(kernel)
        assert numbers(run(other, path, check, match={"mark": 1, "reply_source": "10.0.0.2"})) == {"created": 3}
    assert ports(other) == [1, 3, 5]


def test_match_on_keys_that_the_snapshot_lacks_is_refused(path: str) -> None:
    saved(filled([declared(port) for port in range(3)]), path)
    kernel = Kernel()
    with pytest.raises(InvalidValue, match="bytes_above"):
        run(kernel, path, match={"bytes_above": 5})
    assert not kernel.writes


@examples(80)
@given(tables, existing_tables, st.sampled_from(SCOPES))
def test_purge_deletes_entries_in_scope_that_are_not_in_the_snapshot(
    folder: str, table: list[Document], there: list[Document], scope: Any
) -> None:
    path = os.path.join(folder, "random")
    snapshot = filled(table)
    saved(snapshot, path)
    kernel = filled(there)
    with kernel.table() as observer:
        in_scope = {entry["id"] for entry in observer.dump() if parse_match(scope)(entry)}
    recorded = {there.key for there in snapshot.connections}
    purged = {there.id for there in kernel.connections if there.id in in_scope and there.key not in recorded}
    before = {there.id for there in kernel.connections}
    predicted = run(kernel, path, check=True, scope=scope)
    done = run(kernel, path, scope=scope)
    assert (predicted["counts"], predicted["diff"]) == (done["counts"], done["diff"])
    assert done["counts"]["deleted"] == len(purged)
    assert before & {there.id for there in kernel.connections} == before - purged


def test_purge_alone_is_a_change(path: str) -> None:
    kernel = filled([declared(1), declared(2)])
    saved(filled([declared(1)]), path)
    for check in (True, False):
        done = run(kernel, path, check, scope={"protocol": "tcp"})
        assert numbers(done) == {"deleted": 1, "unchanged": 1}
        assert done["changed"]
    assert not run(kernel, path, scope={"protocol": "tcp"})["changed"]


def test_purge_keeps_snapshot_entries_that_the_match_excludes(path: str) -> None:
    kernel = filled([declared(1), declared(2)])
    saved(kernel, path)
    other = filled([declared(2), declared(3)])
    assert numbers(run(other, path, match={"source_port": 1}, scope={"protocol": "tcp"})) == {
        "created": 1,
        "deleted": 1,
    }
    assert ports(other) == [1, 2]


def test_scope_that_cannot_be_evaluated_fails_before_any_deletion(path: str) -> None:
    """The last entry is older than accounting and has no counters."""
    saved(filled([declared(1)]), path)
    kernel = filled([declared(port) for port in range(2, 2 + 3 * BATCH_SIZE)])
    for there in kernel.connections[:-1]:
        there.packets, there.bytes = (1, 1), (100, 100)
    with pytest.raises(InvalidValue, match="cannot be evaluated"):
        run(kernel, path, scope={"bytes_above": 1})
    assert not kernel.writes


def test_purge_makes_room_for_restored_entries(path: str) -> None:
    """An entry with the tuples of a flow in the snapshot is removed before the flow is created."""
    saved(filled([declared(1)]), path)
    mirrored = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 80, "destination_port": 1}
    kernel = filled([{"protocol": "tcp", "original": mirrored}])
    for check in (True, False):
        assert numbers(run(kernel, path, check, scope={"protocol": "tcp"})) == {"created": 1, "deleted": 1}
    assert ports(kernel) == [1]


def test_purge_keeps_the_ssh_session(path: str) -> None:
    saved(filled([declared(1)]), path)
    ssh = {"protocol": "tcp", "original": {**FLOW, "destination_port": 22}}
    mine = frozenset({TcpConnection(b"\n\0\0\2", 22, b"\n\0\0\1", 1000)})
    for check in (True, False):
        kernel = filled([ssh, declared(2)])
        done = run(kernel, path, check, scope={"protocol": "tcp"}, keep=mine)
        assert (numbers(done), done["kept"]) == ({"created": 1, "deleted": 1}, 1)
    assert ports(kernel) == [1, 1000]


def test_conflict_with_the_kept_session_is_predicted(path: str) -> None:
    """The SSH session has the tuples of a flow in the snapshot, and the purge keeps it."""
    mirrored = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 22, "destination_port": 1000}
    saved(filled([{"protocol": "tcp", "original": mirrored}, declared(1)]), path)
    mine = frozenset({TcpConnection(b"\n\0\0\2", 22, b"\n\0\0\1", 1000)})
    for check in (True, False):
        kernel = filled([{"protocol": "tcp", "original": {**FLOW, "destination_port": 22}}])
        done = run(kernel, path, check, scope={"protocol": "tcp"}, keep=mine)
        assert (numbers(done), done["kept"]) == ({"created": 1, "failed": 1}, 1)
        assert "is taken by tcp 10.0.0.1:1000 -> 10.0.0.2:22" in done["failed_entries"][0]["msg"]


@pytest.mark.parametrize(
    ("foreign", "records", "message"),
    [
        (
            1,
            [flow(1)],
            "^1 entry in scope stays, the first because: deleting .*The rest is as in the snapshot; see",
        ),
        (2, [], "^2 entries in scope stay, the first because: deleting .*EBUSY[^;]*; see failed_entries$"),
        (
            2,
            [flow(1), flow(2, helper="sip")],
            "^2 entries in scope stay, .* 1 of 2 entries is not as .*The rest is; ",
        ),
    ],
)
def test_failed_deletions_of_a_purge_are_reported(
    foreign: int, records: list[Document], message: str, path: str
) -> None:
    """The counts of the snapshot do not include such an entry."""
    write(path, *records)
    kernel = filled([declared(port) for port in range(100, 100 + foreign)])

    def refuse(number: int, request: Any) -> None:
        if request.type == DELETE:
            kernel.faults[number] = Fault(errno.EBUSY)

    kernel.meanwhile = refuse
    done = run(kernel, path, scope={"source_port": "100-200"})
    assert re.search(message, done["msg"]), done["msg"]
    bad = sum("helper" in record for record in records)
    assert done["counts"]["failed"] == foreign + bad
    assert (done["counts"]["deleted"], len(kernel.connections)) == (0, foreign + len(records) - bad)
    assert done["failed_entries"][0]["index"] is None


# errors


FAULTS = [
    *(Fault(code) for code in (errno.EBUSY, errno.ENOMEM, errno.EEXIST)),
    *(Fault(code, True, done) for code in (errno.ENOBUFS, errno.ETIMEDOUT) for done in (False, True)),
]
TABLE = [
    declared(1, helper="ftp", mark=5),
    declared(2, master={"protocol": "tcp", **declared(1)["original"]}),
    declared(3, labels=[5]),
    {"protocol": "udp", "original": FLOW, "nat": {"source": {"address": "198.51.100.1"}}},
    {"protocol": "udp", "original": FLOW, "zone": 5},
]


def test_fault_at_any_message_is_reported_correctly_and_second_run_completes(path: str) -> None:
    wanted = filled(TABLE)
    saved(wanted, path)
    quiet = emptied(wanted)
    run(quiet, path)
    messages = len(quiet.requests)
    assert messages > len(TABLE)
    stopped = 0
    for number in range(messages):
        for fault in FAULTS:
            kernel = emptied(wanted)
            run_with = {number: fault}
            kernel.forget()
            kernel.faults = run_with
            try:
                done = _run(kernel, path)
            except ConntrackError:
                assert not kernel.connections
                stopped += 1
                done = {}
            else:
                assert sum(done["counts"].values()) <= len(TABLE)
                assert done["counts"]["created"] <= len(kernel.connections)
                assert done["changed"] == bool(kernel.connections)
                if "msg" not in done:
                    assert restorable_state(kernel) == restorable_state(wanted)
                    assert numbers(done) == {"created": len(TABLE)}
                elif "had been restored until then" not in done["msg"]:
                    assert sum(done["counts"].values()) == len(TABLE)
                    assert len(done["failed_entries"]) == done["counts"]["failed"] > 0
            kernel.faults = {}
            again = run(kernel, path, on_existing="update")
            assert "msg" not in again
            assert restorable_state(kernel) == restorable_state(wanted)
    assert stopped < 2 * len(FAULTS)


def _run(kernel: Kernel, path: str) -> Document:
    with Snapshot(path) as snapshot, kernel.table() as table:
        try:
            return restore(table, snapshot, EVERYTHING, Policy(on_existing="keep"), LabelMap(), False, LIMIT)
        except RestoreFailed as failure:
            return {"msg": str(failure), **failure.result}


def test_lost_answers_for_many_entries_are_recovered(path: str) -> None:
    """The receive buffer overran, so the result of a whole window is unknown."""
    kernel = filled([declared(port) for port in range(300)])
    saved(kernel, path)
    for at in (10, 100, 250):
        other = emptied(kernel)
        other.faults = {at: Fault(errno.ENOBUFS, lost=True, carried_out=True)}
        assert numbers(_run(other, path)) == {"created": 300}
        assert restorable_state(other) == restorable_state(kernel)


def test_creation_that_fails_after_a_lost_answer_is_no_change(path: str) -> None:
    """A query shows that the first request was not carried out."""
    saved(filled([declared(1, helper="ftp")]), path)
    kernel = Kernel(helpers={})
    kernel.faults = {1: Fault(errno.ENOBUFS, lost=True)}
    kernel.forget()
    done = run_once(kernel, path)
    assert (numbers(done), done["changed"], done["unknown"]) == ({"failed": 1}, False, 0)


def test_nated_gre_key_that_the_kernel_loses_is_reported(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"original.source_key": 1, "original.destination_key": 2, "reply.source_key": 2, "reply.destination_key": 7}
    ends = {"original.source": "10.0.0.1", "original.destination": "10.0.0.2"}
    ends.update({"reply.source": "10.0.0.2", "reply.destination": "198.51.100.9"})
    nat = {"nat.source.address": "198.51.100.9", "nat.source.port": 7}
    write(path, {"family": "ipv4", "protocol": "gre", "timeout": 60, **ends, **keys, **nat})
    assert numbers(_run(Kernel(), path)) == {"created": 1}
    kernel = Kernel()
    translated = kernel._translated
    monkeypatch.setattr(
        kernel, "_translated", lambda *about: translated(*about)._replace(more=about[1].more), raising=True
    )
    result = run_once(kernel, path)
    assert numbers(result) == {"failed": 1}
    assert "Linux translates keys of GRE only" in result["msg"]
    assert kernel.connections == []


def test_existing_gre_flow_is_not_deleted_after_a_lost_answer(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a large table, the run does not read the entries that existed before. This entry has another NATed key."""
    monkeypatch.setattr(module, "_SOME", 1)
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_key": 1, "destination_key": 2}
    nat = {"source": {"address": "198.51.100.9"}}
    live = {"protocol": "gre", "original": ends, "nat": nat, "timeout": 60}
    keys = {f"original.{name}": value for name, value in ends.items()}
    reply = {"reply.source": "10.0.0.2", "reply.destination": "198.51.100.9"}
    key = {
        "reply.source_key": 2,
        "reply.destination_key": 7,
        "nat.source.address": "198.51.100.9",
        "nat.source.port": 7,
    }
    write(path, {"family": "ipv4", "protocol": "gre", "timeout": 60, **keys, **reply, **key})
    kernel = filled([live, *({**declared(port), "zone": 3} for port in range(9))])
    before = list(kernel.connections)
    kernel.forget()
    kernel.faults = {1: Fault(errno.ENOBUFS, lost=True)}
    result = run_once(kernel, path)
    assert kernel.connections == before
    assert result["changed"]


@pytest.mark.parametrize("on_existing", ["keep", "update"])
@pytest.mark.parametrize("labels", [[], [5]], ids=["plain", "fragile"])
def test_existing_equal_entry_is_not_counted_as_created_after_a_lost_answer(
    path: str, labels: list[int], on_existing: str
) -> None:
    source = filled([declared(port, labels=labels) for port in range(100)])
    saved(source, path)
    kernel = filled([declared(port, labels=labels) for port in range(0, 100, 4)])
    kernel.faults = {20: Fault(errno.ENOBUFS, lost=True, carried_out=True), 90: Fault(errno.ETIMEDOUT, lost=True)}
    kernel.forget()
    result = run_once(kernel, path, on_existing=on_existing)
    assert numbers(result) == {"created": 75, "unchanged": 25}
    assert (result["changed"], result["unknown"]) == (True, 0)
    assert restorable_state(kernel) == restorable_state(source)


def test_creation_without_answer_counts_as_unknown_and_as_a_change(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a table with many other entries, the run does not read which entries existed before."""
    monkeypatch.setattr(module, "_SOME", 1)
    saved(filled([declared(1)]), path)
    others = [{**declared(port), "zone": 3} for port in range(9)]
    for there in (False, True):
        kernel = filled([*others, *([declared(1)] if there else [])])
        kernel.forget()
        kernel.faults = {1: Fault(errno.ENOBUFS, lost=True, carried_out=True)}
        result = run_once(kernel, path)
        assert (result["changed"], result["unknown"], numbers(result)) == (True, 1, {})
        assert "The answers to the creation of 1 entry were lost" in result["warnings"][0]
        assert ports(kernel).count(1) == 2


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOBUFS], ids=["refused", "lost"])
@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("labels", [[], [5]], ids=["plain", "fragile"])
def test_creations_are_reported_even_if_nothing_can_be_read_back(
    path: str, labels: list[int], carried_out: bool, code: int
) -> None:
    saved(filled([declared(port, labels=labels) for port in range(300)]), path)
    kernel = Kernel()
    # All answers to creations are lost, and each query for the result fails
    kernel.faults = {at: Fault(errno.ENOBUFS, True, carried_out) for at in (70, 140, 210, 280, 300)}
    kernel.faults.update((at, Fault(code, code != errno.EPERM)) for at in range(301, 3000))
    result = run_once(kernel, path)
    assert "msg" in result
    assert result["changed"]
    assert result["counts"]["created"] <= len(kernel.connections)
    reported = result["counts"]["created"] + result["counts"]["failed"] + result["unknown"]
    assert reported >= len(kernel.connections) > 0


def run_once(kernel: Kernel, path: str, **policy: Any) -> Document:
    """Run the module once with the configured faults."""
    with Snapshot(path) as snapshot, kernel.table() as table:
        policy = {"on_existing": "keep", **policy}
        try:
            return restore(table, snapshot, EVERYTHING, Policy(**policy), LabelMap(), False, LIMIT)
        except RestoreFailed as failure:
            return {"msg": str(failure), **failure.result}


def test_restore_that_exceeds_the_table_size_changes_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel would drop other entries to make room."""
    saved(filled([declared(port) for port in range(3)]), path)
    kernel = filled([UDP])
    monkeypatch.setattr(Table, "statistics", lambda _table: {"entries": 1, "max_entries": 2})
    with pytest.raises(InvalidValue, match=r"3 entries to be restored and the table holds at most 2.*nf_conntrack_max"):
        run(kernel, path)
    assert not kernel.writes


def test_conflicting_entry_is_reported(path: str) -> None:
    saved(filled([declared(1), declared(2)]), path)
    mirrored = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 80, "destination_port": 1}
    kernel = filled([{"protocol": "tcp", "original": mirrored}])
    for check in (True, False):
        done = run(kernel, path, check)
        assert numbers(done) == {"created": 1, "failed": 1}
        assert "is taken by tcp 10.0.0.2:80 -> 10.0.0.1:1" in done["failed_entries"][0]["msg"]
        assert done["msg"].startswith(
            f"1 of 2 entries {'would not be' if check else 'is not'} as in the snapshot, the "
        )
        assert "\n" not in done["msg"]


def test_nat_is_restored_exactly_or_not_at_all(path: str) -> None:
    """With NAT to another port, the peer could not use the flow, and the user would get no report."""
    saved(filled([{"protocol": "tcp", "original": FLOW, "nat": {"destination": {"port": 8080}}}]), path)
    kernel = filled([{"protocol": "tcp", "original": {**FLOW, "destination_port": 8080}}])
    for check in (True, False):
        done = run(kernel, path, check)
        assert numbers(done) == {"failed": 1}
        assert "its reply tuple is taken by tcp 10.0.0.1:1000 -> 10.0.0.2:8080" in done["failed_entries"][0]["msg"]


def test_missing_helper_is_reported_and_other_entries_are_restored(path: str) -> None:
    saved(filled([declared(1, helper="ftp"), declared(2)]), path)
    kernel = Kernel(helpers={})
    done = run(kernel, path)
    assert numbers(done) == {"created": 1, "failed": 1}
    assert "load its module nf_conntrack_ftp" in done["failed_entries"][0]["msg"]
    assert ports(kernel) == [2]


def test_labels_without_a_rule_are_reported_and_the_entries_kept(path: str) -> None:
    """A flow without its label is better than no flow, but the result must not report it as restored."""
    saved(filled([declared(1, labels=[5]), declared(2)]), path)
    kernel = Kernel(label_rule=False)
    done = run(kernel, path)
    assert numbers(done) == {"created": 1, "failed": 1}
    assert done["changed"]
    assert "exists, but without its labels. Labels are kept only where a rule" in done["failed_entries"][0]["msg"]
    assert ports(kernel) == [1, 2]


def test_missing_labels_are_reported_even_after_a_lost_answer(path: str) -> None:
    saved(filled([declared(1, labels=[5])]), path)
    kernel = Kernel(label_rule=False)
    kernel.faults = {1: Fault(errno.ENOBUFS, lost=True, carried_out=True)}
    done = run(kernel, path)
    assert (numbers(done), done["changed"]) == ({"failed": 1}, True)
    assert "exists, but without its labels" in done["failed_entries"][0]["msg"]


def test_protocol_that_is_no_longer_tracked_is_not_restored_partly(path: str) -> None:
    """Since Linux 6.17 DCCP has no ports: one entry would stand for all connections of two hosts."""
    ends = Ends(b"\n\0\0\1", b"\n\0\0\2", DCCP, (1, 2))
    old = Kernel()
    old.untracked = set()
    for port in (1, 7):
        one = ends._replace(more=(port, 2))
        old.connections.append(Connection(2, one, one.inverted(), Zone(), 100))
    saved(old, path)
    kernel = Kernel()
    done = run(kernel, path)
    assert numbers(done) == {"failed": 2}
    assert not kernel.connections
    assert any("the kernel did not accept the protocol" in failure["msg"] for failure in done["failed_entries"])
    again = emptied(old)
    assert numbers(run(again, path)) == {"created": 2}


# invalid values in a snapshot


BAD: list[Any] = [
    ("original.source", "10.0.0.300"),
    ("original.source", "2001:db8::1"),
    ("original.source", 5),
    ("original.source_port", 65536),
    ("original.source_port", -1),
    ("original.source_port", None),
    ("original.icmp_id", 5),
    ("protocol", "tpc"),
    ("protocol", "icmp"),
    ("family", "ipx"),
    ("mark", 1 << 32),
    ("mark", "5/7/9"),
    ("status", ["assurred"]),
    ("status", ["src_nat"]),
    ("labels", [128]),
    ("labels", ["voip"]),
    ("tcp.state", "open"),
    ("tcp.original.window_scale", 15),
    ("timeout", -1),
    ("timeout", "soon"),
    ("timeout", 1 << 32),
    ("helper", "x" * 99),
    ("zone", 65536),
    ("nat.source.address", "10.0.0.0/8"),
    ("sctp.state", "closed"),
    ("master.source", "10.0.0.1"),
    ("sequence_adjustment.reply.before", 1),
    ("extra", {"99": "zz"}),
    ("counters.reply.bytes", -1),
]


@pytest.mark.parametrize(("key", "value"), BAD, ids=[f"{key}-{value}"[:40] for key, value in BAD])
def test_invalid_value_is_reported_and_never_sent(key: str, value: Any, path: str) -> None:
    """The checksum can be valid, because an attacker can calculate it."""
    good = [flow(port, timeout=600, **{"tcp.state": "established"}) for port in range(40)]
    write(path, *good[:20], {**flow(1000, timeout=600), key: value}, *good[20:])
    for check in (True, False):
        kernel = Kernel()
        done = run(kernel, path, check)
        harmless = key in ("extra", "counters.reply.bytes")
        assert numbers(done) == ({"created": 41} if harmless else {"created": 40, "failed": 1})
        if not harmless:
            (failure,) = done["failed_entries"]
            assert failure["index"] == 20
            assert "\n" not in failure["msg"]
    assert len(kernel.writes) == 40 + harmless
    assert len(kernel.connections) == 40 + harmless


@pytest.mark.parametrize("value", ["\ud800", ["\ud800"], {"\ud800": 1}])
def test_invalid_value_is_shown_in_valid_characters(value: Any, path: str) -> None:
    """Ansible returns no result at all if a string contains half of a surrogate pair."""
    write(path, flow(1, mark=value))
    (failure,) = run(Kernel(), path)["failed_entries"]
    json.dumps(failure, ensure_ascii=False).encode()
    assert failure["entry"]["original"]["source_port"] == 1


def test_many_invalid_values_among_valid_ones(path: str) -> None:
    records = [flow(port, timeout=600, mark=port if port % 3 else "x") for port in range(3000)]
    write(path, *records)
    kernel = Kernel()
    done = run(kernel, path, limit=5)
    assert numbers(done) == {"created": 2000, "failed": 1000}
    assert [failure["index"] for failure in done["failed_entries"]] == [0, 3, 6, 9, 12]
    assert ports(kernel) == [port for port in range(3000) if port % 3]


def test_invalid_value_is_refused_before_a_purge(path: str) -> None:
    """The record cannot be identified, so the purge could delete its entry."""
    write(path, flow(1, timeout=600), flow(2, mark="x"))
    kernel = filled([declared(3)])
    with pytest.raises(InvalidValue, match="mark"):
        run(kernel, path, scope={"protocol": "tcp"})
    assert ports(kernel) == [3]


def test_unknown_key_is_refused_before_any_change(path: str) -> None:
    write(path, flow(1), flow(2, colour="red"))
    kernel = Kernel()
    with pytest.raises(InvalidValue, match="its entries have colour, which this version does not know"):
        run(kernel, path)
    assert not kernel.requests


def test_duplicate_record_is_restored_once(path: str) -> None:
    """A dump repeats an entry if the kernel resizes the table during the dump."""
    write(
        path, *[flow(port, timeout=60) for port in (1, 1)], *[flow(port, timeout=60) for port in range(2, 300)], flow(1)
    )
    for check in (True, False):
        kernel = Kernel()
        assert numbers(run(kernel, path, check)) == {"created": 299, "unchanged": 2}


@pytest.mark.parametrize(("number", "predicted"), [(100, True), (300, False)], ids=["near", "far"])
def test_conflicting_records_are_reported(number: int, predicted: bool, path: str) -> None:
    """A table never contains both at once. Check mode compares only records that are near each other."""
    ends = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 80, "destination_port": 1}
    mirrored = {"family": "ipv4", "protocol": "tcp", **{f"original.{key}": end for key, end in ends.items()}}
    write(path, *[flow(port, timeout=60) for port in range(number)], mirrored)
    for check in (True, False):
        done = run(Kernel(), path, check)
        if check and not predicted:
            assert numbers(done) == {"created": number + 1}
            continue
        assert numbers(done) == {"created": number, "failed": 1}
        assert "its original tuple is taken by" in done["failed_entries"][0]["msg"]
        assert done["failed_entries"][0]["index"] == number


@pytest.mark.parametrize("on_existing", ["keep", "update", "fail"])
def test_duplicate_nated_record_is_restored_once(path: str, on_existing: str) -> None:
    nat = {"reply.source": "10.0.0.2", "reply.source_port": 80, "reply.destination": "198.51.100.9"}
    nat.update({"reply.destination_port": 7, "nat.source.address": "198.51.100.9", "nat.source.port": 7})
    write(path, *[flow(1, timeout=60, **nat)] * 2, flow(2, timeout=60), flow(1, timeout=60, **nat))
    for check in (True, False):
        assert numbers(run(Kernel(), path, check, on_existing=on_existing)) == {"created": 2, "unchanged": 2}


@pytest.mark.parametrize("number", [10, 600])
@pytest.mark.parametrize("direction", ["original", "reply"])
def test_masters_are_found_at_any_distance_before_their_children(number: int, direction: str, path: str) -> None:
    """Check mode creates no master that a query could find."""
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 0, "destination_port": 80}
    if direction == "reply":
        ends = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 80, "destination_port": 0}
    master = {"protocol": "tcp", **ends}
    children = [flow(1000, timeout=60), flow(1001, timeout=60, mark=5), flow(1002, timeout=60)]
    for child in children[:2]:
        child.update({f"master.{key}": end for key, end in master.items()})
    write(path, *[flow(port, timeout=60) for port in range(number)], *children)
    for check in (True, False):
        assert numbers(run(Kernel(), path, check)) == {"created": number + 3}


def test_evicted_expectations_cause_a_warning_if_the_restored_one_fails(path: str) -> None:
    def gateway(port: int) -> ExpectingKernel:
        kernel = ExpectingKernel(room=1)
        with kernel.table() as table:
            table.create(parse_entry({"protocol": "tcp", "original": CONTROL, "timeout": 600, "helper": "ftp"}))
            reconcile(table, parse_expectation({"tuple": announced(port), "master": CONTROL}), Policy(), False)
        return kernel

    def refuse_updates(number: int, request: Any) -> None:
        if request.type == 0x200 and not request.flags & CREATE:
            kernel.faults[number] = Fault(errno.EINVAL)

    saved(gateway(4002), path)
    kernel = gateway(4000)
    kernel.meanwhile = refuse_updates
    done = run(kernel, path)
    assert done["expectation_counts"]["failed"] == 1
    assert done["changed"]
    (warning,) = done["warnings"]
    assert warning.startswith("The kernel removed 1 expectations to make room for the expectation of tcp")


@pytest.mark.parametrize("helper", ["ftp", ""])
def test_expectations_are_predicted_by_the_master_in_the_snapshot(path: str, helper: str) -> None:
    master = {"protocol": "tcp", "original": CONTROL, "timeout": 600, "helper": "ftp"}
    kernel = ExpectingKernel()
    with kernel.table() as table:
        table.create(parse_entry(master))
        reconcile(table, parse_expectation({"tuple": announced(), "master": CONTROL}), Policy(), False)
        list(table.create_all([creation(parse_entry(declared(port))) for port in range(1, 600)]))
    if not helper:
        kernel.connections[0].helper = ""
    saved(kernel, path)
    for check in (True, False):
        done = run(ExpectingKernel(), path, check)
        assert {key: count for key, count in done["expectation_counts"].items() if count} == (
            {"created": 1} if helper else {"failed": 1}
        )


def test_zone_in_one_direction_distinguishes_records(path: str) -> None:
    ends = {"source": "10.0.0.2", "destination": "10.0.0.1"}
    kernel = filled(
        [
            {"protocol": 50, "original": ends, "nat": {"source": {"address": "198.51.100.1"}}},
            {"protocol": 50, "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "zone": 7}},
        ]
    )
    assert saved(kernel, path)["snapshot"]["entries"] == 2
    for check in (True, False):
        assert numbers(run(Kernel(), path, check)) == {"created": 2}


def test_label_bits_with_another_name_cause_a_warning(path: str) -> None:
    with Writer(path, Header("gw1", "6.1", "2030-01-31T12:00:00Z", {"voip": 5, "web": 6})) as writer:
        writer.write("entries", {key: [value] for key, value in flow(1, labels=[5]).items()})
    with Snapshot(path) as snapshot, Kernel().table() as table:
        labels = LabelMap({"video": 5, "web": 6})
        done = restore(table, snapshot, EVERYTHING, Policy(on_existing="keep"), labels)
    (warning,) = done["warnings"]
    assert warning.startswith("1 label bits have other names here than where the snapshot was taken: 5 was voip and ")


def test_interrupted_restore_reports_the_restored_entries(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = filled([declared(port) for port in range(500)])
    saved(kernel, path)
    blocks = Snapshot.blocks

    def broken(self: Snapshot, of: str) -> Iterator[Any]:
        for block in blocks(self, of):
            yield block._replace(rows=block.rows[:300])
            raise InvalidValue("path", "it is gone")

    monkeypatch.setattr(Snapshot, "blocks", broken)
    other = emptied(kernel)
    done = run(other, path)
    assert "it is gone. 300 of 500 entries had been restored until then; see" in done["msg"]
    assert numbers(done) == {"created": 300}
    assert len(other.connections) == 300


def test_missing_privilege_is_reported_with_one_sentence(path: str) -> None:
    saved(filled([declared(port) for port in range(3)]), path)
    kernel = Kernel()

    def forbid(number: int, _request: Any) -> None:
        kernel.faults[number] = Fault(errno.EPERM)

    kernel.meanwhile = forbid
    with pytest.raises(ConntrackError, match="CAP_NET_ADMIN"):
        run(kernel, path)


# options


def test_update_changes_and_replace_replaces(path: str) -> None:
    saved(filled([declared(1, mark=1), declared(2, helper="ftp")]), path)
    kernel = filled([declared(1, mark=9), declared(2)])
    assert numbers(run(kernel, path)) == {"unchanged": 2}
    done = run(kernel, path, on_existing="fail")
    assert numbers(done) == {"failed": 2}
    assert "exists already and differs in mark" in done["failed_entries"][0]["msg"]
    predicted = run(kernel, path, check=True, on_existing="update", replace=True)
    done = run(kernel, path, on_existing="update", replace=True)
    assert predicted == done
    assert numbers(done) == {"updated": 1, "replaced": 1}
    assert done["diff"]["before"].startswith("tcp 10.0.0.1:1 -> 10.0.0.2:80: mark 9\n")
    assert done["diff"]["after"].startswith("tcp 10.0.0.1:1 -> 10.0.0.2:80: mark 1\n")


def test_report_limit_shortens_lists_but_not_counts(path: str) -> None:
    write(path, *[flow(port, mark="x") for port in range(9)], *[flow(port, timeout=9) for port in range(20, 29)])
    for limit in (0, 2):
        done = run(Kernel(), path, limit=limit)
        assert numbers(done) == {"created": 9, "failed": 9}
        assert len(done["failed_entries"]) == len(done["diff"]["after"].splitlines()) == limit
        assert "record 0: mark" in done["msg"]


# cost


@pytest.mark.parametrize("number", [0, 1, 64, 65, 1000])
def test_restore_uses_one_send_per_64_entries(number: int, path: str) -> None:
    kernel = filled([declared(port) for port in range(number)])
    saved(kernel, path)
    other = emptied(kernel)
    run(other, path)
    datagrams = [datagram for sender in other.sockets for datagram in sender.sent]
    assert len(datagrams) == 1 + -(-number // 64)
    assert [request.type for request in other.requests] == [GET_STATS] + [NEW] * number


def test_existing_entries_are_queried_in_batches(path: str) -> None:
    kernel = filled([declared(port) for port in range(500)])
    saved(kernel, path)
    run(kernel, path)
    assert [request.type for request in kernel.requests if request.flags & DUMP != DUMP].count(GET) == 500
    datagrams = [datagram for sender in kernel.sockets for datagram in sender.sent]
    assert len(datagrams) <= 2 + 500 // 64 + 500 // 32 + 2


def test_few_entries_are_in_memory_at_a_time(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The restore sends each entry early, so only a few thousand of a million entries are in memory."""
    kernel, number, most = Kernel(), 20_000, 0
    monkeypatch.setattr(kernel, "find", lambda *_wanted: None)  # a search of this fake kernel is slow and finds nothing
    monkeypatch.setattr(kernel, "_taken", lambda _wanted: False)
    placed = module._Restoration._placed

    def noting(self: Any) -> Iterator[Any]:
        nonlocal most
        for taken, one in enumerate(placed(self)):
            most = max(most, taken - len(kernel.connections))
            yield one

    monkeypatch.setattr(module._Restoration, "_placed", noting)
    write(path, *[flow(port, timeout=60) for port in range(number)])
    run(kernel, path)
    assert len(kernel.connections) == number
    assert 0 < most < 8_000
