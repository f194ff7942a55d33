# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a sample counts every entry, shows the first entries and keeps the entries with the longest timeouts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import LayoutCache
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.sample import EntrySample
from ansible_collections.netops.conntrack.plugins.module_utils.client.dump.scan import DumpDecoder
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support import strategies, wire


def scanned(entries: list[Entry], layouts: LayoutCache, shown: int, kept: int) -> EntrySample:
    census = EntrySample(shown, kept)
    scan = DumpDecoder(census, None, layouts)
    for number, entry in enumerate(entries):
        payload = bytes([entry["family"], 0, 0, 0]) + ENTRIES.encode(entry)
        scan.feed(wire.framed(0x0100, 2, number, payload))
    return census


class NoLayouts(LayoutCache):
    """A cache without layouts, so that the general decoder reads every message."""

    most = 0


@examples(60)
@given(st.lists(strategies.live_entries(), max_size=12), st.integers(0, 5), st.integers(0, 5))
@pytest.mark.parametrize("layouts", [LayoutCache, NoLayouts])
def test_kept_entries_have_the_longest_timeouts(layouts: Any, entries: list[Entry], shown: int, kept: int) -> None:
    """An entry without a timeout can end at any time."""
    census = scanned(entries, layouts(ENTRIES), shown, kept)
    assert census.count == len(entries)
    assert [entry["original.source"] for entry in census.first] == [e["original.source"] for e in entries[:shown]]
    left = [entry.get("timeout", 0) for entry in entries]
    assert [entry.get("timeout", 0) for entry in census.longest] == sorted(left, reverse=True)[:kept]
