# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of expectations: what `conntrack -L expect` prints, /proc/net/nf_conntrack_expect, and `conntrack -I expect`.

The program prints neither the zone, the function and the NAT of an expectation, nor the protocol of its master, which
is read only if it follows from the ports. The list of the kernel has neither mask nor master.

Source: the output of conntrack(8) 1.4.7 with libnetfilter_conntrack 1.0.9, and exp_seq_show in
net/netfilter/nf_conntrack_expect.c.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping

from .. import uapi
from ..codec import types
from ..entry.creation import DEFAULT_TIMEOUT
from ..entry.labels import LabelMap
from ..entry.tuple import protocol_keys
from ..errors import InvalidValue
from ..expectation import expectation as expectations
from ..expectation.expectation import EXPECTATION, Expectation
from .commands import COMMAND, COMMON, CREATE_OPTIONS, from_octal, read_command, table_of
from .common import TUPLE, TUPLE_WORDS, NoEntry, Show, Unknown, match_head, printable, read_lines, word
from .xml import document, element, escaped, layer3, layer4, read_flows, text_of, tuple_elements, unknown_element

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

KINDS: dict[str, types.AttributeType] = {row.key: row.kind for row in EXPECTATION}
#: The tuples, and the prefix of the words of each.
_TUPLES = {"tuple": "", "mask": "mask-", "master": "master-"}
_FLAGS = {name.upper(): bit for name, bit in expectations.FLAGS.items()}
_LIST = "conntrack -L expect"


def _whole(expectation: Expectation) -> Expectation:
    """Complete an expectation that was read. Raises `InvalidValue` if it is incomplete or inconsistent."""
    for key in ("tuple.source", "tuple.destination"):
        if key not in expectation:
            raise InvalidValue(key, "is missing; write it")
    protocol = expectation["tuple.protocol"]
    if "mask.source" in expectation:
        expectation["mask.protocol"] = protocol
    if "master.source_port" in expectation and protocol not in types.PORT_PROTOCOLS:
        # PPTP is the only helper that expects another protocol than its own by a tuple without ports: GRE
        expectation["master.protocol"] = uapi.IPPROTO_TCP
    expectation["family"] = types.family_of(expectation["tuple.source"])
    expectations.from_document(expectations.to_document(expectation))
    return expectation


def _listed(expectation: Mapping[str, Any]) -> Expectation:
    """Return an expectation as the kernel would list it: with a class if it has a master, and a full mask or none."""
    if "master.source" in expectation:
        listed = {"class": 0, **expectations.creation_of(expectation)}
    elif any(key.startswith("mask.") for key in expectation):
        listed = expectations.with_whole_mask(expectation)
    else:
        return dict(expectation)
    # A request has to repeat them in the mask; the kernel lists them with all bits
    listed.update((key, 0xFF) for key in ("mask.icmp_type", "mask.icmp_code") if key in listed)
    return listed


# Text


