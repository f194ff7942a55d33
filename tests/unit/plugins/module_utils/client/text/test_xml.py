# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the document of `conntrack -L -o xml` is read completely; a truncated one must be an error."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from ansible_collections.netops.conntrack.tests.fuzz import guard

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
    (entry,) = formats.read(HEAD + flows + TAIL, "xml")
    return to_document(entry)


def test_a_flow() -> None:
    assert read(PLAIN) == DOCUMENT
    assert formats.write([from_document(DOCUMENT)], "xml") == HEAD + PLAIN + TAIL


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
        PLAIN,
        HEAD + PLAIN,
        HEAD + PLAIN + "conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown.\n",
        HEAD + PLAIN + "</connt",
        HEAD + HEAD + PLAIN,
        "NOTICE: Netlink socket buffer size has been set to 4000000 bytes.\n" + HEAD + PLAIN + TAIL,
        "conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.\n\n" + PLAIN,
        HEAD + PLAIN.replace("</flow>", "</flow> [USERSPACE] portid=1 progname=a<b&c") + TAIL,
    ],
)
def test_variants_of_a_document_are_read_equally(raw: str) -> None:
    assert [to_document(entry) for entry in formats.read(raw)] == [DOCUMENT]


@pytest.mark.parametrize(
    "raw",
    [
        HEAD + PLAIN + TAIL + HEAD + PLAIN + TAIL + HEAD + PLAIN,
        HEAD + PLAIN + HEAD + PLAIN + TAIL + "<conntrack>" + PLAIN + TAIL,
        PLAIN + PLAIN + PLAIN,
        PLAIN + HEAD + PLAIN + PLAIN,
        HEAD + PLAIN + "<conntrack>" + PLAIN + "<conntrack>" + PLAIN,
    ],
)
def test_several_documents(raw: str) -> None:
    """-U, -D and -G print several documents in sequence."""
    assert [to_document(entry) for entry in formats.read(raw)] == [DOCUMENT] * 3


@pytest.mark.parametrize("length", [len("<flow"), len("<flo"), len("<flow>"), 100, len(PLAIN) - 3])
def test_truncated_flow_is_reported(length: int) -> None:
    raw = HEAD + PLAIN + PLAIN[:length]
    for document in (raw, PLAIN + PLAIN[:length]):
        for unknown in ("fail", "keep"):
            with pytest.raises(formats.Unreadable, match="flow 2: is truncated; .* unknown=skip"):
                formats.examine(document, unknown=unknown)
    found = formats.examine(raw + "\n" + HEAD + PLAIN, unknown="skip")
    assert [to_document(entry) for entry in found.entries] == [DOCUMENT] * 2
    assert found.skipped == {"truncated flows": 1}


def test_unknown_elements_are_skipped_or_kept() -> None:
    fast = "<fastnat/>"
    raw = (
        HEAD
        + PLAIN.replace("<mark>", "<nmark>7</nmark><mark>").replace("</layer3>", f"{fast}</layer3>")
        + "<x/>"
        + PLAIN.replace("</flow>", f"{fast}</flow>").replace("</meta>", f"{fast}</meta>", 1)
    )
    with pytest.raises(formats.Unreadable, match="flow 1: '<fastnat>' is not a word of conntrack -o xml"):
        formats.read(raw)
    found = formats.examine(raw, unknown="skip")
    assert [to_document(entry) for entry in found.entries] == [DOCUMENT] * 2
    assert found.skipped == {"<fastnat>": 4, "<nmark>": 1, "elements without an entry": 1}
    (kept, _other) = formats.examine(raw.replace("<x/>", ""), unknown="keep").entries
    assert kept["extra"] == {"<fastnat>": b" ", "<nmark>": b"7"}


def test_deeply_nested_documents_have_no_entries() -> None:
    assert formats.read("<conntrack>" * 50_000) == []


def test_unclosed_declarations_are_refused_quickly() -> None:
    """A search for the end of each declaration would take minutes in a text of 1 MB."""
    with guard.limited(), pytest.raises(formats.Unreadable):
        formats.read("<?xml" * 200_000, "xml")


SCTP = '<layer4 protonum="132" protoname="sctp"><sport>1</sport><dport>1</dport></layer4>'


