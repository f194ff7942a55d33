# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys by which entries are grouped: how they are written, what they need of an entry, and how they are shown.

They have the names of the keys of a match. An address can have prefix lengths (`source/24`, `source/24/56`), the mark a
mask (`mark/0xff`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from .. import uapi
from ..codec.types import (
    DCCP_STATE,
    FAMILIES,
    LABELS,
    PROTOCOL,
    SCTP_STATE,
    STATUS,
    TCP_STATE,
    parse_integer,
    present_address,
)
from ..entry.labels import NO_LABELS, LabelMap
from ..errors import InvalidValue, quoted

#: The prefix length of IPv6 networks if only that of IPv4 networks is given.
_IPV6_PREFIX = 64
_BITS = {4: 32, 16: 128}
_FAMILY_NAMES = {number: name for name, number in FAMILIES.items()}
_STATES = {"tcp.state": TCP_STATE, "sctp.state": SCTP_STATE, "dccp.state": DCCP_STATE}
_ADDRESSES = {
    "source": "original.source",
    "destination": "original.destination",
    "reply_source": "reply.source",
    "reply_destination": "reply.destination",
}
_NUMBERS = {
    **{f"{name}_port": f"{key}_port" for name, key in _ADDRESSES.items()},
    **{name: f"original.{name}" for name in ("icmp_type", "icmp_code", "icmp_id", "source_key", "destination_key")},
    "helper": "helper",
}
#: The NAT of an entry by its two status bits.
_NAT_NAMES = {
    0: "none",
    uapi.IPS_SRC_NAT: "source",
    uapi.IPS_DST_NAT: "destination",
    uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT: "both",
}


class GroupKey(NamedTuple):
    """A key by which entries are grouped.

    `value` computes the value by which entries are compared from the values of `needs` in an entry. If it is None, that
    is the only value in `needs` itself, or None if the entry does not have it. `present` returns what a result shows.
    `written` is the key as it was written, for example with a prefix length.
    """

    name: str
    needs: tuple[str, ...]
    value: Callable[[Mapping[str, Any]], Any] | None
    present: Callable[[Any], Any]
    written: str = ""

    def of(self, entry: Mapping[str, Any]) -> Any:
        """Return the value of an entry."""
        return entry.get(self.needs[0]) if self.value is None else self.value(entry)


def _itself(value: Any) -> Any:
    return value


def _or_none(present: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else present(value)


def _first(keys: Sequence[str], absent: Any, entry: Mapping[str, Any]) -> Any:
    """Return the first of these values that is neither absent nor zero."""
    return next((entry[key] for key in keys if entry.get(key)), absent)


def _state(entry: Mapping[str, Any]) -> Any:
    return next(((key, entry[key]) for key in _STATES if key in entry), None)


def _bits(mask: int, key: str, entry: Mapping[str, Any]) -> int:
    bits: int = entry.get(key, 0) & mask
    return bits


def _network(key: str, lengths: Mapping[int, int], entry: Mapping[str, Any]) -> Any:
    address = entry.get(key)
    if address is None:
        return None
    size = len(address)
    host = _BITS[size] - lengths[size]
    return (int.from_bytes(address, "big") >> host << host).to_bytes(size, "big")


def _present_network(lengths: Mapping[int, int], network: bytes) -> str:
    return f"{present_address(network)}/{lengths[len(network)]}"


def _simple_keys(labels: LabelMap) -> dict[str, GroupKey]:
    zones: dict[str, tuple[str, ...]] = {
        "zone": ("zone", "original.zone", "reply.zone"),
        **{f"{end}_zone": (f"{end}.zone", "zone") for end in ("original", "reply")},
    }
    computed: dict[str, tuple[tuple[str, ...], Callable[[Mapping[str, Any]], Any], Callable[[Any], Any]]] = {
        "state": (tuple(_STATES), _state, lambda found: _STATES[found[0]].present(found[1])),
        **{name: (keys, partial(_first, keys, 0), _itself) for name, keys in zones.items()},
        "mark": (("mark",), partial(_bits, 0xFFFFFFFF, "mark"), _itself),
        "status": (("status",), partial(_bits, 0xFFFFFFFF, "status"), STATUS.present),
        "nat": (("status",), partial(_bits, uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT, "status"), _NAT_NAMES.__getitem__),
        "expected": (("status",), partial(_bits, uapi.IPS_EXPECTED, "status"), bool),
        "labels": (("labels",), partial(_first, ("labels",), 0), lambda bits: labels.to_names(LABELS.present(bits))),
    }
    plain: dict[str, tuple[str, Callable[[Any], Any]]] = {
        "family": ("family", lambda number: _FAMILY_NAMES.get(number, number)),
        "protocol": ("original.protocol", PROTOCOL.present),
        **{name: (key, present_address) for name, key in _ADDRESSES.items()},
        **{name: (key, _itself) for name, key in _NUMBERS.items()},
    }
    return {
        **{name: GroupKey(name, (key,), None, partial(_or_none, present)) for name, (key, present) in plain.items()},
        **{
            name: GroupKey(name, needs, value, partial(_or_none, present))
            for name, (needs, value, present) in computed.items()
        },
    }


def parse_group_by(raw: Any, key: str, labels: LabelMap = NO_LABELS) -> tuple[GroupKey, ...]:
    """Parse a list of names of keys. Raises `InvalidValue`."""
    if not isinstance(raw, (list, tuple)) or not raw:
        raise InvalidValue(key, f"{quoted(raw)} is not a list of keys; write for example [source, state]")
    simple = _simple_keys(labels)
    found: dict[str, GroupKey] = {}
    for number, text in enumerate(raw):
        path = f"{key}[{number}]"
        name, slash, rest = text.partition("/") if isinstance(text, str) else ("", "", "")
        if name not in simple:
            raise InvalidValue(path, f"{quoted(text)} is not a key to group by; write one of {', '.join(simple)}")
        if name in found:
            raise InvalidValue(path, f"{name} is written twice; write it once")
        one = simple[name]
        if slash and name == "mark":
            one = one._replace(value=partial(_bits, parse_integer(rest, path, 1, 0xFFFFFFFF), "mark"))
        elif slash and name in _ADDRESSES:
            lengths = _prefix_lengths(text, rest, path)
            one = one._replace(
                value=partial(_network, _ADDRESSES[name], lengths),
                present=partial(_or_none, partial(_present_network, lengths)),
            )
        elif slash:
            raise InvalidValue(path, f"{name} has no networks; write {name} without the slash")
        found[name] = one._replace(written=text)
    return tuple(found.values())


def _prefix_lengths(text: str, rest: str, key: str) -> dict[int, int]:
    """Return the prefix length by the size of an address, from `24`, `56` (of IPv6 networks only) or `24/56`."""
    try:
        lengths = [parse_integer(one, key, 0, 128) for one in rest.split("/")]
    except InvalidValue:
        lengths = []
    if len(lengths) == 1:
        lengths = [lengths[0], _IPV6_PREFIX] if lengths[0] <= _BITS[4] else [_BITS[4], lengths[0]]
    if len(lengths) != 2 or lengths[0] > _BITS[4]:
        name = text.partition("/")[0]
        raise InvalidValue(
            key,
            f"{quoted(text)} has no valid prefix length after the slash; write {name}/24, or {name}/24/64 with IPv6",
        )
    return {4: lengths[0], 16: lengths[1]}
