# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the attribute table, because a request with a wrong attribute number sets another value.

The test repeats each row from the kernel's headers and not from the table: the path on the wire, a value and its
bytes, and the requests that contain the attribute.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.attributes import (
    ENTRY,
    INSEPARABLE,
    Attribute,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.codec import ENTRIES
from ansible_collections.netops.conntrack.plugins.module_utils.client.ctnetlink import requests
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import to_document
from ansible_collections.netops.conntrack.tests.unit.support import wire

V4, V6 = types.AF_INET, types.AF_INET6
ICMP, ICMPV6, GRE = 1, 58, 47

# key, path, value and its bytes; then the requests that contain it: c(reate), u(pdate), k(ey: get and
# delete too), d(elete), or none; then the only family and protocol that it is for.


def rows_of_tuple(prefix: str, number: int, use: str) -> list[Any]:
    rows: list[Any] = [
        ("source", (1, 1), b"\x0a\0\0\1", "0a000001", V4, None),
        ("destination", (1, 2), b"\x0a\0\0\2", "0a000002", V4, None),
        ("source", (1, 3), bytes(15) + b"\1", "00" * 15 + "01", V6, None),
        ("destination", (1, 4), bytes(15) + b"\2", "00" * 15 + "02", V6, None),
        ("protocol", (2, 1), 17, "11", None, None),
        ("source_port", (2, 2), 4096, "1000", None, None),
        ("destination_port", (2, 3), 53, "0035", None, None),
        ("source_key", (2, 2), 4660, "1234", None, GRE),
        ("destination_key", (2, 3), 1, "0001", None, GRE),
        ("icmp_id", (2, 4), 4242, "1092", None, ICMP),
        ("icmp_type", (2, 5), 8, "08", None, ICMP),
        ("icmp_code", (2, 6), 1, "01", None, ICMP),
        ("icmp_id", (2, 7), 4242, "1092", None, ICMPV6),
        ("icmp_type", (2, 8), 128, "80", None, ICMPV6),
        ("icmp_code", (2, 9), 1, "01", None, ICMPV6),
        ("zone", (3,), 7, "0007", None, None),
    ]
    return [(f"{prefix}.{key}", (number, *path), value, data, use, *only) for key, path, value, data, *only in rows]


def rows_of_nat(end: str, number: int) -> list[Any]:
    return [
        (f"nat.{end}.address_min", (number, 1), b"\x0a\0\0\1", "0a000001", "c", V4, None),
        (f"nat.{end}.address_max", (number, 2), b"\x0a\0\0\2", "0a000002", "c", V4, None),
        (f"nat.{end}.address_min", (number, 4), bytes(16), "00" * 16, "c", V6, None),
        (f"nat.{end}.address_max", (number, 5), bytes(16), "00" * 16, "c", V6, None),
        (f"nat.{end}.port_min", (number, 3, 1), 1024, "0400", "c", None, None),
        (f"nat.{end}.port_max", (number, 3, 2), 1025, "0401", "c", None, None),
    ]


def plain(key: str, path: Any, value: Any, data: str, use: str) -> Any:
    return (key, path, value, data, use, None, None)


EXPECTED: list[Any] = [
    *rows_of_tuple("original", 1, "ck"),
    *rows_of_tuple("reply", 2, "c"),
    *rows_of_tuple("master", 14, "c"),
    *rows_of_nat("source", 6),
    *rows_of_nat("destination", 13),
    plain("zone", (18,), 5, "0005", "ck"),
    plain("status", (3,), 14, "0000000e", "cu"),
    plain("status_mask", (26,), 14, "0000000e", ""),
    plain("timeout", (7,), 432000, "00069780", "cu"),
    plain("mark", (8,), 0xC0FFEE00, "c0ffee00", "cu"),
    plain("mark_mask", (21,), 0xFF, "000000ff", "u"),
    plain("labels", (22,), 1 << 1 | 1 << 77, "02000000000000000020000000000000", "cu"),
    plain("labels_mask", (23,), 1 << 127, "00000000000000000000000000000080", "u"),
    plain("helper", (5, 1), "ftp", "66747000", "cu"),
    plain("tcp.state", (4, 1, 1), 3, "03", "cu"),
    plain("tcp.original.window_scale", (4, 1, 2), 7, "07", "cu"),
    plain("tcp.reply.window_scale", (4, 1, 3), 9, "09", "cu"),
    plain("tcp.original.flags", (4, 1, 4), 3, "03ff", "cu"),
    plain("tcp.reply.flags", (4, 1, 5), 9, "09ff", "cu"),
    plain("dccp.state", (4, 2, 1), 4, "04", "cu"),
    plain("dccp.role", (4, 2, 2), 1, "01", "cu"),
    plain("dccp.handshake_sequence", (4, 2, 3), 1 << 40, "0000010000000000", "cu"),
    plain("sctp.state", (4, 3, 1), 4, "04", "cu"),
    plain("sctp.original_vtag", (4, 3, 2), 0xDEADBEEF, "deadbeef", "cu"),
    plain("sctp.reply_vtag", (4, 3, 3), 1, "00000001", "cu"),
    *[
        plain(f"sequence_adjustment.{direction}.{name}", (number, last), value, data, "cu")
        for direction, number in (("original", 15), ("reply", 16))
        for name, last, value, data in (
            ("position", 1, 0xFFFFFFFF, "ffffffff"),
            ("before", 2, -4, "fffffffc"),
            ("after", 3, 12, "0000000c"),
        )
    ],
    plain("synproxy.isn", (24, 1), 1, "00000001", "cu"),
    plain("synproxy.its", (24, 2), 2, "00000002", "cu"),
    plain("synproxy.tsoff", (24, 3), 3, "00000003", "cu"),
    plain("counters.original.packets", (9, 1), 1, "0000000000000001", ""),
    plain("counters.original.bytes", (9, 2), 1 << 33, "0000000200000000", ""),
    plain("counters.reply.packets", (10, 1), 1, "0000000000000001", ""),
    plain("counters.reply.bytes", (10, 2), 1 << 33, "0000000200000000", ""),
    plain("timestamps.start", (20, 1), 1, "0000000000000001", ""),
    plain("timestamps.stop", (20, 2), 2, "0000000000000002", ""),
    plain("timestamps.event", (27,), 3, "0000000000000003", ""),
    plain("security_context", (19, 1), "unconfined", "756e636f6e66696e656400", ""),
    plain("id", (12,), 0xB4EB7FC7, "b4eb7fc7", "d"),
    plain("use", (11,), 2, "00000002", ""),
]

BY_ROW = {(key, path): rest for key, path, *rest in EXPECTED}
each_row = pytest.mark.parametrize("row", ENTRY, ids=lambda row: f"{row.key}-{'.'.join(map(str, row.path))}")


def test_every_row_is_repeated_in_this_test() -> None:
    assert {(row.key, row.path) for row in ENTRY} == set(BY_ROW)
    assert len(ENTRY) == len(EXPECTED) == len(BY_ROW)


def entry_with(row: Attribute) -> dict[str, Any]:
    """Return the smallest entry that can have the attribute, with its value."""
    value, _unused, _unused, family, protocol = BY_ROW[row.key, row.path]
    family = family or (V6 if protocol == ICMPV6 else V4)
    entry: dict[str, Any] = {"family": family}
    for direction in ("original", row.key.partition(".")[0]):
        if direction in ("original", "reply", "master"):
            entry[f"{direction}.protocol"] = protocol or 17
    entry["original.source"] = bytes(4 if family == V4 else 16)
    entry[row.key] = value
    return entry


@each_row
def test_row_has_the_expected_bytes(row: Attribute) -> None:
    value, data, _unused, family, protocol = BY_ROW[row.key, row.path]
    assert (row.family, row.protocol) == (family, protocol)
    entry = entry_with(row)
    sent = wire.flat(wire.tree(ENTRIES.encode(entry)))
    assert sent[row.path].hex() == data
    assert {path for path in sent if path not in ((1, 2, 1), (1, 1, 1), (1, 1, 3))} - {
        row.path, (*row.path[:1], 2, 1)
    } == set()  # fmt: skip
    assert ENTRIES.decode(ENTRIES.encode(entry)) == {k: v for k, v in entry.items() if k != "family"}
    preceded = b"" if protocol is None else wire.attribute((*row.path[:-1], 1), bytes([protocol]))
    alone = ENTRIES.decode(merged(row.path, preceded, bytes.fromhex(data)))
    assert alone[row.key] == value


def merged(path: tuple[int, ...], before: bytes, payload: bytes) -> bytes:
    """Encode one attribute; if `before` is given, the attribute follows it in the same nest."""
    if not before:
        return wire.attribute(path, payload)
    inner = wire.attribute((1,), before[-4:-3]) + wire.attribute(path[-1:], payload)
    return wire.attribute(path[:-1], inner)


@each_row
def test_row_is_sent_only_in_requests_in_which_the_kernel_uses_it(row: Attribute) -> None:
    _unused, _unused, use, _unused, _unused = BY_ROW[row.key, row.path]
    entry = entry_with(row)
    for build, letters in (
        (requests.CREATE.message, "ck"),
        (requests.PUT.message, "cuk"),
        (requests.UPDATE.message, "uk"),
        (requests.GET.message, "k"),
        (requests.DELETE.message, "kd"),
    ):
        sent = wire.flat(wire.tree(build(entry).payload[4:]))
        assert (row.path in sent) == bool(set(use) & set(letters)), letters


@each_row
def test_row_is_shown_and_can_be_redeclared(row: Attribute) -> None:
    value, *_unused = BY_ROW[row.key, row.path]
    document = to_document(entry_with(row))
    json.dumps(document)
    *steps, last = row.key.replace("_min", "").replace("_max", "").split(".")
    if row.key.endswith("_mask") or row.key.endswith("_max"):
        return
    if last == "protocol":
        assert document["protocol"] == "udp" or document["protocol"] == row.kind.present(value)
        return
    for step in steps:
        document = document[step]
    if row.key.startswith("nat."):
        assert str(document[last])
        return
    assert row.kind.parse(document[last], row.key) == value


def test_inseparable_groups_are_complete() -> None:
    for group in INSEPARABLE:
        assert sum(row.key.startswith(group) for row in ENTRY) == 3, group


def test_the_numbers_of_the_message_types() -> None:
    assert uapi.IPCTNL_MSG_CT_NEW == 0x0100
    assert uapi.IPCTNL_MSG_CT_GET == 0x0101
    assert uapi.IPCTNL_MSG_CT_DELETE == 0x0102
    assert uapi.IPCTNL_MSG_CT_GET_CTRZERO == 0x0103
    assert uapi.IPCTNL_MSG_CT_GET_STATS_CPU == 0x0104
    assert uapi.IPCTNL_MSG_CT_GET_STATS == 0x0105
    assert uapi.IPCTNL_MSG_CT_GET_DYING == 0x0106
    assert uapi.IPCTNL_MSG_CT_GET_UNCONFIRMED == 0x0107
