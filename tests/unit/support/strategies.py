# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random entries, documents and matches.

Addresses, ports and other numbers come from small pools as well, so that random matches find
random entries.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.attributes import ENTRY, Attribute
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import default_reply, protocol_keys
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.tuple_keys import MASTER_KEYS
from ansible_collections.netops.conntrack.tests.unit.support import wire

IPV4 = ("10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1", "0.0.0.0", "255.255.255.255")
IPV6 = ("2001:db8::1", "2001:db8::2", "2001:db8:1::1", "::ffff:10.0.0.1", "::", "fe80::1")
PROTOCOLS = tuple(types.PROTOCOLS.values())
PORTS = (0, 1, 53, 80, 443, 65535)

Entry = Any


def of_kind(kind: types.AttributeType) -> st.SearchStrategy[Any]:
    """Return any value of a kind; add each new kind here."""
    if isinstance(kind, types.MaskedFlags):
        return st.integers(0, 0xFF)
    if isinstance(kind, types.Integer):
        return st.integers(kind.lowest, kind.highest)
    if isinstance(kind, types.Address):
        size = int(kind.format[:-1])
        return st.binary(min_size=size, max_size=size)
    if isinstance(kind, types.LabelBitmap):
        return st.integers(0, (1 << types.LABEL_BITS) - 1)
    assert isinstance(kind, types.Text), f"no strategy for {kind}"
    names = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]))
    return names.filter(lambda name: len(name.encode()) <= kind.longest)


def rows(family: int, protocol: int) -> list[Attribute]:
    """Return the rows of the attribute table that an entry of this family and protocol can have."""
    found: dict[str, Attribute] = {}
    keys = protocol_keys(protocol)
    for row in ENTRY:
        group, _unused, name = row.key.partition(".")
        in_tuple = group in ("original", "reply", "master")
        if row.family not in (None, family) or row.protocol not in (None, protocol):
            continue
        if in_tuple and name not in ("source", "destination", "protocol", "zone", *keys):
            continue
        found[row.key] = row
    return list(found.values())


@st.composite
def raw_entries(draw: Any) -> Entry:
    """Return any value under any key of the table, whether or not a kernel would combine them."""
    family = draw(st.sampled_from([types.AF_INET, types.AF_INET6]))
    protocol = draw(st.sampled_from([*PROTOCOLS, 50, 255]))
    entry = {"family": family}
    for row in draw(st.lists(st.sampled_from(rows(family, protocol)), unique=True)):
        entry[row.key] = draw(of_kind(row.kind))
    for group in ("original", "reply", "master"):
        if any(key.startswith(group + ".") for key in entry):
            entry[f"{group}.protocol"] = protocol
    return entry


@st.composite
def odd_messages(draw: Any) -> bytes:
    """Return the payload of a message with any attributes of any size, some of them more than once."""
    family = draw(st.sampled_from([types.AF_INET, types.AF_INET6]))
    protocol = draw(st.sampled_from([6, 17, 47, 1]))
    few = [*("original.source", "original.destination", "original.protocol", "original.destination_port")]
    few += [*("mark", "zone", "status", "timeout", "counters.original.bytes", "counters.reply.bytes", "tcp.state")]
    all_rows = rows(family, protocol)
    some_rows = [row for row in all_rows if row.key in few]
    payload = bytes((family, 0, 0, 0))
    for row in draw(st.lists(st.one_of(st.sampled_from(some_rows), st.sampled_from(all_rows)), max_size=8)):
        size = len(row.kind.encode(0)) if isinstance(row.kind, types.Integer) else 4
        size = draw(st.sampled_from([size, size, size, 0, 1, 3, 8]))
        payload += wire.attribute(row.path, draw(st.binary(min_size=size, max_size=size)))
    return payload


@st.composite
def addresses(draw: Any, family: int) -> str:
    pool = IPV4 if family == types.AF_INET else IPV6
    size = 4 if family == types.AF_INET else 16
    anything = st.binary(min_size=size, max_size=size).map(types.present_address)
    return str(draw(st.one_of(st.sampled_from(pool), anything)))


ports = st.one_of(st.sampled_from(PORTS), st.integers(0, 0xFFFF))


@st.composite
def tuples(draw: Any, family: int, protocol: int) -> dict[str, Any]:
    """Return one tuple as in a document, with which a packet could start a connection."""
    there: dict[str, Any] = {
        "source": draw(addresses(family)),
        "destination": draw(addresses(family)),
    }
    for name in protocol_keys(protocol):
        there[name] = draw(ports)
    if protocol == types.PROTOCOLS["icmp"]:
        there["icmp_type"] = draw(st.sampled_from([8, 0, 13, 14, 15, 16, 17, 18]))
    elif protocol == types.PROTOCOLS["icmpv6"]:
        there["icmp_type"] = draw(st.sampled_from([128, 129, 139, 140]))
    if "icmp_code" in there:
        there["icmp_code"] &= 0xFF
    return there


def names(known: Any) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(known)), unique=True)


