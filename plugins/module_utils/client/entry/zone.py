# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Conntrack zones: numbers from 1 to 65535 that keep equal tuples of different networks apart. 0 is the default zone.

An entry is in one zone in both directions (`zone`), or in a zone of its own in one direction (`original.zone` or
`reply.zone`). The other direction is then in zone 0. An entry never has two of these keys; an absent key is 0.
`match/keys.py` has the match keys `zone`, `original_zone` and `reply_zone`. An expectation is in the zone of its
master: see `located` in `expectation/expectation.py`.

Source: include/net/netfilter/nf_conntrack_zones.h; ctnetlink_parse_zone and ctnetlink_parse_tuple_zone in
net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

from typing import Any, Mapping

from ..errors import InvalidValue

#: The keys of an entry that name a zone.
ZONE_KEYS = ("zone", "original.zone", "reply.zone")


def zone_keys_of(entry: Mapping[str, Any]) -> list[str]:
    """Return the keys under which an entry has a zone other than 0."""
    return [key for key in ZONE_KEYS if entry.get(key)]


def zone_of(entry: Mapping[str, Any], direction: str) -> int:
    """Return the zone in which the kernel keeps the tuple of a direction: `original` or `reply`."""
    zone: int = entry.get(f"{direction}.zone") or entry.get("zone") or 0
    return zone


def any_zone(entry: Mapping[str, Any]) -> int:
    """Return the zone of an entry, whether it has one for both directions or for one of them."""
    return next((entry[key] for key in zone_keys_of(entry)), 0)


def check_zones(entry: Mapping[str, Any]) -> None:
    """Raise `InvalidValue` if an entry has two zones, or names a zone for its master."""
    keys = zone_keys_of(entry)
    if len(keys) > 1:
        raise InvalidValue(
            keys[1],
            f"{keys[0]} is set, too. An entry has one zone, for both directions or for one of them; leave one of these "
            "keys out",
        )
    if "master.zone" in entry:
        raise InvalidValue("master.zone", "a master is in the zone of its entry; leave it out")
