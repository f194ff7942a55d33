# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrite the expressions of a rule so that replayed packets are judged as first packets of real flows would be.

Rules are copied as the kernel dumps them, with three kinds of exceptions:

- Expressions without influence on the verdict, such as counters, logs and the offload of flows, are left out.
- Some conditions depend on the moment, on the sender, on chance, or on parts of a packet that the table does not know:
  a rate limit, a user id, a MAC address. Such a condition becomes a test of the packet's control word: it holds if the
  word has the number of the rule. In front of the rule comes a marker, with the other conditions of the rule, that
  switches tracing on. So the trace shows which packets get there, and both outcomes can be replayed.
- A number that is chosen by chance becomes a constant, in one copy of the rule for each possible number.
- Some effects are unknown, such as the verdict of a program that a queue asks. Such a rule becomes a marker alone.

Source: include/uapi/linux/netfilter/nf_tables.h, net/netfilter/nft_*.c, net/netfilter/xt_*.c, nft(8).
"""

from __future__ import annotations

import struct
from functools import partialmethod
from typing import Iterator, Mapping, NamedTuple, Tuple

from ..netlink.message import attribute, attributes, nested
from . import numbers as n
from .network import attributes_of, text_of

_U32 = struct.Struct(">I")
_HOST_U32 = struct.Struct("=I")
_CONTROL = struct.Struct("=H")

#: The name of a set: family, table, name.
SetName = Tuple[int, str, str]

#: Bits of the control word. `ALWAYS` is always set, because the kernel replaces an IPv4 identification of 0.
TRACED, ALWAYS, NUMBER = 0x8000, 0x4000, 0x3FFF
#: The highest number of a rule that is replayed with all outcomes.
MAX_NUMBER = NUMBER
#: The highest number of outcomes of a rule that are replayed.
_MOST_OUTCOMES = 64

#: Expressions that continue with the next one whatever they do.
_WITHOUT_INFLUENCE = frozenset({"counter", "log", "last", "flow_offload", "dup"})
#: Conditions that depend on the moment, on the sender or on chance.
_UNDECIDABLE = frozenset({"limit", "quota", "connlimit", "socket", "osf", "xfrm", "tunnel", "inner"})
#: Effects whose outcome cannot be known.
_UNKNOWN = frozenset({"queue", "synproxy", "tproxy", "fwd"})
_EFFECTS = frozenset({"reject", "notrack"})

_DECIDABLE_META = frozenset(
    {
        *(n.NFT_META_PROTOCOL, n.NFT_META_MARK, n.NFT_META_IIF, n.NFT_META_OIF, n.NFT_META_IIFNAME),
        *(n.NFT_META_OIFNAME, n.NFT_META_NFPROTO, n.NFT_META_L4PROTO, n.NFT_META_PKTTYPE, n.NFT_META_NFTRACE),
        *(n.NFT_META_IIFGROUP, n.NFT_META_OIFGROUP),
    }
)
_META_WITHOUT_INFLUENCE = frozenset({n.NFT_META_NFTRACE, n.NFT_META_PRIORITY, n.NFT_META_SECMARK})
_UNDECIDABLE_CT = frozenset({n.NFT_CT_PKTS, n.NFT_CT_BYTES, n.NFT_CT_AVGPKT, n.NFT_CT_ID, n.NFT_CT_SECMARK})
_CT_WITHOUT_INFLUENCE = frozenset({n.NFT_CT_EVENTMASK, n.NFT_CT_SECMARK})

#: Bytes of the network header that follow from the table: for IPv4 version, header length, fragment, protocol and
#: addresses; for IPv6 next header and addresses.
_KNOWN_IPV4 = frozenset({0, 6, 7, 9, *range(12, 20)})
_KNOWN_IPV6 = frozenset({6, *range(8, 40)})
#: Bytes of the transport header that are known: ports or ICMP type and code, ICMP id, TCP data offset and flags.
_KNOWN_TRANSPORT = frozenset({0, 1, 2, 3})
_KNOWN_ICMP = frozenset({0, 1, 4, 5})
_KNOWN_TCP = frozenset({0, 1, 2, 3, 12, 13})

#: Matches of x_tables that follow from the first packet, the routes and the ruleset.
_DECIDABLE_MATCHES = frozenset(
    "tcp udp udplite icmp icmp6 sctp dccp multiport addrtype conntrack state ctstatus mark connmark connlabel comment "
    "iprange rpfilter pkttype helper devgroup cgroup2 esp ah".split()
) - {"cgroup2"}
_TARGETS_WITHOUT_INFLUENCE = frozenset(
    "LOG NFLOG ULOG TRACE CHECKSUM TCPMSS TCPOPTSTRIP CLASSIFY IDLETIMER LED AUDIT SECMARK CONNSECMARK TTL HL RATEEST "
    "TEE DSCP TOS ECN HMARK".split()
)
_KNOWN_TARGETS = frozenset(
    "DNAT SNAT MASQUERADE REDIRECT NETMAP MARK CONNMARK REJECT CT NOTRACK ACCEPT DROP RETURN ERROR standard".split()
)


class Rewritten(NamedTuple):
    """The rules that stand for one rule: each is its expressions as the kernel takes them.

    `rules` are the rules themselves; they are empty if the rule has no influence or if its effect is unknown. `marker`
    is empty if the rule is decidable. `reason` says why it is not. Packets whose control word has the number of the
    rule, or one of the `outcomes` - 1 numbers behind it, have another outcome than packets without a number.
    """

    rules: tuple[bytes, ...]
    marker: bytes = b""
    reason: str = ""
    outcomes: int = 0


class _Expression(NamedTuple):
    name: str
    data: dict[int, bytes]
    raw: bytes

    def number(self, key: int) -> int:
        """Return the number in an attribute, 0 if it is absent."""
        return number_of(self.data.get(key))

    def text(self, key: int) -> str:
        """Return the text in an attribute."""
        return text_of(self.data[key])


def expression(name: str, *parts: bytes) -> bytes:
    """Return an expression as an element of a rule's list."""
    data = nested(n.NFTA_EXPR_DATA, b"".join(parts))
    return nested(n.NFTA_LIST_ELEM, attribute(n.NFTA_EXPR_NAME, name.encode() + b"\0") + data)


