# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the conversion of values, because a wrong value selects another connection or misleads the user."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client import timeout_policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support.strategies import of_kind

pytestmark = pytest.mark.portability

KINDS: dict[str, types.AttributeType] = {
    name: kind for name, kind in vars(types).items() if isinstance(kind, types.AttributeType)
}


class Tagged(str):
    """Text as Ansible passes it: a subclass of str."""

    __slots__ = ()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_type_is_converted_without_loss(name: str) -> None:
    kind = KINDS[name]

    @given(of_kind(kind))
    @examples(40)
    def check(value: Any) -> None:
        assert kind.decode(kind.encode(value)) == value
        shown = kind.present(value)
        assert kind.parse(shown, "key") == value
        assert kind.present(kind.parse(shown, "key")) == shown

    check()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_bytes_of_any_length_are_shown(name: str) -> None:
    kind = KINDS[name]

    @given(st.binary(max_size=40))
    @examples(40)
    def check(data: bytes) -> None:
        repr(kind.present(kind.decode(data)))

    check()


@pytest.mark.parametrize(
    ("kind", "data", "value", "shown"),
    [
        (types.U16, b"\x01\x02", 258, 258),
        (types.S32, b"\xff\xff\xff\xfc", -4, -4),
        (types.U64, b"\xff" * 8, (1 << 64) - 1, (1 << 64) - 1),
        (types.IPV4_ADDRESS, b"\x0a\0\0\x01", b"\x0a\0\0\x01", "10.0.0.1"),
        (types.IPV6_ADDRESS, bytes(15) + b"\1", bytes(15) + b"\1", "::1"),
        (types.PROTOCOL, b"\x06", 6, "tcp"),
        (types.PROTOCOL, b"\x32", 50, 50),
        (types.TCP_STATE, b"\x09", 9, "syn_sent2"),
        (types.TCP_STATE, b"\x0a", 10, 10),
        (types.STATUS, b"\x00\x00\x00\x0e", 14, ["seen_reply", "assured", "confirmed"]),
        (types.STATUS, b"\x80\x01\x00\x01", 0x80010001, ["expected", 16, 31]),
        (types.TCP_FLAG_SET, b"\x0a\xff", 10, ["sack_permitted", "be_liberal"]),
        (types.HELPER_NAME, b"ftp\0", "ftp", "ftp"),
        (types.LABELS, b"\x02" + bytes(8) + b"\x20" + bytes(6), 1 << 1 | 1 << 77, [1, 77]),
        (types.TIME, b"\x18\xb1\xd1\x30\x7d\xbc\x1a\x0d", 0x18B1D1307DBC1A0D, None),
    ],
)
def test_bytes_of_the_kernel_are_converted(kind: types.AttributeType, data: bytes, value: Any, shown: Any) -> None:
    assert kind.decode(data) == value
    assert kind.encode(value) == data
    if shown is not None:
        assert kind.present(value) == shown


def test_a_time_keeps_its_nanoseconds() -> None:
    time = 1_893_456_000_000_000_001
    assert types.TIME.present(time) == "2030-01-01T00:00:00.000000001Z"
    assert types.TIME.parse("2030-01-01T00:00:00.000000001Z", "") == time
    assert types.TIME.parse("2030-01-01T00:00:00.5", "") == time - 1 + 500_000_000
    assert types.TIME.parse(time, "") == time


def test_a_time_of_an_unknown_size_is_shown_as_a_number() -> None:
    assert types.TIME.present(types.TIME.decode(b"\xff" * 16)) == (1 << 128) - 1


INTEGERS = [
    (0, 0), (255, 255), ("255", 255), (" 7 ", 7), ("0x1F", 31), ("0XfF", 255), ("007", 7), (Tagged("9"), 9),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "value"), INTEGERS)
def test_integer_notations_are_accepted(raw: Any, value: int) -> None:
    found = types.parse_integer(raw, "key", 0, 255)
    assert found == value
    assert found.__class__ is int


