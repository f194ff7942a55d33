# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A match asked of the bytes answers as the match asked of the entry: else a flush takes what it should not."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.layout import Layouts
from ansible_collections.netops.conntrack.plugins.module_utils.client.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.term import (
    ALWAYS,
    Either,
    Every,
    Masked,
    Not,
    Term,
    Told,
    Within,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.wire import Sieve, sieve
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils.client import wire
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils.client.strategies import (
    NOW,
    live_entries,
    matches,
    raw_entries,
)

entries = st.one_of(live_entries(), raw_entries())


def sifted(term: Term, entry: Any) -> tuple[Sieve, bool, Any]:
    """The sieve, whether a message of this entry goes through it, and the entry that the message says."""
    data = wire.framed(0x0100, 2, 1, struct.pack(">BBH", entry["family"], 0, 0) + ENTRIES.encode(entry))
    layouts = Layouts(ENTRIES)
    layout = layouts.of(data)
    assert layout is not None
    made = sieve(term, layout)
    return made, made.holds(layout, data, 0, int.from_bytes(data, "big")), layouts.decode(data)


@pytest.fixture(autouse=True)
def _fixed_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)


def answers(term: Term, entry: Any) -> Any:
    """True, False, or why it cannot be told."""
    try:
        return term.compile()(entry)
    except Exception as error:
        return str(error)


def answers_on_the_wire(term: Term, entry: Any) -> Any:
    try:
        return sifted(term, entry)[1]
    except Exception as error:
        return str(error)


@settings(max_examples=200, deadline=None)
@given(matches(), entries)
def test_any_match_answers_alike(raw: Any, entry: Any) -> None:
    try:
        term = parse_match(raw).term
    except ValueError:
        return
    said = answers(term, entry)
    if isinstance(said, str):  # an entry that cannot be told may be one that cannot match, too
        assert answers_on_the_wire(term, entry) in (said, False)
    else:
        assert answers_on_the_wire(term, entry) is said


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


def asked(raw: Any) -> Sieve:
    return sifted(parse_match(raw).term, FLOW)[0]


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
    made = asked(raw)
    assert not made.never
    assert made.question is None
    assert made.predicate is None


@pytest.mark.parametrize("raw", [{"protocol": "udp"}, {"family": "ipv6"}, {"source": "2001:db8::/32"}, {"icmp_id": 1}])
def test_a_layout_that_cannot_match_is_not_asked(raw: Any) -> None:
    assert asked(raw).never


@pytest.mark.parametrize("ends", [(443, 443), (443, 444), (444, 445), (440, 447), (442, 449), (0, 443), (443, 65535)])
def test_ranges_end_where_they_end(ends: tuple[int, int]) -> None:
    """Whether or not they are the blocks that a mask can say."""
    term = Within(("original.destination_port",), (ends,))
    for port in range(436, 453):
        assert sifted(term, {**FLOW, "original.destination_port": port})[1] is (ends[0] <= port <= ends[1])


def test_what_contradicts_itself_holds_for_nothing() -> None:
    for term in (
        Every((Masked("mark", ((0x1, 0xF),)), Masked("mark", ((0x2, 0xF),)))),
        Every((Masked("mark", ((0x5, 0xF),)), Either((Masked("mark", ((0x0, 0x1),)),)))),
    ):
        assert sifted(term, FLOW)[0].never
        assert not sifted(term, {**FLOW, "mark": 0x3})[1]


def test_what_needs_the_entry_is_asked_last_and_only_of_what_could_match() -> None:
    told: list[Any] = []
    term = Every((Within(("original.destination_port",), ((443, 443),)), Told(lambda entry: not told.append(entry))))
    assert sifted(term, FLOW)[1]
    assert len(told) == 1
    assert not sifted(term, {**FLOW, "original.destination_port": 80})[1]
    assert len(told) == 1


@settings(max_examples=60)
@given(st.data(), live_entries())
def test_terms_of_any_depth_answer_alike(data: Any, entry: Any) -> None:
    leaves = st.one_of(
        st.sampled_from([ALWAYS, Either(()), Told(lambda entry: entry.get("mark", 0) % 2 == 0)]),
        st.tuples(st.integers(0, 63), st.integers(0, 63)).map(
            lambda pair: Masked("status", ((pair[0] & pair[1], pair[1]),))
        ),
        st.tuples(st.integers(0, 90), st.integers(0, 90)).map(
            lambda ends: Within(("original.destination_port", "reply.destination_port"), ((min(ends), max(ends)),), 0)
        ),
    )
    terms = st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, max_size=3).map(lambda parts: Every(tuple(parts))),
            st.lists(inner, max_size=3).map(lambda parts: Either(tuple(parts))),
        ),
        max_leaves=6,
    )
    term = data.draw(terms)
    _made, holds, entry = sifted(term, entry)
    assert holds == term.compile()(entry)
