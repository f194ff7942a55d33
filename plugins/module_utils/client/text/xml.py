# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The XML that `conntrack -L -o xml` prints.

Source: the output of conntrack(8) 1.4.7 with libnetfilter_conntrack 1.0.9.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Mapping

from .. import uapi
from ..codec import types
from ..entry.entry import Entry
from ..entry.labels import LabelMap
from ..entry.tuple import protocol_keys
from ..errors import InvalidValue
from .common import (
    BILLION,
    COUNTERS,
    KINDS,
    LONGEST_LINE,
    STATE_KEYS,
    TIMES,
    TUPLE,
    TUPLE_WORDS,
    NoEntry,
    Show,
    Unknown,
    Unreadable,
    as_listed,
    checked,
    protocol_name,
    read_labels,
    read_one,
    read_state,
    state_of,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

#: Elements of the whole entry that have a number or a text.
_PLAIN = {
    "timeout": "timeout",
    "mark": "mark",
    "secctx": "security_context",
    "zone": "zone",
    "use": "use",
    "id": "id",
}
_FLAGS = {"assured": uapi.IPS_ASSURED, "unreplied": uapi.IPS_SEEN_REPLY}
#: Elements without a key in an entry: an age without its time, a number that is no longer used.
_PASSED_OVER = frozenset({"deltatime", "secmark"})
#: Elements of a flow besides its helper. `when` is the local time of an event.
_OF_FLOW = frozenset({"meta", "when"})
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(entries: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    """Return the XML, with one line for each entry. `now` is the UNIX time for ages."""
    return document("conntrack", (_flow(as_listed(entry), show, labels, now) for entry in entries))


def document(tag: str, flows: Iterable[str]) -> str:
    """Return a document of flows, with one line for each."""
    content = "".join(f"{flow}\n" for flow in flows)
    return f'<?xml version="1.0" encoding="utf-8"?>\n<{tag}>\n{content}</{tag}>\n'


def element(tag: str, content: str) -> str:
    """Return an element. `tag` is its name, with attributes after it."""
    return f"<{tag}>{content}</{tag.partition(' ')[0]}>"


def escaped(entry: Mapping[str, Any], key: str) -> str:
    """Escape a value of an entry. Raises `InvalidValue` if XML cannot express it."""
    text = str(entry[key])
    if _ILLEGAL.search(text):
        raise InvalidValue(key, f"{text!r} cannot be written in XML; write the entries as json")
    return html.escape(text, quote=False).replace("\r", "&#13;")


def _flow(entry: Entry, show: Show, labels: LabelMap, now: float) -> str:
    parts = [_direction(entry, "original"), _direction(entry, "reply")]
    independent = "".join(_independent(entry, show, labels, now))
    if independent:
        parts.append(element('meta direction="independent"', independent))
    if entry.get("helper"):
        parts.append(element("helper", escaped(entry, "helper")))
    return element("flow", "".join(parts))


def layer3(family: int, content: str) -> str:
    """Return the element of a family."""
    return element(f'layer3 protonum="{family}" protoname="{"ipv4" if family == types.AF_INET else "ipv6"}"', content)


def layer4(protocol: int, content: str) -> str:
    """Return the element of a protocol."""
    return element(f'layer4 protonum="{protocol}" protoname="{protocol_name(protocol)}"', content)


def tuple_elements(thing: Mapping[str, Any], part: str, names: Iterable[str]) -> str:
    """Return the elements of some keys of a tuple."""
    words = ((TUPLE_WORDS[name], thing.get(f"{part}.{name}", 0)) for name in names)
    return "".join(element(tag, shown(value)) for (tag, shown), value in words)


def _direction(entry: Entry, direction: str) -> str:
    protocol = entry["original.protocol"]
    parts = [
        layer3(entry["family"], tuple_elements(entry, direction, ("source", "destination"))),
        layer4(protocol, tuple_elements(entry, direction, protocol_keys(protocol))),
    ]
    if entry.get(f"{direction}.zone"):
        parts.append(element("zone", str(entry[f"{direction}.zone"])))
    counters = [entry.get(f"counters.{direction}.{name}") for name in COUNTERS]
    if None not in counters:
        shown = (element(name, str(value)) for name, value in zip(COUNTERS, counters))
        parts.append(element("counters", "".join(shown)))
    return element(f'meta direction="{direction}"', "".join(parts))


def _independent(entry: Entry, show: Show, labels: LabelMap, now: float) -> Iterator[str]:
    status = entry.get("status", 0)
    state = state_of(entry)
    if state is not None:
        yield element("state", state)
    for tag, key in _PLAIN.items():
        if tag == "secctx" and show.labels and entry.get("labels"):
            names = labels.to_names(types.LABELS.present(entry["labels"]))
            yield element("labels", "".join(element("label", escaped({"labels": n}, "labels")) for n in names))
        if key in entry and (entry[key] or tag not in ("secctx", "zone")):
            yield element(tag, escaped(entry, key))
    if status & uapi.IPS_ASSURED:
        yield "<assured/>"
    if not status & uapi.IPS_SEEN_REPLY:
        yield "<unreplied/>"
    start, stop = (entry.get(f"timestamps.{name}") for name in TIMES)
    if show.ktimestamp and (start is not None or stop is not None):
        times = zip(TIMES, (start, stop))
        yield element("timestamp", "".join(element(name, str(at)) for name, at in times if at is not None))
    if start is not None:
        age = int(now) - start // BILLION if stop is None else (stop - start) // BILLION
        yield element("deltatime", str(age))


def read(text: str, labels: LabelMap, unknown: Unknown) -> list[Entry]:
    """Parse all flows. Raises `Unreadable` for the first that is not an entry.

    The program does not print the numbers of ICMP, and such an entry is read without them. The type of an event is
    ignored.
    """
    return read_flows(text, lambda flow: _read_flow(flow, labels, unknown), unknown)


#: The elements around flows, by table.
_DOCUMENTS = ("conntrack", "expect")
_CLOSED = tuple(f"</{name}>" for name in _DOCUMENTS)
#: The name of a program, which `-o userspace` prints after a flow.
_USERSPACE = re.compile(r"(?<=</flow>) \[USERSPACE\].*")
_DECLARATION = re.compile(r"<\?xml[^<>]*\?>")


def read_flows(text: str, read: Callable[[Element], Entry], unknown: Unknown) -> list[Entry]:
    """Return what `read` makes of each flow, in all documents of a text, even unclosed ones, and outside of them."""
    if "<!" in text:
        raise Unreadable("document", "declares a document type or has a comment; the program writes neither")
    if "[USERSPACE]" in text:
        text = _USERSPACE.sub("", text)
    entries: list[Entry] = []
    line = number = 0
    for document in _DECLARATION.split(text):
        whole, cut = _whole(document)
        for flow in _flows(_parsed(whole, line)):
            number += 1
            entries += read_one(flow, read, f"flow {number}", "elements without an entry", unknown)
        if cut:
            number += 1
            if not unknown.skips("truncated flows"):
                raise Unreadable(f"flow {number}", "is truncated; use unknown=skip to leave it out")
        line += document.count("\n")
    return entries


def _whole(document: str) -> tuple[str, bool]:
    """Return a document without an incomplete flow at its end, and whether there was one.

    Messages of the program may follow the last element.
    """
    end = document.rfind(">") + 1
    if document.endswith(_CLOSED, 0, end):
        return document[:end], False
    begun = document.rfind("<flow", 0, end)
    if begun >= 0 and document.find("</flow>", begun) < 0 and document[document.find(">", begun) - 1] != "/":
        return document[:begun], True
    tag = document.find("<", end)
    return document[:end], tag >= 0 and not document.startswith("</", tag)


def _parsed(document: str, lines_before: int) -> Element:
    """Parse a document to an element around its content. Unclosed elements are not an error."""
    from xml.etree import ElementTree

    builder = ElementTree.TreeBuilder()
    around = builder.start("all", {})
    parser = ElementTree.XMLParser(target=builder)
    try:
        parser.feed("<all>")
        parser.feed(document)
    except ElementTree.ParseError as fault:
        line, _column = fault.position
        problem = str(fault).partition(":")[0]
        raise Unreadable(f"line {lines_before + line}", f"is not valid XML: {problem}") from None
    except UnicodeEncodeError:
        raise Unreadable("document", "is not UTF-8") from None
    return around[0]


def _flows(element: Element) -> Iterator[Element]:
    """Yield the elements of documents, also of documents inside an unclosed one."""
    open_ = [iter(element)]
    while open_:
        child = next(open_[-1], None)
        if child is None:
            open_.pop()
        elif child.tag in _DOCUMENTS:
            open_.append(iter(child))
        else:
            yield child


def _read_flow(flow: Element, labels: LabelMap, unknown: Unknown) -> Entry:
    metas = {meta.get("direction"): meta for meta in flow.findall("meta")}
    layer = flow.find("meta[@direction='original']/layer4")
    if flow.tag != "flow" or layer is None:
        raise NoEntry("", f"<{flow.tag}> has no layer4 of its original direction")
    protocol = types.parse_integer(layer.get("protonum"), "protonum", 0, 255)
    entry: Entry = {"original.protocol": protocol}
    for direction in ("original", "reply"):
        if direction in metas:
            _read_direction(entry, direction, metas[direction], unknown)
    if "independent" in metas:
        _read_independent(entry, metas["independent"], labels, unknown)
    for child in flow:
        if child.tag == "helper":
            entry["helper"] = _text(child, "helper")
        elif child.tag not in _OF_FLOW:
            unknown_element(entry, child, unknown)
    return _checked(entry)


def _checked(entry: Entry) -> Entry:
    """Complete an entry that was read. The numbers of ICMP may be missing."""
    icmp = (uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6)
    names = protocol_keys(entry["original.protocol"])
    if entry["original.protocol"] in icmp and not any(f"original.{name}" in entry for name in names):
        stand_in = {"icmp_type": 8 if entry["original.protocol"] == icmp[0] else 128, "icmp_code": 0, "icmp_id": 0}
        numbers = {f"{direction}.{name}": stand_in[name] for direction in ("original", "reply") for name in names}
        whole = checked({**entry, **numbers})
        return {key: value for key, value in whole.items() if key not in numbers}
    return checked(entry)


def unknown_element(entry: Entry, child: Element, unknown: Unknown) -> None:
    """Handle an element that the program does not write."""
    unknown.word(entry, f"<{child.tag}>", "".join(child.itertext()), "conntrack -o xml")


def text_of(child: Element) -> str:
    """Return the text of an element. Raises `InvalidValue` if it is too long for any entry."""
    text = child.text or ""
    if len(text) > LONGEST_LINE:
        raise InvalidValue(child.tag, f"is longer than {LONGEST_LINE:,} characters")
    return text


def _text(child: Element, key: str) -> Any:
    return KINDS[key].parse(text_of(child), child.tag)


def _read_direction(entry: Entry, direction: str, meta: Element, unknown: Unknown) -> None:
    for group in meta:
        if group.tag == "zone":
            entry[f"{direction}.zone"] = _text(group, "zone")
        elif group.tag not in ("layer3", "layer4", "counters"):
            unknown_element(entry, group, unknown)
            continue
        for child in group:
            if child.tag in COUNTERS:
                key = f"counters.{direction}.{child.tag}"
            elif child.tag in TUPLE:
                key = f"{direction}.{TUPLE[child.tag][0]}"
            else:
                unknown_element(entry, child, unknown)
                continue
            entry[key] = _text(child, key)


def _read_independent(entry: Entry, meta: Element, labels: LabelMap, unknown: Unknown) -> None:
    status = uapi.IPS_SEEN_REPLY
    for child in meta:
        tag = child.tag
        if tag in _PLAIN:
            entry[_PLAIN[tag]] = _text(child, _PLAIN[tag])
        elif tag == "state":
            entry.update(_read_state(text_of(child), entry["original.protocol"]))
        elif tag == "labels":
            entry.update(read_labels([text_of(label) for label in child.iterfind("label")], "labels", labels))
        elif tag == "timestamp":
            for name in TIMES:
                moment = child.find(name)
                if moment is not None:
                    key = f"timestamps.{name}"
                    number = types.parse_integer(text_of(moment), name, 0, (1 << 64) - 1)
                    entry[key] = KINDS[key].parse(number, name)
        elif tag in _FLAGS:
            status = status | _FLAGS[tag] if tag == "assured" else status & ~_FLAGS[tag]
        elif tag not in _PASSED_OVER:
            unknown_element(entry, child, unknown)
    entry["status"] = status


def _read_state(text: str, protocol: int) -> Entry:
    """Read a state by its name, or by the name of the TCP state with its number, which the program prints for all."""
    named = {**types.TCP_STATES, **types.OLDER_TCP_STATES}.get(text.lower())
    if protocol in STATE_KEYS and named is not None:
        kind = KINDS[STATE_KEYS[protocol]]
        if isinstance(kind, types.Enum) and text.lower() not in kind.names:
            return {STATE_KEYS[protocol]: named}
    return read_state(text, protocol)
