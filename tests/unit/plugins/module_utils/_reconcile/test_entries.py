# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a list of entries is applied as far as possible, that failures are reported and no other entry changes."""

from __future__ import annotations

import contextlib
import errno
from typing import Any, Dict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entries import (
    EntriesFailed,
    masters_first,
    parse_entries,
    reconcile_all,
)
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entry import EntryReconciler
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.plan import expected_reply
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.purge import purge_of
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import (
    CannotReconcile,
    Plan,
    Policy,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    ConntrackError,
    InvalidValue,
    NotPermitted,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support.declarations import (
    FLOW,
    declarations,
    filled,
    held,
    is_open,
    missing,
)
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import DELETE, GET, Fault, Kernel

Document = Dict[str, Any]

KEYS = {"changed", "counts", "kept", "changes", "failed_entries", "diff"}
UDP: Document = {"protocol": "udp", "original": FLOW}
#: Random entries are inside and outside of these scopes.
SCOPES: list[Any] = [None, {"protocol": "tcp"}, {"family": "ipv6"}, {"zone": 5}, [{"mark": 0}, {"port": 80}]]
LIMIT = 1000


def identities(document: Document) -> Any:
    return identity(from_document(document))


populations = st.lists(declarations(), max_size=6)
lists = st.lists(declarations(), max_size=6, unique_by=lambda document: repr(identities(document)))
policies = st.builds(
    Policy,
    state=st.just("present"),
    on_existing=st.sampled_from(["update", "update", "keep", "fail"]),
    replace=st.booleans(),
    timeout_min=st.just(0),
)
scopes = st.sampled_from(SCOPES)


def run(kernel: Kernel, documents: list[Document], check: bool = False, scope: Any = None, **policy: Any) -> Document:
    """Run the module once. A failure returns its result, with the message under `msg`."""
    declared = parse_entries(documents, absent=policy.get("state") == "absent")
    try:
        with kernel.table() as table:
            purge = None if scope is None else purge_of(table, parse_match(scope), declared)
            result = reconcile_all(table, declared, Policy(**policy), LabelMap(), check, purge, LIMIT)
    except EntriesFailed as error:
        result = {"msg": str(error), **error.result}
    assert set(result) - {"msg"} == KEYS
    return result


def in_scope(kernel: Kernel, scope: Any) -> list[Any]:
    """Return the connections that a scope selects, according to the entries that the client reads."""
    if scope is None:
        return []
    match = parse_match(scope)
    with kernel.table() as table:
        there = {entry["id"] for entry in table.dump() if match(entry)}
    kernel.forget()
    return [connection for connection in kernel.connections if connection.id in there]


def undeclared(kernel: Kernel, documents: list[Document]) -> dict[int, Any]:
    """Return the connections that no document declares, by id."""
    declared = [held(kernel, document) for document in documents]
    return {there.id: kernel_view(kernel, there) for there in kernel.connections if there not in declared}


def kernel_view(kernel: Kernel, there: Any) -> str:
    return next(shown for key, shown in kernel.snapshot() if repr(key) == repr(there.key))


def satisfied(kernel: Kernel, document: Document, policy: Policy) -> bool:
    there = held(kernel, document)
    if policy.state == "absent":
        return there is None
    return there is not None and (policy.on_existing == "keep" or not missing(there, document))


def as_policy(policy: Policy) -> Document:
    return dict(policy._asdict())


# properties


@examples(100)
@given(populations, lists, policies, scopes)
def test_declaration_is_applied_within_scope_and_run_is_idempotent(
    before: list[Document], documents: list[Document], policy: Policy, scope: Any
) -> None:
    kernel = filled(before)
    others = undeclared(kernel, documents)
    purged = {there.id for there in in_scope(kernel, scope)} & set(others)
    first = run(kernel, documents, scope=scope, **as_policy(policy))
    kept = {number: shown for number, shown in others.items() if number not in purged}
    assert undeclared(kernel, documents) == kept
    failed = {each["index"] for each in first["failed_entries"]}
    assert None not in failed
    for place, document in enumerate(documents):
        if place not in failed:
            assert satisfied(kernel, document, policy)
    assert first["counts"]["failed"] == len(failed)
    assert first["counts"]["deleted"] == len(purged)
    assert sum(first["counts"].values()) == len(documents) + len(purged)
    assert first["changed"] == (sum(first["counts"].values()) != first["counts"]["unchanged"] + len(failed))
    assert ("msg" in first) == bool(failed)
    kernel.forget()
    second = run(kernel, documents, scope=scope, **as_policy(policy))
    # An entry can fail because of another entry that this run deleted, and be created in the second run.
    if not failed:
        assert not kernel.writes
        assert not second["changed"]
        assert second["counts"]["unchanged"] == len(documents)


@examples(150)
@given(populations, lists, policies, scopes)
def test_check_mode_predicts_the_run_and_only_reads(
    before: list[Document], documents: list[Document], policy: Policy, scope: Any
) -> None:
    kernel = filled(before)
    there = kernel.snapshot()
    predicted = run(kernel, documents, check=True, scope=scope, **as_policy(policy))
    assert not kernel.writes
    assert kernel.snapshot() == there
    done = run(kernel, documents, scope=scope, **as_policy(policy))
    # only the kernel can determine the tuple of a NATed entry, or that all tuples are in use
    open_ = any(is_open(document) for document in documents)
    assume(not open_ or not done["failed_entries"])
    assert predicted == done


FAULTS = [
    *(Fault(code) for code in (errno.EBUSY, errno.ENOMEM, errno.ENOENT, errno.EEXIST)),
    *(Fault(code, True, done) for code in (errno.ENOBUFS, errno.ETIMEDOUT) for done in (False, True)),
]


@examples(200)
@given(populations, lists, policies, scopes, st.sampled_from(FAULTS), st.integers(0, 40))
def test_fault_at_any_message_is_reported_correctly_and_second_run_completes(
    before: list[Document], documents: list[Document], policy: Policy, scope: Any, fault: Fault, at: int
) -> None:
    kernel = filled(before)
    there, others = kernel.snapshot(), undeclared(kernel, documents)
    purged = {one.id for one in in_scope(kernel, scope)} & set(others)
    kernel.faults = {at: fault}
    first: Any = None
    with contextlib.suppress(ConntrackError):  # the run could not read the scope or an entry
        first = run(kernel, documents, scope=scope, **as_policy(policy))
    assert first is not None or kernel.snapshot() == there
    faulted = [request.type for request in kernel.requests[at : at + 1]]
    assume(fault.errno != errno.ENOENT or faulted != [GET])  # the answer that an entry does not exist is not an error
    left = undeclared(kernel, documents)
    assert {number: shown for number, shown in others.items() if number not in purged}.items() <= left.items()
    if first is not None:
        assert first["changed"] or kernel.snapshot() == there
        failed = {each["index"] for each in first["failed_entries"]}
        for place, document in enumerate(documents):
            if place not in failed:
                assert satisfied(kernel, document, policy)
        if not failed and not first["counts"]["replaced"]:
            assert len(kernel.snapshot()) == len(there) + first["counts"]["created"] - first["counts"]["deleted"]
    kernel.faults = {}
    second = run(kernel, documents, scope=scope, **as_policy(policy))
    if not second["failed_entries"]:
        assert all(satisfied(kernel, document, policy) for document in documents)
        assert not (set(undeclared(kernel, documents)) & purged)
    else:
        # With a zone in one direction, the order matters: A can be created after B, but not B after A.
        assume(not any("zone" in document["original"] for document in documents))
        clean = filled(before)
        run(clean, documents, scope=scope, **as_policy(policy))
        assert run(clean, documents, scope=scope, **as_policy(policy))["failed_entries"]


@examples(60)
@given(populations, lists)
def test_absent_deletes_all_declared_entries_and_no_others(before: list[Document], documents: list[Document]) -> None:
    kernel = filled(before)
    others = undeclared(kernel, documents)
    there = sum(held(kernel, document) is not None for document in documents)
    result = run(kernel, documents, state="absent")
    assert result["counts"]["deleted"] == there
    assert undeclared(kernel, documents) == others
    assert len(kernel.connections) == len(others)


def flow(number: int, **keys: Any) -> Document:
    return {"protocol": "udp", "original": {**FLOW, "source_port": 1024 + number}, **keys}


# conflicts between entries

SNAT = {"source": {"address": "198.51.100.1", "port": 4000}}
ESP = {"protocol": 50, "original": {"source": "10.0.0.1", "destination": "10.0.0.9"}}
ANSWER = {"source": "10.0.0.9", "destination": "198.51.100.1"}


def from_host(host: int, **keys: Any) -> Document:
    return {**flow(0, **keys), "original": {**FLOW, "source": f"10.0.0.{host}", "destination": "10.0.0.9"}}


@pytest.mark.parametrize(
    ("there", "declared", "end"),
    [
        (from_host(1, nat=SNAT), from_host(2, nat=SNAT), "reply"),
        (
            from_host(1, nat=SNAT),
            from_host(2, nat=SNAT, reply={**ANSWER, "source_port": 80, "destination_port": 4000}),
            "reply",
        ),
        (
            {**ESP, "nat": {"source": {"address": "198.51.100.1"}}},
            {
                "protocol": 50,
                "original": {"source": "10.0.0.2", "destination": "10.0.0.9"},
                "nat": {"source": {"address": "198.51.100.1"}},
            },
            "reply",
        ),
        (
            {**ESP, "reply": {"zone": 5}},
            {"protocol": 50, "original": {"source": "10.0.0.9", "destination": "10.0.0.1"}, "reply": {"zone": 5}},
            "original",
        ),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_conflicting_entry_is_predicted_and_reported(
    there: Document, declared: Document, end: str, together: bool
) -> None:
    """The conflict is found by the reply tuple if `nat` leaves the kernel no choice, and in the zone of the reply."""
    kernel = filled([] if together else [there])
    documents = [there, declared] if together else [declared]
    predicted = run(kernel, documents, check=True)
    assert not kernel.writes
    done = run(kernel, documents)
    assert predicted == done
    (failed,) = done["failed_entries"]
    assert f"cannot be created: its {end} tuple is taken by " in failed["msg"]
    assert len(kernel.connections) == 1


@pytest.mark.parametrize("port", [None, "4000-4001"])
def test_kernel_chooses_another_port_if_nat_permits_it(port: Any) -> None:
    source = {"address": "198.51.100.1", **({"port": port} if port else {})}
    kernel = filled([from_host(1, nat={"source": source})])
    documents = [from_host(2, nat={"source": source})]
    assert run(kernel, documents, check=True)["counts"]["created"] == 1
    assert run(kernel, documents)["counts"]["created"] == 1


def test_conflicting_entry_created_after_the_plan_is_reported() -> None:
    kernel = filled([from_host(7, reply={**ANSWER, "source_port": 80, "destination_port": 1000})])
    late = from_document({**flow(0), "original": {**FLOW, "source": "198.51.100.1", "destination": "10.0.0.9"}})
    with kernel.table() as table, pytest.raises(CannotReconcile, match="its reply tuple is taken by udp 10.0.0.7"):
        EntryReconciler(table, late, Policy()).apply(Plan("created", late, None, []))


# requests and results of a run


def test_a_thousand_entries_take_a_few_dozen_sends_for_each_step() -> None:
    """A run reads each entry twice, creates it and reads it back: 32 queries or 64 other requests in a send."""
    kernel = Kernel()
    documents = [flow(number, mark=number) for number in range(1000)]
    assert run(kernel, documents)["counts"]["created"] == 1000
    sends = sum(len(datagrams.sent) for datagrams in kernel.sockets)
    assert len(kernel.requests) == 4000
    assert sends <= 3 * (1000 // 32 + 1) + 1000 // 64 + 1
    kernel.forget()
    assert run(kernel, documents)["counts"]["unchanged"] == 1000
    assert len(kernel.requests) == 1000


def test_only_differing_entries_are_sent_and_read_back() -> None:
    kernel = filled([flow(number) for number in range(100)])
    result = run(kernel, [flow(number, mark=1 if number == 7 else 0) for number in range(100)])
    assert result["counts"] == {"created": 0, "updated": 1, "replaced": 0, "deleted": 0, "unchanged": 99, "failed": 0}
    assert [(each["index"], each["changes"]) for each in result["changes"]] == [
        (7, [{"key": "mark", "before": 0, "after": 1}])
    ]
    assert len(kernel.writes) == 1
    assert len(kernel.requests) == 102


def test_failed_entries_have_index_and_reason_and_the_others_are_applied() -> None:
    kernel = filled([flow(0, nat={"source": {"address": "198.51.100.1"}})])
    result = run(
        kernel, [flow(1), flow(0, nat={"source": {"address": "198.51.100.9"}}), flow(2, helper="none-such"), flow(3)]
    )
    assert result["counts"]["created"] == 2
    assert [each["index"] for each in result["failed_entries"]] == [1, 2]
    assert "set replace to true" in result["failed_entries"][0]["msg"]
    assert "no helper 'none-such'" in result["failed_entries"][1]["msg"]
    assert result["msg"].startswith("2 of 4 entries are not as declared, the first because: entries[1]: udp 10.0.0.1")
    assert result["msg"].endswith(". The others are; see failed_entries")


def test_message_mentions_others_only_if_there_are_some() -> None:
    assert run(filled([]), [flow(2, helper="none-such")])["msg"].endswith(". See failed_entries")


@pytest.mark.parametrize(
    ("protocol", "more", "reply"),
    [
        ("udp", {"source_port": 80, "destination_port": 53}, {"destination_port": 7}),
        ("icmp", {"icmp_type": 8, "icmp_code": 0, "icmp_id": 80}, {"icmp_id": 7}),
        ("gre", {"source_key": 80, "destination_key": 81}, {"destination_key": 80}),
    ],
)
def test_expected_reply_has_the_port_or_icmp_id_of_nat(protocol: str, more: Document, reply: Document) -> None:
    """The kernel applies NAT to an ICMP id as to a port, but not to a GRE key."""
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2"}
    nat = {"source": {"address": "198.51.100.1", "port": 7}}
    wanted = expected_reply(creation(from_document({"protocol": protocol, "original": {**ends, **more}, "nat": nat})))
    assert wanted is not None
    expected = {"destination": "198.51.100.1", **reply}
    assert to_document(wanted)["reply"].items() >= expected.items()
    assert wanted.keys() <= {*creation(from_document({"protocol": protocol, "original": {**ends, **more}}))}


@pytest.mark.parametrize("check", [False, True])
def test_entry_that_the_kernel_refuses_does_not_fail_the_others(check: bool) -> None:
    """UDP-Lite is saved without ports on a kernel that does not track it; a kernel that tracks it requires ports."""
    kernel = Kernel()
    kernel.untracked = set()
    ends = {"source": "10.0.0.1", "destination": "10.0.0.2"}
    portless = {"protocol": "udplite", "original": ends, "timeout": 60}
    result = run(kernel, [flow(1), portless, flow(2)], check)
    assert result["counts"]["created"] == 2
    assert [each["index"] for each in result["failed_entries"]] == [1]
    assert "Invalid argument" in result["failed_entries"][0]["msg"]


def test_two_declarations_of_one_entry_are_refused() -> None:
    with pytest.raises(
        InvalidValue, match=r"^entries\[2\]: declares the same entry as entries\[0\], udp 10.0.0.1:1024"
    ):
        parse_entries([flow(0), flow(1), flow(0, mark=5)])


def test_invalid_value_is_reported_with_its_index_and_nothing_is_changed() -> None:
    with pytest.raises(InvalidValue, match=r"^entries\[1\]\.original\.source_port: "):
        parse_entries([flow(0), flow(70000)])
    kernel = Kernel()
    with pytest.raises(InvalidValue, match=r"^entries\[1\]\.timeout_min: there is no timeout to set"):
        run(kernel, [flow(0, timeout=60), flow(1)], timeout_min=5)
    with pytest.raises(InvalidValue, match=r"^entries\[1\]\.timeout: 0 would expire immediately"):
        run(kernel, [flow(0), flow(1, timeout=0)])
    assert not kernel.writes


def test_conflict_of_two_declarations_is_predicted() -> None:
    """The reply tuple of one is the original tuple of the other."""
    mirror = {
        "source": FLOW["destination"],
        "destination": FLOW["source"],
        "source_port": FLOW["destination_port"],
        "destination_port": FLOW["source_port"],
    }
    documents = [UDP, {"protocol": "udp", "original": mirror}]
    predicted, done = run(Kernel(), documents, check=True), run(Kernel(), documents)
    assert predicted == done
    assert [each["index"] for each in done["failed_entries"]] == [1]
    assert "its original tuple is taken by udp 10.0.0.1:1000" in done["failed_entries"][0]["msg"]


def test_purge_makes_room_for_declared_entries() -> None:
    """A stale entry has the tuple that the replies of the declared NATed entry will have."""
    stale = {"protocol": "udp", "original": {**FLOW, "source": "10.0.0.2", "destination": "10.0.0.1"}}
    stale["original"].update(source_port=80, destination_port=1000)
    kernel = filled([stale])
    assert run(kernel, [UDP])["counts"]["failed"] == 1
    predicted = run(kernel, [UDP], check=True, scope={"protocol": "udp"})
    assert predicted == run(kernel, [UDP], scope={"protocol": "udp"})
    assert predicted["counts"] == {
        "created": 1, "updated": 0, "replaced": 0, "deleted": 1, "unchanged": 0, "failed": 0
    }  # fmt: skip


def test_a_child_may_be_declared_before_its_master() -> None:
    master = flow(0)
    child = flow(1, master={**master["original"], "protocol": "udp"})
    grandchild = flow(2, master={**child["original"], "protocol": "udp"})
    documents = [grandchild, child, master]
    assert run(Kernel(), documents, check=True)["counts"]["created"] == 3
    kernel = Kernel()
    result = run(kernel, documents)
    assert result["counts"]["created"] == 3
    there = held(kernel, grandchild)
    assert there is not None
    assert there.master is held(kernel, child)


ZONED: list[Document] = [{}, {"zone": 5}, {"original": {"zone": 5}}, {"reply": {"zone": 5}}]


def zoned(number: int, zone: Document, **keys: Any) -> Document:
    original = flow(number)["original"]
    turned = {"source": "destination", "source_port": "destination_port"}
    turned.update({there: here for here, there in turned.items()})
    reply = {turned[key]: value for key, value in original.items()}
    whole = flow(number, reply=reply, **keys)
    return {**whole, **{key: {**whole[key], **more} if key in whole else more for key, more in zone.items()}}


@pytest.mark.parametrize("of_master", ZONED, ids=str)
@pytest.mark.parametrize("of_child", ZONED, ids=str)
def test_master_is_found_in_the_same_zones_as_by_the_kernel(of_child: Document, of_master: Document) -> None:
    """The order of the two documents does not matter, nor whether the master already exists."""
    master = zoned(0, of_master)
    child = zoned(1, of_child, master={**flow(0)["original"], "protocol": "udp"})
    kernel = filled([master])
    with kernel.table() as table:
        accepted = next(table.create_declared([child])) is None
    for there, documents in ([], [child, master]), ([master], [child]):
        wanted = len(documents) if accepted else len(documents) - 1
        assert run(filled(there), documents, check=True)["counts"]["created"] == wanted
        kernel = filled(there)
        assert run(kernel, documents)["counts"]["created"] == wanted
        assert not accepted or kernel.connections[1].master is kernel.connections[0]


def test_child_without_its_master_does_not_fail_the_others() -> None:
    child = flow(1, master={**flow(0)["original"], "protocol": "udp"})
    result = run(Kernel(), [child, flow(2)])
    assert result["counts"]["created"] == 1
    assert "create the master first" in result["failed_entries"][0]["msg"]


def test_entries_that_are_each_others_masters_are_ordered() -> None:
    documents = [
        flow(0, master={**flow(1)["original"], "protocol": "udp"}),
        flow(1, master={**flow(0)["original"], "protocol": "udp"}),
    ]
    assert sorted(masters_first([from_document(document) for document in documents])) == [0, 1]
    assert run(Kernel(), documents)["counts"]["failed"] == 2


@pytest.mark.parametrize("carried_out", [False, True])
def test_purge_with_lost_answers_is_reported_as_a_change(carried_out: bool) -> None:
    kernel = filled([UDP])
    lost = Fault(errno.ETIMEDOUT, True, carried_out)

    def from_now_on(number: int, request: Any) -> None:
        if request.type == DELETE:
            kernel.faults = dict.fromkeys(range(number, 100), lost)

    kernel.meanwhile = from_now_on
    result = run(kernel, [], scope={"protocol": "udp"})
    assert result["changed"]


def test_labels_without_a_rule_are_a_failure() -> None:
    result = run(Kernel(label_rule=False), [flow(0, labels=[1]), flow(1)])
    assert result["counts"]["created"] == 1
    assert "Labels are kept only where a rule" in result["failed_entries"][0]["msg"]


def test_nated_entries_can_be_deleted_by_their_reply_tuples() -> None:
    flows = [{**FLOW, "source_port": port} for port in range(1, 30)]
    nat = {"source": {"address": "198.51.100.1"}}
    kernel = filled([{"protocol": "udp", "original": flow, "nat": nat} for flow in flows])
    with kernel.table() as table:
        replies = [{"protocol": "udp", "reply": to_document(entry)["reply"]} for entry in table.dump()]
    documents = [*replies[:20], {"protocol": "udp", "original": flows[19]}, {"protocol": "udp", "original": flows[20]}]
    kernel.forget()
    predicted = run(kernel, documents, check=True, state="absent")
    assert len(kernel.requests) < 2 * len(documents)
    done = run(kernel, documents, state="absent")
    assert done == predicted
    assert (done["counts"]["deleted"], done["counts"]["unchanged"]) == (21, 1)
    assert done["changes"][0]["entry"]["original"] == flows[0]
    assert sorted(there.tuples[0].more[0] for there in kernel.connections) == list(range(22, 30))
    again = run(kernel, documents, state="absent")
    assert (again["changed"], again["counts"]["unchanged"]) == (False, 22)


def test_duplicate_reply_tuples_are_refused() -> None:
    document = {"protocol": "udp", "reply": FLOW}
    others = [{**document, "zone": 5}, {"protocol": "udp", "original": FLOW}]
    assert len(parse_entries([document, *others], absent=True)) == 3
    with pytest.raises(InvalidValue, match=r"entries\[3\]: declares the same entry as entries\[0\], udp .* \(reply\)"):
        parse_entries([document, *others, document], absent=True)


@pytest.mark.parametrize("state", ["present", "absent"])
def test_missing_privilege_is_reported_once(state: str) -> None:
    kernel = Kernel()
    kernel.faults = {number: Fault(errno.EPERM) for number in range(100)}
    with pytest.raises(NotPermitted):
        run(kernel, [flow(number) for number in range(40)], state=state)


def test_entry_that_ended_during_the_run_is_created_again() -> None:
    kernel = filled([flow(0)])

    def meanwhile(number: int, request: Any) -> None:
        if number == 1:  # after the first read
            kernel.drop(kernel.connections[0])

    kernel.meanwhile = meanwhile
    result = run(kernel, [flow(0, mark=3)])
    assert result["counts"]["created"] == 1
    assert kernel.connections[0].mark == 3
