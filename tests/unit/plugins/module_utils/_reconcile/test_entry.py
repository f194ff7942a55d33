# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a declared entry is created or changed as declared, the result is correct and no other entry changes."""

from __future__ import annotations

import errno
from typing import Any, Dict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entry import reconcile
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import CannotReconcile, Policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import wire
from ansible_collections.netops.conntrack.tests.unit.support.declarations import (
    FLOW,
    declarations,
    filled,
    held,
    is_open,
    missing,
)
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import (
    ASSURED,
    CONFIRMED,
    DELETE,
    DST_NAT_DONE,
    EXPECTED,
    FIXED_TIMEOUT,
    GET,
    NEW,
    OFFLOAD,
    SEEN_REPLY,
    SRC_NAT_DONE,
    Fault,
    Kernel,
)

Document = Dict[str, Any]

KEYS = {"changed", "operation", "before", "entry", "changes"}
UDP: Document = {"protocol": "udp", "original": FLOW}
TCP: Document = {"protocol": "tcp", "original": FLOW}
MIRROR = {
    "source": FLOW["destination"],
    "destination": FLOW["source"],
    "source_port": FLOW["destination_port"],
    "destination_port": FLOW["source_port"],
}
SNAT: Document = {"source": {"address": "198.51.100.1", "port": 2000}}
NO_LABELS = LabelMap()

populations = st.lists(declarations(), max_size=4)
policies = st.builds(
    Policy,
    state=st.sampled_from(["present", "present", "present", "absent"]),
    on_existing=st.sampled_from(["update", "update", "update", "keep", "fail"]),
    replace=st.booleans(),
    timeout_min=st.just(0),
)


def run(kernel: Kernel, document: Document, check: bool = False, **policy: Any) -> Document:
    """Run the module once. A failure returns its result, with the message under `msg`."""
    try:
        with kernel.table() as table:
            declared = from_document(document, absent=policy.get("state") == "absent")
            result = reconcile(table, declared, Policy(**policy), NO_LABELS, check)
    except CannotReconcile as error:
        result = {"msg": str(error), **error.result}
    else:
        assert set(result) == {*KEYS, "diff"}
    assert result["changed"] == (result["operation"] != "unchanged")
    return result


def as_policy(policy: Policy) -> Document:
    return dict(policy._asdict())


def satisfied(kernel: Kernel, document: Document, policy: Policy) -> bool:
    """Return whether the table agrees with the declaration."""
    there = held(kernel, document)
    if policy.state == "absent":
        return there is None
    return there is not None and (policy.on_existing == "keep" or not missing(there, document))


def others(kernel: Kernel, document: Document) -> list[Any]:
    """Return all entries except the one with the declared identity."""
    there = held(kernel, document)
    return [shown for shown in kernel.snapshot() if there is None or repr(shown[0]) != repr(there.key)]


def predictable(entry: Document) -> Any:
    """Return an entry without the values that only the kernel can determine and without empty values."""
    known = {"confirmed", "seen_reply", "assured", "fixed_timeout", "expected", "helper"}
    part = {key: value for key, value in entry.items() if key not in ("id", "use", "nat", "reply", "counters")}
    part["status"] = sorted(set(entry["status"]) & known)
    return idle(part)


def idle(value: Any) -> Any:
    """Return a document without zeros, empty lists and states that are `none`."""
    if not isinstance(value, dict):
        return value
    below = {key: idle(item) for key, item in value.items()}
    return {key: item for key, item in below.items() if item not in (0, "none", [], {})}


# properties


@examples(80)
@given(populations, declarations(), policies)
def test_declaration_is_applied_and_second_run_changes_nothing(
    before: list[Document], document: Document, policy: Policy
) -> None:
    kernel = filled(before)
    untouched = others(kernel, document)
    first = run(kernel, document, **as_policy(policy))
    assert others(kernel, document) == untouched, "another entry was touched"
    if "msg" in first:
        assert not first["changed"], "a plan that cannot be applied was started"
        return
    assert satisfied(kernel, document, policy)
    kernel.forget()
    second = run(kernel, document, **as_policy(policy))
    assert (second["operation"], second["changes"]) == ("unchanged", [])
    assert second["diff"]["before"] == second["diff"]["after"]
    assert not kernel.writes
    assert len(kernel.requests) == 1, "one request is enough if nothing differs"


@examples(150)
@given(populations, declarations(), policies)
def test_check_mode_predicts_the_run_and_only_reads(before: list[Document], document: Document, policy: Policy) -> None:
    kernel = filled(before)
    there = kernel.snapshot()
    predicted = run(kernel, document, check=True, **as_policy(policy))
    assert not kernel.writes
    assert kernel.snapshot() == there
    done = run(kernel, document, **as_policy(policy))
    # only the kernel can determine the tuple of a NATed entry, or that all tuples are in use
    assume(not is_open(document) or "EEXIST" not in done.get("msg", ""))
    for key in ("msg", "operation", "before", "changes", "diff"):
        assert predicted.get(key) == done.get(key), key
    if "msg" not in done:
        shown = [predictable(result["entry"]) for result in (predicted, done) if result["entry"]]
        assert shown[:1] == shown[1:]