def u32(number: int, value: int) -> bytes:
    """Return an attribute of 32 bits in network order."""
    return attribute(number, _U32.pack(value & 0xFFFFFFFF))


def number_of(data: bytes | None) -> int:
    """Return the number in an attribute of 32 bits in network order, 0 without one."""
    number: int = _U32.unpack(data)[0] if data else 0
    return number


def value(number: int, data: bytes) -> bytes:
    """Return an attribute with a value for a comparison."""
    return nested(number, attribute(n.NFTA_DATA_VALUE, data))


def _load(offset: int, size: int) -> bytes:
    """Return the expression that loads bytes of the network header into register 1."""
    return expression(
        "payload",
        u32(n.NFTA_PAYLOAD_DREG, n.NFT_REG_1),
        u32(n.NFTA_PAYLOAD_BASE, n.NFT_PAYLOAD_NETWORK_HEADER),
        u32(n.NFTA_PAYLOAD_OFFSET, offset),
        u32(n.NFTA_PAYLOAD_LEN, size),
    )


def _masked(mask: bytes) -> bytes:
    """Return the expression that applies a mask to register 1."""
    return expression(
        "bitwise",
        u32(n.NFTA_BITWISE_SREG, n.NFT_REG_1),
        u32(n.NFTA_BITWISE_DREG, n.NFT_REG_1),
        u32(n.NFTA_BITWISE_LEN, len(mask)),
        value(n.NFTA_BITWISE_MASK, mask),
        value(n.NFTA_BITWISE_XOR, bytes(len(mask))),
    )


def _equals(data: bytes, equal: bool = True) -> bytes:
    """Return the expression that compares register 1 with a value."""
    operation = u32(n.NFTA_CMP_OP, n.NFT_CMP_EQ if equal else n.NFT_CMP_NEQ)
    return expression("cmp", u32(n.NFTA_CMP_SREG, n.NFT_REG_1), operation, value(n.NFTA_CMP_DATA, data))


def control_test(family: int, mask: int, *values: int, equal: bool = True) -> bytes:
    """Return the expressions of a test that the control word has a value under a mask, or that it has none of some."""
    tests = b"".join(_equals(_CONTROL.pack(each), equal) for each in values)
    return _load(4 if family == n.NFPROTO_IPV4 else 2, _CONTROL.size) + _masked(_CONTROL.pack(mask)) + tests


def replayed_test(family: int) -> bytes:
    """Return the expressions of a test that a packet is a replayed one, by its hop limit (see `packets.py`).

    The kernel sends packets too: resets, and ICMP errors for packets that a rule rejects.
    """
    return _load(8 if family == n.NFPROTO_IPV4 else 7, 1) + _masked(b"\x80") + _equals(b"\0")


