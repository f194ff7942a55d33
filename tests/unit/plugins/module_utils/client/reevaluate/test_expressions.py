# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that each rule is rewritten for replayed packets or refused; a wrong rule would select live flows."""

from __future__ import annotations

import struct

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import attribute, nested
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate import numbers as n
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.expressions import (
    MAX_NUMBER,
    Rewriter,
    Rewritten,
    control_test,
    expression,
    expressions_of,
    family_test,
    trace_on,
    u32,
    value,
)

IP, IP6, INET, NETDEV = n.NFPROTO_IPV4, n.NFPROTO_IPV6, n.NFPROTO_INET, n.NFPROTO_NETDEV
LINK_LAYER, NETWORK, TRANSPORT = 0, 1, 2
SKUID, SECPATH = 10, 25


def verdict(code: int) -> bytes:
    data = nested(n.NFTA_IMMEDIATE_DATA, nested(n.NFTA_DATA_VERDICT, u32(n.NFTA_VERDICT_CODE, code)))
    return expression("immediate", u32(n.NFTA_IMMEDIATE_DREG, n.NFT_REG_VERDICT), data)


def payload(base: int, offset: int, size: int, register: int = n.NFT_REG_1) -> bytes:
    return expression(
        "payload",
        u32(n.NFTA_PAYLOAD_DREG, register),
        u32(n.NFTA_PAYLOAD_BASE, base),
        u32(n.NFTA_PAYLOAD_OFFSET, offset),
        u32(n.NFTA_PAYLOAD_LEN, size),
    )


def compare(data: bytes, register: int = n.NFT_REG_1) -> bytes:
    return expression(
        "cmp",
        u32(n.NFTA_CMP_SREG, register),
        u32(n.NFTA_CMP_OP, n.NFT_CMP_EQ),
        value(n.NFTA_CMP_DATA, data),
    )


def meta(key: int, register: int = n.NFT_REG_1) -> bytes:
    return expression("meta", u32(n.NFTA_META_DREG, register), u32(n.NFTA_META_KEY, key))


def lookup(name: str, register: int = n.NFT_REG_1, into: int | None = None) -> bytes:
    parts = [attribute(n.NFTA_LOOKUP_SET, name.encode() + b"\0"), u32(n.NFTA_LOOKUP_SREG, register)]
    return expression("lookup", *parts, *([] if into is None else [u32(n.NFTA_LOOKUP_DREG, into)]))


def match(name: str) -> bytes:
    return expression("match", attribute(n.NFTA_MATCH_NAME, name.encode() + b"\0"))


def target(name: str) -> bytes:
    return expression("target", attribute(n.NFTA_TARGET_NAME, name.encode() + b"\0"))


DROP, ACCEPT = verdict(n.NF_DROP), verdict(n.NF_ACCEPT)
PORT = payload(TRANSPORT, 2, 2) + compare(b"\0\x16")
LIMIT, COUNTER, LOG = expression("limit"), expression("counter"), expression("log")


def rewrite(*parts: bytes, family: int = IP, number: int = 7, limiting: str = "") -> Rewritten:
    rewriter = Rewriter(frozenset({(family, "filter", limiting)}) if limiting else frozenset())
    return rewriter.rewrite(family, "filter", b"".join(parts), number)


def test_a_decidable_rule_is_copied() -> None:
    assert rewrite(PORT, DROP) == Rewritten((PORT + DROP,))


def test_expressions_without_influence_are_omitted() -> None:
    assert rewrite(PORT, COUNTER, LOG, DROP) == Rewritten((PORT + DROP,))


def test_rule_without_an_effect_is_omitted() -> None:
    assert rewrite(PORT, COUNTER) == Rewritten(())
    assert rewrite(PORT, LIMIT, LOG) == Rewritten(())


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        (LIMIT, "limit"),
        (expression("quota"), "quota"),
        (meta(SKUID) + compare(b"\0\0\0\0"), "user id"),
        (meta(SECPATH) + compare(b"\1"), "IPsec"),
        (payload(LINK_LAYER, 6, 6) + compare(bytes(6)), "link-layer header"),
        (payload(NETWORK, 8, 1) + compare(b"\x40"), "network header"),
        (payload(TRANSPORT, 4, 4) + compare(bytes(4)), "transport header"),
        (match("statistic"), "statistic"),
        (match("owner"), "owner"),
        (lookup("slow"), "set with limits"),
    ],
)
def test_an_undecidable_condition_becomes_a_test_of_the_control_word(condition: bytes, reason: str) -> None:
    found = rewrite(PORT, condition, DROP, limiting="slow")
    assert found == Rewritten((control_test(IP, 0x3FFF, 7) + PORT + DROP,), PORT + trace_on(), reason, 1)


