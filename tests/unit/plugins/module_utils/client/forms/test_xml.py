# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The document of `conntrack -L -o xml`."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import shape, text
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue

HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<conntrack>\n'
TAIL = "</conntrack>\n"


def direction(name: str, source: str, destination: str, layer4: str) -> str:
    return (
        f'<meta direction="{name}"><layer3 protonum="2" protoname="ipv4"><src>{source}</src><dst>{destination}</dst>'
        f"</layer3>{layer4}</meta>"
    )


def flow(layer4: str, independent: str, more: str = "") -> str:
    return (
        "<flow>"
        + direction("original", "10.0.0.1", "192.0.2.1", layer4)
        + direction("reply", "192.0.2.1", "10.0.0.1", layer4)
        + f'<meta direction="independent">{independent}</meta>{more}</flow>\n'
    )


ESP = '<layer4 protonum="50" protoname="unknown"></layer4>'
PLAIN = flow(ESP, "<timeout>29</timeout><mark>0</mark><use>1</use><id>7</id><unreplied/>")
DOCUMENT = {
    "family": "ipv4",
    "protocol": 50,
    "original": {"source": "10.0.0.1", "destination": "192.0.2.1"},
    "reply": {"source": "192.0.2.1", "destination": "10.0.0.1"},
    "status": [],
    "timeout": 29,
    "id": 7,
    "use": 1,
    "mark": 0,
}


def read(flows: str) -> Any:
    (entry,) = text.read(HEAD + flows + TAIL, "xml")
    return shape.present(entry)


def test_a_flow() -> None:
    assert read(PLAIN) == DOCUMENT
    assert text.write([shape.parse(DOCUMENT)], "xml") == HEAD + PLAIN + TAIL


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + PLAIN.replace("<flow>", '<flow type="new">') + TAIL,
        HEAD + PLAIN.replace("</flow>", "</flow> [USERSPACE] portid=1 progname=me") + TAIL,
        HEAD + PLAIN.replace("</flow>", "<when><hour>12</hour></when></flow>") + TAIL,
        HEAD + PLAIN.replace("<unreplied/>", "<unreplied/><deltatime>5</deltatime>") + TAIL,
        HEAD + PLAIN + TAIL + "conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown.\n",
        HEAD + PLAIN.replace("><", ">\n  <") + TAIL,
        "<conntrack>" + PLAIN + TAIL,
    ],
)
def test_the_same_in_other_words(raw: str) -> None:
    assert [shape.present(entry) for entry in text.read(raw)] == [DOCUMENT]


SCTP = '<layer4 protonum="132" protoname="sctp"><sport>1</sport><dport>1</dport></layer4>'


@pytest.mark.parametrize(
    ("written", "state"),
    [
        ("SHUTDOWN_RECD", "shutdown_recd"),
        ("LAST_ACK", "shutdown_recd"),
        ("FIN_WAIT", "established"),
        ("CLOSE", "heartbeat_sent"),
        ("ESTABLISHED", "established"),
    ],
)
def test_sctps_states_by_their_own_names_and_by_the_programs(written: str, state: str) -> None:
    assert read(flow(SCTP, f"<state>{written}</state>"))["sctp"] == {"state": state}


def test_sctps_states_are_written_by_their_own_names() -> None:
    entry = shape.parse(read(flow(SCTP, "<state>LAST_ACK</state>")))
    assert "<state>SHUTDOWN_RECD</state>" in text.write([entry], "xml")


def test_the_programs_icmp_has_no_numbers() -> None:
    document = read(flow('<layer4 protonum="1" protoname="icmp"></layer4>', "<id>7</id>"))
    assert document["protocol"] == "icmp"
    assert document["original"] == {"source": "10.0.0.1", "destination": "192.0.2.1"}
    assert document["id"] == 7


def test_icmp_is_written_with_its_numbers() -> None:
    ends = {"source": "10.0.0.1", "destination": "192.0.2.1"}
    document = {"protocol": "icmp", "original": {**ends, "icmp_type": 8, "icmp_code": 0, "icmp_id": 5}}
    written = text.write([shape.parse(document)], "xml")
    assert "<type>8</type><code>0</code><id>5</id>" in written
    (entry,) = text.read(written)
    assert shape.present(entry)["original"] == document["original"]


@pytest.mark.parametrize("name", ["<&>", "a]]>b", "\N{SNOWMAN}", "a\rb\nc"])
def test_names_are_escaped(name: str) -> None:
    entry = {**shape.parse(DOCUMENT), "security_context": name}
    written = text.write([entry], "xml")
    ET.fromstring(written)
    assert text.read(written) == [entry]


@pytest.mark.parametrize("name", ["\0", "\x1b", "\udc80", "\ufffe"])
def test_names_that_xml_cannot_hold(name: str) -> None:
    with pytest.raises(InvalidValue, match="cannot be written in XML"):
        text.write([{**shape.parse(DOCUMENT), "helper": name}], "xml")


@pytest.mark.parametrize(
    ("raw", "where", "fault"),
    [
        ("<conntrack>", "line 1", "is no XML"),
        (HEAD + "<flow></floe>" + TAIL, "line 3", "is no XML"),
        ("<expect/>", "document", "<expect>"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + HEAD + TAIL, "document", "document type"),
        (HEAD + PLAIN + "<flow/>" + TAIL, "flow 2", "no layer4"),
        (HEAD + PLAIN + "<x/>" + TAIL, "flow 2", "no layer4"),
        (HEAD + PLAIN + PLAIN.replace("<mark>0", "<mark>x") + TAIL, "flow 2", "mark: 'x' is not a number"),
        (HEAD + PLAIN + PLAIN.replace('protonum="50"', 'protonum="x"') + TAIL, "flow 2", "protonum"),
        (HEAD + PLAIN + PLAIN.replace("<dst>192.0.2.1", "<dst>x") + TAIL, "flow 2", "dst: 'x' is not an address"),
        (HEAD + PLAIN + PLAIN.replace("<dst>192.0.2.1</dst>", "") + TAIL, "flow 2", "destination: is missing"),
        (HEAD + flow(ESP, "<state>ESTABLISHED</state>") + TAIL, "flow 1", "has no states"),
        (HEAD + flow(ESP, "<timestamp><start>-1</start></timestamp>") + TAIL, "flow 1", "start"),
        (HEAD + PLAIN.replace('"original"', '"x"') + TAIL, "flow 1", "no layer4"),
    ],
)
def test_a_document_that_cannot_be_read(raw: str, where: str, fault: str) -> None:
    with pytest.raises(text.Unreadable) as caught:
        text.read(raw, "xml")
    assert caught.value.key == where
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
