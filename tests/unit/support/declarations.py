# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random declarations from small pools, so that they conflict in a table, and an independent check of entries."""

from __future__ import annotations

import contextlib
import functools
from ipaddress import ip_address
from typing import Any, Callable, Dict

from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Exists, Unsupported
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import Connection, Kernel

Document = Dict[str, Any]

HOSTS = {"ipv4": ["10.0.0.1", "10.0.0.2"], "ipv6": ["2001:db8::1", "2001:db8::2"]}
OUTSIDE = {"ipv4": ["198.51.100.1", "198.51.100.2"], "ipv6": ["2001:db8:9::1", "2001:db8:9::2"]}
FLOW = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1000, "destination_port": 80}
STATUS = {"seen_reply": 2, "assured": 4, "fixed_timeout": 0x400}
TCP_FLAGS = {"window_scale": 1, "sack_permitted": 2, "close_init": 4, "be_liberal": 8}
TCP_STATES = ["none", "syn_sent", "syn_recv", "established", "fin_wait", "close_wait", "last_ack", "time_wait"]
SCTP_STATES = ["none", "closed", "cookie_wait", "cookie_echoed", "established"]

numbers = st.sampled_from([0, 1, 0xFFFFFFFF])
ports = st.sampled_from([80, 1000])


def some_of(**keys: Any) -> Any:
    return st.fixed_dictionaries({}, optional=keys)


hosts = {family: st.permutations(addresses) for family, addresses in HOSTS.items()}
protocols = st.sampled_from(
    [("ipv4", "tcp"), ("ipv4", "udp"), ("ipv4", "sctp"), ("ipv4", "gre"), ("ipv4", 50), ("ipv4", "icmp")]
    + [("ipv6", "tcp"), ("ipv6", "udp"), ("ipv6", "icmpv6")]
)
zones = st.sampled_from(["", "", "", "zone", "original"])
booleans = st.booleans()


@st.composite
def declarations(draw: Any) -> Document:
    """Return a declaration for a play. There are few identities, and many of them are mirrored by another."""
    family, protocol = draw(protocols)
    source, destination = draw(hosts[family])
    ends: Document = {"source": source, "destination": destination}
    if protocol in ("tcp", "udp", "sctp"):
        ends.update(source_port=draw(ports), destination_port=draw(ports))
    elif protocol == "gre":
        ends.update(source_key=draw(ports), destination_key=draw(ports))
    elif protocol != 50:
        ends.update(icmp_type=8 if family == "ipv4" else 128, icmp_code=0, icmp_id=draw(ports))
    document = {"protocol": protocol, "original": ends, **draw(other_keys(protocol))}
    zone = draw(zones)
    if zone == "zone":
        document["zone"] = 5
    elif zone == "original":
        ends["zone"] = 7
    if draw(booleans):
        # the one ICMP id serves both ends, and the kernel does not translate GRE keys
        document["nat"] = draw(translations(family, protocol in ("tcp", "udp", "sctp")))
    return document


@functools.lru_cache(maxsize=None)
def other_keys(protocol: Any) -> Any:
    """Return all or some of the optional keys of a declaration."""
    adjustment = st.fixed_dictionaries({"position": numbers, "before": st.integers(-2, 2), "after": st.just(3)})
    helper = {"tcp": "ftp", "udp": "sip"}.get(str(protocol), "")
    keys: Document = {
        "timeout": st.sampled_from([60, 600]),
        "mark": st.sampled_from([0, 1, "0xff", "0x1/0xf", "0x10/0xf0", "0/0xff"]),
        "labels": st.lists(st.sampled_from([0, 31, 32, 127]), unique=True),
        "status": st.lists(st.sampled_from(["confirmed", "helper", "src_nat_done", *STATUS]), unique=True),
        "helper": st.sampled_from(["", helper]),
        "sequence_adjustment": some_of(original=adjustment, reply=adjustment),
        "synproxy": some_of(isn=numbers, its=numbers),
    }
    if protocol == "tcp":
        end = some_of(flags=st.lists(st.sampled_from(sorted(TCP_FLAGS)), unique=True))
        keys["tcp"] = some_of(state=st.sampled_from(TCP_STATES), original=end, reply=end)
    elif protocol == "sctp":
        keys["sctp"] = some_of(state=st.sampled_from(SCTP_STATES), original_vtag=numbers)
    return some_of(**keys)


@functools.lru_cache(maxsize=None)
def translations(family: str, has_ports: bool) -> Any:
    """Return an address translation, to one value or to a range, which may include the current value."""
    low, high = OUTSIDE[family]
    address = st.sampled_from([low, high, f"{low}-{high}", *HOSTS[family]])
    port = {"port": st.sampled_from([80, 2000, "2000-2010"])} if has_ports else {}
    end = some_of(address=address, **port).filter(bool)
    return some_of(source=end, destination=end).filter(bool)