def family_test(family: int) -> bytes:
    """Return the expressions of a test that a packet of an inet table is of IPv4 or IPv6."""
    key = u32(n.NFTA_META_KEY, n.NFT_META_NFPROTO)
    return expression("meta", u32(n.NFTA_META_DREG, n.NFT_REG_1), key) + _equals(bytes([family]))


def untracked_test() -> bytes:
    """Return the expressions of a test that a packet is untracked."""
    state = expression("ct", u32(n.NFTA_CT_DREG, n.NFT_REG_1), u32(n.NFTA_CT_KEY, n.NFT_CT_STATE))
    return state + _equals(_HOST_U32.pack(n.NF_CT_STATE_UNTRACKED_BIT))


def trace_on() -> bytes:
    """Return the expressions that switch tracing on for a packet."""
    one = value(n.NFTA_IMMEDIATE_DATA, b"\1")
    return expression("immediate", u32(n.NFTA_IMMEDIATE_DREG, n.NFT_REG_1), one) + expression(
        "meta", u32(n.NFTA_META_SREG, n.NFT_REG_1), u32(n.NFTA_META_KEY, n.NFT_META_NFTRACE)
    )


def expressions_of(data: bytes) -> Iterator[tuple[str, dict[int, bytes], bytes]]:
    """Yield name, data and bytes of each expression in the list of a rule. Raises `MalformedMessage`."""
    for _number, start, end in attributes(data, 0, len(data)):
        parsed = attributes_of(data[start:end], 0)
        parts = attributes_of(parsed.get(n.NFTA_EXPR_DATA, b""), 0)
        yield text_of(parsed.get(n.NFTA_EXPR_NAME, b"")), parts, data[start - 4 : end + 3 & ~3]


class Rewriter:
    """Rewrites the rules of one ruleset.

    `limiting_sets` are the (family, table, name) of sets that limit rates. `object_maps` has the type of the objects in
    each map of objects.
    """

    def __init__(
        self, limiting_sets: frozenset[SetName] = frozenset(), object_maps: Mapping[SetName, int] | None = None
    ) -> None:
        self._limiting_sets = limiting_sets
        self._object_maps = object_maps or {}

    def rewrite(self, family: int, table: str, data: bytes, number: int) -> Rewritten:
        """Return the rules that stand for the one with these expressions, whose number is that of its marker."""
        reader = _Reader(family, table, self._limiting_sets, self._object_maps)
        for name, parsed, raw in expressions_of(data):
            reader.read(_Expression(name, parsed, raw))
        if not reader.reasons:
            return Rewritten((reader.rule(),) if reader.has_effect() else ())
        if not reader.outcome_is_unknown and not reader.has_effect():
            return Rewritten(())
        reason = ", ".join(dict.fromkeys(reader.reasons))
        marker = reader.rule(conditions_only=True) + trace_on()
        families = (n.NFPROTO_IPV4, n.NFPROTO_IPV6) if family == n.NFPROTO_INET else (family,)
        has_control = families[0] in (n.NFPROTO_IPV4, n.NFPROTO_IPV6)
        outcomes = reader.outcomes()
        if not has_control or reader.outcome_is_unknown or number + outcomes > MAX_NUMBER + 1:
            return Rewritten((), marker, reason)
        rules = [
            (family_test(each) if len(families) > 1 else b"") + condition + reader.rule(outcome)
            for each in families
            for outcome, condition in self._conditions(each, number, outcomes, reader.chooses)
        ]
        return Rewritten(tuple(rules), marker, reason, outcomes)

    def _conditions(self, family: int, number: int, outcomes: int, chooses: bool) -> Iterator[tuple[int, bytes]]:
        """Yield the outcomes of a rule, each with its test of the control word."""
        numbers = range(number, number + outcomes)
        for outcome, each in enumerate(numbers, 1 if chooses else 0):
            yield outcome, control_test(family, NUMBER, each)
        if chooses:  # the first number, for packets without a number
            yield 0, control_test(family, NUMBER, *numbers, equal=False)


