# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The common parts of the output formats of conntrack(8): names, states, labels, errors, and listed entries."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Tuple, TypeVar

from .. import uapi
from ..codec import types
from ..codec.attributes import ENTRY
from ..entry.document import from_document, to_document
from ..entry.entry import UNTRACKED, Entry
from ..entry.labels import LabelMap
from ..entry.nat import NAT_ENDS, NAT_STATUS, port_key
from ..entry.tuple import default_reply
from ..errors import InvalidValue, quoted

_Source = TypeVar("_Source")
Heads = Tuple["re.Pattern[str]", "re.Pattern[str]"]

#: The type of each key. Addresses of both families have the same parser.
KINDS: dict[str, types.AttributeType] = {row.key: row.kind for row in ENTRY}

#: The key of the state of a protocol that has states.
STATE_KEYS: dict[int, str] = {
    uapi.IPPROTO_TCP: "tcp.state",
    uapi.IPPROTO_SCTP: "sctp.state",
    uapi.IPPROTO_DCCP: "dccp.state",
}


def _hexadecimal(value: Any) -> str:
    return f"{value:#x}"


#: The words of text and XML for the keys of a tuple: the key here, and how a value is written.
TUPLE: dict[str, tuple[str, Callable[[Any], str]]] = {
    "src": ("source", types.present_address),
    "dst": ("destination", types.present_address),
    "sport": ("source_port", str),
    "dport": ("destination_port", str),
    "srckey": ("source_key", _hexadecimal),
    "dstkey": ("destination_key", _hexadecimal),
    "type": ("icmp_type", str),
    "code": ("icmp_code", str),
    "id": ("icmp_id", str),
}
#: By key: the word of text and XML, and how a value is written.
TUPLE_WORDS = {name: (text, show) for text, (name, show) in TUPLE.items()}
COUNTERS = ("packets", "bytes")
TIMES = ("start", "stop")
BILLION = 1_000_000_000

#: The maximum length of a line and of the text of an XML element. No entry needs more.
LONGEST_LINE = 1 << 16
#: Comments, and messages of conntrack itself, most of which are on its standard error.
REMARK = re.compile(
    r"""\s* (?:
        conntrack\ v[0-9.]+\ \(conntrack-tools\):\s
        | NOTICE:\s | WARNING:\s | nfct_labelmap_new:\s | Operation\ failed:\s
        | This\ message\ means\ that\ the\ current\ netlink\ socket\ buffer\ size
        | Please,\ check\ --buffer-size
        | \#
    )""",
    re.VERBOSE,
)
#: Messages after which entries are missing.
_GAP = re.compile(
    r"""
    ^[ \t]* (?:
        WARNING:\ We\ have\ hit\ (ENOBUFS)
        | (?: conntrack\ v[0-9.]+\ \(conntrack-tools\):\  )? Operation\ failed:\ (.{0,80})
    )""",
    re.MULTILINE | re.VERBOSE,
)
#: The choices for words and lines that are not conntrack's.
UNKNOWN = ("fail", "keep", "skip")
#: A name of a label: anything but a number, without a comma.
_LABEL = re.compile(r"(?!-?[0-9]+$|0[xX][0-9a-fA-F]*$)[^\s,](?:[^,]*[^\s,])?")
#: The number of names that `Names` adds at most: those of the kernel's bits, for several hosts.
_MOST_NAMES = 8 * types.LABEL_BITS


class Unreadable(InvalidValue):
    """The text does not have its format. `key` is the place (`line 3`, `flow 3`), `problem` what is wrong."""

    @classmethod
    def at(cls, where: str, fault: InvalidValue) -> Unreadable:
        """Return the error with its place, without the middle of a very long value."""
        problem = str(fault)
        return cls(where, problem if len(problem) <= 1000 else f"{problem[:400]} ... {problem[-400:]}")


class NoEntry(InvalidValue):
    """A line or an element is not about an entry."""