def is_open(document: Document) -> bool:
    """Return whether a declaration leaves the kernel a choice of the translation."""
    nat = document.get("nat", {})
    asked = [str(value) for end in nat.values() for value in end.values()]
    return bool(nat) and (
        any("-" in value for value in asked) or (document["protocol"] != 50 and "port" not in nat.get("source", {}))
    )


def filled(documents: list[Document], **features: Any) -> Kernel:
    """Return a kernel whose table contains the entries that do not conflict with an earlier one."""
    kernel = Kernel(**features)
    with kernel.table() as table:
        for document in documents:
            plain = {key: value for key, value in document.items() if key not in ("sctp", "synproxy")}
            with contextlib.suppress(Exists, Unsupported):
                table.create(from_document(plain))
    kernel.forget()
    return kernel


def held(kernel: Kernel, document: Document) -> Connection | None:
    """Return the entry with the identity of a document, whatever its other values."""
    original = document["original"]
    for there in kernel.connections:
        ends = there.tuples[0]
        more = [original[key] for key in _MORE if key in original]
        same = (
            ends.source == ip_address(original["source"]).packed
            and ends.destination == ip_address(original["destination"]).packed
            and ends.protocol == _PROTOCOLS.get(document["protocol"], document["protocol"])
            and list(ends.more) == more
            and there.zone.of(0) == document.get("zone", original.get("zone", 0))
            and there.zone.of(1) == document.get("zone", document.get("reply", {}).get("zone", 0))
        )
        if same:
            return there
    return None


_MORE = (
    *("source_port", "destination_port", "source_key", "destination_key"),
    *("icmp_id", "icmp_type", "icmp_code"),
)
_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "gre": 47, "icmp": 1, "icmpv6": 58}


def missing(there: Connection, document: Document) -> list[str]:
    """Return the keys of a document that differ from the entry."""
    wrong = [key for key, value in document.items() if key in _CHECKS and not _CHECKS[key](there, value)]
    if "nat" in document:
        wrong += [f"nat.{end}" for end, asked in document["nat"].items() if not _translated(there, end, asked)]
    return wrong


def _marked(there: Connection, asked: Any) -> bool:
    value, slash, mask = str(asked).partition("/")
    return there.mark & (int(mask, 0) if slash else 0xFFFFFFFF) == int(value, 0)


def _has_status(there: Connection, names: list[str]) -> bool:
    return all(bool(there.status & bit) == (name in names) for name, bit in STATUS.items())


def _has_tcp(there: Connection, asked: Document) -> bool:
    for direction, name in enumerate(("original", "reply")):
        if asked.get(name, {}).get("flags") == [] and there.flags[direction] & sum(TCP_FLAGS.values()):
            return False
        for flag in asked.get(name, {}).get("flags", []):
            if not there.flags[direction] & TCP_FLAGS[flag]:
                return False
        if there.scales[direction] != asked.get(name, {}).get("window_scale", there.scales[direction]):
            return False
    return "state" not in asked or there.state == TCP_STATES.index(asked["state"])


def _has_sctp(there: Connection, asked: Document) -> bool:
    state = "state" not in asked or there.state == SCTP_STATES.index(asked["state"])
    return state and there.tags[0] == asked.get("original_vtag", there.tags[0])


def _is_adjusted(there: Connection, asked: Document) -> bool:
    for direction, name in enumerate(("original", "reply")):
        if name in asked:
            wanted = tuple(asked[name].get(key, 0) for key in ("position", "before", "after"))
            if there.adjustments[direction] != wanted:
                return False
    return True


def _is_proxied(there: Connection, asked: Document) -> bool:
    members = zip(("isn", "its", "tsoff"), there.synproxy)
    return all(asked.get(name, value) == value for name, value in members)


def _translated(there: Connection, end: str, asked: Document) -> bool:
    ends = there.tuples[1].inverted()
    address = ip_address(getattr(ends, end))
    low, _dash, high = str(asked.get("address", address)).partition("-")
    if not ip_address(low).packed <= address.packed <= ip_address(high or low).packed:
        return False
    if "port" not in asked:
        return True
    port = ends.more[0 if end == "source" or len(ends.more) == 3 else 1]
    first, _dash, last = str(asked["port"]).partition("-")
    return int(first) <= port <= int(last or first)


_CHECKS: dict[str, Callable[[Connection, Any], bool]] = {
    "mark": _marked,
    "labels": lambda there, asked: there.labels == sum(1 << bit for bit in asked),
    "status": _has_status,
    "helper": lambda there, asked: there.helper == asked,
    "tcp": _has_tcp,
    "sctp": _has_sctp,
    "sequence_adjustment": _is_adjusted,
    "synproxy": _is_proxied,
    "reply": lambda there, asked: "source" not in asked or there.tuples[1].source == ip_address(asked["source"]).packed,
    "master": lambda there, asked: (
        there.master is not None and there.master.tuples[0].source == ip_address(asked["source"]).packed
    ),
}
