# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The differences between a declared and an actual entry, and the smallest update that removes them.

Only declared keys are compared. Keys that change by themselves (counters, timeout, ids) and status bits that only the
kernel sets are left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Iterable, Iterator, Mapping, Sequence

from .. import uapi
from ..codec.attributes import ENTRY, FIXED, KEY, UPDATE, Change
from ..codec.types import LABELS, STATUS, TCP_STATES
from ..errors import InvalidValue
from .creation import SETTABLE_STATUS, TCP_FLAGS, inseparable_groups
from .document import present_translation
from .entry import OFFLOADED, Entry
from .labels import NO_LABELS, LabelMap
from .nat import port_key, requested_ranges, translations

_COMPARED = {
    row.key: row
    for row in ENTRY
    if row.use & (UPDATE | FIXED)
    and not row.use & KEY
    and row.key not in ("timeout", "mark_mask", "labels_mask", "reply.zone", "master.zone")
}
#: Keys, and prefixes that name a group of keys.
_COMPARABLE = {"family", "extra"} | {
    ".".join(steps[:depth]) for steps in (row.key.split(".") for row in ENTRY) for depth in range(1, len(steps) + 1)
}
_IDENTIFYING = tuple(row.key for row in ENTRY if row.use & KEY) + ("reply.zone",)
_PROTOCOL_STATE = ("tcp.", "sctp.", "dccp.")
_WINDOW_SCALES = ("tcp.original.window_scale", "tcp.reply.window_scale")
#: Keys with a mask of the bits that are declared.
_MASKS = {"mark": "mark_mask", "labels": "labels_mask"}
#: TCP flags that an empty list clears. The kernel sets the others again when packets come.
_CLEARED = (
    uapi.IP_CT_TCP_FLAG_WINDOW_SCALE
    | uapi.IP_CT_TCP_FLAG_SACK_PERM
    | uapi.IP_CT_TCP_FLAG_CLOSE_INIT
    | uapi.IP_CT_TCP_FLAG_BE_LIBERAL
)
#: TCP states in which one direction has no flags yet
_OPENING = (TCP_STATES["syn_sent"], TCP_STATES["syn_sent2"])


def differences(declared: Mapping[str, Any], actual: Mapping[str, Any], labels: LabelMap = NO_LABELS) -> list[Change]:
    """Return the changes that make `actual` as declared, in the order of the attribute table."""
    return [*_translation(declared, actual), *_attributes(declared, actual, labels)]


def _attributes(declared: Mapping[str, Any], actual: Mapping[str, Any], labels: LabelMap) -> Iterator[Change]:
    translated = any(key.startswith("nat.") for key in declared)
    offloaded = actual.get("status", 0) & OFFLOADED
    for key, row in _COMPARED.items():
        if key not in declared:
            continue
        if translated and key.startswith("reply."):
            continue  # `nat` is compared; the reply is its result
        if offloaded and key.startswith(_PROTOCOL_STATE):
            continue  # the flow table tracks it, and the kernel does not show it
        if _half_open(key, declared, actual) or _unseen(key, declared):
            continue
        wanted, there = declared[key], actual.get(key)
        if _satisfied(key, wanted, there, declared):
            continue
        before: Any
        after: Any
        if key == "labels":
            shown = (there or 0) & _mask(key, declared)
            before, after = (labels.to_names(LABELS.present(bits)) for bits in (shown, wanted))
        elif key == "mark" and "mark_mask" in declared:
            mask = declared["mark_mask"]
            before, after = (f"{bits:#x}/{mask:#x}" for bits in ((there or 0) & mask, wanted))
        elif key == "status":
            kept = (there or 0) & ~SETTABLE_STATUS
            before, after = map(STATUS.present, (there or 0, kept | wanted & SETTABLE_STATUS))
        else:
            before = None if there is None else row.kind.present(there)
            after = row.kind.present(_flags_after(wanted, there or 0) if key in TCP_FLAGS else wanted)
        yield Change(key, before, after)