FAULTS = [
    *(Fault(code) for code in (errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.ENOENT, errno.EEXIST)),
    *(Fault(code, True, done) for code in (errno.ENOBUFS, errno.ETIMEDOUT) for done in (False, True)),
]


@examples(150)
@given(populations, declarations(), policies, st.sampled_from(FAULTS), st.integers(0, 7))
def test_fault_at_any_message_is_reported_correctly_and_second_run_completes(
    before: list[Document], document: Document, policy: Policy, fault: Fault, at: int
) -> None:
    kernel = filled(before)
    there, neighbours = kernel.snapshot(), others(kernel, document)
    kernel.faults = {at: fault}
    first = run(kernel, document, **as_policy(policy))
    faulted = [request.type for request in kernel.requests[at : at + 1]]
    assume(fault.errno != errno.ENOENT or faulted != [GET])  # the answer that an entry does not exist is not an error
    assert first["changed"] == (kernel.snapshot() != there)
    assert others(kernel, document) == neighbours, "another entry was touched"
    if "msg" not in first:
        assert satisfied(kernel, document, policy)
    if first["operation"] in ("deleted", "unchanged", "created", "replaced"):
        gone = held(kernel, document) is None
        assert first["operation"] != "deleted" or gone
        assert first["operation"] not in ("created", "replaced") or not gone
    now = held(kernel, document)
    assert not first.get("entry") or now is not None
    if now is not None and first.get("entry"):
        assert first["entry"]["id"] == now.id
        assert first["entry"]["mark"] == now.mark
    kernel.faults = {}
    second = run(kernel, document, **as_policy(policy))
    assert "msg" in second or satisfied(kernel, document, policy)
    if "msg" in second:
        clean = filled(before)
        assert "msg" in run(clean, document, **as_policy(policy)), "an error that has ended still prevents the change"


@examples(60)
@given(populations, declarations(), st.sampled_from(FAULTS[5:]), st.integers(0, 5))
def test_single_lost_answer_is_not_a_failure(before: list[Document], document: Document, fault: Fault, at: int) -> None:
    clean = filled(before)
    expected = run(clean, document, replace=True)
    kernel = filled(before)
    kernel.faults = {at: fault}
    found = run(kernel, document, replace=True)
    lost = kernel.requests[at : at + 1]
    if lost and lost[0].type in (NEW, DELETE) and "msg" not in expected:
        assert found.get("msg") is None
        assert found["operation"] == expected["operation"]


# requests and results of a run


def test_creation_takes_five_messages_and_reports_the_entry() -> None:
    kernel = Kernel()
    result = run(kernel, {**UDP, "mark": "0x10", "timeout": 600})
    assert [request.type for request in kernel.requests] == [GET, GET, GET, NEW, GET]
    assert result["operation"] == "created"
    assert result["before"] == {}
    assert result["diff"]["before"] == {}
    assert result["diff"]["after"]["mark"] == 16
    assert result["entry"]["status"] == ["confirmed"]


def test_update_sends_only_differing_values() -> None:
    kernel = filled([{**UDP, "mark": 1, "labels": [1], "status": ["assured", "seen_reply"]}])
    result = run(kernel, {**UDP, "mark": 2, "labels": [1], "timeout": 5})
    assert [request.type for request in kernel.requests] == [GET, NEW, GET]
    sent = kernel.writes[0].payload
    assert set(wire.tree(sent[4:])) == {1, 8}
    assert result["changes"] == [{"key": "mark", "before": 1, "after": 2}]
    assert (result["diff"]["before"]["mark"], result["diff"]["after"]["mark"]) == (1, 2)


def test_delete_takes_two_messages() -> None:
    kernel = filled([UDP])
    assert run(kernel, UDP, state="absent")["operation"] == "deleted"
    assert [request.type for request in kernel.requests] == [GET, DELETE]


def test_diff_shows_no_timeout_and_no_undeclared_keys() -> None:
    kernel = filled([{**UDP, "mark": 1, "labels": [1]}])
    result = run(kernel, {**UDP, "mark": 2, "timeout": 600, "id": 5, "counters": {"original": {"bytes": 1}}})
    assert set(result["diff"]["after"]) == {"family", "protocol", "original", "mark"}


def test_diff_shows_removed_values() -> None:
    kernel = filled([{**UDP, "labels": [1, 2], "helper": "sip"}])
    result = run(kernel, {**UDP, "labels": [], "helper": ""})
    assert result["diff"]["before"]["labels"] == [1, 2]
    assert result["diff"]["after"]["labels"] == []
    assert result["diff"]["before"]["helper"] == "sip"


# deletion by the reply tuple alone

ANSWER: Document = {
    "protocol": "udp",
    "reply": {**MIRROR, "destination": SNAT["source"]["address"], "destination_port": SNAT["source"]["port"]},
}


