# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of a match that the kernel can filter, so that a dump has fewer messages or a flush is one request.

No kernel from 5.10 on leaves out a matching entry because of such a filter: it applies an attribute of the filter or
ignores it. Conditions that the filter cannot express on every kernel are left to the match itself, which is evaluated
for every entry in any case.

Source: ctnetlink_alloc_filter, ctnetlink_filter_match and ctnetlink_del_conntrack in
net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import struct
from functools import reduce
from typing import Any, Mapping, NamedTuple

from .. import uapi
from ..codec.codec import ENTRIES
from ..codec.types import AF_INET, AF_INET6, family_of
from ..entry.tuple import answered_type
from ..entry.zone import ZONE_KEYS
from ..netlink.message import attribute, nested
from .expression import And, InRanges, MaskEquals, Or, Term

_U32 = struct.Struct("=I")  # the two words of CTA_FILTER are in the host's byte order

_ADDRESSES = {
    "original.source": uapi.CTA_FILTER_F_CTA_IP_SRC,
    "original.destination": uapi.CTA_FILTER_F_CTA_IP_DST,
}
_BOTH_ADDRESSES = uapi.CTA_FILTER_F_CTA_IP_SRC | uapi.CTA_FILTER_F_CTA_IP_DST
_PORTS = {
    "original.source_port": uapi.CTA_FILTER_F_CTA_PROTO_SRC_PORT,
    "original.destination_port": uapi.CTA_FILTER_F_CTA_PROTO_DST_PORT,
}
#: The keys of a protocol that the kernel compares.
_OF_PROTOCOL: dict[int, dict[str, int]] = {
    uapi.IPPROTO_TCP: _PORTS,
    uapi.IPPROTO_UDP: _PORTS,
    uapi.IPPROTO_ICMP: {
        "original.icmp_type": uapi.CTA_FILTER_F_CTA_PROTO_ICMP_TYPE,
        "original.icmp_code": uapi.CTA_FILTER_F_CTA_PROTO_ICMP_CODE,
        "original.icmp_id": uapi.CTA_FILTER_F_CTA_PROTO_ICMP_ID,
    },
    uapi.IPPROTO_ICMPV6: {
        "original.icmp_type": uapi.CTA_FILTER_F_CTA_PROTO_ICMPV6_TYPE,
        "original.icmp_code": uapi.CTA_FILTER_F_CTA_PROTO_ICMPV6_CODE,
        "original.icmp_id": uapi.CTA_FILTER_F_CTA_PROTO_ICMPV6_ID,
    },
}


class KernelFilter(NamedTuple):
    """A filter for a dump, or for a flush if it is `exact` and `fails_closed`.

    `family` is AF_INET, AF_INET6 or 0 for both; `attributes` follow nfgenmsg. `exact`: a kernel that applies all
    attributes selects matching entries only. `fails_closed`: a kernel that does not apply all attributes refuses a
    flush with them, and deletes nothing.
    """

    family: int
    attributes: bytes
    exact: bool
    fails_closed: bool


class _Conditions(NamedTuple):
    """Conditions that every matching entry meets: values by key, and values of `mark` and `status` under a mask.

    An absent zone is 0. `exact`: every entry that meets all of them matches.
    """

    values: Mapping[str, Any]
    masked: Mapping[str, tuple[int, int]]
    exact: bool


def narrow(term: Term) -> KernelFilter:
    """Return the filter that has as much of the term as one filter can have."""
    conditions = _conditions(term)
    values, exact = dict(conditions.values), conditions.exact
    family = values.pop("family", 0)
    sent: dict[str, Any] = {"family": family}
    for key, (value, mask) in conditions.masked.items():
        if mask:  # the kernel refuses a mask of 0, and uses the value as the mask of a status without one
            sent[key], sent[f"{key}_mask"] = value, mask

    # The kernel compares only the number, which an entry with one direction in the zone has, too. Number 0 means that
    # all three are 0.
    zones = [values.pop(key, None) for key in ZONE_KEYS]
    if zones[0] or zones == [0, 0, 0]:
        sent["zone"] = zones[0]
    exact = exact and zones in ([0, 0, 0], [None] * 3)

    flags = 0
    for key, flag in _comparable(family, values).items():
        if key in values:
            sent[key] = values.pop(key)
            flags |= flag
    attributes = ENTRIES.encode(sent)
    if flags:
        words = attribute(uapi.CTA_FILTER_ORIG_FLAGS, _U32.pack(flags))
        words += attribute(uapi.CTA_FILTER_REPLY_FLAGS, _U32.pack(0))  # wrong before 5.16, so never any
        attributes += nested(uapi.CTA_FILTER, words)
    # Up to 6.11, a deletion with a whole tuple deletes the entry of that tuple, whatever else it
    # says. No tuple is whole without both addresses.
    fails_closed = bool(flags) and flags & _BOTH_ADDRESSES != _BOTH_ADDRESSES
    return KernelFilter(family, attributes, exact and not values, fails_closed)


