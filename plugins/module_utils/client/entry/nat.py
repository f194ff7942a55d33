# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""NAT: how the tuples of an entry tell what the kernel translates.

Source: net/netfilter/nf_nat_core.c.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from .. import uapi


class Translation(NamedTuple):
    """What one end of a connection is translated to; None is unchanged."""

    address: bytes | None
    port: int | None


def translations(entry: Mapping[str, Any]) -> dict[str, Translation]:
    """The address translation in force, by `source` and `destination`.

    The kernel never says it; it follows from the status bits and from what the reply tuple has
    in place of the turned original. `port` stands for the ICMP id or the GRE key as well, there
    only where it was changed.
    """
    status = entry.get("status", 0)
    found: dict[str, Translation] = {}
    for end, bit, answered_by in (
        ("source", uapi.IPS_SRC_NAT, "destination"),
        ("destination", uapi.IPS_DST_NAT, "source"),
    ):
        if not status & bit or f"reply.{answered_by}" not in entry:
            continue
        port = entry.get(f"reply.{answered_by}_port")
        if port is None:
            was, port = entry.get(f"original.{end}_key"), entry.get(f"reply.{answered_by}_key")
            if "reply.icmp_id" in entry and "source" not in found:  # one id serves both ends
                was, port = entry.get("original.icmp_id"), entry["reply.icmp_id"]
            port = None if port == was else port
        found[end] = Translation(entry[f"reply.{answered_by}"], port)
    return found
