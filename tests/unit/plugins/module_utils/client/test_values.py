# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A value read wrong is another connection; one shown wrong misleads whoever looks."""

from __future__ import annotations

import ipaddress
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client import values
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils.client.strategies import of_kind

KINDS: dict[str, values.Kind] = {name: kind for name, kind in vars(values).items() if isinstance(kind, values.Kind)}


class Tagged(str):
    """Text as Ansible hands it over: a subclass of str."""

    __slots__ = ()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_kind_survives_the_wire_and_the_document(name: str) -> None:
    kind = KINDS[name]

    @given(of_kind(kind))
    @settings(max_examples=40)
    def check(value: Any) -> None:
        assert kind.decode(kind.encode(value)) == value
        shown = kind.present(value)
        assert kind.parse(shown, "key") == value
        assert kind.present(kind.parse(shown, "key")) == shown

    check()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_bytes_of_any_length_are_shown_and_never_a_crash(name: str) -> None:
    kind = KINDS[name]

    @given(st.binary(max_size=40))
    @settings(max_examples=40)
    def check(data: bytes) -> None:
        repr(kind.present(kind.decode(data)))

    check()


@pytest.mark.parametrize(
    ("kind", "data", "value", "shown"),
    [
        (values.U16, b"\x01\x02", 258, 258),
        (values.S32, b"\xff\xff\xff\xfc", -4, -4),
        (values.U64, b"\xff" * 8, (1 << 64) - 1, (1 << 64) - 1),
        (values.IPV4_ADDRESS, b"\x0a\0\0\x01", b"\x0a\0\0\x01", "10.0.0.1"),
        (values.IPV6_ADDRESS, bytes(15) + b"\1", bytes(15) + b"\1", "::1"),
        (values.PROTOCOL, b"\x06", 6, "tcp"),
        (values.PROTOCOL, b"\x32", 50, 50),
        (values.TCP_STATE, b"\x09", 9, "syn_sent2"),
        (values.TCP_STATE, b"\x0a", 10, 10),
        (values.STATUS, b"\x00\x00\x00\x0e", 14, ["seen_reply", "assured", "confirmed"]),
        (values.STATUS, b"\x80\x01\x00\x01", 0x80010001, ["expected", 16, 31]),
        (values.TCP_FLAG_SET, b"\x0a\xff", 10, ["sack_permitted", "be_liberal"]),
        (values.HELPER_NAME, b"ftp\0", "ftp", "ftp"),
        (values.LABELS, b"\x02" + bytes(8) + b"\x20" + bytes(6), 1 << 1 | 1 << 77, [1, 77]),
        (values.TIME, b"\x18\xb1\xd1\x30\x7d\xbc\x1a\x0d", 0x18B1D1307DBC1A0D, None),
    ],
)
def test_the_kernels_bytes(kind: values.Kind, data: bytes, value: Any, shown: Any) -> None:
    assert kind.decode(data) == value
    assert kind.encode(value) == data
    if shown is not None:
        assert kind.present(value) == shown


def test_a_time_keeps_its_nanoseconds() -> None:
    time = 1_893_456_000_000_000_001
    assert values.TIME.present(time) == "2030-01-01T00:00:00.000000001Z"
    assert values.TIME.parse("2030-01-01T00:00:00.000000001Z", "") == time
    assert values.TIME.parse("2030-01-01T00:00:00.5", "") == time - 1 + 500_000_000
    assert values.TIME.parse(time, "") == time


def test_a_time_of_an_unknown_size_is_shown_as_a_number() -> None:
    assert values.TIME.present(values.TIME.decode(b"\xff" * 16)) == (1 << 128) - 1


INTEGERS = [
    (0, 0), (255, 255), ("255", 255), (" 7 ", 7), ("0x1F", 31), ("0XfF", 255), ("007", 7), (Tagged("9"), 9),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "value"), INTEGERS)
def test_ways_to_write_an_integer(raw: Any, value: int) -> None:
    found = values.parse_integer(raw, "key", 0, 255)
    assert found == value
    assert found.__class__ is int


