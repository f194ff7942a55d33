# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that an expectation is created as declared and the result is correct, also after concurrent changes."""

from __future__ import annotations

import errno
import itertools
import re
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._operations.flush import (
    ExpectationDeletionPlan,
    FlushFailed,
    flush,
)
from ansible_collections.netops.conntrack.plugins.module_utils._operations.info import TABLES, collect
from ansible_collections.netops.conntrack.plugins.module_utils._operations.resource import resource_of
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.expectation import reconcile
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import CannotReconcile, Policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document as parse_entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation.expectation import (
    from_document,
    parse_match,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING
from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import UNLIMITED
from ansible_collections.netops.conntrack.tests.unit.support import wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import (
    Attributes,
    Fault,
    Kernel,
    Refused,
    encoded,
    number,
    tuple_attributes,
    u16,
    u32,
)
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import (
    ACK,
    CREATE,
    DUMP,
    EXCL,
    MULTI,
    Reply,
    done,
    refusal,
)

Document = Dict[str, Any]

NEW, GET, DELETE = 0x0200, 0x0201, 0x0202
HELPERS_TIMEOUT = 300
NO_LABELS = LabelMap()

CONTROL = {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21}
EXPECTED = {"protocol": "tcp", "source": "192.0.2.21", "destination": "10.1.0.2", "destination_port": 4000}
DECLARED: Document = {"tuple": EXPECTED, "master": CONTROL}


class Expectation:
    """An expectation with the tuple, the mask and the other attributes as sent."""

    def __init__(self, master: Any, attributes: Attributes, deadline: float, number_: int) -> None:
        self.master = master
        self.attributes = attributes
        self.deadline = deadline
        self.id = number_

    @property
    def zone(self) -> int:
        zone: int = self.master.zone.number
        return zone

    def covers(self, wanted: Attributes) -> bool:
        """Return whether the expectation's tuple covers this tuple under the mask; the destination must be equal."""
        mine, mask = self.attributes[2], self.attributes[3]
        if {1, 2} & set(wanted[1]):
            source, destination = 1, 2
        else:
            source, destination = 3, 4
        if wanted[1].get(destination) != mine[1].get(destination):
            return False
        pairs = [(wanted[1][source], mine[1][source], mask[1][source]), (wanted[2][2], mine[2][2], mask[2][2])]
        same = all((number(one) ^ number(other)) & number(bits) == 0 for one, other, bits in pairs)
        return same and all(wanted[2].get(key) == mine[2].get(key) for key in (1, 3))


class ExpectingKernel(Kernel):
    """A kernel with expectations; each class of each master has room for `room` expectations."""

    def __init__(self, room: int = 2) -> None:
        super().__init__()
        self.room = room
        self.expectations: list[Expectation] = []
        self._expectation_ids = itertools.count(7000)

    @property
    def writes(self) -> list[wire.Framed]:
        return [request for request in self.requests if request.type in (NEW, DELETE)]

    def _answers(self, request: wire.Framed) -> list[Reply]:
        if request.type not in (NEW, GET, DELETE):
            return super()._answers(request)
        self.expectations = [one for one in self.expectations if one.deadline > self.now]
        family, attributes = request.payload[0], wire.tree(request.payload[4:])
        zone = number(attributes.get(7, b"\0"))
        if request.flags & DUMP == DUMP:
            return self._dump(request, family, attributes)
        answers: list[Reply] = []
        if request.type == DELETE and 2 not in attributes:
            self.expectations = []
        elif request.type == NEW:
            self._expect(family, attributes, zone, request.flags)
        else:
            found = self.expected(attributes[2], zone)
            if found is None:
                raise Refused(errno.ENOENT)
            if request.type == GET:
                answers.append(wire.framed(NEW, MULTI, request.sequence, self._expectation_payload(family, found)))
            elif 5 in attributes and number(attributes[5]) != found.id:
                raise Refused(errno.ENOENT)
            else:
                self.expectations.remove(found)
        return answers + ([refusal(request, 0)] if request.flags & ACK else [])

    def _dump(self, request: wire.Framed, family: int, attributes: Attributes) -> list[Reply]:
        found = [one for one in self.expectations if family in (0, one.master.family)]
        if 1 in attributes:
            master = self.find(family, self._ends_in(attributes[1]), self._zone_in(attributes_of_zone(attributes)))
            if master is None:
                raise Refused(errno.ENOENT)
            if not master.helper:
                return [refusal(request, 0)]
            found = [one for one in found if one.master is master]
        payloads = [self._expectation_payload(one.master.family, one) for one in found]
        return [*(wire.framed(NEW, MULTI, request.sequence, payload) for payload in payloads), done(request)]

    def expected(self, wanted: Attributes, zone: int) -> Expectation | None:
        return next((one for one in self.expectations if one.zone == zone and one.covers(wanted)), None)

    def _expect(self, family: int, attributes: Attributes, zone: int, flags: int) -> None:
        if not {1, 2, 3} <= set(attributes):
            raise Refused(errno.EINVAL)
        found = self.expected(attributes[2], zone)
        if found is not None and flags & EXCL:
            raise Refused(errno.EEXIST)
        if found is not None:
            if 4 in attributes:
                found.deadline = self.now + number(attributes[4])
            return
        if not flags & CREATE:
            raise Refused(errno.ENOENT)
        master = self.find(family, self._ends_in(attributes[1]), self._zone_in(attributes_of_zone(attributes)))
        if master is None:
            raise Refused(errno.ENOENT)
        if not master.helper:
            raise Refused(errno.EOPNOTSUPP)
        if number(attributes.get(9, b"\0")) > 1 or attributes.get(11, b"nat-follow-master\0") != b"nat-follow-master\0":
            raise Refused(errno.EINVAL)
        siblings = [one for one in self.expectations if one.master is master]
        siblings = [one for one in siblings if one.attributes.get(9) == attributes.get(9)]
        if len(siblings) >= self.room:
            self.expectations.remove(siblings[0])
        made = Expectation(master, attributes, self.now + HELPERS_TIMEOUT, next(self._expectation_ids))
        self.expectations.append(made)

    def _expectation_payload(self, family: int, one: Expectation) -> bytes:
        shown = {key: value for key, value in one.attributes.items() if key not in (4, 6, 7)}
        shown[1] = tuple_attributes(family, one.master.tuples[0])
        shown[4] = u32(int(one.deadline - self.now))
        shown[5], shown[6] = u32(one.id), one.master.helper.encode() + b"\0"
        shown[8] = u32(number(shown.get(8, b"\0")) & 3)
        shown[9] = u32(number(shown.get(9, b"\0")))
        return bytes([family, 1, 0, 0]) + encoded(shown)


def attributes_of_zone(attributes: Attributes) -> Attributes:
    """Convert the zone of an expectation's message to the attribute that a connection uses."""
    return {18: u16(number(attributes[7]))} if 7 in attributes else {}


def control(port: int = 1400) -> Document:
    return {**CONTROL, "source_port": port}


def announced(port: int = 4000, **more: Any) -> Document:
    return {**EXPECTED, "destination_port": port, **more}


@pytest.fixture
def kernel() -> ExpectingKernel:
    return filled()


def filled(room: int = 2) -> ExpectingKernel:
    """Return a kernel with four sessions: three with a helper, one of them in a zone, and one without a helper."""
    kernel = ExpectingKernel(room)
    with kernel.table() as table:
        for document in ({}, {"zone": 5}, {"original": control(1402)}, {"original": control(1401), "helper": None}):
            whole = {"protocol": "tcp", "original": CONTROL, "helper": "ftp", "timeout": 600, **document}
            table.create(parse_entry(whole))
    kernel.forget()
    return kernel


def run(kernel: Kernel, document: Document, check: bool = False, **policy: Any) -> Document:
    """Run the module once. A failure returns its result, with the message under `msg`."""
    failure = None
    result: Document = {}
    try:
        with kernel.table() as table:
            result = reconcile(table, from_document(document), Policy(**policy), check)
    except CannotReconcile as error:
        failure, result = error, error.result
    keys = {"changed", "operation", "before", "changes"}
    assert set(result) >= keys if failure else set(result) == keys | {"expectation", "evicted", "diff"}
    assert result["changed"] == (result["operation"] != "unchanged")
    return {"msg": str(failure), **result} if failure else result


masks = st.sampled_from([None, {"source_port": 0}, {"source_port": 0xFFFF}, {"source": "255.255.255.0"}])
declarations = st.fixed_dictionaries(
    {"tuple": st.sampled_from([announced(), announced(4001), announced(source_port=20)]), "master": st.just(CONTROL)},
    optional={
        "zone": st.just(5),
        "mask": masks,
        "flags": st.sampled_from([[], ["permanent"], ["inactive", "permanent"]]),
        "function": st.sampled_from(["", "nat-follow-master"]),
        "nat": st.just({"direction": "reply", "tuple": {"source_port": 7}}),
        "timeout": st.sampled_from([60, 900]),
        "class": st.sampled_from([0, 1]),
    },
)


@given(st.lists(declarations, max_size=3), declarations, st.booleans())
def test_run_is_idempotent_and_predicted_by_check_mode(
    others: list[Document], document: Document, replace: bool
) -> None:
    kernel = filled()
    for other in others:
        run(kernel, other, replace=True)
    kernel.forget()
    predicted = run(kernel, document, check=True, replace=replace)
    assert kernel.writes == []
    result = run(kernel, document, replace=replace)
    assert {key: predicted.get(key) for key in ("operation", "changes", "before", "diff", "msg")} == {
        key: result.get(key) for key in ("operation", "changes", "before", "diff", "msg")
    }
    if "msg" in result:
        assert not result["changed"]
        return
    shown = {key: value for key, value in predicted["expectation"].items() if key not in ("id", "timeout")}
    assert shown.items() <= result["expectation"].items()
    if "timeout" in document and result["operation"] == "created":
        assert result["expectation"]["timeout"] == document["timeout"]
    kernel.forget()
    again = run(kernel, document, replace=replace)
    assert (again["operation"], again["changes"], kernel.writes) == ("unchanged", [], [])
    redeclared = run(kernel, result["expectation"])
    assert redeclared["operation"] == "unchanged"
    gone = run(kernel, document, state="absent")
    assert (gone["operation"], gone["before"]["id"]) == ("deleted", result["expectation"]["id"])
    assert run(kernel, document, state="absent")["operation"] == "unchanged"


def test_a_declared_timeout_is_set_after_the_creation(kernel: ExpectingKernel) -> None:
    assert run(kernel, {**DECLARED, "timeout": 60})["expectation"]["timeout"] == 60
    assert [request.flags & (CREATE | EXCL) for request in kernel.writes] == [CREATE | EXCL, 0]


def test_timeout_is_refreshed_only_on_request(kernel: ExpectingKernel) -> None:
    run(kernel, {**DECLARED, "timeout": 60})
    kernel.pass_time(50)
    assert run(kernel, {**DECLARED, "timeout": 60})["operation"] == "unchanged"
    result = run(kernel, {**DECLARED, "timeout": 60}, timeout_min=11)
    assert result["changes"] == [{"key": "timeout", "before": 10, "after": 60}]
    assert result["diff"]["after"]["timeout"] == 60


@pytest.mark.parametrize(
    ("policy", "operation"),
    [({"on_existing": "keep"}, "unchanged"), ({"on_existing": "fail"}, "failed"), ({}, "failed")],
)
def test_existing_expectation_that_differs_follows_on_existing(
    kernel: ExpectingKernel, policy: Document, operation: str
) -> None:
    run(kernel, {**DECLARED, "flags": ["permanent"]})
    kernel.forget()
    result = run(kernel, {**DECLARED, "flags": []}, **policy)
    assert ("failed" if "msg" in result else result["operation"]) == operation
    assert kernel.writes == []
    if "msg" in result:
        assert "flags" in result["msg"]
        assert "set " in result["msg"]


def test_replace_keeps_undeclared_values(kernel: ExpectingKernel) -> None:
    nat = {"direction": "reply", "tuple": {"source_port": 7}}
    run(kernel, {**DECLARED, "timeout": 60, "function": "nat-follow-master", "nat": nat, "zone": 5})
    result = run(kernel, {**DECLARED, "zone": 5, "class": 1}, replace=True)
    assert (result["operation"], result["evicted"]) == ("replaced", [])
    found = result["expectation"]
    assert (found["class"], found["function"], found["timeout"], found["zone"]) == (1, "nat-follow-master", 60, 5)
    assert found["nat"]["tuple"]["source_port"] == 7


def test_failed_replace_restores_the_old_expectation(kernel: ExpectingKernel) -> None:
    before = run(kernel, {**DECLARED, "timeout": 60})["expectation"]
    result = run(kernel, {**DECLARED, "class": 9}, replace=True)
    assert "has no class 9" in result["msg"]
    assert "deleted and restored" in result["msg"]
    assert (result["operation"], result["changed"]) == ("replaced", True)
    assert {**result["expectation"], "id": 0} == {**before, "id": 0}


def test_evicted_expectations_are_reported() -> None:
    kernel = filled(room=1)
    run(kernel, {"tuple": announced(4000), "master": CONTROL})
    run(kernel, {"tuple": announced(4001), "master": control(1402)})
    result = run(kernel, {"tuple": announced(4002), "master": CONTROL})
    assert [one["tuple"]["destination_port"] for one in result["evicted"]] == [4000]


def test_evicted_expectations_are_reported_if_the_timeout_is_refused() -> None:
    kernel = filled(room=1)
    run(kernel, {"tuple": announced(4000), "master": CONTROL})

    def refuse_updates(number: int, request: Any) -> None:
        if request.type == NEW and not request.flags & CREATE:
            kernel.faults[number] = Fault(errno.EINVAL)

    kernel.meanwhile = refuse_updates
    result = run(kernel, {"tuple": announced(4002), "master": CONTROL, "timeout": 60})
    assert "its timeout cannot be set" in result["msg"]
    assert result["changed"]
    assert [one["tuple"]["destination_port"] for one in result["evicted"]] == [4000]


@pytest.mark.parametrize("carried_out", [True, False])
def test_expectation_with_refused_timeout_is_deleted_despite_a_lost_answer(
    kernel: ExpectingKernel, carried_out: bool
) -> None:
    def refuse_updates(number: int, request: Any) -> None:
        if request.type == NEW and not request.flags & CREATE:
            kernel.faults[number] = Fault(errno.EINVAL)
        elif request.type == DELETE:
            kernel.meanwhile = None
            kernel.faults[number] = Fault(errno.ENOBUFS, lost=True, carried_out=carried_out)

    kernel.meanwhile = refuse_updates
    result = run(kernel, {**DECLARED, "timeout": 60})
    assert "was not created: its timeout cannot be set" in result["msg"]
    assert (result["operation"], kernel.expectations) == ("unchanged", [])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"master": control(9)}, "its master, tcp 10.1.0.2:9 -> 192.0.2.21:21. There is no connection"),
        ({"zone": 6}, r"\(zone 6\). There is no connection"),
        ({"master": control(1401)}, "Its master has no helper"),
        ({"class": 7}, "has no class 7"),
        ({"function": "nonesuch"}, "no function 'nonesuch'"),
        ({"tuple": announced(4321, source_port=7)}, "4321 of the connection .* applies to some of the same connection"),
    ],
)
def test_invalid_expectation_is_refused_with_one_sentence(
    kernel: ExpectingKernel, more: Document, message: str
) -> None:
    run(kernel, {"tuple": announced(4321), "master": control(1402)})
    there = list(kernel.expectations)
    result = run(kernel, {**DECLARED, **more})
    assert not result["changed"]
    assert re.search(message, result["msg"])
    assert "\n" not in result["msg"]
    assert kernel.expectations == there


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"master": {**announced(1400), "source_port": 21}}, "^master: is the reply tuple of a connection"),
        ({"timeout": 0}, "^timeout: 0 would expire immediately"),
        ({"master": None}, "^master: is missing"),
    ],
)
def test_invalid_value_is_found_before_any_change(kernel: ExpectingKernel, more: Document, message: str) -> None:
    there = list(kernel.expectations)
    with pytest.raises(InvalidValue, match=message):
        run(kernel, {**DECLARED, **more})
    assert kernel.expectations == there