class _Reader:
    """Reads the expressions of a rule in order, with the registers whose values are not known."""

    def __init__(
        self, family: int, table: str, limiting_sets: frozenset[SetName], object_maps: Mapping[SetName, int]
    ) -> None:
        self._family = family
        self._table = table
        self._limiting_sets = limiting_sets
        self._object_maps = object_maps
        self._unknown: set[int] = set()
        #: The expressions that stay, and whether each has an effect. An empty one is the number chosen by chance.
        self._kept: list[tuple[bytes, bool]] = []
        self._chosen: tuple[bytes, int, int] | None = None  # register, how many numbers, the first of them
        self.reasons: list[str] = []
        self.outcome_is_unknown = False

    @property
    def chooses(self) -> bool:
        """Whether the rule chooses a number by chance, and everything else in it is decidable."""
        return self._chosen is not None

    def outcomes(self) -> int:
        """Return how many outcomes the rule can have besides that of packets without a number."""
        return 1 if self._chosen is None else self._chosen[1] - 1

    def has_effect(self) -> bool:
        return any(effect for _raw, effect in self._kept)

    def rule(self, outcome: int = 0, conditions_only: bool = False) -> bytes:
        """Return the expressions that stay, with the number that is chosen in an outcome."""
        chosen = b""
        if self._chosen is not None:
            register, _count, first = self._chosen
            data = value(n.NFTA_IMMEDIATE_DATA, _HOST_U32.pack(first + outcome))
            chosen = expression("immediate", attribute(n.NFTA_IMMEDIATE_DREG, register), data)
        return b"".join(raw or chosen for raw, effect in self._kept if not (effect and conditions_only))

    def read(self, one: _Expression) -> None:
        if one.name in _WITHOUT_INFLUENCE:
            return
        if one.name in _UNKNOWN:
            self._unknown_effect(one.name)
        elif one.name in _UNDECIDABLE:
            self._condition_unknown(one.name)
        else:
            getattr(self, f"_read_{one.name}", self._read_other)(one)

    def _keep(self, one: _Expression, effect: bool = False) -> None:
        self._kept.append((one.raw, effect))

    def _unknown_effect(self, reason: str) -> None:
        self.reasons.append(reason)
        self.outcome_is_unknown = True

    def _condition_unknown(self, reason: str, register: bytes | None = None) -> None:
        self.outcome_is_unknown = self.outcome_is_unknown or self._chosen is not None
        self.reasons.append(reason)
        if register is not None:
            self._unknown |= _registers(register)

    def _loaded(self, one: _Expression, register: int) -> None:
        """Keep an expression that loads a register with a known value."""
        if register in one.data:
            self._unknown -= _registers(one.data[register])
        self._keep(one)

    def _is_unknown(self, one: _Expression, *registers: int) -> bool:
        return any(register in one.data and _registers(one.data[register]) & self._unknown for register in registers)

    def _read_other(self, one: _Expression) -> None:
        if one.name in _EFFECTS:
            self._keep(one, True)
        else:
            self._unknown_effect(one.name)

    def _read_payload(self, one: _Expression) -> None:
        if n.NFTA_PAYLOAD_SREG in one.data:
            self._keep(one, True)
            return
        base, start = one.number(n.NFTA_PAYLOAD_BASE), one.number(n.NFTA_PAYLOAD_OFFSET)
        places = set(range(start, start + one.number(n.NFTA_PAYLOAD_LEN)))
        if base == n.NFT_PAYLOAD_NETWORK_HEADER:
            known = {n.NFPROTO_IPV4: _KNOWN_IPV4, n.NFPROTO_IPV6: _KNOWN_IPV6}.get(self._family)
            decidable = places <= known if known is not None else places <= _KNOWN_IPV4 or places <= _KNOWN_IPV6
        elif base == n.NFT_PAYLOAD_TRANSPORT_HEADER:
            decidable = places <= _KNOWN_TRANSPORT or places <= _KNOWN_ICMP or places <= _KNOWN_TCP
        else:
            decidable = False
        if decidable:
            self._loaded(one, n.NFTA_PAYLOAD_DREG)
        else:
            what = {0: "link-layer header", 1: "network header", 2: "transport header"}.get(base, "payload")
            self._condition_unknown(what, one.data[n.NFTA_PAYLOAD_DREG])

    def _read_meta(self, one: _Expression) -> None:
        key = one.number(n.NFTA_META_KEY)
        reason = "" if key in _DECIDABLE_META else _META_NAMES.get(key, f"meta key {key}")
        self._read_key(one, n.NFTA_META_SREG, n.NFTA_META_DREG, reason, key in _META_WITHOUT_INFLUENCE)

    def _read_ct(self, one: _Expression) -> None:
        key = one.number(n.NFTA_CT_KEY)
        reason = "counters of the connection" if key in _UNDECIDABLE_CT else ""
        self._read_key(one, n.NFTA_CT_SREG, n.NFTA_CT_DREG, reason, key in _CT_WITHOUT_INFLUENCE)

    def _read_key(self, one: _Expression, source: int, register: int, reason: str, has_no_influence: bool) -> None:
        """Read an expression that sets a key from a source register, or loads it. `reason` says why it is unknown."""
        if source not in one.data:
            if reason:
                self._condition_unknown(reason, one.data[register])
            else:
                self._loaded(one, register)
        elif self._is_unknown(one, source) and not has_no_influence:
            self._unknown_effect("value of unknown origin")
        elif not has_no_influence:
            self._keep(one, True)

    def _read_exthdr(self, one: _Expression) -> None:
        if n.NFTA_EXTHDR_SREG in one.data:
            return
        if one.number(n.NFTA_EXTHDR_OP) in (n.NFT_EXTHDR_OP_IPV6, n.NFT_EXTHDR_OP_SCTP):
            self._loaded(one, n.NFTA_EXTHDR_DREG)
        else:
            self._condition_unknown("option of the packet", one.data.get(n.NFTA_EXTHDR_DREG))

    def _read_hash(self, one: _Expression) -> None:
        kind = one.number(n.NFTA_HASH_TYPE)
        if kind == n.NFT_HASH_JENKINS and n.NFTA_HASH_SEED in one.data and not self._is_unknown(one, n.NFTA_HASH_SREG):
            self._loaded(one, n.NFTA_HASH_DREG)
        else:
            self._choose(one, "hash with a random seed", n.NFTA_HASH_DREG, n.NFTA_HASH_MODULUS, n.NFTA_HASH_OFFSET)

    def _read_numgen(self, one: _Expression) -> None:
        self._choose(one, "numgen", n.NFTA_NG_DREG, n.NFTA_NG_MODULUS, n.NFTA_NG_OFFSET)

    def _choose(self, one: _Expression, reason: str, register: int, modulus: int, offset: int) -> None:
        """Keep the place of a number that is chosen by chance, if it is the only undecidable part of the rule."""
        count = one.number(modulus)
        if self.reasons or not 1 < count <= _MOST_OUTCOMES:
            self._condition_unknown(reason, one.data[register])
            return
        first = one.number(offset)
        self.reasons.append(reason)
        self._chosen = (one.data[register], count, first)
        self._unknown -= _registers(one.data[register])
        self._kept.append((b"", False))

    def _compare(self, one: _Expression, register: int) -> None:
        """Keep a comparison of a known value. That of an unknown one is a part of its undecidable condition."""
        if not self._is_unknown(one, register):
            self._keep(one)

    def _convert(self, one: _Expression, register: int, sources: tuple[int, ...]) -> None:
        if self._is_unknown(one, *sources):
            self._unknown |= _registers(one.data[register])
        else:
            self._loaded(one, register)

    def _read_immediate(self, one: _Expression) -> None:
        register = one.number(n.NFTA_IMMEDIATE_DREG)
        self._unknown -= _registers(one.data[n.NFTA_IMMEDIATE_DREG])
        self._keep(one, register == n.NFT_REG_VERDICT)

    def _read_lookup(self, one: _Expression) -> None:
        name = one.text(n.NFTA_LOOKUP_SET)
        verdict = n.NFTA_LOOKUP_DREG in one.data and not any(one.data[n.NFTA_LOOKUP_DREG])
        # A key may reach over the registers behind the first one
        if self._unknown and max(self._unknown) >= min(_registers(one.data[n.NFTA_LOOKUP_SREG])):
            if verdict:
                self._unknown_effect("verdict map with an unknown key")
            elif n.NFTA_LOOKUP_DREG in one.data:
                self._unknown |= _registers(one.data[n.NFTA_LOOKUP_DREG])
        elif (self._family, self._table, name) in self._limiting_sets:
            if verdict:
                self._unknown_effect("set with limits")
            else:
                self._condition_unknown("set with limits", one.data.get(n.NFTA_LOOKUP_DREG))
        elif verdict:
            self._keep(one, True)
        else:
            self._loaded(one, n.NFTA_LOOKUP_DREG)

    def _read_dynset(self, one: _Expression) -> None:
        """An update of a set that is allowed to fail only for its statements, such as a limit."""
        inner = [one.data[number] for number in (n.NFTA_DYNSET_EXPR, n.NFTA_DYNSET_EXPRESSIONS) if number in one.data]
        if any(b"limit" in data or b"quota" in data for data in inner):
            self._condition_unknown("dynamic set with limits")

    def _read_objref(self, one: _Expression) -> None:
        is_map = n.NFTA_OBJREF_SET_SREG in one.data
        kind = one.number(n.NFTA_OBJREF_IMM_TYPE)
        if is_map:
            kind = self._object_maps.get((self._family, self._table, one.text(n.NFTA_OBJREF_SET_NAME)), 0)
        if self._is_unknown(one, n.NFTA_OBJREF_SET_SREG):
            self._unknown_effect("map of objects with an unknown key")
        elif kind in (n.NFT_OBJECT_COUNTER, n.NFT_OBJECT_SECMARK):
            if is_map:  # a packet whose key is not in the map does not match
                self._keep(one)
        elif kind in (n.NFT_OBJECT_QUOTA, n.NFT_OBJECT_LIMIT, n.NFT_OBJECT_CONNLIMIT):
            self._condition_unknown("limit")
        elif kind == n.NFT_OBJECT_SYNPROXY:
            self._unknown_effect("synproxy")
        else:
            self._keep(one, True)

    def _translate(self, one: _Expression, registers: tuple[int, ...]) -> None:
        if self._is_unknown(one, *registers):
            self._unknown_effect("translation to one of several addresses")
        else:
            self._keep(one, True)

    def _read_match(self, one: _Expression) -> None:
        name = one.text(n.NFTA_MATCH_NAME)
        if name in _DECIDABLE_MATCHES:
            self._keep(one)
        else:
            self._condition_unknown(name)

    def _read_target(self, one: _Expression) -> None:
        name = one.text(n.NFTA_TARGET_NAME)
        if name in _TARGETS_WITHOUT_INFLUENCE:
            return
        if name == "CT":
            self._keep(_quiet_ct(one), True)
        elif name in _KNOWN_TARGETS:
            self._keep(one, True)
        else:
            self._unknown_effect(name)

    _read_rt = partialmethod(_loaded, register=n.NFTA_RT_DREG)
    _read_fib = partialmethod(_loaded, register=n.NFTA_FIB_DREG)
    _read_cmp = partialmethod(_compare, register=n.NFTA_CMP_SREG)
    _read_range = partialmethod(_compare, register=n.NFTA_RANGE_SREG)
    _read_bitwise = partialmethod(
        _convert, register=n.NFTA_BITWISE_DREG, sources=(n.NFTA_BITWISE_SREG, n.NFTA_BITWISE_SREG2)
    )
    _read_byteorder = partialmethod(_convert, register=n.NFTA_BYTEORDER_DREG, sources=(n.NFTA_BYTEORDER_SREG,))
    _read_nat = partialmethod(_translate, registers=n.NFTA_NAT_REGISTERS)
    _read_masq = partialmethod(_translate, registers=n.NFTA_MASQ_REGISTERS)
    _read_redir = partialmethod(_translate, registers=n.NFTA_REDIR_REGISTERS)


