# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Expectations: connections that another one, the master, has announced, and that have not begun yet.

An expectation is a flat mapping, as an entry is (entry/entry.py)::

    key                                       value
    family                                    int: AF_INET (2) or AF_INET6 (10)
    tuple.…, mask.…, master.…, nat.tuple.…    the keys of a tuple, as in original.… of an entry
    zone                                      int: that of the master
    class                                     int: number of the helper's class of expectations
    flags                                     int: NF_CT_EXPECT_* bits
    function                                  str: name of the kernel function for NAT, such as nat-follow-master
    nat.direction                             int: 0 is original, 1 is reply
    timeout                                   int: seconds that are left
    helper                                    str: name of the master's helper
    id                                        int: the kernel's id of the expectation
    extra                                     dict of bytes by attribute path, as in an entry

A connection is expected if its original tuple equals `tuple` in the bits that are set in `mask`. The kernel always
compares the destination in full. It never reports the zone of an expectation: `located` determines it.

`attributes.py` has the attribute table, and `document.py` converts an expectation to and from its document.

The functions that take a `Table` raise `NotPermitted`, `Unavailable` and `ResultUnknown` as its methods do.

Source: ctattr_expect and ctattr_expect_nat in include/uapi/linux/netfilter/nfnetlink_conntrack.h, and
what net/netfilter/nf_conntrack_netlink.c and nf_conntrack_expect.c do with each.
"""

from __future__ import annotations

import errno
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Collection, Hashable, Iterable, Iterator, Mapping

from .. import uapi
from ..codec.attributes import CREATE, FIXED, KEY, Change
from ..codec.codec import Codec
from ..ctnetlink.messages import family_of, nfgenmsg, payload_of
from ..entry.entry import Entry, Identity
from ..entry.tuple import describe_tuple, tuple_key, tuple_of, with_tuple
from ..entry.zone import any_zone
from ..errors import InvalidValue, KernelError, NotFound, TableFull, Unsupported
from ..netlink.message import Message
from ..table_reader import TableReader, parse_answer
from .attributes import EXPECTATION, FLAGS, OF_SOURCE, SETTABLE_FLAGS, Expectation, full_mask, is_zero, zero
from .document import from_document, to_document

if TYPE_CHECKING:
    from ..entry.labels import LabelMap
    from ..match.match import Match
    from ..table import Table

__all__ = [
    "EXPECTATION",
    "FLAGS",
    "MATCH_KEYS",
    "NO_HELPER",
    "NO_MASTER",
    "Expectation",
    "as_entry",
    "create",
    "create_message",
    "creation",
    "creation_of",
    "delete",
    "delete_message",
    "describe",
    "differences",
    "dump",
    "find_by_tuple",
    "flush",
    "from_document",
    "get",
    "get_message",
    "identity",
    "located",
    "master_of",
    "overlap",
    "parse_expectation",
    "parse_match",
    "read_all",
    "read_of_master",
    "to_document",
    "update",
    "update_message",
    "with_whole_mask",
]

_EXPECTATIONS = Codec(EXPECTATION)
_TUPLE = tuple(dict.fromkeys(row.key for row in EXPECTATION if row.key.startswith("tuple.")))

_KEYS = frozenset(row.key for row in EXPECTATION if row.use & KEY)
_CREATED = frozenset(row.key for row in EXPECTATION if row.use & CREATE)
#: The keys of a request to create an expectation. For the helper, see `_with_helper`.
_SENT = _CREATED | {"helper"}
#: The keys of an update, for which the kernel requires all three tuples, too.
_UPDATED = frozenset(key for key in _CREATED if key.startswith(("zone", "tuple.", "mask.", "master."))) | {"timeout"}
_DELETED = _KEYS | {"id"}
_OF_MASTER = frozenset(key for key in _CREATED if key.startswith(("zone", "master.")))


# Identity


def identity(expectation: Mapping[str, Any]) -> Identity:
    """Return the hashable identity of an expectation: its zone, family and tuple."""
    get = expectation.get
    return (get("zone") or 0, get("family"), *(get(key) for key in _TUPLE))


def describe(expectation: Mapping[str, Any]) -> str:
    """Return one line that names it: `expectation of tcp 192.0.2.21 -> 10.0.0.1:4000 (zone 5)`. `?` is any address."""
    shown = {
        name: value
        for name, value in tuple_of(expectation, "tuple").items()
        if not (name in OF_SOURCE and is_zero(expectation.get(f"mask.{name}", value)))
    }
    zone = expectation.get("zone")
    return f"expectation of {describe_tuple(shown)}" + (f" (zone {zone})" if zone else "")


def master_of(expectation: Mapping[str, Any]) -> Entry:
    """Return an entry with the family, zone and original tuple of the master, by which to find it."""
    about = {key: expectation[key] for key in ("family", "zone") if key in expectation}
    return {**about, **with_tuple("original", tuple_of(expectation, "master"))}


def overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a connection can be expected by both, which the kernel allows only in different zones."""
    if any(one.get(key, 0) != other.get(key, 0) for key in ("family", "zone")):
        return False
    for key in _TUPLE:
        name = key.partition(".")[2]
        here, there = one.get(key), other.get(key)
        if name in OF_SOURCE and here is not None and there is not None:
            mask = _as_integer(one.get(f"mask.{name}", 0)) & _as_integer(other.get(f"mask.{name}", 0))
            if (_as_integer(here) ^ _as_integer(there)) & mask:
                return False
        elif here != there:
            return False
    return True