@given(st.integers(0, 12), st.sampled_from([errno.ENOBUFS, errno.ETIMEDOUT]), st.booleans(), st.booleans())
def test_lost_answer_is_recovered_or_reported(at: int, code: int, carried_out: bool, there: bool) -> None:
    kernel = filled()
    if there:
        run(kernel, DECLARED)
    kernel.forget()
    kernel.faults = {at: Fault(code, lost=True, carried_out=carried_out)}
    document = {**DECLARED, "timeout": 60, "flags": ["permanent"]}
    result = run(kernel, document, replace=True)
    kernel.faults = {}
    now = run(kernel, document, check=True, replace=True)
    if "msg" not in result:
        assert now["operation"] == "unchanged"
        assert result["operation"] == ("replaced" if there else "created")
    elif result["operation"] == "unchanged":
        assert now["before"].get("flags") == ([] if there else None)


@given(st.integers(0, 8), st.sampled_from(["gone", "there", "unhelped"]))
def test_concurrent_changes_are_not_reported_as_own_changes(at: int, what: str) -> None:
    kernel = filled()

    def meanwhile(served: int, request: wire.Framed) -> None:
        if served != at:
            return
        kernel.meanwhile = None
        if what == "gone":
            kernel.expectations.clear()
        elif what == "there" and not kernel.expectations:
            run(kernel, {**DECLARED, "flags": ["inactive"]})
        else:
            kernel.connections[0].helper = ""

    kernel.meanwhile = meanwhile
    result = run(kernel, {**DECLARED, "flags": ["permanent"]})
    if "msg" not in result:
        assert result["expectation"]["flags"] == ["permanent"]