@pytest.mark.parametrize(
    "zone",
    [{}, {"zone": 5}, {"original": {**FLOW, "zone": 6}}, {"reply": {"zone": 7}}],
    ids=["none", "both", "original", "reply"],
)
@pytest.mark.parametrize("more", [{}, {"status": ["src_nat"]}, {"nat": SNAT, "mark": 9}])
def test_nated_entry_can_be_deleted_by_its_reply_tuple(zone: Any, more: Any) -> None:
    """A packet capture outside of the gateway shows only this tuple."""
    elsewhere = {**UDP, "zone": 99, "nat": SNAT}
    kernel = filled([{**UDP, "nat": SNAT, **zone}, elsewhere])
    before = kernel.snapshot()
    requested = {**ANSWER, **more, **{key: value for key, value in zone.items() if key == "zone"}}
    for direction in ("original", "reply"):
        if "zone" in zone.get(direction, {}):
            requested[direction] = {**requested.get(direction, {}), "zone": zone[direction]["zone"]}
    predicted = run(kernel, requested, check=True, state="absent")
    assert kernel.snapshot() == before
    deleted = run(kernel, requested, state="absent")
    assert {**deleted, "entry": 0} == {**predicted, "entry": 0}
    assert deleted["operation"] == "deleted"
    assert deleted["before"]["original"]["source"] == FLOW["source"]
    assert [there.zone.number for there in kernel.connections] == [99]
    assert run(kernel, requested, state="absent")["operation"] == "unchanged"


def test_reply_tuple_does_not_select_an_entry_by_its_original_tuple() -> None:
    kernel = filled([{"protocol": "udp", "original": ANSWER["reply"]}])
    assert run(kernel, ANSWER, state="absent")["operation"] == "unchanged"
    kernel = filled([{**UDP, "nat": SNAT}])
    assert run(kernel, {"protocol": "udp", "reply": MIRROR}, state="absent")["operation"] == "deleted"


def test_original_tuple_takes_precedence_over_the_reply_tuple() -> None:
    kernel = filled([{**UDP, "nat": SNAT}])
    other = {**FLOW, "source": ANSWER["reply"]["destination"], "source_port": ANSWER["reply"]["destination_port"]}
    assert run(kernel, {**ANSWER, "original": other}, state="absent")["operation"] == "unchanged"


def test_reply_tuple_alone_does_not_declare_a_nated_entry() -> None:
    kernel = filled([{**UDP, "nat": SNAT}])
    assert "its reply tuple is taken by udp" in run(kernel, ANSWER)["msg"]
    with pytest.raises(InvalidValue, match="^original: is missing; with NAT"):
        run(kernel, {**ANSWER, "nat": SNAT})


def test_failed_deletion_by_reply_tuple_reports_the_entry() -> None:
    kernel = filled([{**UDP, "nat": SNAT}])
    kernel.faults = {1: Fault(errno.EBUSY)}
    failed = run(kernel, ANSWER, state="absent")
    assert failed["entry"] == failed["before"] != {}
    assert FLOW["source"] in failed["msg"]
    assert len(kernel.connections) == 1


# a live connection


def test_tcp_flags_set_by_the_kernel_are_kept() -> None:
    kernel = filled([{**TCP, "tcp": {"original": {"flags": ["window_scale", "sack_permitted"]}}}])
    result = run(kernel, {**TCP, "tcp": {"original": {"flags": ["be_liberal"]}}})
    assert kernel.connections[0].flags[0] == 1 | 2 | 8
    assert result["changes"][0]["after"] == ["window_scale", "sack_permitted", "be_liberal"]
    assert result["entry"]["tcp"]["original"]["flags"] == ["window_scale", "sack_permitted", "be_liberal"]


def test_empty_list_clears_tcp_flags_of_one_direction_only() -> None:
    ends = {"flags": ["window_scale", "sack_permitted", "be_liberal", "maxack_set"]}
    kernel = filled([{**TCP, "tcp": {"state": "established", "original": ends, "reply": ends}}])
    cleared = {**TCP, "tcp": {"original": {"flags": []}}}
    predicted = run(kernel, cleared, check=True)
    assert kernel.connections[0].flags == [0x2B, 0x2B]
    assert run(kernel, cleared)["operation"] == predicted["operation"] == "updated"
    assert kernel.connections[0].flags == [0x20, 0x2B]
    assert run(kernel, cleared)["operation"] == "unchanged"


def test_tcp_entry_created_without_flags_is_exempt_from_window_checks() -> None:
    kernel = Kernel()
    declared = {**TCP, "tcp": {"state": "established", "reply": {"flags": []}}}
    predicted = run(kernel, declared, check=True)
    created = run(kernel, declared)
    assert kernel.connections[0].flags == [2 | 8, 0]
    assert predicted["entry"]["tcp"]["original"]["flags"] == ["sack_permitted", "be_liberal"]
    assert created["entry"]["tcp"]["original"]["flags"] == ["sack_permitted", "be_liberal"]
    assert created["diff"] == predicted["diff"], "a diff contains only declared keys"
    assert "original" not in created["diff"]["after"]["tcp"]