def _quiet_ct(one: _Expression) -> _Expression:
    """Return the target CT with events of new entries, and without a timeout policy.

    In struct xt_ct_target_info, the masks of events come behind two numbers of 16 bits. Since revision 1, the name of
    the policy comes behind the helper.
    """
    info = one.data[n.NFTA_TARGET_INFO]
    changed = info[:4] + bytes(8) + info[12:]
    if one.number(n.NFTA_TARGET_REV):
        changed = changed[:28] + bytes(32) + changed[60:]
    return one._replace(raw=one.raw.replace(info, changed, 1))


_META_NAMES = {
    0: "length of the packet",
    2: "priority",
    8: "type of the link",
    9: "type of the link",
    10: "user id",
    11: "group id",
    13: "realm",
    14: "security mark",
    20: "CPU",
    23: "cgroup",
    24: "random number",
    25: "IPsec",
    26: "kind of the link",
    27: "kind of the link",
    30: "time",
    31: "time",
    32: "time",
}


def _registers(data: bytes) -> set[int]:
    """Return the 32-bit registers that a register number stands for. Register 0 has the verdict."""
    (number,) = _U32.unpack(data)
    if number == n.NFT_REG_VERDICT:
        return set()
    if number < n.NFT_REG32_00:
        first = (number - n.NFT_REG_1) * 4
        return set(range(first, first + 4))
    return {number - n.NFT_REG32_00}
