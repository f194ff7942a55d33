# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the forms of conntrack(8) have in common: names, states, and what a listed entry has."""

from __future__ import annotations

import re
from typing import Any, Callable, Mapping, NamedTuple

from .. import shape, uapi, values
from ..attributes import ENTRY
from ..entry import UNTRACKED, Entry, protocol_keys, untranslated
from ..errors import InvalidValue
from ..labels import LabelMap

#: The kind of value of each key; both families' addresses are read alike.
KINDS: dict[str, values.Kind] = {row.key: row.kind for row in ENTRY}

#: The key of the state of a protocol that has states.
STATES: dict[int, str] = {
    uapi.IPPROTO_TCP: "tcp.state",
    uapi.IPPROTO_SCTP: "sctp.state",
    uapi.IPPROTO_DCCP: "dccp.state",
}
#: What states were called before.
_OLDER_STATES = {("tcp.state", "LISTEN"): "syn_sent2"}


def _hexadecimal(value: Any) -> str:
    return f"{value:#x}"


#: What a tuple is made of, as text and XML call it: the name here, and how a value is written.
TUPLE: dict[str, tuple[str, Callable[[Any], str]]] = {
    "src": ("source", values.present_address),
    "dst": ("destination", values.present_address),
    "sport": ("source_port", str),
    "dport": ("destination_port", str),
    "srckey": ("source_key", _hexadecimal),
    "dstkey": ("destination_key", _hexadecimal),
    "type": ("icmp_type", str),
    "code": ("icmp_code", str),
    "id": ("icmp_id", str),
}
#: The other way round: text and XML's word, and how a value is written.
TUPLE_WORDS = {name: (text, show) for text, (name, show) in TUPLE.items()}
COUNTERS = ("packets", "bytes")
TIMES = ("start", "stop")
BILLION = 1_000_000_000

#: Both ends of a connection: what is translated, who answers it, and the bit that says so.
ENDS = (
    ("source", "destination", uapi.IPS_SRC_NAT),
    ("destination", "source", uapi.IPS_DST_NAT),
)


class Unreadable(InvalidValue):
    """Text that is not in its form; `key` says where (`line 3`, `flow 3`), `problem` what is wrong."""


class Names(LabelMap):
    """Labels for texts alone, where a name that no connlabel.conf knows stands for itself.

    Such a name gets a bit beyond those that the kernel has: no entry with it can be sent.
    """

    def _bit(self, item: Any, key: str) -> int:
        try:
            return super()._bit(item, key)
        except InvalidValue:
            if not isinstance(item, str) or not re.fullmatch(r"[^\W\d][^\s,]*", item) or not item.isprintable():
                raise
            bit = self.bits[item] = max(values.LABEL_BITS - 1, *self.names, -1) + 1
            self.names[bit] = item
            return bit


def read_labels(raw: Any, key: str, labels: LabelMap) -> Entry:
    """The labels of an entry from names and numbers; none for an empty list."""
    bits = labels.to_bits(raw, key)
    return {"labels": sum(1 << bit for bit in set(bits))} if bits else {}


class Show(NamedTuple):
    """What to show that the program shows only when asked (`-o extended,id,ktimestamp,labels`)."""

    extended: bool = False
    id: bool = False
    ktimestamp: bool = False
    labels: bool = False


def protocol_name(number: int) -> str:
    """The program's name of a protocol."""
    name = values.PROTOCOL.present(number)
    return name if isinstance(name, str) else "unknown"


def word(entry: Mapping[str, Any], key: str) -> str:
    """A text that stands between blanks; `InvalidValue` if it could not be told from what follows."""
    text = str(entry[key])
    if not text.isprintable() or " " in text:
        raise InvalidValue(key, f"{text!r} cannot be written between blanks; write the entries as json")
    return text


def state_of(entry: Mapping[str, Any]) -> str | None:
    """The protocol's state in capitals; 0x… for one without a name, which no number is mistaken for."""
    key = STATES.get(entry["original.protocol"], "")
    if key not in entry:
        return None
    state = KINDS[key].present(entry[key])
    return state.upper() if isinstance(state, str) else f"{state:#x}"


def read_state(text: str, protocol: int) -> Entry:
    """The state of an entry of this protocol as `state_of` writes it."""
    if protocol not in STATES:
        raise InvalidValue("state", f"protocol {protocol_name(protocol)} has no states; leave {text} out")
    key = STATES[protocol]
    return {key: KINDS[key].parse(_OLDER_STATES.get((key, text.upper()), text), "state")}


def port_key(entry: Mapping[str, Any], direction: str, end: str) -> str | None:
    """The key of the number beside an address that is translated with it: port, GRE key or ICMP id."""
    names = protocol_keys(entry["original.protocol"])
    name = next((name for name in (f"{end}_port", f"{end}_key", "icmp_id") if name in names), None)
    return name and f"{direction}.{name}"


def as_listed(entry: Mapping[str, Any]) -> Entry:
    """The entry as the kernel would list it: with a reply, and `nat` asked for in force.

    Raises `InvalidValue` where `nat` leaves the kernel a choice.
    """
    listed = {**(untranslated(entry) if "reply.source" not in entry else {}), **entry}
    for end, answered_by, bit in ENDS:
        wanted = {
            f"reply.{answered_by}": f"nat.{end}.address",
            port_key(entry, "reply", answered_by): f"nat.{end}.port",
        }
        for key, asked in wanted.items():
            if key is None or f"{asked}_min" not in entry:
                continue
            low, high = entry[f"{asked}_min"], entry.get(f"{asked}_max", entry[f"{asked}_min"])
            if not low <= listed[key] <= high:
                if low != high:
                    raise InvalidValue(asked, "is a range, from which the kernel has yet to choose; write the reply")
                listed[key] = low
            listed["status"] = listed.get("status", 0) | bit
    return listed


def checked(entry: Entry) -> Entry:
    """An entry that was read, complete and in itself consistent, or `InvalidValue`."""
    for direction in ("original", "reply"):
        for end in ("source", "destination"):
            if f"{direction}.{end}" not in entry:
                raise InvalidValue(f"{direction}.{end}", "is missing; write both directions in full")
        entry[f"{direction}.protocol"] = entry["original.protocol"]
    entry["family"] = values.family_of(entry["original.source"])
    if not entry.get("zone", True):
        del entry["zone"]
    _forget_zeros(entry)
    status = entry.get("status", 0) & ~(uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT)
    described = {key: value for key, value in entry.items() if key != "labels"}
    shape.parse(shape.present({**described, "status": status}))
    return entry


def _forget_zeros(entry: Entry) -> None:
    """Ports that the program shows as 0 because the kernel tracks none."""
    keys = [f"{direction}.{end}_port" for direction in ("original", "reply") for end in ("source", "destination")]
    if entry["original.protocol"] in UNTRACKED and not any(entry.get(key) for key in keys):
        for key in keys:
            entry.pop(key, None)