@pytest.mark.parametrize("tcp", [None, {"state": "established"}, {"original": {"window_scale": 0}}])
def test_undeclared_tcp_flags_are_neither_compared_nor_sent(tcp: Any) -> None:
    kernel = filled([{**TCP, "tcp": {"state": "established", "original": {"flags": []}, "reply": {"flags": []}}}])
    assert run(kernel, {**TCP, "tcp": tcp})["operation"] == "unchanged"
    assert run(kernel, {**TCP, "tcp": {**(tcp or {}), "state": "close"}})["operation"] == "updated"
    assert kernel.connections[0].flags == [0, 0]


def test_replaced_entry_keeps_undeclared_tcp_flags() -> None:
    kernel = filled([{**TCP, "tcp": {"original": {"flags": ["challenge_ack"]}, "reply": {"flags": []}}}])
    assert run(kernel, {**TCP, "nat": SNAT}, replace=True)["operation"] == "replaced"
    assert kernel.connections[0].flags == [0x40, 0]


def test_packet_between_creation_and_reading_back_is_not_a_failure() -> None:
    kernel = Kernel()

    def reply_arrives(number: int, request: Any) -> None:
        if kernel.connections:
            kernel.connections[0].state = 3
            kernel.connections[0].status |= SEEN_REPLY
            kernel.connections[0].flags = [0, 3]

    kernel.meanwhile = reply_arrives
    flags = {"flags": ["data_unacknowledged"]}
    result = run(kernel, {**TCP, "status": ["confirmed"], "tcp": {"state": "syn_sent", "original": flags}})
    assert result["operation"] == "created"
    assert len(kernel.connections) == 1


def test_a_half_open_connection_is_gathered_and_declared_on_an_empty_table() -> None:
    """The kernel sets the offered window scale of one end only when it processes packets of the connection."""
    source = filled([{**TCP, "tcp": {"state": "syn_sent", "original": {"flags": ["window_scale"]}}}])
    source.connections[0].scales = [7, 0]
    with source.table() as table:
        gathered = run(source, {**TCP, "mark": 0})["entry"]
        assert gathered["tcp"]["original"]["window_scale"] == 7
        assert list(table.dump())
    target = Kernel()
    assert run(target, gathered)["operation"] == "created"
    assert run(target, gathered)["operation"] == "unchanged"
    assert run(source, gathered)["operation"] == "unchanged"


def test_window_scale_without_its_flags_is_refused_before_anything_is_sent() -> None:
    for kernel in (Kernel(), filled([TCP])):
        result = run(kernel, {**TCP, "tcp": {"original": {"window_scale": 7}}}, replace=True)
        assert "flag window_scale in both directions" in result["msg"]
        assert not kernel.writes


def test_window_scale_with_its_flags_is_set() -> None:
    ends = {"flags": ["window_scale"]}
    for kernel in (Kernel(), filled([TCP])):
        run(kernel, {**TCP, "tcp": {"original": {"window_scale": 7, **ends}, "reply": ends}})
        assert kernel.connections[0].scales == [7, 0]


def test_timeout_and_state_of_an_offloaded_entry_are_not_compared() -> None:
    kernel = filled([{**TCP, "tcp": {"state": "established"}}])
    kernel.connections[0].status |= OFFLOAD
    declared = {**TCP, "timeout": 600, "tcp": {"state": "close"}, "mark": 0}
    assert run(kernel, declared, timeout_min=300)["operation"] == "unchanged"
    assert run(kernel, {**declared, "mark": 3})["entry"]["mark"] == 3


def test_replaced_offloaded_entry_has_the_default_timeout() -> None:
    kernel = filled([{**TCP, "timeout": 500}])
    kernel.connections[0].status |= OFFLOAD
    assert run(kernel, {**TCP, "nat": SNAT}, replace=True)["operation"] == "replaced"
    assert kernel.connections[0].deadline == 120


# values that cannot be changed in place


@pytest.mark.parametrize(
    ("there", "declared", "key"),
    [
        ({}, {"nat": SNAT}, "nat.source"),
        ({}, {"helper": "sip"}, "helper"),
        ({"status": ["seen_reply", "assured"]}, {"status": ["seen_reply"]}, "status"),
        ({}, {"reply": {**MIRROR, "source_port": 9}}, "reply.source_port"),
    ],
)
def test_values_that_are_set_only_at_creation_require_replace(there: Document, declared: Document, key: str) -> None:
    kernel = filled([{**UDP, **there, "mark": 5, "labels": [3]}])
    refused = run(kernel, {**UDP, **declared})
    assert key in refused["msg"]
    assert "set replace to true" in refused["msg"]
    assert refused["entry"] == refused["before"] != {}
    assert not kernel.writes
    result = run(kernel, {**UDP, **declared}, replace=True)
    assert result["operation"] == "replaced"
    entry = kernel.connections[0]
    assert not missing(entry, declared)
    assert (entry.mark, entry.labels) == (5, 8), "undeclared values are kept"