def write_text(wanted: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    """Return one line for each expectation."""
    return "".join(" ".join(_words(_listed(expectation))) + "\n" for expectation in wanted)


def _words(expectation: Mapping[str, Any]) -> Iterator[str]:
    if "timeout" in expectation:
        yield str(expectation["timeout"])
    yield f"proto={expectation['tuple.protocol']}"
    for part, prefix in _TUPLES.items():
        for number, name in enumerate(_names(expectation, part)):
            text, shown = TUPLE_WORDS[name]
            yield f"{prefix if number < 2 else ''}{text}={shown(expectation.get(f'{part}.{name}', 0))}"
    if expectation.get("zone"):
        yield f"zone={expectation['zone']}"
    flags = [name for name, bit in _FLAGS.items() if expectation.get("flags", 0) & bit]
    if flags:
        yield ",".join(flags)
    if "class" in expectation:
        yield f"class={expectation['class']}"
    if expectation.get("helper"):
        yield f"helper={word(expectation, 'helper')}"


def _names(expectation: Mapping[str, Any], part: str) -> tuple[str, ...]:
    """Return the keys of a tuple to be shown, both addresses first. Empty if the tuple is missing."""
    if f"{part}.source" not in expectation:
        return ()
    protocol = expectation.get(f"{part}.protocol", expectation["tuple.protocol"])
    return ("source", "destination", *protocol_keys(protocol))


_CORE = r"""
    (?: \[ [0-9]{1,20} \. [0-9]{1,6} \s* \] \s+ )?
    (?: \[ (?: NEW | UPDATE | DESTROY ) \] \s+ )?
    (?: (?P<timeout>[0-9]+) \s+ | - \s+ )?
    (?: (?P<kernel>l3proto) \s = \s [0-9]+ \s )?
    proto= (?P<protocol>[0-9]+) (?! \S )
"""
_HEAD = re.compile(r"\s*" + _CORE, re.VERBOSE)
#: The same after words of another program.
_INSIDE = re.compile(r"(?<! \S )" + _CORE, re.VERBOSE)


def read_text(text: str, labels: LabelMap, unknown: Unknown) -> list[Expectation]:
    """Parse all lines. Raises `Unreadable` for the first that is not an expectation."""
    return read_lines(text, lambda line: _whole(_line(line, unknown)), unknown)


def _line(line: str, unknown: Unknown) -> Expectation:
    expectation: Expectation = {}
    head = match_head(line, (_HEAD, _INSIDE), "a timeout and proto=", _LIST, expectation, unknown)
    expectation["tuple.protocol"] = types.parse_integer(head["protocol"], "proto", 0, 255)
    if head["timeout"] is not None:
        expectation["timeout"] = KINDS["timeout"].parse(head["timeout"], "timeout")
    expectation["flags"] = 0
    part = "tuple"
    for text in line[head.end() :].split():
        name, equals, value = text.partition("=")
        for started, prefix in _TUPLES.items():
            if prefix and name in (f"{prefix}src", f"{prefix}dst"):
                part, name = started, name[len(prefix) :]
        if equals and name in TUPLE:
            _put(expectation, f"{part}.{TUPLE[name][0]}", value, name)
        elif equals and name in ("zone", "class", "helper"):
            _put(expectation, name, value, name)
        elif not equals and all(flag in _FLAGS for flag in text.split(",")):
            expectation["flags"] |= sum(_FLAGS[flag] for flag in set(text.split(",")))
        elif not equals and head["kernel"] and "helper" not in expectation:
            _put(expectation, "helper", text.partition("/")[0], "helper")  # after it comes the name of its class
        else:
            unknown.word(expectation, name, value, _LIST)
    return expectation


def _put(expectation: Expectation, key: str, text: str, name: str) -> None:
    if key in expectation:
        raise InvalidValue(name, "is given twice; write it once")
    expectation[key] = KINDS[key].parse(text, name)


# Commands

_OPTIONS: dict[str, str] = {
    **dict.fromkeys(("-s", "--src", "--orig-src"), "master.source"),
    **dict.fromkeys(("-d", "--dst", "--orig-dst"), "master.destination"),
    **dict.fromkeys(("--sport", "--orig-port-src"), "master.source_port"),
    **dict.fromkeys(("--dport", "--orig-port-dst"), "master.destination_port"),
    **{
        f"--{part}-{word}": f"{part}.{name}"
        for part in ("tuple", "mask")
        for word, name in (
            ("src", "source"),
            ("dst", "destination"),
            ("port-src", "source_port"),
            ("port-dst", "destination_port"),
        )
    },
}
_TARGETS: dict[str, str] = {
    **COMMON,
    **_OPTIONS,
    **dict.fromkeys(("-t", "--timeout"), "timeout"),
    **dict.fromkeys(("-p", "--protonum"), "tuple.protocol"),
    **dict.fromkeys(("-w", "--zone"), "zone"),
}
#: The option with which each key is written, the last one in the list above.
_WRITTEN = {key: option for option, key in _OPTIONS.items()}
_OPTIONAL = frozenset({COMMAND})
_OCTAL = frozenset({"tuple.protocol", "zone"})


def write_commands(wanted: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    """Return one `-I expect` for each expectation, without keys for which the program has no option."""
    return "".join(" ".join(["-I expect", *_written(_listed(expectation))]) + "\n" for expectation in wanted)


def _written(expectation: Mapping[str, Any]) -> Iterator[str]:
    protocol = expectation["tuple.protocol"]
    if expectation.get("master.protocol", protocol) != protocol:
        raise InvalidValue(
            "master.protocol", "differs from the protocol of the tuple, and a command has only one; use text or json"
        )
    for part in _TUPLES:
        if f"{part}.source" not in expectation:
            raise InvalidValue(part, "is missing, and a command requires it; use text or json")
    yield f"-t {expectation.get('timeout', DEFAULT_TIMEOUT)}"
    yield f"-p {types.PROTOCOL.present(protocol)}"
    for part in ("master", "tuple", "mask"):
        for name in ("source", "destination", *protocol_keys(protocol)):
            key = f"{part}.{name}"
            if key not in _WRITTEN:
                raise InvalidValue(key, "conntrack has no option for it; use text or json")
            yield f"{_WRITTEN[key]} {KINDS[key].present(expectation.get(key, 0))}"


def read_commands(text: str, labels: LabelMap, unknown: Unknown) -> list[Expectation]:
    """Parse all commands. Raises `Unreadable` for the first line that does not create an expectation."""
    return read_lines(text, lambda line: _whole(_command(line, unknown)), unknown)


def _command(line: str, unknown: Unknown) -> Expectation:
    expectation: Expectation = {}
    given = read_command(line, _TARGETS, _OPTIONAL, expectation, unknown)
    command, _table = given.get(COMMAND, ("", ""))
    if table_of(given) != "expect" or command not in CREATE_OPTIONS:
        raise NoEntry(command, "creates no expectation; write -I expect")
    if "tuple.protocol" not in given:
        raise InvalidValue("-p", "is missing; write the protocol's name or number")
    for key, (option, raw) in given.items():
        if key in KINDS:
            expectation[key] = KINDS[key].parse(from_octal(raw, option) if key in _OCTAL else raw, option)
    return expectation


# XML

#: The tuples by the names of their elements.
_ELEMENTS = {"expected": "tuple", "mask": "mask", "master": "master"}
_META = {"helper-name": "helper", "timeout": "timeout", "class": "class", "zone": "zone"}


def write_xml(wanted: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    """Return the XML, with one line for each expectation."""
    return document("expect", (_flow(_listed(expectation)) for expectation in wanted))


def _flow(expectation: Mapping[str, Any]) -> str:
    parts = [(tag, part, _names(expectation, part)) for tag, part in _ELEMENTS.items()]
    ends, numbers = (
        "".join(element(tag, tuple_elements(expectation, part, names[which])) for tag, part, names in parts if names)
        for which in (slice(0, 2), slice(2, None))
    )
    meta = "".join(
        element(tag, escaped(expectation, key))
        for tag, key in _META.items()
        if key in expectation and (expectation[key] or key not in ("helper", "zone"))
    )
    flags = "".join(f"<{name.lower()}/>" for name, bit in _FLAGS.items() if expectation.get("flags", 0) & bit)
    shown = layer3(expectation["family"], ends) + layer4(expectation["tuple.protocol"], numbers)
    return element("flow", shown + element("meta", meta + flags))


def read_xml(text: str, labels: LabelMap, unknown: Unknown) -> list[Expectation]:
    """Parse all flows. Raises `Unreadable` for the first that is not an expectation."""
    return read_flows(text, lambda flow: _whole(_read_flow(flow, unknown)), unknown)


def _read_flow(flow: Element, unknown: Unknown) -> Expectation:
    layer = flow.find("layer4")
    if flow.tag != "flow" or layer is None or flow.find("layer3/expected") is None:
        raise NoEntry("", f"<{printable(flow.tag)}> has no layer3 and layer4 of what is expected")
    expectation: Expectation = {
        "tuple.protocol": types.parse_integer(layer.get("protonum"), "protonum", 0, 255),
        "flags": 0,
    }
    for group in flow:
        for child in group:
            if group.tag in ("layer3", "layer4") and child.tag in _ELEMENTS:
                _read_tuple(expectation, _ELEMENTS[child.tag], child, unknown)
            elif group.tag == "meta" and child.tag in _META:
                _put(expectation, _META[child.tag], text_of(child), child.tag)
            elif group.tag == "meta" and child.tag.upper() in _FLAGS:
                expectation["flags"] |= _FLAGS[child.tag.upper()]
            elif group.tag != "when":
                unknown_element(expectation, child, unknown)
    return expectation


def _read_tuple(expectation: Expectation, part: str, parent: Element, unknown: Unknown) -> None:
    for child in parent:
        if child.tag in TUPLE:
            _put(expectation, f"{part}.{TUPLE[child.tag][0]}", text_of(child), child.tag)
        else:
            unknown_element(expectation, child, unknown)
