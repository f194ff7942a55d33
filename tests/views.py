# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that conntrack(8) and pyroute2 show of a table, in the words of the collection's documents.

The lab's own readers tell what both have in common; these tell everything that each of them shows, from their
own knowledge of the kernel's numbers and not from the client's.
"""

from __future__ import annotations

import re
import shlex
import unittest
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests import clock
from tests.lab import Namespace, table

Document = dict[str, Any]

STATUS_BITS = (
    "expected seen_reply assured confirmed src_nat dst_nat seq_adjust src_nat_done dst_nat_done dying "
    "fixed_timeout template nat_clash helper offload hw_offload"
).split()
TCP_STATES = "none syn_sent syn_recv established fin_wait close_wait last_ack time_wait close syn_sent2".split()
TCP_FLAGS = (
    "window_scale sack_permitted close_init be_liberal data_unacknowledged maxack_set challenge_ack simultaneous_open"
).split()
SCTP_STATES = (
    "none closed cookie_wait cookie_echoed established shutdown_sent shutdown_recd shutdown_ack_sent "
    "heartbeat_sent heartbeat_acked"
).split()


def near(document: Document) -> Document:
    """Return the same document, equal to one whose remaining timeout was read earlier or later in the same test."""
    if "timeout" not in document:
        return document
    return {**document, "timeout": clock.near(document["timeout"])}


def lasting(document: Document) -> Document:
    """What is left of an entry when it is created anew: no id, no use, no exact countdown."""
    return near({key: value for key, value in document.items() if key not in ("id", "use")})


def numbered(documents: list[Document]) -> dict[int, Document]:
    """By id, for a comparison that does not depend on the order."""
    return {document["id"]: document for document in documents}


# conntrack(8)


def as_program_shows(document: Document) -> Document:
    """The part of an entry that `conntrack -L -o extended,id` shows, as `by_text` returns it."""
    keys = "family protocol original reply zone timeout mark use id helper counters".split()
    shown = {key: document[key] for key in keys if key in document}
    if shown["protocol"] == "dccp" and "source_port" not in shown["original"]:  # it shows zeros then
        for direction in ("original", "reply"):
            shown[direction] = {"source_port": 0, "destination_port": 0} | shown[direction]
    for bit in ("seen_reply", "assured"):
        shown[bit] = bit in document["status"]
    for protocol in ("tcp", "sctp", "dccp"):
        if protocol in document:
            shown["state"] = document[protocol]["state"]
    return near(shown)


def as_xml_shows(document: Document) -> Document:
    """The same for `-o xml`, which leaves ICMP's numbers out and calls SCTP's states by TCP's names."""
    shown = as_program_shows(document)
    if "timestamps" in document:
        shown["timestamps"] = document["timestamps"]
    if shown["protocol"] == "sctp":
        del shown["state"]
    for direction in ("original", "reply"):
        shown[direction] = {key: value for key, value in shown[direction].items() if not key.startswith("icmp_")}
    return shown


def by_text(namespace: Namespace, text: str | None = None) -> list[Document]:
    """What `conntrack -L -o extended,id` shows of both families, or what is in `text`, printed so before."""
    if text is None:
        text = namespace.conntrack("-L", "-o", "extended,id")
    return [_by_line(line) for line in text.splitlines() if line.startswith("ipv")]


def _by_line(line: str) -> Document:
    family, _unused, _unused, number, *words = line.split()
    shown: Document = {
        "family": family,
        "protocol": table.PROTOCOLS.get(int(number), int(number)),
        "original": {},
        "reply": {},
        "seen_reply": "[UNREPLIED]" not in words,
        "assured": "[ASSURED]" in words,
    }
    counters: Document = {}
    for word in words:
        key, _unused, value = word.partition("=")
        direction = "reply" if list(shown["reply"]) or (key == "src" and shown["original"]) else "original"
        if word.isdecimal():
            shown["timeout"] = int(word)
        elif key in ("mark", "zone", "use") or (key == "id" and "mark" in shown):
            shown[key] = int(value)
        elif key in ("zone-orig", "zone-reply"):
            shown["original" if key == "zone-orig" else "reply"]["zone"] = int(value)
        elif key in ("packets", "bytes"):
            counters.setdefault(direction, {})[key] = int(value)
        elif key == "labels":
            shown["labels"] = value.split(",")
        elif key == "helper":
            shown["helper"] = value
        elif key in table.TUPLE_KEYS:
            shown[direction][table.TUPLE_KEYS[key]] = value if key in ("src", "dst") else int(value, 0)
        elif re.fullmatch("[A-Z][A-Z_0-9]+", word):
            shown["state"] = word.lower()
    return shown | ({"counters": counters} if counters else {})