def test_replace_keeps_existing_nat() -> None:
    kernel = filled([{**UDP, "nat": SNAT, "status": ["seen_reply", "assured"]}])
    reply = kernel.connections[0].tuples[1]
    result = run(kernel, {**UDP, "status": ["seen_reply"]}, replace=True)
    assert result["operation"] == "replaced"
    assert kernel.connections[0].tuples[1] == reply
    assert result["entry"]["nat"] == SNAT


def test_replace_with_other_nat_discards_the_old_nat() -> None:
    there = {**UDP, "nat": SNAT}
    kernel = filled([there])
    nat = {"destination": {"address": "198.51.100.2", "port": 8080}}
    assert run(kernel, {**UDP, "nat": nat}, replace=True)["entry"]["nat"] == nat
    kernel = filled([there])
    entry = run(kernel, {**UDP, "reply": {**MIRROR, "source_port": 9}}, replace=True)["entry"]
    assert (entry["reply"], "nat" in entry) == ({**MIRROR, "source_port": 9}, False)


def test_replace_conflict_is_reported_before_the_old_entry_is_deleted() -> None:
    taken = {"protocol": "udp", "original": {**MIRROR, "source_port": 9}}
    kernel = filled([UDP, taken])
    for check in (True, False):
        result = run(kernel, {**UDP, "reply": {**MIRROR, "source_port": 9}}, check=check, replace=True)
        assert "its reply tuple is taken by udp 10.0.0.2:9" in result["msg"]
    assert not kernel.writes


def test_message_names_a_module_only_for_helpers_of_the_kernel() -> None:
    for helper, module in (
        ("ftp", "nf_conntrack_ftp"),
        ("netbios-ns", "nf_conntrack_netbios_ns"),
        ("irc-6668", "nf_conntrack_irc"),
        ("snmp_trap", "nf_nat_snmp_basic"),
        ("ftpx", ""),
        ("x-21", ""),
        ("ftp-", ""),
    ):
        result = run(Kernel(helpers={}), {**UDP, "helper": helper})
        if module:
            advice = f"The helper {helper!r} may be missing for this protocol: load its module {module}"
            assert result["msg"].endswith(advice)
        else:
            assert f"The kernel has no helper {helper!r}; write one of amanda, ftp, " in result["msg"]
            assert "nf_conntrack" not in result["msg"]


def test_the_helper_of_h245_has_no_module_to_load() -> None:
    result = run(Kernel(helpers={}), {**UDP, "helper": "H.245"})
    assert result["msg"].endswith("only to the connections that its helper 'Q.931' expects")
    assert not result["changed"]


def test_failed_replace_restores_the_old_entry_and_reports_it() -> None:
    kernel = filled([{**UDP, "mark": 5, "nat": {"source": {"address": "198.51.100.2"}}}])
    old = kernel.connections[0].tuples
    result = run(kernel, {**UDP, "helper": "h323"}, replace=True)
    assert result["changed"]
    assert (result["operation"], result["changes"]) == ("replaced", [])
    assert "was deleted and restored" in result["msg"]
    assert "no helper 'h323'; write one of amanda, ftp, " in result["msg"]
    assert kernel.connections[0].tuples == old
    assert kernel.connections[0].mark == 5
    assert result["entry"]["id"] == kernel.connections[0].id


def test_failed_restore_reports_the_entry_as_deleted() -> None:
    kernel = filled([UDP])
    creations = 0

    def full(number: int, request: Any) -> None:
        nonlocal creations
        if request.type == NEW:
            kernel.faults[number] = Fault(errno.ENOMEM)
            creations += 1

    kernel.meanwhile = full
    result = run(kernel, {**UDP, "nat": SNAT}, replace=True)
    assert (result["operation"], result["entry"], result["changed"]) == ("deleted", {}, True)
    assert result["before"]["original"] == FLOW
    assert "could not be restored" in result["msg"]
    assert creations == 2


def test_replace_succeeds_although_packets_create_the_entry_again() -> None:
    kernel = filled([UDP])
    packets = [77, 78]

    def packet(number: int, request: Any) -> None:
        if request.type == NEW and not kernel.connections and packets:
            made = filled([UDP]).connections[0]
            made.id = packets.pop()
            kernel.connections.append(made)

    kernel.meanwhile = packet
    result = run(kernel, {**UDP, "nat": SNAT}, replace=True)
    assert result.get("msg") is None
    assert result["operation"] == "replaced"
    assert not missing(kernel.connections[0], {"nat": SNAT})


def test_replace_without_the_master_does_not_delete_the_expected_entry() -> None:
    master = {"protocol": "tcp", "original": {**FLOW, "destination_port": 21}}
    kernel = filled([master, {**TCP, "master": master["original"]}])
    assert kernel.connections[1].status & EXPECTED
    kernel.drop(kernel.connections[0])
    result = run(kernel, {**TCP, "nat": SNAT}, replace=True)
    assert "create the master first" in result["msg"]
    assert len(kernel.connections) == 1
    assert not kernel.writes


KEYED = {"source": FLOW["source"], "destination": FLOW["destination"], "source_key": 1, "destination_key": 2}