def _satisfied(key: str, wanted: Any, there: Any, declared: Mapping[str, Any]) -> bool:
    if key == "status":
        return not ((there or 0) ^ wanted) & SETTABLE_STATUS
    if key in _MASKS:
        return not ((there or 0) ^ wanted) & _mask(key, declared)
    if key in TCP_FLAGS:
        return _flags_after(wanted, there or 0) == (there or 0)
    if there is None:
        return not wanted  # an absent helper, sequence adjustment or synproxy is none
    return bool(there == wanted)


def _flags_after(wanted: int, there: int) -> int:
    """Return the TCP flags after an update. Flags that the kernel has set stay, unless none is declared."""
    return there | wanted if wanted else there & ~_CLEARED


def _mask(key: str, declared: Mapping[str, Any]) -> int:
    """Return the bits of a key that are declared: all, unless there is a mask."""
    mask: int = declared.get(_MASKS[key], -1)
    return mask


def _unscaled(declared: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Return the flag keys of directions without the flag that window scaling requires in both directions."""
    flag = uapi.IP_CT_TCP_FLAG_WINDOW_SCALE
    after = {key: actual.get(key, 0) for key in TCP_FLAGS}
    seen = (key for key in TCP_FLAGS if key in declared and not _unseen(key, declared))
    after.update((key, _flags_after(declared[key], after[key])) for key in seen)
    return [key for key in TCP_FLAGS if not after[key] & flag]


def _half_open(key: str, declared: Mapping[str, Any], actual: Mapping[str, Any]) -> bool:
    """Whether this is a window scale that one end has offered and the other has not answered yet.

    The kernel reports such a scale, but accepts it only from packets.
    """
    if key not in _WINDOW_SCALES:
        return False
    own = declared.get(key.replace("window_scale", "flags"), 0)
    return bool(own & uapi.IP_CT_TCP_FLAG_WINDOW_SCALE and _unscaled(declared, actual))


def _unseen(key: str, declared: Mapping[str, Any]) -> bool:
    """Whether these are the flags of a direction in which no packet had been seen when the entry was read.

    If they are declared again, they must not clear flags that the connection got since then.
    """
    return key in TCP_FLAGS and not declared[key] and declared.get("tcp.state") in _OPENING


def _translation(declared: Mapping[str, Any], actual: Mapping[str, Any]) -> Iterator[Change]:
    found = translations(actual)
    for end in ("source", "destination"):
        addresses, ports = requested_ranges(declared, end)
        if addresses is None and ports is None:
            continue
        shown = found.get(end)
        address = actual.get(f"original.{end}")
        port = actual.get(port_key(actual, "original", end) or "")
        if shown is not None:
            address = shown.address
            port = port if shown.port is None else shown.port
        if addresses is not None and not (address is not None and addresses[0] <= address <= addresses[1]):
            pass
        elif ports is None or (port is not None and ports[0] <= port <= ports[1]):
            continue
        in_force = {key: value for key, value in actual.items() if not key.startswith("nat.")}
        before = present_translation(in_force).get(end)
        yield Change(f"nat.{end}", before, present_translation(declared)[end])


def equal(one: Mapping[str, Any], other: Mapping[str, Any], keys: Iterable[str]) -> bool:
    """Whether two entries are equal in `keys`. A key such as `original` stands for all keys of that group.

    A key that only one of them has makes a difference, also if its value is 0. Raises `InvalidValue` for a key that no
    entry can have.
    """
    for key in keys:
        if key not in _COMPARABLE:
            raise InvalidValue(key, "no entry has such a key; write one such as mark, original or tcp.state")
        for name in {*one, *other}:
            if (name == key or name.startswith(f"{key}.")) and (
                (name in one) != (name in other) or one[name] != other[name]
            ):
                return False
    return True


def forces_replacement(
    changes: Iterable[Change], declared: Mapping[str, Any], actual: Mapping[str, Any]
) -> dict[str, str]:
    """Return, by key, why the kernel cannot make a change in place."""
    found = {}
    for change in changes:
        reason = _obstacle(change.key, declared, actual)
        if reason is not None:
            found[change.key] = reason
    return found


def _obstacle(key: str, declared: Mapping[str, Any], actual: Mapping[str, Any]) -> str | None:
    status = actual.get("status", 0)
    if key.startswith(("nat.", "reply.", "master.")):
        return "it is set when an entry is created and stays"
    if key == "helper":
        if declared["helper"]:
            return "a helper can be attached only when an entry is created"
        if status & uapi.IPS_EXPECTED:
            return "an expected connection keeps its helper"
    if key == "status":
        lost = status & ~declared["status"] & SETTABLE_STATUS
        if lost:
            return f"status bits can be set but not cleared ({', '.join(STATUS.present(lost))})"
    if key == "timeout" and status & uapi.IPS_FIXED_TIMEOUT:
        return "its timeout is fixed (status fixed_timeout)"
    if key in _WINDOW_SCALES:
        return _no_scaling(declared, actual)
    return None


def _no_scaling(declared: Mapping[str, Any], actual: Mapping[str, Any]) -> str | None:
    unscaled = _unscaled(declared, actual)
    if not unscaled:
        return None
    return f"it takes effect only with the flag window_scale in both directions, {unscaled[0]} lacks it"


def unsupported_on_create(declared: Mapping[str, Any]) -> dict[str, str]:
    """Return, by key, why the kernel would not accept a value even for a new entry."""
    reason = _no_scaling(declared, {})
    if reason is None:
        return {}
    return {key: reason for key in _WINDOW_SCALES if declared.get(key) and not _half_open(key, declared, {})}


def fill_groups(declared: Mapping[str, Any]) -> Entry:
    """Return `declared` with 0 for missing keys of groups that the kernel accepts only as a whole."""
    entry, groups = dict(declared), _groups()
    for key in declared:
        for other in groups.get(key, ()):
            entry.setdefault(other, 0)
    return entry


@lru_cache(maxsize=None)
def _groups() -> dict[str, Sequence[str]]:
    """Return, by key, all keys that the kernel accepts only together with it."""
    return {key: keys for keys in (*inseparable_groups(), _WINDOW_SCALES) for key in keys}


def merged_value(key: str, declared: Mapping[str, Any], actual: Mapping[str, Any]) -> Any:
    """Return the value of a key after a change in place: the declared bits, and the other bits as they are."""
    wanted, there = declared[key], actual.get(key) or 0
    if key == "status":
        # The kernel accepts the current value of every bit, and refuses another value of most
        return there | wanted & SETTABLE_STATUS
    if key in _MASKS:
        return there & ~_mask(key, declared) | wanted
    if key in TCP_FLAGS:
        return _flags_after(wanted, there)
    return wanted


def patch(changes: Iterable[Change], declared: Mapping[str, Any], actual: Mapping[str, Any]) -> Entry:
    """Return the smallest update that makes `changes`: an entry with its identifying keys and the changed keys."""
    update = {key: actual[key] for key in ("family", *_IDENTIFYING) if key in actual}
    for change in changes:
        key = change.key
        update[key] = merged_value(key, declared, actual)
        if _MASKS.get(key, "") in declared:
            update[key], update[_MASKS[key]] = declared[key], declared[_MASKS[key]]
        for other in _groups().get(key, ()):
            update.setdefault(other, declared.get(other, actual.get(other, 0)))
    return update


def check_timeout_min(timeout_min: int, declared: Mapping[str, Any], parent: str = "") -> None:
    """Raise `InvalidValue` for a `timeout_min` without a timeout, or above it. `parent` is the path of the timeout."""
    if timeout_min and "timeout" not in declared:
        raise InvalidValue("timeout_min", f"there is no timeout to set; write {parent}timeout too")
    if timeout_min and timeout_min > declared["timeout"]:
        raise InvalidValue(
            "timeout_min",
            f"{timeout_min} is above {parent or 'the '}timeout, which would be set on every run; "
            f"write {declared['timeout']} or less",
        )


def timeout_changes(
    declared: Mapping[str, Any], actual: Mapping[str, Any], timeout_min: int, shorten: bool = False
) -> list[Change]:
    """Set the declared timeout if fewer seconds than `timeout_min` remain, or with `shorten`, more than it.

    An offloaded entry shows no timeout and uses none.
    """
    timeout, remaining = declared.get("timeout"), actual.get("timeout")
    if timeout is None or remaining is None or timeout_min <= remaining <= (timeout if shorten else remaining):
        return []
    return [Change("timeout", remaining, timeout)]