def by_xml(namespace: Namespace, text: str | None = None) -> list[Document]:
    """What `conntrack -L -o xml,id,ktimestamp` shows, or what is in `text`, printed so before."""
    if text is None:
        text = namespace.conntrack("-L", "-o", "xml,id,ktimestamp")
    if "<flow" not in text:
        return []
    return [_by_flow(flow) for flow in ET.fromstring(text).findall("flow")]


def _by_flow(flow: ET.Element) -> Document:
    metas = {meta.get("direction"): meta for meta in flow.findall("meta")}
    shown: Document = {}
    for direction in ("original", "reply"):
        layer3, layer4 = metas[direction].find("layer3"), metas[direction].find("layer4")
        assert layer3 is not None
        assert layer4 is not None
        number = int(layer4.get("protonum", ""))
        shown["family"] = layer3.get("protoname")
        shown["protocol"] = table.PROTOCOLS.get(number, number)
        shown[direction] = {table.TUPLE_KEYS[part.tag]: part.text for part in layer3} | {
            table.TUPLE_KEYS[part.tag]: int(part.text or "", 0) for part in layer4
        }
        zone = metas[direction].findtext("zone")
        if zone is not None:
            shown[direction]["zone"] = int(zone)
        counters = metas[direction].find("counters")
        if counters is not None:
            shown.setdefault("counters", {})[direction] = {part.tag: int(part.text or "") for part in counters}
    independent = metas["independent"]
    for key in ("timeout", "mark", "zone", "use", "id"):
        text = independent.findtext(key)
        if text is not None:
            shown[key] = int(text)
    shown["seen_reply"] = independent.find("unreplied") is None
    shown["assured"] = independent.find("assured") is not None
    state = independent.findtext("state")
    if state is not None and shown["protocol"] != "sctp":
        shown["state"] = state.lower()
    helper = flow.findtext("helper")
    if helper is not None:
        shown["helper"] = helper
    labels = independent.find("labels")
    if labels is not None:
        shown["labels"] = [label.text for label in labels]
    start = independent.findtext("timestamp/start")
    if start is not None:
        shown["timestamps"] = {"start": _iso(int(start))}
    return shown


class LabelledProgram:
    """conntrack(8) with a connlabel.conf of the test's own, which it reads from one fixed place only.

    In a mount namespace of its own the program finds a folder of the test's in the place of /etc.
    """

    def __init__(self, namespace: Namespace, folder: Path, names: dict[int, str]) -> None:
        self.namespace = namespace
        (folder / "xtables").mkdir(exist_ok=True)
        lines = "".join(f"{bit} {name}\n" for bit, name in names.items())
        (folder / "xtables/connlabel.conf").write_text(lines)
        self._prefix = f"mount --bind {shlex.quote(str(folder))} /etc && exec conntrack "

    def __call__(self, *arguments: str) -> str:
        self.namespace.conntrack("--version")  # skips where there is none
        script = self._prefix + shlex.join(arguments)
        mounted = self.namespace.run(["unshare", "--mount", "sh", "-c", "true"], check=False)
        if mounted.returncode:
            raise unittest.SkipTest("mount namespaces are forbidden here")
        return self.namespace.run(["unshare", "--mount", "sh", "-c", script]).stdout


# pyroute2


def as_pyroute2_shows(document: Document) -> Document:
    """The part of an entry that pyroute2 decodes: all but the zone of one direction."""
    shown = {key: value for key, value in document.items() if key not in ("nat", "security_context", "extra")}
    for direction in ("original", "reply"):
        shown[direction] = {key: value for key, value in shown[direction].items() if key != "zone"}
    return near(shown)