class Unknown:
    """Handles words and lines that are not conntrack's. `skipped` has the number of those skipped, by name.

    The choice `fail` rejects them, `keep` puts a word into `extra` of its entry, `skip` leaves it out.
    """

    _MOST = 100

    def __init__(self, choice: str = "fail") -> None:
        if choice not in UNKNOWN:
            raise InvalidValue("unknown", f"{quoted(choice)} is not a valid choice; write one of {', '.join(UNKNOWN)}")
        self.choice = choice
        self.skipped: dict[str, int] = {}

    def word(self, entry: Entry, name: str, value: str, form: str) -> None:
        """Handle a word of an entry that the format does not have."""
        name = printable(name)
        if self.choice == "fail":
            raise InvalidValue(
                "", f"{name!r} is not a word of {form}; use unknown=skip or unknown=keep to read the rest"
            )
        if self.choice == "skip":
            self._count(name)
            return
        extra = entry.setdefault("extra", {})
        data = value.encode("utf-8", "backslashreplace")
        extra[name] = extra[name] + b" " + data if name in extra else data

    def head(self, entry: Entry, text: str, form: str) -> None:
        """Handle the words of another program before an entry in its line."""
        self.word(entry, printable(text) if self.choice == "fail" else "head", text, form)

    def skips(self, name: str) -> bool:
        """Whether a line without an entry is skipped. Counts it."""
        if self.choice == "skip":
            self._count(name)
        return self.choice == "skip"

    def _count(self, name: str) -> None:
        name = name if len(self.skipped) < self._MOST or name in self.skipped else "other words"
        self.skipped[name] = self.skipped.get(name, 0) + 1


