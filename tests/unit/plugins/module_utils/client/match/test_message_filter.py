# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a match gives the same answer for a message and for its entry; otherwise a flush removes wrong entries."""

from __future__ import annotations

import struct
import time
from typing import Any, Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import LayoutCache
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.expression import (
    ALWAYS,
    And,
    InRanges,
    MaskEquals,
    Not,
    Or,
    Predicate,
    Term,
    prepared,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.message_filter import (
    CompiledFilter,
    compile_for_layout,
)
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import wire
from ansible_collections.netops.conntrack.tests.unit.support.strategies import (
    NOW,
    live_entries,
    many_matches,
    matches,
    raw_entries,
)

entries = st.one_of(live_entries(), raw_entries())


def filtered(term: Term, entry: Any) -> tuple[CompiledFilter, bool, Any]:
    """Return the compiled filter, whether the entry's message passes it, and the decoded entry."""
    data = wire.framed(0x0100, 2, 1, struct.pack(">BBH", entry["family"], 0, 0) + ENTRIES.encode(entry))
    layouts = LayoutCache(ENTRIES)
    layout = layouts.of(data)
    assert layout is not None
    made = compile_for_layout(term, layout)
    return made, made.flags(data) == b"\1", layouts.decode(data)


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)


def answers(term: Term, entry: Any) -> Any:
    """Return True, False, or the error message if the term cannot be evaluated."""
    try:
        return term.compile()(entry)
    except Exception as error:
        return str(error)


def answers_on_the_wire(term: Term, entry: Any) -> Any:
    try:
        return filtered(term, entry)[1]
    except Exception as error:
        return str(error)


@examples(200)
@given(matches(), entries)
def test_any_match_has_the_same_result_for_message_and_entry(raw: Any, entry: Any) -> None:
    try:
        term = parse_match(raw).term
    except ValueError:
        return
    expected = answers(term, entry)
    if isinstance(expected, str):  # the filter can still exclude an entry for which the term cannot be evaluated
        assert answers_on_the_wire(term, entry) in (expected, False)
    else:
        assert answers_on_the_wire(term, entry) is expected


@examples(120)
@given(many_matches(), entries)
def test_many_alternatives_have_the_same_result_for_message_and_entry(raw: Any, entry: Any) -> None:
    parsed = []
    for one in raw:
        try:
            parsed.append(parse_match(one).term)
        except ValueError:
            continue
    term = Or(tuple(parsed))
    expected = answers(term, entry)
    assert answers(prepared(term), entry) == expected, "also for terms that cannot be evaluated"
    assert answers(prepared(Not(term)), entry) == (expected if isinstance(expected, str) else not expected)
    assert answers_on_the_wire(prepared(term), entry) in (
        (expected, False) if isinstance(expected, str) else (expected,)
    )
    if not isinstance(expected, str):
        assert answers_on_the_wire(prepared(Not(term)), entry) is not expected


FLOW = {
    "family": 2,
    "original.protocol": 6,
    "original.source": b"\n\0\0\1",
    "original.destination": b"\n\0\0\2",
    "original.source_port": 4000,
    "original.destination_port": 443,
    "mark": 0x15,
    "status": 0xE,
    "timeout": 60,
}


#: Messages of one layout.
GROUP = [
    {**FLOW, "original.source_port": source, "original.destination_port": destination, "mark": mark, "timeout": timeout}
    for source in (1, 443, 40_000)
    for destination in (80, 443)
    for mark in (0, 1, 0x10001)
    for timeout in (0, 60)
]
#: Terms of each kind of condition, also combined and negated; each matches some messages of the group.
GROUP_TERMS = {
    "mask": parse_match({"destination_port": 443, "mark": "1/1"}).term,
    "bits outside of the mask": Or((MaskEquals("mark", ((0x10000, 1), (0x10001, 0xFFFFFFFF))),)),
    "one of several": parse_match({"port": 443, "mark": 1}).term,
    "exception": parse_match({"destination_port": 443, "except": {"mark": 1}}).term,
    "exception of several": parse_match({"source_port": 443, "except": {"mark": [0, 1]}}).term,
    "exception of both": parse_match({"family": "ipv4", "except": {"source_port": 1, "mark": 1}}).term,
    "range": parse_match({"source_port": "2-45000", "timeout_below": 30}).term,
    "range of either end": parse_match({"port": "400-450", "mark": 0}).term,
    "list": parse_match({"source_port": [1, 2, 3, 5, 443], "mark": 1}).term,
    "list of ranges": parse_match({"source_port": ["1-3", "5-9", "20-30", "400-500"]}).term,
    "list of masks": parse_match({"mark": ["1/1", "2/2", "4/4", "8/8"], "timeout_above": 9}).term,
    "index": prepared(parse_match([{"source_port": at, "mark": at & 1} for at in range(20)]).term),
    "index of masks": prepared(
        parse_match([{"mark": f"{at}/0xffff", "destination_port": 443} for at in range(1, 20)]).term
    ),
    "index and others": prepared(
        Or(tuple(parse_match({"source_port": at}).term for at in range(20)) + (parse_match({"mark": 0x10001}).term,))
    ),
    "predicate": And((MaskEquals("mark", ((1, 1),)), Predicate(lambda entry: entry["original.source_port"] == 443))),
    "negated predicate": Not(And((MaskEquals("mark", ((1, 1),)), Predicate(lambda entry: entry["timeout"] == 60)))),
}