def by_pyroute2(namespace: Namespace) -> list[Document]:
    """Every entry as pyroute2 reads it, as a document."""
    with namespace.entered():
        return [_by_message(message) for message in table.messages()]


def _by_message(message: Any) -> Document:
    shown: Document = table.from_message(message)
    shown.pop("state", None)
    shown["status"] = _names(message.get_attr("CTA_STATUS"), STATUS_BITS)
    shown["use"] = message.get_attr("CTA_USE")
    protocol = message.get_attr("CTA_PROTOINFO")
    tcp = protocol and protocol.get_attr("CTA_PROTOINFO_TCP")
    if tcp:
        shown["tcp"] = {"state": TCP_STATES[tcp.get_attr("CTA_PROTOINFO_TCP_STATE")]} | {
            direction: {
                "window_scale": tcp.get_attr(f"CTA_PROTOINFO_TCP_WSCALE_{direction.upper()}"),
                "flags": _names(tcp.get_attr(f"CTA_PROTOINFO_TCP_FLAGS_{direction.upper()}")[0], TCP_FLAGS),
            }
            for direction in ("original", "reply")
        }
    sctp = protocol and protocol.get_attr("CTA_PROTOINFO_SCTP")
    if sctp:
        shown["sctp"] = {
            "state": SCTP_STATES[sctp.get_attr("CTA_PROTOINFO_SCTP_STATE")],
            "original_vtag": sctp.get_attr("CTA_PROTOINFO_SCTP_VTAG_ORIGINAL"),
            "reply_vtag": sctp.get_attr("CTA_PROTOINFO_SCTP_VTAG_REPLY"),
        }
    helper = message.get_attr("CTA_HELP")
    if helper is not None:  # it takes the nest for a text
        shown["helper"] = helper[4:].rstrip("\0")
    labels = message.get_attr("CTA_LABELS")
    if labels:
        shown["labels"] = [bit for bit in range(128) if labels >> bit & 1]
    times = message.get_attr("CTA_TIMESTAMP")
    if times is not None:
        shown["timestamps"] = {"start": _iso(times.get_attr("CTA_TIMESTAMP_START"))}
    return shown | _nests(message)


def _nests(message: Any) -> Document:
    shown: Document = {}
    master = message.get_attr("CTA_TUPLE_MASTER")
    if master is not None:
        number = master.get_attr("CTA_TUPLE_PROTO").get_attr("CTA_PROTO_NUM")
        protocol = table.PROTOCOLS.get(number, number)
        shown["master"] = {"protocol": protocol, **dict(table._direction(master, protocol))}
    synproxy = message.get_attr("CTA_SYNPROXY")
    if synproxy is not None:
        numbers = {name: synproxy.get_attr(f"CTA_SYNPROXY_{name.upper()}") for name in ("isn", "its", "tsoff")}
        if any(numbers.values()):
            shown["synproxy"] = numbers
    for direction, short in (("original", "ORIG"), ("reply", "REPLY")):
        adjustment = message.get_attr(f"CTA_SEQ_ADJ_{short}")
        if adjustment is not None:
            shown.setdefault("sequence_adjustment", {})[direction] = {
                "position": adjustment.get_attr("CTA_NAT_SEQ_CORRECTION_POS"),
                "before": _signed(adjustment.get_attr("CTA_NAT_SEQ_OFFSET_BEFORE")),
                "after": _signed(adjustment.get_attr("CTA_NAT_SEQ_OFFSET_AFTER")),
            }
        counters = message.get_attr(f"CTA_COUNTERS_{short}")
        if counters is not None:
            shown.setdefault("counters", {})[direction] = {
                name: counters.get_attr(f"CTA_COUNTERS_{name.upper()}") for name in ("packets", "bytes")
            }
    return shown


def _iso(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds // 10**9, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09d}Z"


def _names(bits: int, names: list[str]) -> list[str]:
    return [name for bit, name in enumerate(names) if bits >> bit & 1]


def _signed(number: int) -> int:
    return number - (1 << 32) if number >> 31 else number