@pytest.mark.parametrize(
    ("master", "declared"),
    [
        # PPTP: a GRE connection that a TCP connection has announced
        ({"protocol": "tcp", "original": FLOW}, {"protocol": "gre", "original": KEYED}),
        ({"protocol": "gre", "original": KEYED}, {"protocol": "tcp", "original": FLOW}),
    ],
)
def test_a_master_of_another_protocol(master: Document, declared: Document) -> None:
    declared = {**declared, "master": {**master["original"], "protocol": master["protocol"]}}
    kernel = Kernel()
    assert "create the master first" in run(kernel, declared)["msg"]
    kernel = filled([master])
    assert run(kernel, declared)["operation"] == "created"
    assert run(kernel, declared)["operation"] == "unchanged"
    assert kernel.connections[1].master is kernel.connections[0]


def test_fixed_timeout_is_reported() -> None:
    kernel = filled([{**UDP, "status": ["fixed_timeout"], "timeout": 100}])
    result = run(kernel, {**UDP, "timeout": 600}, timeout_min=300)
    assert "its timeout is fixed" in result["msg"]
    assert not kernel.writes


# partial and complete failures


def test_labels_without_a_rule_are_a_failure() -> None:
    kernel = Kernel(label_rule=False)
    result = run(kernel, {**UDP, "labels": [1]})
    assert (result["operation"], result["changed"], result["entry"]) == ("unchanged", False, {})
    assert "the kernel did not accept labels (it has none)" in result["msg"]
    assert "ct label set" in result["msg"]
    assert not kernel.connections


def test_partly_refused_update_reports_the_changes() -> None:
    kernel = filled([{**UDP, "timeout": 60}], label_rule=False)
    result = run(kernel, {**UDP, "timeout": 600, "mark": 5, "labels": [1]}, timeout_min=300)
    assert (result["operation"], result["changed"]) == ("updated", True)
    assert [change["key"] for change in result["changes"]] == ["mark", "timeout"]
    assert "ENOSPC" in result["msg"]
    assert "ct label set" in result["msg"]
    assert "These were changed: mark, timeout" in result["msg"]
    assert result["entry"]["mark"] == 5
    assert result["entry"]["timeout"] == 600


def test_refused_update_reports_no_changes() -> None:
    kernel = filled([{**UDP, "timeout": 60}])
    kernel.faults = {1: Fault(errno.EPERM)}
    result = run(kernel, {**UDP, "timeout": 600, "mark": 5}, timeout_min=300)
    assert (result["operation"], result["changes"]) == ("unchanged", [])


def test_untracked_protocol_is_refused_and_nothing_is_created() -> None:
    kernel = Kernel()
    result = run(kernel, {"protocol": "dccp", "original": FLOW})
    assert "does not track" in result["msg"]
    assert (result["changed"], kernel.connections) == (False, [])


def test_creation_without_an_answer_is_reported_as_a_change() -> None:
    kernel = Kernel()

    def lose_answers(number: int, request: Any) -> None:
        if request.type == NEW:
            kernel.faults[number] = Fault(errno.ENOBUFS, lost=True, carried_out=False)

    kernel.meanwhile = lose_answers
    result = run(kernel, UDP)
    assert result["changed"], "the kernel may have created the entry"
    assert "ENOBUFS" in result["msg"]


def test_refusal_of_all_requests_names_the_missing_capability() -> None:
    kernel = Kernel()
    kernel.faults = {number: Fault(errno.EPERM) for number in range(9)}
    result = run(kernel, UDP)
    assert "CAP_NET_ADMIN" in result["msg"]
    assert not result["changed"]


def test_refused_change_returns_the_entry_if_it_cannot_be_read_again() -> None:
    kernel = filled([{**UDP, "mark": 1}])
    kernel.faults = {number: Fault(errno.EPERM) for number in (1, *range(3, 9))}
    result = run(kernel, {**UDP, "mark": 2})
    assert (result["operation"], result["entry"]["mark"]) == ("unchanged", 1)
    assert result["before"] == result["entry"]


# between plan and change


def test_an_entry_that_expires_between_plan_and_update_is_created() -> None:
    kernel = filled([{**UDP, "mark": 1}])

    def expire(number: int, request: Any) -> None:
        if number == 1:
            kernel.connections.clear()

    kernel.meanwhile = expire
    result = run(kernel, {**UDP, "mark": 2})
    assert (result["operation"], result["before"]) == ("created", {})
    assert kernel.connections[0].mark == 2


def test_an_entry_that_appears_between_plan_and_creation_is_updated() -> None:
    kernel = Kernel()

    def appear(number: int, request: Any) -> None:
        if request.type == NEW and not kernel.connections:
            kernel.connections.extend(filled([{**UDP, "mark": 1}]).connections)

    kernel.meanwhile = appear
    result = run(kernel, {**UDP, "mark": 2})
    assert (result["operation"], result["before"]["mark"]) == ("updated", 1)


def test_entry_that_expires_before_its_deletion_is_unchanged() -> None:
    kernel = filled([UDP])

    def expire(number: int, request: Any) -> None:
        if request.type == DELETE:
            kernel.connections.clear()

    kernel.meanwhile = expire
    assert run(kernel, UDP, state="absent")["operation"] == "unchanged"