@pytest.mark.parametrize("term", GROUP_TERMS.values(), ids=GROUP_TERMS)
def test_a_group_is_flagged_as_each_of_its_messages(term: Term) -> None:
    framed = [wire.framed(0x0100, 2, 1, b"\2\0\0\0" + ENTRIES.encode(entry)) for entry in GROUP]
    layout = LayoutCache(ENTRIES).of(framed[0])
    assert layout is not None
    compiled, holds = compile_for_layout(term, layout), term.compile()
    wanted = bytes(holds(entry) for entry in GROUP)
    assert 0 in wanted
    assert 1 in wanted
    assert compiled.flags(b"".join(framed)) == wanted
    assert [compiled.flags(one) for one in framed] == [bytes([flag]) for flag in wanted]


def compiled_for_flow(raw: Any) -> CompiledFilter:
    return filtered(parse_match(raw).term, FLOW)[0]


@pytest.mark.parametrize(
    "raw",
    [
        {"protocol": "tcp", "destination_port": 443},
        {"source": "10.0.0.0/8", "mark": "0x5/0xf", "status": "assured"},
        {"destination_port": "256-511"},
        {"zone": 0, "family": "ipv4"},
        {"nat": "none"},
    ],
)
def test_masks_and_constants_are_one_comparison(raw: Any) -> None:
    made = compiled_for_flow(raw)
    assert not made.never
    assert made.test is None
    assert made.predicate is None


@pytest.mark.parametrize("raw", [{"protocol": "udp"}, {"family": "ipv6"}, {"source": "2001:db8::/32"}, {"icmp_id": 1}])
def test_layout_that_cannot_match_is_not_evaluated(raw: Any) -> None:
    assert compiled_for_flow(raw).never


@pytest.mark.parametrize("ends", [(443, 443), (443, 444), (444, 445), (440, 447), (442, 449), (0, 443), (443, 65535)])
def test_ranges_have_exact_bounds(ends: tuple[int, int]) -> None:
    """Some of the ranges can be expressed by one mask, and some cannot."""
    term = InRanges(("original.destination_port",), (ends,))
    for port in range(436, 453):
        assert filtered(term, {**FLOW, "original.destination_port": port})[1] is (ends[0] <= port <= ends[1])


def test_contradictory_terms_match_nothing() -> None:
    for term in (
        And((MaskEquals("mark", ((0x1, 0xF),)), MaskEquals("mark", ((0x2, 0xF),)))),
        And((MaskEquals("mark", ((0x5, 0xF),)), Or((MaskEquals("mark", ((0x0, 0x1),)),)))),
    ):
        assert filtered(term, FLOW)[0].never
        assert not filtered(term, {**FLOW, "mark": 0x3})[1]


def test_predicates_are_evaluated_last_and_only_for_possible_matches() -> None:
    recorded: list[Any] = []
    term = And(
        (InRanges(("original.destination_port",), ((443, 443),)), Predicate(lambda entry: not recorded.append(entry)))
    )
    assert filtered(term, FLOW)[1]
    assert len(recorded) == 1
    assert not filtered(term, {**FLOW, "original.destination_port": 80})[1]
    assert len(recorded) == 1


@examples(60)
@given(st.data(), live_entries())
def test_nested_terms_have_the_same_result_for_message_and_entry(data: Any, entry: Any) -> None:
    leaves = st.one_of(
        st.sampled_from([ALWAYS, Or(()), Predicate(lambda entry: entry.get("mark", 0) % 2 == 0)]),
        st.tuples(st.integers(0, 63), st.integers(0, 63)).map(
            lambda pair: MaskEquals("status", ((pair[0] & pair[1], pair[1]),))
        ),
        st.tuples(st.integers(0, 90), st.integers(0, 90)).map(
            lambda ends: InRanges(("original.destination_port", "reply.destination_port"), ((min(ends), max(ends)),), 0)
        ),
    )
    terms = st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts))),
        ),
        max_leaves=6,
    )
    term = data.draw(terms)
    _made, holds, entry = filtered(term, entry)
    assert holds == term.compile()(entry)