# Reading and flushing


@pytest.fixture
def several(kernel: ExpectingKernel) -> ExpectingKernel:
    """Create three expectations, one of them in zone 5."""
    for port, more in ((4000, {}), (4001, {"zone": 5}), (4002, {})):
        assert run(kernel, {"tuple": announced(port), "master": CONTROL, "timeout": port - 3900, **more})["changed"]
    kernel.forget()
    return kernel


def ports(entries: list[Document]) -> list[int]:
    return [one["tuple"]["destination_port"] for one in entries]


def read(kernel: Kernel, match: Any = None, sort_by: Any = None, limit: int = 10) -> Document:
    wanted = EVERYTHING if match is None else parse_match(match, NO_LABELS)
    with kernel.table() as table:
        return collect(TABLES["expect"](table, wanted), sort_by, True, limit, NO_LABELS, resource_of("expect"))


def test_expectations_are_read_with_their_zones(several: ExpectingKernel) -> None:
    result = read(several, sort_by="tuple.destination_port")
    assert ports(result["entries"]) == [4002, 4001, 4000]
    assert [one.get("zone", 0) for one in result["entries"]] == [0, 5, 0]
    assert all(one["master"] == {"protocol": "tcp", **CONTROL} for one in result["entries"])
    assert ports(read(several, {"zone": 5})["entries"]) == [4001]
    assert read(several, {"timeout_above": 100}, "timeout", 1) == {
        "entries": read(several, {"destination_port": 4002})["entries"],
        "matched": 2,
        "truncated": True,
    }
    assert several.writes == []