def printable(text: str) -> str:
    """Return a short text that a terminal and JSON can show."""
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def gaps(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the reason for each place where conntrack reports that entries are missing."""
    if "ENOBUFS" in text or "Operation failed" in text:
        line, start = 1, 0
        for found in _GAP.finditer(text):
            line += text.count("\n", start, found.start())
            start = found.start()
            yield line, "conntrack lost events (ENOBUFS)" if found[1] else f"conntrack failed ({found[2].strip()})"


def read_one(
    source: _Source, read: Callable[[_Source], Entry], where: str, skipped: str, unknown: Unknown
) -> list[Entry]:
    """Return what `read` makes of a line or an element. If it has no entry, `unknown` may skip it, under that name.

    Raises `Unreadable` with the place.
    """
    try:
        return [read(source)]
    except InvalidValue as fault:
        if isinstance(fault, NoEntry) and unknown.skips(skipped):
            return []
        raise Unreadable.at(where, fault) from None


def match_head(line: str, heads: Heads, first: str, form: str, entry: Entry, unknown: Unknown) -> re.Match[str]:
    """Return the match of the first words of an entry, at the beginning of a line or behind words of another program.

    `heads` are the patterns for both. Raises `NoEntry`.
    """
    head = heads[0].match(line) or heads[1].search(line)
    if head is None:
        raise NoEntry("", f"is not a line of {form}; it begins with {first}")
    if head.start():
        unknown.head(entry, line[: head.start()].strip(), form)
    return head


def read_lines(text: str, read: Callable[[str], Entry], unknown: Unknown) -> list[Entry]:
    """Return what `read` makes of each line. Raises `Unreadable` for the first that it rejects."""

    def read_line(line: str) -> Entry:
        if len(line) > LONGEST_LINE:
            raise NoEntry("", f"is longer than {LONGEST_LINE:,} characters")
        return read(line)

    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not REMARK.match(line):
            entries += read_one(line, read_line, f"line {number}", "lines without an entry", unknown)
    return entries


class Names(LabelMap):
    """Labels of texts, which may have names that no connlabel.conf has.

    Such a name gets a bit that the kernel does not have. An entry with it cannot be sent.
    """

    _added = 0

    def _bit(self, item: Any, key: str) -> int:
        try:
            return super()._bit(item, key)
        except InvalidValue:
            if not isinstance(item, str) or not _LABEL.fullmatch(item) or not item.isprintable():
                raise
        if self._added == _MOST_NAMES:
            raise InvalidValue(key, f"there are more than {_MOST_NAMES:,} names of labels; read fewer hosts at once")
        bit = self.bits[item] = types.LABEL_BITS + self._added
        self._added += 1
        self.names[bit] = item
        return bit


def read_labels(raw: Any, key: str, labels: LabelMap) -> Entry:
    """Parse names and numbers to the labels of an entry. Empty for an empty list."""
    if isinstance(raw, list) and len(raw) > types.LABEL_BITS:
        raise InvalidValue(key, f"{len(raw):,} are too many; an entry has at most {types.LABEL_BITS}")
    bits = labels.to_bits(raw, key)
    return {"labels": sum(1 << bit for bit in set(bits))} if bits else {}


class Show(NamedTuple):
    """The optional parts of the output (`-o extended,id,ktimestamp,labels`)."""

    extended: bool = False
    id: bool = False
    ktimestamp: bool = False
    labels: bool = False


def protocol_name(number: int) -> str:
    """Return the name of a protocol in the program, or `unknown`."""
    name = types.PROTOCOL.present(number)
    return name if isinstance(name, str) else "unknown"


def word(entry: Mapping[str, Any], key: str) -> str:
    """Return a text to be written between blanks. Raises `InvalidValue` if it could not be read again."""
    text = str(entry[key])
    if not text.isprintable() or " " in text:
        raise InvalidValue(key, f"{text!r} cannot be written between blanks; write the entries as json")
    return text


def state_of(entry: Mapping[str, Any]) -> str | None:
    """Return the state of the protocol in capitals, or 0x… for a state without a name. None without a state."""
    key = STATE_KEYS.get(entry["original.protocol"], "")
    if key not in entry:
        return None
    state = KINDS[key].present(entry[key])
    return state.upper() if isinstance(state, str) else f"{state:#x}"


def read_state(text: str, protocol: int) -> Entry:
    """Parse the state of an entry of this protocol, as `state_of` writes it."""
    if protocol not in STATE_KEYS:
        raise InvalidValue("state", f"protocol {protocol_name(protocol)} has no states; leave {text} out")
    key = STATE_KEYS[protocol]
    return {key: KINDS[key].parse(text, "state")}


def as_listed(entry: Mapping[str, Any]) -> Entry:
    """Return an entry as the kernel would list it: with a reply, and with the requested NAT in force.

    Raises `InvalidValue` if `nat` has a range from which the kernel would select.
    """
    listed = {**(default_reply(entry) if "reply.source" not in entry else {}), **entry}
    for end, answered_by, bit in NAT_ENDS:
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
                    raise InvalidValue(asked, "is a range, and the kernel has not chosen a value yet; write the reply")
                listed[key] = low
            listed["status"] = listed.get("status", 0) | bit
    return listed


def checked(entry: Entry) -> Entry:
    """Complete an entry that was read. Raises `InvalidValue` if it is incomplete or inconsistent."""
    for direction in ("original", "reply"):
        for end in ("source", "destination"):
            if f"{direction}.{end}" not in entry:
                raise InvalidValue(f"{direction}.{end}", "is missing; write both directions in full")
        entry[f"{direction}.protocol"] = entry["original.protocol"]
    entry["family"] = types.family_of(entry["original.source"])
    if not entry.get("zone", True):
        del entry["zone"]
    _forget_zeros(entry)
    status = entry.get("status", 0) & ~NAT_STATUS
    described = {key: value for key, value in entry.items() if key != "labels"}
    from_document(to_document({**described, "status": status}))
    return entry


def _forget_zeros(entry: Entry) -> None:
    """Remove ports that the program shows as 0 because the kernel does not track the protocol."""
    keys = [f"{direction}.{end}_port" for direction in ("original", "reply") for end in ("source", "destination")]
    if entry["original.protocol"] in UNTRACKED and not any(entry.get(key) for key in keys):
        for key in keys:
            entry.pop(key, None)