NO_INTEGERS: list[Any] = [
    "", " ", "x", "0x", "1.0", "1e2", "+1", "1_0", "0o7", "0b1", "--1", "\u0661", "\u00b2", "\uff11", "1 0", "1\0",
    None, True, False, 1.0, float("nan"), float("inf"), [], {}, (), b"1", object(), "-0x1", "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("raw", NO_INTEGERS, ids=lambda raw: repr(raw)[:20])
@pytest.mark.parametrize(
    "parse",
    [types.U8.parse, types.PROTOCOL.parse, types.STATUS.parse, types.LABELS.parse, types.parse_masked],
    ids=["integer", "named", "flags", "labels", "masked"],
)
def test_invalid_integers_are_refused(parse: Callable[[Any, str], Any], raw: Any) -> None:
    if raw in ([], ()) and parse in (types.STATUS.parse, types.LABELS.parse):
        assert parse(raw, "key") == 0  # no bits set
        return
    with pytest.raises(InvalidValue, match="(?s)^key: .*write") as caught:
        parse(raw, "key")
    assert caught.value.key == "key"


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (types.U8, 256), (types.U8, -1), (types.U8, "-1"), (types.U16, 65536), (types.U16, "0x10000"),
        (types.U32, 1 << 32), (types.U64, 1 << 64), (types.S32, 1 << 31), (types.S32, -(1 << 31) - 1),
        (types.WINDOW_SCALE, 15), (types.PROTOCOL, 256), (types.PROTOCOL, "tpc"), (types.TCP_STATE, "open"),
        (types.SCTP_STATE, "syn_sent"), (types.DCCP_ROLE, "peer"), (types.STATUS, "sured"), (types.STATUS, 32),
        (types.STATUS, ["assured", "sured"]), (types.TCP_FLAG_SET, 8), (types.LABELS, 128), (types.LABELS, [-1]),
        (types.U32, 10**30),
    ],
)  # fmt: skip
def test_out_of_range_values_are_refused(kind: types.AttributeType, raw: Any) -> None:
    with pytest.raises(InvalidValue, match="write") as caught:
        kind.parse(raw, "key")
    assert caught.value.key == "key"


def test_names_are_accepted_in_any_case() -> None:
    assert types.PROTOCOL.parse("TCP", "") == 6
    assert types.PROTOCOL.parse(" ESP ", "") == 50
    assert types.TCP_STATE.parse(Tagged(" Established "), "") == 3
    assert types.TCP_STATE.parse(Tagged(" LISTEN"), "") == 9
    assert types.STATUS.parse(("ASSURED", 1, "0x2"), "") == 4 | 2 | 4


@given(st.ip_addresses())
def test_addresses_are_parsed_as_by_the_standard_library(address: Any) -> None:
    assert types.parse_address(str(address), "key") == address.packed
    shown = types.present_address(address.packed)
    assert ipaddress.ip_address(shown) == address


def test_ipv4_mapped_address_is_kept_as_ipv6() -> None:
    mapped = types.parse_address("::ffff:10.0.0.1", "key")
    assert types.family_of(mapped) == types.AF_INET6
    assert types.present_address(mapped) == "::ffff:10.0.0.1"


NO_ADDRESSES: list[Any] = [
    "", "10.1", "10.0.0.256", "10.0.0.1.1", "010.0.0.1", "10.0.0.0/8", "fe80::1%lo", "host", "10.0.0.1\0", "1", ":::",
    "10.0.0.1-10.0.0.2", "\u0661.0.0.1", "\ud800", None, True, 1, 1.0, [], {}, b"\x0a\0\0\1",
]  # fmt: skip


@pytest.mark.parametrize("raw", NO_ADDRESSES, ids=repr)
def test_invalid_addresses_are_refused(raw: Any) -> None:
    with pytest.raises(InvalidValue, match="is not an address; (write|leave)") as caught:
        types.parse_address(raw, "original.source")
    assert caught.value.key == "original.source"