@pytest.mark.parametrize("sort_by", ["bytes", "mark", "original.source", "source"])
def test_expectations_have_their_own_sort_keys(several: ExpectingKernel, sort_by: str) -> None:
    with pytest.raises(ValueError, match=r"not a key to sort by; write one such as timeout, tuple.source"):
        read(several, sort_by=sort_by)


def flushed(kernel: Kernel, match: Any, check: bool = False, limit: int = UNLIMITED) -> Document:
    wanted = EVERYTHING if match is None else parse_match(match, NO_LABELS)
    with kernel.table() as table:
        return flush(ExpectationDeletionPlan(table, wanted, limit=limit), check_mode=check)


def test_only_matching_expectations_are_flushed(several: ExpectingKernel) -> None:
    match = {"destination_port": "4001-4002"}
    predicted = flushed(several, match, check=True)
    assert several.writes == []
    result = flushed(several, match)
    assert result == predicted
    assert (result["flushed"], result["gone"], sorted(ports(result["entries"]))) == (2, 0, [4001, 4002])
    assert result["diff"]["before"].splitlines() == [
        "expectation of tcp 192.0.2.21 -> 10.1.0.2:4001 (zone 5)",
        "expectation of tcp 192.0.2.21 -> 10.1.0.2:4002",
    ]
    assert len(several.expectations) == 1
    assert all(2 in wire.tree(request.payload[4:]) for request in several.writes)
    assert len(several.connections) == 4