def test_absent_deletes_a_successor_too() -> None:
    kernel = filled([UDP])

    def packet(number: int, request: Any) -> None:
        if number == 1:
            kernel.renew(kernel.connections[0])

    kernel.meanwhile = packet
    assert run(kernel, UDP, state="absent")["operation"] == "deleted"
    assert not kernel.connections


# direction and zone


def test_mirrored_entry_is_a_different_entry() -> None:
    mirrored = {"protocol": "udp", "original": MIRROR}
    kernel = filled([mirrored])
    assert run(kernel, UDP, state="absent")["operation"] == "unchanged"
    result = run(kernel, UDP)
    assert "its original tuple is taken by udp 10.0.0.2:80 -> 10.0.0.1:1000" in result["msg"]
    assert not kernel.writes


def test_zones_distinguish_entries() -> None:
    """If only one direction is in a zone, the other is in zone 0 and can conflict with an entry there."""
    for there, zoned in (
        ([UDP], {"zone": 5}),
        ([], {"original": {**FLOW, "zone": 7}}),
        ([], {"reply": {**MIRROR, "zone": 8}}),
    ):
        kernel = filled(there)
        assert run(kernel, {**UDP, **zoned})["operation"] == "created"
        assert run(kernel, {**UDP, **zoned})["operation"] == "unchanged"
        assert run(kernel, {**UDP, **zoned}, state="absent")["operation"] == "deleted"
        assert len(kernel.connections) == len(there)
    assert "original tuple is taken" in run(filled([UDP]), {**UDP, "reply": {**MIRROR, "zone": 8}})["msg"]
    assert "reply tuple is taken" in run(filled([UDP]), {**UDP, "original": {**FLOW, "zone": 7}})["msg"]


def test_mirrored_entry_is_kept_if_the_reply_is_in_a_zone() -> None:
    """The kernel stores both entries, but a lookup returns only the first one."""
    kernel = filled([{"protocol": "udp", "original": MIRROR}])
    mirrored = kernel.connections[0]
    result = run(kernel, {**UDP, "reply": {**MIRROR, "zone": 8}})
    assert (result["operation"], result["changed"]) == ("created", True)
    assert "has the same tuple and hides it" in result["msg"]
    assert mirrored in kernel.connections
    assert len(kernel.connections) == 2


def test_reply_tuple_alone_defines_the_original_tuple() -> None:
    kernel = Kernel()
    assert run(kernel, {"protocol": "udp", "reply": MIRROR})["operation"] == "created"
    assert run(kernel, UDP)["operation"] == "unchanged"


# entries gathered on one host and declared on another


def test_gathered_entry_can_be_declared_on_another_host() -> None:
    source = filled(
        [
            {**TCP, "nat": SNAT, "status": ["seen_reply", "assured"], "mark": 7, "labels": [9], "helper": "ftp",
             "tcp": {"state": "established", "original": {"flags": ["be_liberal"]}}},
        ]
    )  # fmt: skip
    shown = source.connections[0]
    shown.packets = shown.bytes = (5, 6)
    shown.status |= 0x2000
    gathered = run(source, {**TCP, "mark": 7})["entry"]
    assert {"id", "use", "counters", "nat", "reply"} <= set(gathered)
    target = Kernel()
    predicted = run(target, gathered, check=True)["entry"]
    assert not {"id", "use", "counters"} & set(predicted), "these values belong to the other host"
    assert run(target, gathered)["operation"] == "created"
    assert run(target, gathered)["operation"] == "unchanged"
    assert run(source, gathered)["operation"] == "unchanged"
    there = target.connections[0]
    assert there.tuples == shown.tuples
    assert there.status & 0x1F0 == shown.status & 0x1F0, "the kernel applies the NAT there, too"


def test_synproxy_zeros_equal_no_synproxy() -> None:
    kernel = filled([UDP])
    assert run(kernel, {**UDP, "synproxy": {"isn": 0, "its": 0, "tsoff": 0}})["operation"] == "unchanged"


def test_declared_empty_values_are_no_change() -> None:
    kernel = filled([UDP])
    assert run(kernel, {**UDP, "helper": "", "labels": [], "mark": 0})["operation"] == "unchanged"
    assert run(Kernel(), {**UDP, "helper": "", "labels": [], "mark": 0})["operation"] == "created"


def test_masked_mark_leaves_the_other_bits_zero_at_creation() -> None:
    kernel = Kernel()
    predicted = run(kernel, {**UDP, "mark": "0x10/0xf0"}, check=True)
    assert predicted["entry"]["mark"] == 16
    assert run(kernel, {**UDP, "mark": "0x10/0xf0"})["entry"]["mark"] == 16
    kernel.connections[0].mark = 0x2F
    assert run(kernel, {**UDP, "mark": "0x10/0xf0"})["entry"]["mark"] == 0x1F


def test_partial_group_is_completed_with_existing_values_or_zero() -> None:
    sctp = {"protocol": "sctp", "original": FLOW}
    kernel = Kernel()
    assert run(kernel, {**sctp, "sctp": {"state": "established"}})["operation"] == "created"
    run(kernel, {**sctp, "sctp": {"original_vtag": 9}})
    assert (kernel.connections[0].state, kernel.connections[0].tags) == (4, [9, 0])