def test_ranges() -> None:
    assert types.parse_integer_range("10-20", "", 0, 99) == (10, 20)
    assert types.parse_integer_range(" 10 - 0x14 ", "", 0, 99) == (10, 20)
    assert types.parse_integer_range(7, "", 0, 99) == (7, 7)
    assert types.parse_address_range("10.0.0.1 - 10.0.0.9", "") == (b"\x0a\0\0\1", b"\x0a\0\0\x09")
    for raw in ("20-10", "1-2-3", "-1", "1-", "-", "1-100", "1--2"):
        with pytest.raises(InvalidValue, match="write"):
            types.parse_integer_range(raw, "key", 0, 99)
    for raw in ("10.0.0.9-10.0.0.1", "10.0.0.1-::1", "10.0.0.1-", "10.0.0.1-9", "-10.0.0.1"):
        with pytest.raises(InvalidValue, match="write"):
            types.parse_address_range(raw, "key")


def test_masks() -> None:
    assert types.parse_masked(5, "") == (5, 0xFFFFFFFF)
    assert types.parse_masked("0x5/0xf", "") == (5, 15)
    assert types.parse_masked("0/0", "") == (0, 0)
    with pytest.raises(InvalidValue, match="write 0x4/0x6"):
        types.parse_masked("5/6", "mark")


@pytest.mark.parametrize("raw", ["a\0b", "\ud800", "x" * 16, "\u00e9" * 8, None, 1, True, b"ftp", ["ftp"]])
def test_invalid_helper_names_are_refused(raw: Any) -> None:
    with pytest.raises(InvalidValue, match="write"):
        types.HELPER_NAME.parse(raw, "helper")


def test_name_is_converted_to_plain_text() -> None:
    assert types.HELPER_NAME.parse(Tagged("ftp"), "helper").__class__ is str


@pytest.mark.parametrize(
    "raw", ["", "yesterday", "2030-13-01T00:00:00", "2030-01-01", "1969-12-31T23:59:59Z", "2030-01-01T00:00:00.-1Z",
            "2030-01-01T00:00:00.1_0Z", "2030-01-01T00:00:00.Z", "9999-01-01T00:00:00Z", None, True, 1.5, -1, 1 << 64]
)  # fmt: skip
def test_invalid_times_are_refused(raw: Any) -> None:
    with pytest.raises(InvalidValue, match="write"):
        types.TIME.parse(raw, "timestamps.start")


def test_protocols_have_the_names_of_etc_protocols() -> None:
    """A displayed name must never be read as another protocol, and no other name may hide it."""
    assert not {*types.PROTOCOLS} & {*types.OTHER_PROTOCOLS}
    for name, number in {**types.OTHER_PROTOCOLS, **types.PROTOCOLS}.items():
        assert types.PROTOCOL.parse(name.upper(), "") == number
        assert timeout_policy.PROTOCOL.parse(name, "") == number
        assert 0 <= number <= 255
        try:
            assert socket.getprotobyname(name) == number
        except OSError:
            continue  # this machine's list lacks the name
    assert types.PROTOCOL.present(50) == 50
    for other in ("ip", "all", "any"):
        with pytest.raises(InvalidValue, match="is not a known protocol"):
            types.PROTOCOL.parse(other, "protocol")


@pytest.mark.parametrize("number", [1 << 40, 10**400, 10**5000, -(10**5000)], ids=["short", "400", "5000", "negative"])
def test_out_of_range_integer_of_any_length_is_refused(number: int) -> None:
    """Python cannot convert an integer of more than 4,300 digits to text."""
    with pytest.raises(InvalidValue, match="mark: .* is out of range; write an integer from 0 to 255"):
        types.parse_integer(number, "mark", 0, 255)