def test_flush_above_the_limit_removes_nothing(several: ExpectingKernel) -> None:
    with pytest.raises(FlushFailed, match="3 expectations match, more than the limit of 2: .*. Nothing was removed"):
        flushed(several, None, limit=2)
    assert several.writes == []


def test_successor_of_an_expectation_is_kept(several: ExpectingKernel) -> None:
    def meanwhile(served: int, request: wire.Framed) -> None:
        if request.type == DELETE:
            several.meanwhile = None
            for one in several.expectations:
                one.id += 1000

    several.meanwhile = meanwhile
    result = flushed(several, {"helper": "ftp"})
    assert (result["flushed"], result["gone"]) == (0, 3)
    assert len(several.expectations) == 3
    assert not result["changed"]


@pytest.mark.parametrize("carried_out", [True, False])
def test_deletion_with_a_lost_answer_is_repeated(several: ExpectingKernel, carried_out: bool) -> None:
    def meanwhile(served: int, request: wire.Framed) -> None:
        if request.type == DELETE:
            several.meanwhile = None
            several.faults = {served: Fault(errno.ENOBUFS, lost=True, carried_out=carried_out)}

    several.meanwhile = meanwhile
    result = flushed(several, None)
    assert (result["flushed"], result["gone"], several.expectations) == (3, 0, [])