def narrow_all(term: Term) -> list[KernelFilter]:
    """Return one filter for both families, or one for each family if these have more of the term.

    The kernel compares protocols and ports only if the filter has a family.
    """
    whole = narrow(term)
    if whole.family:
        return [whole]
    each = [narrow(And((InRanges(("family",), ((family, family),)), term))) for family in (AF_INET, AF_INET6)]
    return each if all(one.fails_closed for one in each) else [whole]


def _comparable(family: int, values: Mapping[str, Any]) -> dict[str, int]:
    """Return the keys that the tuple of a filter can have with these values, and the flag for each."""
    if family not in (AF_INET, AF_INET6):
        return {}
    protocol: int = values.get("original.protocol", -1)
    flags = {"original.protocol": uapi.CTA_FILTER_F_CTA_PROTO_NUM, **_OF_PROTOCOL.get(protocol, {})}
    if family == AF_INET:  # of IPv6, the kernel takes those with any other address
        flags.update({key: flag for key, flag in _ADDRESSES.items() if len(values.get(key, b"")) == 4})
    if "original.icmp_type" in flags and answered_type(protocol, values.get("original.icmp_type", -1)) is None:
        del flags["original.icmp_type"]  # the kernel refuses a type that starts no connection
    return flags


_NOTHING = _Conditions({}, {}, False)
_ALWAYS = _Conditions({}, {}, True)


def _conditions(term: Term) -> _Conditions:
    if isinstance(term, And):
        return reduce(_intersection, map(_conditions, term.terms), _ALWAYS)
    if isinstance(term, Or) and term.terms:
        return reduce(_union, map(_conditions, term.terms))
    if isinstance(term, InRanges) and term.ranges:
        return _in_ranges(term)
    if isinstance(term, MaskEquals) and len(term.values) == 1:
        key, (value, mask) = term.key, term.values[0]
        if key in ("mark", "status") and not value & ~mask:
            return _Conditions({}, {key: (value, mask)}, True)
        if key in ZONE_KEYS and value == 0 and mask & 0xFFFF == 0xFFFF:
            return _Conditions({key: 0}, {}, True)
    return _NOTHING


def _in_ranges(term: InRanges) -> _Conditions:
    (low, high), key = term.ranges[0], term.keys[0]
    single = low == high and len(set(term.ranges)) == 1 and len(term.keys) == 1
    values: dict[str, Any] = {}
    if term.absent is None and all(isinstance(bound[0], bytes) for bound in term.ranges):
        families = {family_of(bound[0]) for bound in term.ranges}
        if len(families) == 1:
            values["family"] = families.pop()
    # ICMP has no family of its own: netlink makes entries of ICMP over IPv6, too.
    if single and term.absent == (0 if key in ZONE_KEYS else None):
        values[key] = low
    return _Conditions(values, {}, single and key in values)


def _intersection(one: _Conditions, other: _Conditions) -> _Conditions:
    """Return conditions of entries that match both. If these contradict each other, one of them is enough."""
    exact = one.exact and other.exact and all(one.values.get(key, at) == at for key, at in other.values.items())
    masked = dict(one.masked)
    for key, (value, mask) in other.masked.items():
        known, under = masked.get(key, (0, 0))
        if (known ^ value) & under & mask:
            exact = False
        else:
            masked[key] = known | value, under | mask
    return _Conditions({**other.values, **one.values}, masked, exact)


def _union(one: _Conditions, other: _Conditions) -> _Conditions:
    """Return conditions of entries that match at least one."""
    values = {key: at for key, at in one.values.items() if key in other.values and other.values[key] == at}
    masked = {}
    for key in one.masked.keys() & other.masked.keys():
        (value, mask), (another, under) = one.masked[key], other.masked[key]
        common = mask & under & ~(value ^ another)
        masked[key] = value & common, common
    return _Conditions(values, masked, False)