# NAT


def test_nat_to_its_own_address_is_idempotent() -> None:
    kernel = Kernel()
    declared = {**UDP, "nat": {"source": {"address": FLOW["source"], "port": FLOW["source_port"]}}}
    assert run(kernel, declared)["operation"] == "created"
    assert kernel.connections[0].status == CONFIRMED | SRC_NAT_DONE | DST_NAT_DONE
    assert run(kernel, declared)["operation"] == "unchanged"


def test_nat_of_the_port_alone() -> None:
    declared = {**UDP, "nat": {"destination": {"port": 8080}}}
    kernel = Kernel()
    assert run(kernel, declared)["entry"]["nat"] == {"destination": {"address": FLOW["destination"], "port": 8080}}
    assert run(kernel, declared)["operation"] == "unchanged"


def test_nat_of_an_icmp_id() -> None:
    echo = {"source": FLOW["source"], "destination": FLOW["destination"], "icmp_type": 8, "icmp_code": 0, "icmp_id": 1}
    declared = {"protocol": "icmp", "original": echo, "nat": {"source": {"address": "198.51.100.1", "port": 77}}}
    kernel = Kernel()
    assert run(kernel, declared)["entry"]["reply"]["icmp_id"] == 77
    assert run(kernel, declared)["operation"] == "unchanged"
    declared["nat"] = {"source": {"port": 78}}
    assert run(kernel, declared, replace=True)["operation"] == "replaced"


def test_any_value_of_a_nat_range_is_accepted() -> None:
    declared = {**UDP, "nat": {"source": {"address": "198.51.100.1-198.51.100.9", "port": "2000-3000"}}}
    kernel = filled([{**UDP, "nat": {"source": {"address": "198.51.100.5", "port": 2500}}}])
    assert run(kernel, declared)["operation"] == "unchanged"


def test_changed_reply_tuple_without_nat_status_is_not_nat() -> None:
    reply = {"source": FLOW["destination"], "destination": "198.51.100.1", "source_port": 80, "destination_port": 2000}
    kernel = filled([{**UDP, "reply": reply}])
    assert kernel.connections[0].status == CONFIRMED
    assert "nat.source" in run(kernel, {**UDP, "nat": SNAT})["msg"]
    assert run(kernel, {**UDP, "nat": SNAT}, replace=True)["entry"]["nat"] == SNAT


# policy


def test_keep_does_not_change_the_entry() -> None:
    kernel = filled([{**UDP, "mark": 1}])
    result = run(kernel, {**UDP, "mark": 2, "nat": SNAT}, on_existing="keep")
    assert (result["operation"], result["entry"]["mark"]) == ("unchanged", 1)


def test_fail_reports_the_differing_keys() -> None:
    kernel = filled([{**UDP, "mark": 1}])
    assert "differs in mark; set on_existing" in run(kernel, {**UDP, "mark": 2}, on_existing="fail")["msg"]
    assert run(kernel, {**UDP, "mark": 1}, on_existing="fail")["operation"] == "unchanged"
    assert not kernel.writes


def test_timeout_min_refreshes_once() -> None:
    kernel = filled([{**UDP, "timeout": 600}])
    declared = {**UDP, "timeout": 600}
    kernel.pass_time(400)
    assert run(kernel, declared)["operation"] == "unchanged", (
        "without timeout_min, the timeout applies only at creation"
    )
    result = run(kernel, declared, timeout_min=300)
    assert result["changes"] == [{"key": "timeout", "before": 200, "after": 600}]
    assert result["diff"]["after"]["timeout"] == 600
    assert run(kernel, declared, timeout_min=300)["operation"] == "unchanged"
    kernel.pass_time(300)
    assert run(kernel, declared, timeout_min=300)["operation"] == "unchanged"


@pytest.mark.parametrize("declared", [{"timeout": 10}, {}])
def test_timeout_min_that_would_refresh_on_every_run_is_refused(declared: Document) -> None:
    kernel = filled([UDP])
    with pytest.raises(InvalidValue, match="timeout_min: "):
        run(kernel, {**UDP, **declared}, timeout_min=60)
    assert not kernel.writes


def test_a_timeout_of_zero_is_refused() -> None:
    kernel = Kernel()
    with pytest.raises(InvalidValue, match="^timeout: 0 would expire immediately"):
        run(kernel, {**UDP, "timeout": 0})
    assert not kernel.writes


def test_status_bits_can_be_added() -> None:
    kernel = filled([{**UDP, "status": ["seen_reply"]}])
    assert run(kernel, {**UDP, "status": ["seen_reply", "assured"]})["operation"] == "updated"
    assert kernel.connections[0].status == CONFIRMED | SEEN_REPLY | ASSURED
    run(kernel, {**UDP, "status": ["seen_reply", "assured", "fixed_timeout"]})
    assert kernel.connections[0].status & FIXED_TIMEOUT