def _as_integer(value: Any) -> int:
    return int.from_bytes(value, "big") if isinstance(value, bytes) else int(value)


def creation(declared: Mapping[str, Any]) -> Expectation:
    """Return a complete expectation, as a request to create it must have it.

    It has no timeout: the kernel gives a new expectation that of the helper. Raises `InvalidValue` without a master.
    """
    if "master.source" not in declared:
        raise InvalidValue("master", "is missing; write the original tuple of the connection that announces this one")
    expectation = with_whole_mask({key: value for key, value in declared.items() if key != "timeout"})
    if "nat.direction" in declared:
        for name, value in tuple_of(declared, "master").items():
            own = value if name in ("protocol", "icmp_type", "icmp_code") else zero(value)
            expectation.setdefault(f"nat.tuple.{name}", own)
    if not expectation.get("function"):
        expectation.pop("function", None)
    return expectation


def with_whole_mask(declared: Mapping[str, Any]) -> Expectation:
    """Return the expectation with a mask for each key of its tuple.

    The default mask of the source has all bits, or none if the tuple has 0 or nothing there.
    """
    expectation = dict(declared)
    for name, value in tuple_of(declared, "tuple").items():
        key = f"mask.{name}"
        if name in OF_SOURCE:
            expectation.setdefault(key, zero(value) if is_zero(value) else full_mask(name, value))
        elif name in ("protocol", "icmp_type", "icmp_code"):
            expectation[key] = value  # ignored, but checked as in any tuple
        else:
            expectation[key] = full_mask(name, value)
    return expectation


def differences(declared: Mapping[str, Any], actual: Mapping[str, Any]) -> list[Change]:
    """Return the keys in which `actual` differs from `declared`. The kernel can change none of them in place.

    The timeout is not compared, nor are parts of the mask and of NAT that the kernel ignores.
    """
    changes: dict[str, Change] = {}
    for row in EXPECTATION:
        key, name = row.key, row.key.rpartition(".")[2]
        if not row.use & FIXED or key not in declared:
            continue
        if key.startswith(("mask.", "nat.tuple.")) and name not in OF_SOURCE:
            continue
        wanted, there = declared[key], actual.get(key)
        if key == "flags":
            same = not ((there or 0) ^ wanted) & SETTABLE_FLAGS
        else:
            same = is_zero(wanted) if there is None else there == wanted
        if not same:
            before = None if there is None else row.kind.present(there)
            changes[key] = Change(key, before, row.kind.present(wanted))
    return list(changes.values())


# Which expectations

#: The keys of a match that apply to expectations.
MATCH_KEYS = (
    *("family", "protocol", "zone", "helper", "source", "destination", "address"),
    *("source_port", "destination_port", "port", "icmp_type", "icmp_code", "icmp_id", "source_key", "destination_key"),
    *("timeout_below", "timeout_above", "master", "except"),
)


def parse_match(raw: Any, labels: LabelMap, key: str = "match") -> Match:
    """Convert a dictionary, or a list of them, to a match for `as_entry` of expectations. Raises `InvalidValue`."""
    from ..match import match

    parsed = match.parse_match(raw, labels, key)
    _check_match(raw, key)
    return parsed


def _check_match(raw: Any, key: str) -> None:
    from ..match.match import from_text

    raw = from_text(raw, key)
    if not isinstance(raw, Mapping):
        for index, item in enumerate(raw):
            _check_match(item, f"{key}[{index}]")
        return
    for name, value in raw.items():
        if name not in MATCH_KEYS:
            raise InvalidValue(f"{key}.{name}", f"an expectation has none; write one of {', '.join(MATCH_KEYS)}")
        if name == "except":
            _check_match(value, f"{key}.{name}")


def as_entry(expectation: Mapping[str, Any]) -> Entry:
    """Return an expectation as the entry that a match takes, with the expected tuple as its original tuple."""
    shown = {key: expectation[key] for key in ("family", "zone", "helper", "timeout") if key in expectation}
    master = with_tuple("master", tuple_of(expectation, "master"))
    return {**shown, **with_tuple("original", tuple_of(expectation, "tuple")), **master}


