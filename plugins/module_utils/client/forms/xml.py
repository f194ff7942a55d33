# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document that `conntrack -L -o xml` prints.

Source: the output of conntrack(8) 1.4.7 with libnetfilter_conntrack 1.0.9.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping

from .. import uapi, values
from ..entry import Entry, protocol_keys
from ..errors import InvalidValue
from ..labels import LabelMap
from .common import (
    BILLION,
    COUNTERS,
    KINDS,
    STATES,
    TIMES,
    TUPLE,
    TUPLE_WORDS,
    Show,
    Unreadable,
    as_listed,
    checked,
    protocol_name,
    read_labels,
    read_state,
    state_of,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_BEGIN = '<?xml version="1.0" encoding="utf-8"?>\n<conntrack>\n'
_END = "</conntrack>\n"


#: Elements of both directions together that are a number or a text.
_PLAIN = {
    "timeout": "timeout",
    "mark": "mark",
    "secctx": "security_context",
    "zone": "zone",
    "use": "use",
    "id": "id",
}
_FLAGS = {"assured": uapi.IPS_ASSURED, "unreplied": uapi.IPS_SEEN_REPLY}
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(entries: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    """The document, a line to each entry. `now`, in seconds, is when the ages are taken."""
    return _BEGIN + "".join(_flow(as_listed(entry), show, labels, now) + "\n" for entry in entries) + _END


def _element(tag: str, content: str) -> str:
    return f"<{tag}>{content}</{tag.partition(' ')[0]}>"


def _escaped(entry: Mapping[str, Any], key: str) -> str:
    """A text of an entry; `InvalidValue` if XML has no way to write it."""
    text = str(entry[key])
    if _ILLEGAL.search(text):
        raise InvalidValue(key, f"{text!r} cannot be written in XML; write the entries as json")
    for character, reference in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\r", "&#13;")):
        text = text.replace(character, reference)
    return text


def _flow(entry: Entry, show: Show, labels: LabelMap, now: float) -> str:
    parts = [_direction(entry, "original"), _direction(entry, "reply")]
    independent = "".join(_independent(entry, show, labels, now))
    if independent:
        parts.append(_element('meta direction="independent"', independent))
    if entry.get("helper"):
        parts.append(_element("helper", _escaped(entry, "helper")))
    return _element("flow", "".join(parts))


def _direction(entry: Entry, direction: str) -> str:
    def elements(names: Iterable[str]) -> str:
        shown = []
        for name in names:
            tag, text = TUPLE_WORDS[name]
            shown.append(_element(tag, text(entry.get(f"{direction}.{name}", 0))))
        return "".join(shown)

    family, protocol = entry["family"], entry["original.protocol"]
    parts = [
        _element(
            f'layer3 protonum="{family}" protoname="{"ipv4" if family == values.AF_INET else "ipv6"}"',
            elements(("source", "destination")),
        ),
        _element(
            f'layer4 protonum="{protocol}" protoname="{protocol_name(protocol)}"',
            elements(protocol_keys(protocol)),
        ),
    ]
    if entry.get(f"{direction}.zone"):
        parts.append(_element("zone", str(entry[f"{direction}.zone"])))
    counters = [entry.get(f"counters.{direction}.{name}") for name in COUNTERS]
    if None not in counters:
        shown = (_element(name, str(value)) for name, value in zip(COUNTERS, counters))
        parts.append(_element("counters", "".join(shown)))
    return _element(f'meta direction="{direction}"', "".join(parts))


def _independent(entry: Entry, show: Show, labels: LabelMap, now: float) -> Iterator[str]:
    status = entry.get("status", 0)
    state = state_of(entry)
    if state is not None:
        yield _element("state", state)
    for tag, key in _PLAIN.items():
        if tag == "secctx" and show.labels and entry.get("labels"):
            names = labels.to_names(values.LABELS.present(entry["labels"]))
            yield _element("labels", "".join(_element("label", _escaped({"labels": n}, "labels")) for n in names))
        if key in entry and (entry[key] or tag not in ("secctx", "zone")):
            yield _element(tag, _escaped(entry, key))
    if status & uapi.IPS_ASSURED:
        yield "<assured/>"
    if not status & uapi.IPS_SEEN_REPLY:
        yield "<unreplied/>"
    start, stop = (entry.get(f"timestamps.{name}") for name in TIMES)
    if show.ktimestamp and (start is not None or stop is not None):
        times = zip(TIMES, (start, stop))
        yield _element("timestamp", "".join(_element(name, str(at)) for name, at in times if at is not None))
    if start is not None:
        age = int(now) - start // BILLION if stop is None else (stop - start) // BILLION
        yield _element("deltatime", str(age))


def read(text: str, labels: LabelMap) -> list[Entry]:
    """The entries of all flows; `Unreadable` names the first that is none.

    The program leaves out the numbers of ICMP: such an entry is read without them. Of the flows of
    `-E`, what happened is not kept.
    """
    from xml.etree import ElementTree

    document = text[: text.rfind(">") + 1]  # behind it, the program may have said what it did
    if "<!" in document:
        raise Unreadable("document", "declares a document type or has a comment; the program writes neither")
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as fault:
        raise Unreadable(f"line {fault.position[0]}", f"is no XML: {fault}") from None
    except UnicodeEncodeError:
        raise Unreadable("document", "is no text in UTF-8") from None
    if root.tag != "conntrack":
        raise Unreadable("document", f"is <{root.tag}>; what conntrack -o xml writes is <conntrack>")
    entries = []
    for number, flow in enumerate(root, 1):
        try:
            entries.append(_read_flow(flow, labels))
        except InvalidValue as fault:
            raise Unreadable(f"flow {number}", str(fault)) from None
    return entries


def _read_flow(flow: Element, labels: LabelMap) -> Entry:
    metas = {meta.get("direction"): meta for meta in flow.findall("meta")}
    layer4 = flow.find("meta[@direction='original']/layer4")
    if flow.tag != "flow" or layer4 is None:
        raise InvalidValue("", "has no layer4 of its original direction")
    protocol = values.parse_integer(layer4.get("protonum"), "protonum", 0, 255)
    entry: Entry = {"original.protocol": protocol}
    for direction in ("original", "reply"):
        if direction in metas:
            _read_direction(entry, direction, metas[direction])
    if "independent" in metas:
        _read_independent(entry, metas["independent"], labels)
    helper = flow.findtext("helper")
    if helper is not None:
        entry["helper"] = KINDS["helper"].parse(helper, "helper")
    return _checked(entry)


def _checked(entry: Entry) -> Entry:
    """Complete, but for the numbers of ICMP if all of them are missing."""
    icmp = (uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6)
    names = protocol_keys(entry["original.protocol"])
    if entry["original.protocol"] in icmp and not any(f"original.{name}" in entry for name in names):
        stand_in = {"icmp_type": 8 if entry["original.protocol"] == icmp[0] else 128, "icmp_code": 0, "icmp_id": 0}
        numbers = {f"{direction}.{name}": stand_in[name] for direction in ("original", "reply") for name in names}
        whole = checked({**entry, **numbers})
        return {key: value for key, value in whole.items() if key not in numbers}
    return checked(entry)


def _text(element: Element, key: str) -> Any:
    return KINDS[key].parse(element.text or "", element.tag)


def _read_direction(entry: Entry, direction: str, meta: Element) -> None:
    for element in meta.iterfind("*/*"):
        if element.tag in COUNTERS:
            key = f"counters.{direction}.{element.tag}"
        elif element.tag in TUPLE:
            key = f"{direction}.{TUPLE[element.tag][0]}"
        else:
            continue
        entry[key] = _text(element, key)
    zone = meta.find("zone")
    if zone is not None:
        entry[f"{direction}.zone"] = _text(zone, "zone")


def _read_independent(entry: Entry, meta: Element, labels: LabelMap) -> None:
    for tag, key in _PLAIN.items():
        element = meta.find(tag)
        if element is not None:
            entry[key] = _text(element, key)
    for name in TIMES:
        element = meta.find(f"timestamp/{name}")
        if element is not None:
            key = f"timestamps.{name}"
            entry[key] = KINDS[key].parse(values.parse_integer(element.text, name, 0, (1 << 64) - 1), name)
    entry.update(read_labels([label.text or "" for label in meta.iterfind("labels/label")], "labels", labels))
    state = meta.findtext("state")
    if state is not None:
        entry.update(_read_state(state, entry["original.protocol"]))
    seen = uapi.IPS_SEEN_REPLY if meta.find("unreplied") is None else 0
    entry["status"] = seen | (uapi.IPS_ASSURED if meta.find("assured") is not None else 0)


def _read_state(text: str, protocol: int) -> Entry:
    """A state by its own name or, since the program calls all states as TCP's, by TCP's of that number."""
    named = values.TCP_STATES.get(text.lower())
    if protocol in STATES and named is not None:
        kind = KINDS[STATES[protocol]]
        if isinstance(kind, values.Named) and text.lower() not in kind.names:
            return {STATES[protocol]: named}
    return read_state(text, protocol)