class Counted(int):
    """A message that counts comparisons and shifts."""

    operations = 0

    def __and__(self, other: int) -> int:
        Counted.operations += 1
        return int(self) & other

    def __rshift__(self, other: int) -> int:
        Counted.operations += 1
        return int(self) >> other


class CountedEntry(Dict[str, Any]):
    """An entry that counts its lookups."""

    lookups = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.lookups += 1
        return super().get(key, default)


def services(number: int) -> list[Any]:
    """Return a match for flows to services whose reply does not come from a current endpoint of the service."""
    return [
        {
            "protocol": "tcp",
            "destination": f"10.96.{at // 250}.{at % 250}",
            "destination_port": 443 + at % 3,
            "except": {"reply_source": [f"10.244.{at // 250}.{at % 250}", "10.244.255.1"]},
        }
        for at in range(number)
    ]


MANY = {
    "services": services(1000),
    "services in an exception": {"protocol": "tcp", "except": services(1000)},
    "ports of one address": [
        {"destination": "10.0.0.2", "destination_port": port, "except": {"mark": 1}} for port in range(1000)
    ],
    "networks": [{"destination": f"10.{at % 250}.{at // 250}.0/24", "except": {"mark": 1}} for at in range(1000)],
    "ranges": [
        {"destination": f"10.{at % 250}.{at // 250}.1-10.{at % 250}.{at // 250}.9", "except": {"mark": 1}}
        for at in range(1000)
    ],
    "addresses of either end": [
        {"address": f"10.{at % 250}.{at // 250}.2", "except": {"mark": 1}} for at in range(1000)
    ],
    "marks": [{"mark": f"{at}/0xffff", "except": {"protocol": "udp"}} for at in range(1000)],
    "ranges of one key": {"destination_port": [f"{at * 60}-{at * 60 + 28}" for at in range(1000)]},
    "networks of one key": {
        "destination": [f"10.{at % 250}.{at // 250 * 64}.0/{18 + at % 7}" for at in range(1000)],
        "except": {"mark": 1},
    },
    "marks of one key": {"mark": [f"{at}/0xffff" for at in range(1000)], "except": {"mark": 1}},
}


@pytest.mark.parametrize("raw", MANY.values(), ids=MANY)
def test_a_thousand_alternatives_take_few_comparisons(raw: Any) -> None:
    """Otherwise a million entries would take seconds."""
    term = prepared(parse_match(raw).term)
    linear = parse_match(raw).term.compile()
    holds = term.compile()
    for destination, port, mark in (
        (b"\n\0\0\2", 443, 0),
        (b"\n\x60\0\2", 445, 7),
        (b"\n\x60\3\xf9", 443, 999),
        (b"\xc0\0\2\1", 59_969, 1),
    ):
        entry = {**FLOW, "original.destination": destination, "original.destination_port": port, "mark": mark}
        data = wire.framed(0x0100, 2, 1, struct.pack(">BBH", 2, 0, 0) + ENTRIES.encode(entry))
        layout = LayoutCache(ENTRIES).of(data)
        assert layout is not None
        made = compile_for_layout(term, layout)
        message = Counted.from_bytes(data, "big")
        assert (made.flags(data) == b"\1") is linear(entry)  # this compiles the tests of a branch
        Counted.operations = 0
        assert made.test is None or made.test(message) or not linear(entry)
        assert Counted.operations + len(made.group_tests) <= 10
        counted = CountedEntry(entry)
        assert holds(counted) is linear(entry)
        assert counted.lookups <= 10


def test_terms_that_can_raise_are_evaluated_in_the_written_order() -> None:
    """The answer must not depend on the number of alternatives."""
    recorded = [
        And((InRanges(("mark",), ((at, at),)), Predicate(lambda entry, at=at: seen.append(at) or at == 15)))
        for at in (15, 14, 13)
    ]
    seen: list[int] = []
    first = Predicate(lambda entry: bool(seen.append(0)))
    rest = [InRanges(("mark",), ((at, at),)) for at in range(100, 120)]
    term = prepared(Or((first, *recorded, *rest)))
    assert term.compile()({**FLOW, "mark": 15})
    assert seen == [0, 15]
    seen.clear()
    indexed = prepared(Or((*recorded, *recorded, *recorded, *recorded)))
    assert indexed.compile()({**FLOW, "mark": 14}) is False
    assert seen == [14] * 4