# Messages


def _about(expectation: Mapping[str, Any], keys: Collection[str]) -> bytes:
    if "tuple.destination" not in expectation or "tuple.protocol" not in expectation:
        raise InvalidValue("tuple", "is missing: such a message would be about every expectation")
    return nfgenmsg(expectation["family"]) + _EXPECTATIONS.encode(expectation, keys)


def create_message(expectation: Mapping[str, Any]) -> Message:
    """Build the request to create an expectation (see `creation`). The kernel returns EEXIST if its tuple is taken."""
    return Message(uapi.IPCTNL_MSG_EXP_NEW, uapi.NLM_F_CREATE | uapi.NLM_F_EXCL, _about(expectation, _SENT))


def update_message(expectation: Mapping[str, Any]) -> Message:
    """Build the request to set the timeout of an expectation, the only key that the kernel changes in place."""
    return Message(uapi.IPCTNL_MSG_EXP_NEW, 0, _about(expectation, _UPDATED))


def get_message(expectation: Mapping[str, Any]) -> Message:
    """Build the request for the expectation whose tuple and mask match this tuple.

    It has no id: before Linux 6.11, the kernel compares the id with another number than it reports.
    """
    return Message(uapi.IPCTNL_MSG_EXP_GET, 0, _about(expectation, _KEYS))


def delete_message(expectation: Mapping[str, Any]) -> Message:
    """Build the request to delete the expectation whose tuple and mask match; with `id`, only the one with this id."""
    return Message(uapi.IPCTNL_MSG_EXP_DELETE, 0, _about(expectation, _DELETED))


def parse_expectation(message: Message) -> Expectation:
    """Return the expectation in a message. Raises `MalformedMessage`."""
    expectation = _EXPECTATIONS.decode(*payload_of(message))
    expectation["family"] = family_of(message)
    return expectation


# The operations


def create(table: Table, expectation: Mapping[str, Any]) -> None:
    """Create an expectation. Its timeout is that of its helper; use `update` to change it.

    Raises `Exists` if its tuple is taken, `NotFound` without its master, `Unsupported` if the master has no helper, and
    `TableFull`. If the helper has its maximum number of expectations, the kernel deletes the oldest one.
    """
    try:
        _ask(table, "creating", expectation, create_message(_with_helper(table, creation(expectation))))
    except KernelError as error:
        raise _explained(error, expectation) from None


def _with_helper(table: Table, expectation: Expectation) -> Expectation:
    """Add the name of the master's helper to a creation that has a class, and remove it from others.

    Kernels before the middle of 2026 (5.10.223 among them) apply a class only if the request has the name. Newer
    kernels always use the master's own helper.
    """
    others = {key: value for key, value in expectation.items() if key != "helper"}
    if not expectation.get("class"):
        return others
    try:
        master = table.get(master_of(expectation))
    except NotFound:
        return others  # the kernel then returns the same error
    return {**others, **{key: master[key] for key in ("helper",) if key in master}}


def _ask(table: TableReader, doing: str, expectation: Mapping[str, Any], message: Message) -> list[Message]:
    """Send a request about an expectation, and return the answers."""
    return table.ask(f"{doing} the {describe(expectation)}", message, EXPECTATION)


def update(table: Table, expectation: Mapping[str, Any]) -> None:
    """Set the timeout of an expectation that was read. Raises `NotFound`, and `InvalidValue` without a timeout."""
    if "timeout" not in expectation:
        raise InvalidValue("timeout", "is missing; write a number of seconds")
    _ask(table, "updating", expectation, update_message(creation_of(expectation)))


def creation_of(expectation: Mapping[str, Any]) -> Expectation:
    """Return a complete expectation with its timeout."""
    return {**creation(expectation), **{key: expectation[key] for key in ("timeout",) if key in expectation}}


def get(table: TableReader, expectation: Mapping[str, Any]) -> Expectation:
    """Return the expectation with the zone and tuple of this one. Raises `NotFound`."""
    found = find_by_tuple(table, expectation)
    if identity(found) != identity(expectation):
        raise NotFound(f"reading the {describe(expectation)}", errno.ENOENT)
    return found


def find_by_tuple(table: TableReader, expectation: Mapping[str, Any]) -> Expectation:
    """Return the expectation whose tuple and mask match this tuple. Raises `NotFound`."""
    doing = f"reading the {describe(expectation)}"
    answers = _ask(table, "reading", expectation, get_message(expectation))
    if not answers:
        raise NotFound(doing, errno.ENOENT)
    return {**_zone_item(expectation), **parse_answer(doing, parse_expectation, answers[0])}


def _zone_item(expectation: Mapping[str, Any]) -> Expectation:
    return {"zone": expectation["zone"]} if expectation.get("zone") else {}