def optional(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a dictionary with some of these keys."""
    return st.fixed_dictionaries({}, optional=keys)


u32 = st.one_of(st.sampled_from([0, 1, 0xFFFFFFFF]), st.integers(0, 0xFFFFFFFF))
u64 = st.integers(0, (1 << 64) - 1)
adjustments = st.fixed_dictionaries(
    {
        "position": u32,
        "before": st.integers(-(1 << 31), (1 << 31) - 1),
        "after": st.integers(-(1 << 31), (1 << 31) - 1),
    }
)
masked = st.tuples(u32, u32).map(lambda pair: f"{pair[0] & pair[1]:#x}/{pair[1]:#x}")
counters = st.fixed_dictionaries({"packets": u64, "bytes": u64})
tcp_end = optional(window_scale=st.integers(0, 14), flags=names(types.TCP_FLAG_BITS))


@st.composite
def documents(draw: Any) -> dict[str, Any]:
    """Return a valid declaration, with any of its optional keys."""
    name = draw(st.sampled_from([*types.PROTOCOLS, 50, 255]))
    protocol = types.PROTOCOLS.get(name, name)
    if name == "icmp":
        family = types.AF_INET
    elif name == "icmpv6":
        family = types.AF_INET6
    else:
        family = draw(st.sampled_from([types.AF_INET, types.AF_INET6]))
    document: dict[str, Any] = {
        "protocol": name,
        "original": draw(tuples(family, protocol)),
        **draw(
            optional(
                family=st.just("ipv4" if family == types.AF_INET else "ipv6"),
                timeout=u32,
                mark=st.one_of(u32, masked),
                labels=st.lists(st.integers(0, 127), unique=True),
                status=names(set(types.STATUS_BITS) - {"src_nat", "dst_nat"}),
                helper=st.sampled_from(["", "ftp", "sip-20000"]),
                master=tuples(family, protocol),
                sequence_adjustment=optional(original=adjustments, reply=adjustments),
                synproxy=st.fixed_dictionaries({"isn": u32, "its": u32, "tsoff": u32}),
                counters=optional(original=counters, reply=counters),
                security_context=st.just("system_u:object_r:unlabeled_t:s0"),
                id=u32,
                use=u32,
                extra=st.just({"99": "c0ffee"}),
            )
        ),
    }
    zone = draw(st.sampled_from(["", "zone", "original", "reply"]))
    if zone == "zone":
        document["zone"] = draw(st.integers(0, 3) | st.integers(0, 0xFFFF))
    elif zone == "original":
        document["original"]["zone"] = draw(st.integers(1, 3) | st.integers(1, 0xFFFF))
    if name == "tcp":
        states = st.sampled_from(sorted(types.TCP_STATES))
        document.update(draw(optional(tcp=optional(state=states, original=tcp_end, reply=tcp_end))))
    elif name == "sctp":
        states = st.sampled_from(sorted(types.SCTP_STATES))
        tags = {"state": states, "original_vtag": u32, "reply_vtag": u32}
        document.update(draw(optional(sctp=st.fixed_dictionaries(tags))))
    elif name == "dccp":
        states = st.sampled_from(sorted(types.DCCP_STATES))
        roles = st.sampled_from(["client", "server"])
        document.update(draw(optional(dccp=optional(state=states, role=roles, handshake_sequence=u64))))
    if draw(st.booleans()) and protocol_keys(protocol):
        ends = optional(address=addresses(family), port=ports)
        ends = ends.filter(bool)
        document["nat"] = draw(optional(source=ends, destination=ends))
    return document


@st.composite
def live_entries(draw: Any) -> Entry:
    """Return an entry as a kernel shows it: both tuples, counters, a start time, with or without NAT."""
    document = draw(documents())
    for key in ("nat", "mark", "timeout"):
        document.pop(key, None)
    entry = from_document(document)
    entry.update({**default_reply(entry), **entry})
    family = entry["family"]
    for key, kind in (("status", types.STATUS), ("mark", types.U32), ("timeout", types.U32)):
        if draw(st.booleans()):
            entry[key] = draw(st.one_of(st.integers(0, 0x3F), of_kind(kind)))
    if draw(st.booleans()):
        entry["reply.source"] = types.parse_address(draw(addresses(family)), "")
        entry["reply.destination"] = types.parse_address(draw(addresses(family)), "")
    if not entry.get("zone") and "original.zone" not in entry and draw(st.booleans()):
        entry["reply.zone"] = draw(st.integers(1, 3))
    for direction in ("original", "reply"):
        for what in ("packets", "bytes"):
            entry[f"counters.{direction}.{what}"] = draw(st.integers(0, 200))
    entry["timestamps.start"] = draw(st.integers(0, 2 * NOW))
    return entry


#: The time at which the ages of `live_entries` are computed, in nanoseconds.
NOW = 1_000_000_000_000

Some = st.SearchStrategy[Any]


def some(one: Some) -> Some:
    """Return one value, or a list of values."""
    return st.one_of(one, st.lists(one, min_size=1, max_size=3))


def spans(one: Some) -> Some:
    """Return a number, or a range from the lower to the higher of two."""
    pairs = st.tuples(one, one).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
    return st.one_of(one, one.map(str), one.map(hex), pairs)


@st.composite
def address_sets(draw: Any) -> str:
    """Return an address, a block or a range."""
    family = draw(st.sampled_from([types.AF_INET, types.AF_INET6]))
    address = draw(addresses(family))
    form = draw(st.sampled_from(["address", "block", "range"]))
    if form == "block":
        bits = 32 if family == types.AF_INET else 128
        block = ipaddress.ip_network((address, draw(st.integers(0, bits))), strict=False)
        return str(block)
    if form == "range":
        low, high = sorted([address, draw(addresses(family))], key=ipaddress.ip_address)
        return f"{low}-{high}"
    return str(address)


def specified(text: str) -> str:
    """Return the same with a prefix length for an unspecified address, which most keys refuse without one."""
    return f"{text}/{32 if text == '0.0.0.0' else 128}" if text in ("0.0.0.0", "::") else text


u8s = st.one_of(st.sampled_from([0, 8, 13, 128]), st.integers(0, 0xFF))
bounds = st.one_of(st.integers(0, 400), st.integers(0, 2 * NOW // 1_000_000_000))
label_lists = st.lists(st.integers(0, 127), min_size=1, max_size=2)
some_labels = st.one_of(st.integers(0, (1 << 128) - 1), st.integers(0, 127).map(lambda bit: 1 << bit))
masked_labels = st.tuples(st.one_of(st.just(0), some_labels), some_labels.filter(bool)).map(
    lambda pair: f"{pair[0] & pair[1]:#x}/{pair[1]:#x}"
)
status_lists = st.lists(st.sampled_from(sorted(types.STATUS_BITS)), min_size=1, max_size=2)
states = st.sampled_from(sorted({*types.TCP_STATES, *types.SCTP_STATES, *types.DCCP_STATES}))
zones = st.one_of(st.integers(0, 3), st.integers(0, 0xFFFF))

#: The values of each key of a match.
MATCH_VALUES: dict[str, Some] = {
    "family": some(st.sampled_from(["ipv4", "ipv6"])),
    "protocol": some(st.sampled_from([*types.PROTOCOLS, 50, "17", "esp", "ipv6-icmp"])),
    "helper": some(st.sampled_from(["ftp", "sip-20000"])),
    "mark": some(st.one_of(u32, u32.map(hex), masked.filter(lambda text: not text.endswith("/0x0")))),
    "state": some(states),
    "nat": some(st.sampled_from(["source", "destination", "any", "none"])),
    "expected": st.booleans(),
    **dict.fromkeys(["zone", "original_zone", "reply_zone"], some(zones)),
    **dict.fromkeys(["source", "reply_destination"], some(address_sets())),
    **dict.fromkeys(["destination", "reply_source", "address", "reply_address"], some(address_sets().map(specified))),
    **dict.fromkeys(
        ["source_port", "destination_port", "reply_source_port", "reply_destination_port", "port"],
        some(spans(ports).filter(lambda text: "x" not in str(text))),
    ),
    **dict.fromkeys(["icmp_type", "icmp_code"], some(spans(u8s))),
    **dict.fromkeys(["icmp_id", "source_key", "destination_key"], some(spans(ports))),
    **dict.fromkeys(["status", "status_not"], status_lists),
    "labels": label_lists | masked_labels | masked_labels.map(lambda text: [text]),
    "labels_not": label_lists | masked_labels | st.lists(st.integers(0, 127) | masked_labels, min_size=1, max_size=3),
    **{f"{what}_{side}": bounds for what in ("timeout", "bytes", "packets", "age") for side in ("below", "above")},
}
MATCH_VALUES["master"] = some(
    st.one_of(
        *(MATCH_VALUES[key].map(lambda value, key=key: {key: value}) for key in MASTER_KEYS),
        st.fixed_dictionaries({"protocol": MATCH_VALUES["protocol"], "source": MATCH_VALUES["source"]}),
    )
)


@st.composite
def simple_matches(draw: Any) -> dict[str, Any]:
    """Return a match of up to three keys."""
    keys = draw(st.lists(st.sampled_from(sorted(MATCH_VALUES)), min_size=1, max_size=3, unique=True))
    return {key: draw(MATCH_VALUES[key]) for key in keys}


@st.composite
def matches(draw: Any) -> Any:
    """Return a match, or a list of matches, with or without an exception."""
    match = draw(simple_matches())
    if draw(st.booleans()):
        match["except"] = draw(some(simple_matches()))
    return draw(st.sampled_from([match, [match], [match, draw(simple_matches())]]))


@st.composite
def many_matches(draw: Any) -> list[dict[str, Any]]:
    """Return more matches than are evaluated one after another, most of them with the same key."""
    keys = st.sampled_from(sorted(MATCH_VALUES))
    shared, exception, other = draw(keys), draw(keys), draw(keys)
    found = []
    for _number in range(draw(st.integers(9, 14))):
        key = draw(st.sampled_from([shared, shared, shared, other]))
        match: dict[str, Any] = {key: draw(MATCH_VALUES[key])}
        if draw(st.booleans()):
            match["except"] = {exception: draw(MATCH_VALUES[exception])}
        found.append(match)
    return found
