# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the zones, because a wrong zone changes or deletes the same tuple in another network."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.zone import any_zone, check_zones, zone_of
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue


@pytest.mark.parametrize(
    ("entry", "original", "reply", "either"),
    [
        ({}, 0, 0, 0),
        ({"zone": 5}, 5, 5, 5),
        ({"original.zone": 5}, 5, 0, 5),
        ({"reply.zone": 5}, 0, 5, 5),
        ({"zone": 0, "reply.zone": 5}, 0, 5, 5),
    ],
)
def test_the_zone_of_each_direction(entry: dict[str, Any], original: int, reply: int, either: int) -> None:
    assert (zone_of(entry, "original"), zone_of(entry, "reply"), any_zone(entry)) == (original, reply, either)
    check_zones(entry)


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"zone": 5, "original.zone": 5}, "original.zone"),
        ({"original.zone": 5, "reply.zone": 6}, "reply.zone"),
        ({"master.zone": 5}, "master.zone"),
    ],
)
def test_conflicting_zones_and_a_zone_of_the_master_are_refused(entry: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidValue) as error:
        check_zones(entry)
    assert error.value.key == key
    assert "leave" in error.value.problem