def delete(table: Table, expectation: Mapping[str, Any]) -> None:
    """Delete an expectation; with `id`, only if it is still the one that was read. Raises `NotFound`."""
    try:
        _ask(table, "deleting", expectation, delete_message(expectation))
    except NotFound:
        # Before Linux 6.11, the kernel compares the id with another number than it reports
        if "id" not in expectation or find_by_tuple(table, expectation).get("id") != expectation["id"]:
            raise
        without = {key: value for key, value in expectation.items() if key != "id"}
        _ask(table, "deleting", expectation, delete_message(without))


def flush(table: Table) -> None:
    """Delete every expectation of the table's namespace."""
    table.ask("deleting every expectation", Message(uapi.IPCTNL_MSG_EXP_DELETE, 0, nfgenmsg()))


def read_all(table: TableReader, family: int = 0) -> Iterator[Expectation]:
    """Yield the expectations of the table's namespace, of one family or of both, without their zones."""
    return table.read(Message(uapi.IPCTNL_MSG_EXP_GET, 0, nfgenmsg(family)), parse_expectation)


def read_of_master(table: TableReader, expectation: Mapping[str, Any]) -> Iterator[Expectation]:
    """Yield the expectations that have the master of this one. Raises `NotFound` without the master."""
    payload = nfgenmsg(expectation["family"]) + _EXPECTATIONS.encode(expectation, _OF_MASTER)
    # Without NLM_F_ACK, the kernel sends nothing at all if the master has no helper
    for found in table.read(Message(uapi.IPCTNL_MSG_EXP_GET, uapi.NLM_F_ACK, payload), parse_expectation):
        yield {**_zone_item(expectation), **found}


def located(table: TableReader, expectations: Iterable[Mapping[str, Any]]) -> Iterator[Expectation]:
    """Yield expectations that were read, with their zones. Those that no longer exist are left out.

    This takes a request for each, and for expectations in other zones than 0, one reading of the table for their
    masters.
    """
    zones: dict[Hashable, set[int]] | None = None
    for expectation in expectations:
        if "zone" in expectation or _is_in(table, expectation, 0):
            yield dict(expectation)
            continue
        if zones is None:
            zones = _zones_of_masters(table)
        for zone in sorted(zones.get(tuple_key(expectation, "master"), ())):
            if _is_in(table, expectation, zone):
                yield {**expectation, "zone": zone}
                break


def dump(table: TableReader, match: Match) -> Iterator[Expectation]:
    """The expectations that match (see `parse_match`), each with its zone."""
    return (found for found in located(table, read_all(table)) if match(as_entry(found)))


def _is_in(table: TableReader, expectation: Mapping[str, Any], zone: int) -> bool:
    try:
        found = find_by_tuple(table, {**expectation, "zone": zone})
    except NotFound:
        return False
    return found.get("id") == expectation.get("id")


def _zones_of_masters(table: TableReader) -> dict[Hashable, set[int]]:
    """Return the zones of entries with a helper, by their original tuples."""
    zones: dict[Hashable, set[int]] = defaultdict(set)
    for entry in table.dump():
        zone = any_zone(entry)
        if zone and "helper" in entry:
            zones[tuple_key(entry, "original")].add(zone)
    return zones


def _explained(error: KernelError, expectation: Mapping[str, Any]) -> KernelError:
    """Add a hint to the error of a creation."""
    code = error.errno
    if isinstance(error, NotFound):
        return error.with_hint(NO_MASTER)
    if isinstance(error, Unsupported):
        return error.with_hint(NO_HELPER)
    if code == errno.EMFILE:
        return TableFull(
            error.request,
            code,
            error.text,
            hint="The table of expectations is full; raise net.netfilter.nf_conntrack_expect_max "
            "(expect_max of conntrack_settings) or remove those that are stale",
        )
    if code in (errno.EBUSY, errno.EALREADY):
        return error.with_hint("Another expectation applies to some of the same connections; delete that one first")
    if code == errno.ESHUTDOWN:
        return error.with_hint("Its master is about to end")
    if code == errno.EINVAL and error.text is None:
        reasons = []
        if expectation.get("class"):
            reasons.append(f"the helper of its master has no class {expectation['class']}")
        if expectation.get("function"):
            reasons.append(
                f"the kernel has no function {expectation['function']!r}: there is nat-follow-master, and those of "
                "the helpers whose modules are loaded"
            )
        return error.with_hint(("Perhaps " + ", or ".join(reasons)) if reasons else "")
    return error


NO_MASTER = (
    "There is no connection with the tuple of its master in its zone: create that first, or take the tuple "
    "from conntrack_info"
)
NO_HELPER = (
    "Its master has no helper, so it can have no expectations: a connection gets one from a rule (ct helper set in "
    "nftables, -j CT --helper in iptables) or when it is created (helper of conntrack_entry)"
)