NO_INTEGERS: list[Any] = [
    "", " ", "x", "0x", "1.0", "1e2", "+1", "1_0", "0o7", "0b1", "--1", "\u0661", "\u00b2", "\uff11", "1 0", "1\0",
    None, True, False, 1.0, float("nan"), float("inf"), [], {}, (), b"1", object(), "-0x1", "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("raw", NO_INTEGERS, ids=lambda raw: repr(raw)[:20])
@pytest.mark.parametrize(
    "parse",
    [values.U8.parse, values.PROTOCOL.parse, values.STATUS.parse, values.LABELS.parse, values.parse_masked],
    ids=["integer", "named", "flags", "labels", "masked"],
)
def test_what_is_no_integer(parse: Callable[[Any, str], Any], raw: Any) -> None:
    if raw in ([], ()) and parse in (values.STATUS.parse, values.LABELS.parse):
        assert parse(raw, "key") == 0  # none of the bits
        return
    with pytest.raises(InvalidValue, match="(?s)^key: .*write") as caught:
        parse(raw, "key")
    assert caught.value.key == "key"


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (values.U8, 256), (values.U8, -1), (values.U8, "-1"), (values.U16, 65536), (values.U16, "0x10000"),
        (values.U32, 1 << 32), (values.U64, 1 << 64), (values.S32, 1 << 31), (values.S32, -(1 << 31) - 1),
        (values.WINDOW_SCALE, 15), (values.PROTOCOL, 256), (values.PROTOCOL, "tpc"), (values.TCP_STATE, "open"),
        (values.SCTP_STATE, "syn_sent"), (values.DCCP_ROLE, "peer"), (values.STATUS, "sured"), (values.STATUS, 32),
        (values.STATUS, ["assured", "sured"]), (values.TCP_FLAG_SET, 8), (values.LABELS, 128), (values.LABELS, [-1]),
        (values.U32, 10**30),
    ],
)  # fmt: skip
def test_what_does_not_fit(kind: values.Kind, raw: Any) -> None:
    with pytest.raises(InvalidValue, match="write") as caught:
        kind.parse(raw, "key")
    assert caught.value.key == "key"


def test_names_in_any_case() -> None:
    assert values.PROTOCOL.parse("TCP", "") == 6
    assert values.TCP_STATE.parse(Tagged(" Established "), "") == 3
    assert values.STATUS.parse(("ASSURED", 1, "0x2"), "") == 4 | 2 | 4


@given(st.ip_addresses())
def test_addresses_as_the_standard_library_reads_them(address: Any) -> None:
    assert values.parse_address(str(address), "key") == address.packed
    shown = values.present_address(address.packed)
    assert ipaddress.ip_address(shown) == address


def test_an_ipv4_address_inside_ipv6_stays_ipv6() -> None:
    mapped = values.parse_address("::ffff:10.0.0.1", "key")
    assert values.family_of(mapped) == values.AF_INET6
    assert values.present_address(mapped) == "::ffff:10.0.0.1"


NO_ADDRESSES: list[Any] = [
    "", "10.1", "10.0.0.256", "10.0.0.1.1", "010.0.0.1", "10.0.0.0/8", "fe80::1%lo", "host", "10.0.0.1\0", "1", ":::",
    "10.0.0.1-10.0.0.2", "\u0661.0.0.1", "\ud800", None, True, 1, 1.0, [], {}, b"\x0a\0\0\1",
]  # fmt: skip


@pytest.mark.parametrize("raw", NO_ADDRESSES, ids=repr)
def test_what_is_no_address(raw: Any) -> None:
    with pytest.raises(InvalidValue, match="is not an address; (write|leave)") as caught:
        values.parse_address(raw, "original.source")
    assert caught.value.key == "original.source"


def test_ranges() -> None:
    assert values.parse_integer_range("10-20", "", 0, 99) == (10, 20)
    assert values.parse_integer_range(" 10 - 0x14 ", "", 0, 99) == (10, 20)
    assert values.parse_integer_range(7, "", 0, 99) == (7, 7)
    assert values.parse_address_range("10.0.0.1 - 10.0.0.9", "") == (b"\x0a\0\0\1", b"\x0a\0\0\x09")
    for raw in ("20-10", "1-2-3", "-1", "1-", "-", "1-100", "1--2"):
        with pytest.raises(InvalidValue, match="write"):
            values.parse_integer_range(raw, "key", 0, 99)
    for raw in ("10.0.0.9-10.0.0.1", "10.0.0.1-::1", "10.0.0.1-", "10.0.0.1-9", "-10.0.0.1"):
        with pytest.raises(InvalidValue, match="write"):
            values.parse_address_range(raw, "key")


def test_masks() -> None:
    assert values.parse_masked(5, "") == (5, 0xFFFFFFFF)
    assert values.parse_masked("0x5/0xf", "") == (5, 15)
    assert values.parse_masked("0/0", "") == (0, 0)
    with pytest.raises(InvalidValue, match="write 0x4/0x6"):
        values.parse_masked("5/6", "mark")


@pytest.mark.parametrize("raw", ["a\0b", "\ud800", "x" * 16, "\u00e9" * 8, None, 1, True, b"ftp", ["ftp"]])
def test_what_is_no_helpers_name(raw: Any) -> None:
    with pytest.raises(InvalidValue, match="write"):
        values.HELPER_NAME.parse(raw, "helper")


def test_a_name_loses_what_ansible_attached_to_it() -> None:
    assert values.HELPER_NAME.parse(Tagged("ftp"), "helper").__class__ is str


@pytest.mark.parametrize(
    "raw", ["", "yesterday", "2030-13-01T00:00:00", "2030-01-01", "1969-12-31T23:59:59Z", "2030-01-01T00:00:00.-1Z",
            "2030-01-01T00:00:00.1_0Z", "2030-01-01T00:00:00.Z", "9999-01-01T00:00:00Z", None, True, 1.5, -1, 1 << 64]
)  # fmt: skip
def test_what_is_no_time(raw: Any) -> None:
    with pytest.raises(InvalidValue, match="write"):
        values.TIME.parse(raw, "timestamps.start")