def test_rule_of_an_inet_table_is_written_for_each_family() -> None:
    found = rewrite(LIMIT, DROP, family=INET)
    assert found.rules == tuple(family_test(each) + control_test(each, 0x3FFF, 7) + DROP for each in (IP, IP6))
    assert (found.marker, found.outcomes) == (trace_on(), 1)


@pytest.mark.parametrize(
    ("family", "number"), [(NETDEV, 7), (IP, MAX_NUMBER + 1)], ids=["no control word", "too many rules"]
)
def test_rule_that_cannot_be_replayed_becomes_a_marker_alone(family: int, number: int) -> None:
    found = rewrite(LIMIT, DROP, family=family, number=number)
    assert (found.rules, found.marker, found.outcomes) == ((), trace_on(), 0)


@pytest.mark.parametrize(
    ("effect", "reason"),
    [
        (expression("queue"), "queue"),
        (target("NFQUEUE"), "NFQUEUE"),
        (expression("of a later kernel"), "of a later kernel"),
        (payload(LINK_LAYER, 6, 6) + lookup("verdicts", into=n.NFT_REG_VERDICT), "verdict map with an unknown key"),
    ],
)
def test_unknown_effect_becomes_a_marker_alone(effect: bytes, reason: str) -> None:
    found = rewrite(PORT, effect)
    assert (found.rules, found.marker, found.outcomes) == ((), PORT + trace_on(), 0)
    assert reason in found.reason


def test_a_key_with_an_unknown_part_is_unknown() -> None:
    """The address is known, but the MAC address after it in the same key is not."""
    concatenated = payload(NETWORK, 12, 4) + payload(LINK_LAYER, 6, 6, n.NFT_REG32_00 + 1) + lookup("pairs")
    found = rewrite(concatenated, DROP)
    assert found.rules == (control_test(IP, 0x3FFF, 7) + payload(NETWORK, 12, 4) + DROP,)
    assert found.reason == "link-layer header"


def test_a_register_that_is_loaded_again_is_known_again() -> None:
    found = rewrite(meta(SKUID), compare(bytes(4)), PORT, DROP)
    assert found.marker == PORT + trace_on()


def numgen(modulus: int) -> bytes:
    return expression("numgen", u32(n.NFTA_NG_DREG, n.NFT_REG_1), u32(n.NFTA_NG_MODULUS, modulus))


def constant(number: int) -> bytes:
    data = value(n.NFTA_IMMEDIATE_DATA, struct.pack("=I", number))
    return expression("immediate", u32(n.NFTA_IMMEDIATE_DREG, n.NFT_REG_1), data)


TRANSLATION = lookup("backends", into=n.NFT_REG_1) + expression("nat", u32(3, n.NFT_REG_1))


def test_random_number_becomes_a_rule_for_each_value() -> None:
    found = rewrite(PORT, numgen(3), TRANSLATION)
    assert found.rules == (
        control_test(IP, 0x3FFF, 7) + PORT + constant(1) + TRANSLATION,
        control_test(IP, 0x3FFF, 8) + PORT + constant(2) + TRANSLATION,
        control_test(IP, 0x3FFF, 7, 8, equal=False) + PORT + constant(0) + TRANSLATION,
    )
    assert found.marker == PORT + constant(0) + lookup("backends", into=n.NFT_REG_1) + trace_on()
    assert (found.reason, found.outcomes) == ("numgen", 2)


def test_random_number_with_a_large_modulus_is_unknown() -> None:
    found = rewrite(numgen(65), TRANSLATION)
    assert (found.rules, found.outcomes) == ((), 0)


def test_random_number_with_another_condition_is_unknown() -> None:
    for parts in ((LIMIT, numgen(2)), (numgen(2), LIMIT)):
        found = rewrite(*parts, TRANSLATION)
        assert (found.rules, found.outcomes) == ((), 0)


def test_the_list_of_expressions_is_read_back() -> None:
    names = [name for name, _data, _raw in expressions_of(PORT + LIMIT + DROP)]
    assert names == ["payload", "cmp", "limit", "immediate"]
    assert b"".join(raw for _name, _data, raw in expressions_of(PORT + DROP)) == PORT + DROP