@pytest.mark.parametrize(
    ("written", "state"),
    [
        ("SHUTDOWN_RECD", "shutdown_recd"),
        ("LAST_ACK", "shutdown_recd"),
        ("FIN_WAIT", "established"),
        ("CLOSE", "heartbeat_sent"),
        ("LISTEN", "heartbeat_acked"),
        ("ESTABLISHED", "established"),
    ],
)
def test_sctp_states_are_read_by_the_names_of_sctp_and_of_the_program(written: str, state: str) -> None:
    assert read(flow(SCTP, f"<state>{written}</state>"))["sctp"] == {"state": state}


def test_sctp_states_are_written_by_the_names_of_sctp() -> None:
    entry = from_document(read(flow(SCTP, "<state>LAST_ACK</state>")))
    assert "<state>SHUTDOWN_RECD</state>" in formats.write([entry], "xml")


def test_icmp_without_type_and_code_is_read() -> None:
    document = read(flow('<layer4 protonum="1" protoname="icmp"></layer4>', "<id>7</id>"))
    assert document["protocol"] == "icmp"
    assert document["original"] == {"source": "10.0.0.1", "destination": "192.0.2.1"}
    assert document["id"] == 7


def test_icmp_is_written_with_type_code_and_id() -> None:
    ends = {"source": "10.0.0.1", "destination": "192.0.2.1"}
    document = {"protocol": "icmp", "original": {**ends, "icmp_type": 8, "icmp_code": 0, "icmp_id": 5}}
    written = formats.write([from_document(document)], "xml")
    assert "<type>8</type><code>0</code><id>5</id>" in written
    (entry,) = formats.read(written)
    assert to_document(entry)["original"] == document["original"]


@pytest.mark.parametrize("name", ["<&>", "a]]>b", "\N{SNOWMAN}", "a\rb\nc"])
def test_names_are_escaped(name: str) -> None:
    entry = {**from_document(DOCUMENT), "security_context": name}
    written = formats.write([entry], "xml")
    ET.fromstring(written)
    assert formats.read(written) == [entry]


@pytest.mark.parametrize("name", ["\0", "\x1b", "\udc80", "\ufffe"])
def test_names_with_invalid_xml_characters_are_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match="cannot be written in XML"):
        formats.write([{**from_document(DOCUMENT), "helper": name}], "xml")


@pytest.mark.parametrize(
    ("raw", "where", "fault"),
    [
        (HEAD + "<flow></floe>" + TAIL, "line 3", "is not valid XML"),
        (HEAD + PLAIN + "<flow></floe>" + TAIL, "line 4", "is not valid XML: mismatched tag"),
        ('<!DOCTYPE x [<!ENTITY a "b">]>' + HEAD + TAIL, "document", "document type"),
        (HEAD + PLAIN + "<flow/>" + TAIL, "flow 2", "no layer4"),
        (HEAD + PLAIN + "<x/>" + TAIL, "flow 2", "no layer4"),
        (HEAD + PLAIN + PLAIN.replace("<mark>0", "<mark>x") + TAIL, "flow 2", "mark: 'x' is not a number"),
        (HEAD + PLAIN + PLAIN.replace('protonum="50"', 'protonum="x"') + TAIL, "flow 2", "protonum"),
        (HEAD + PLAIN + PLAIN.replace("<dst>192.0.2.1", "<dst>x") + TAIL, "flow 2", "dst: 'x' is not an address"),
        (HEAD + PLAIN + PLAIN.replace("<dst>192.0.2.1</dst>", "") + TAIL, "flow 2", "destination: is missing"),
        (HEAD + TAIL + HEAD + PLAIN + "<flow></floe>" + TAIL, "line 7", "is not valid XML: mismatched tag"),
        (HEAD + PLAIN.replace("<mark>0", "<mark>" + "9" * 70_000) + TAIL, "flow 1", "mark: is longer than 65,536"),
        (HEAD + flow(ESP, "<state>ESTABLISHED</state>") + TAIL, "flow 1", "has no states"),
        (HEAD + flow(ESP, "<timestamp><start>-1</start></timestamp>") + TAIL, "flow 1", "start"),
        (HEAD + PLAIN.replace('"original"', '"x"') + TAIL, "flow 1", "no layer4"),
    ],
)
def test_unreadable_document_is_reported(raw: str, where: str, fault: str) -> None:
    with pytest.raises(formats.Unreadable) as caught:
        formats.read(raw, "xml")
    assert caught.value.key == where
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
