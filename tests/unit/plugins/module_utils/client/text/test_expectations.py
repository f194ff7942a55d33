# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that lists of expectations are read and written as conntrack(8) and the kernel print them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import tuple_of
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils.client.expectation.test_expectation import (
    declarations,
)

FTP = (
    "300 proto=6 src=10.1.0.2 dst=192.0.2.21 sport=0 dport=20000 "
    "mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 "
    "master-src=10.1.0.2 master-dst=192.0.2.21 sport=1400 dport=21 class=0 helper=ftp"
)
DOCUMENT = {
    "family": "ipv4",
    "tuple": {
        "source": "10.1.0.2",
        "destination": "192.0.2.21",
        "protocol": "tcp",
        "source_port": 0,
        "destination_port": 20000,
    },
    "mask": {
        "source": "255.255.255.255",
        "destination": "255.255.255.255",
        "protocol": "tcp",
        "source_port": 0,
        "destination_port": 65535,
    },
    "master": {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21},
    "class": 0,
    "flags": [],
    "timeout": 300,
    "helper": "ftp",
}
XML = (
    '<flow><layer3 protonum="2" protoname="ipv4"><expected><src>10.1.0.2</src><dst>192.0.2.21</dst></expected>'
    "<mask><src>255.255.255.255</src><dst>255.255.255.255</dst></mask>"
    "<master><src>10.1.0.2</src><dst>192.0.2.21</dst></master></layer3>"
    '<layer4 protonum="6" protoname="tcp"><expected><sport>0</sport><dport>20000</dport></expected>'
    "<mask><sport>0</sport><dport>65535</dport></mask><master><sport>1400</sport><dport>21</dport></master></layer4>"
    "<meta><helper-name>ftp</helper-name><timeout>300</timeout><class>0</class></meta></flow>\n"
)
HEAD, TAIL = '<?xml version="1.0" encoding="utf-8"?>\n<expect>\n', "</expect>\n"
COMMAND = (
    "-I expect -t 300 -p tcp --orig-src 10.1.0.2 --orig-dst 192.0.2.21 --orig-port-src 1400 --orig-port-dst 21 "
    "--tuple-src 10.1.0.2 --tuple-dst 192.0.2.21 --tuple-port-src 0 --tuple-port-dst 20000 "
    "--mask-src 255.255.255.255 --mask-dst 255.255.255.255 --mask-port-src 0 --mask-port-dst 65535"
)
#: The keys that the program's command has options for.
COMMANDED = {key: value for key, value in DOCUMENT.items() if key not in ("class", "flags", "helper")}


def read(raw: str, form: Any = None) -> Any:
    found = formats.examine(raw, form)
    assert found.table == "expect"
    (one,) = found.entries
    assert formats.to_document(one) == expectation.to_document(one)
    return expectation.to_document(one)


def written(document: Any, output: str) -> str:
    return formats.write([formats.from_document(document)], output)


def test_a_line() -> None:
    assert read(FTP) == DOCUMENT
    assert written(DOCUMENT, "text") == FTP + "\n"
    assert written(DOCUMENT, "extended,id") == FTP + "\n", "the program shows no more"


@pytest.mark.parametrize(
    "line",
    [
        "    [NEW] " + FTP,
        " [UPDATE] " + FTP,
        "[1795920398.67436 ]\t[DESTROY] " + FTP,
        FTP + "\nconntrack v1.4.7 (conntrack-tools): 1 expectations have been shown.",
        "NOTICE: Netlink socket buffer size has been set to 4000000 bytes.\n" + FTP,
    ],
)
def test_variants_of_a_line_are_read_equally(line: str) -> None:
    assert read(line) == DOCUMENT


def test_flags_masks_and_zones() -> None:
    line = FTP.replace("=0 dport=65535", "=255 dport=65535").replace("class=0", "zone=5 PERMANENT,INACTIVE class=2")
    document = read(line)
    assert (document["flags"], document["class"], document["zone"]) == (["permanent", "inactive"], 2, 5)
    assert document["mask"]["source_port"] == 255
    assert written(document, "text") == line + "\n"
    for output in ("xml", "json"):
        assert read(written(document, output))["flags"] == document["flags"]


@pytest.mark.parametrize(
    ("line", "more"),
    [
        ("300 l3proto = 2 proto=6 src=10.1.0.2 dst=192.0.2.21 sport=0 dport=20000 ftp", {}),
        ("300 l3proto = 2 proto=6 src=10.1.0.2 dst=192.0.2.21 sport=0 dport=20000 ftp/data", {}),
        (
            "300 l3proto = 2 proto=6 src=10.1.0.2 dst=192.0.2.21 sport=0 dport=20000 PERMANENT,INACTIVE ftp",
            {"flags": ["permanent", "inactive"]},
        ),
    ],
)
def test_list_of_the_kernel_is_read(line: str, more: Any) -> None:
    """The kernel's list contains neither mask nor master."""
    lacking = {key: value for key, value in DOCUMENT.items() if key not in ("mask", "master", "class")}
    assert read(line) == {**lacking, **more}
    assert read(line.replace("300 ", "- ", 1)).keys() == lacking.keys() - {"timeout"}


def test_a_master_of_another_protocol() -> None:
    """PPTP negotiates a GRE connection over TCP."""
    line = (
        "170 proto=47 src=10.1.0.2 dst=192.0.2.21 srckey=0x0 dstkey=0x1 mask-src=255.255.255.255 "
        "mask-dst=255.255.255.255 srckey=0xffff dstkey=0xffff master-src=10.1.0.2 master-dst=192.0.2.21 sport=1400 "
        "dport=1723 class=0 helper=pptp"
    )
    document = read(line)
    assert document["master"] == {**DOCUMENT["master"], "protocol": "tcp", "destination_port": 1723}  # type: ignore[dict-item]
    assert document["tuple"]["destination_key"] == 1
    assert written(document, "text") == line + "\n"
    assert read(written(document, "xml")) == document


def test_ipv6() -> None:
    line = (
        "299 l3proto = 10 proto=6 src=2001:0db8:0000:0000:0000:0000:0000:0021 "
        "dst=2001:0db8:0000:0000:0000:0000:0000:0002 sport=0 dport=4000 ftp"
    )
    document = read(line)
    assert (document["family"], document["tuple"]["source"]) == ("ipv6", "2001:db8::21")
    assert written(document, "text") == "299 proto=6 src=2001:db8::21 dst=2001:db8::2 sport=0 dport=4000 helper=ftp\n"


def test_xml() -> None:
    assert read(HEAD + XML + TAIL) == DOCUMENT
    assert written(DOCUMENT, "xml") == HEAD + XML + TAIL
    for raw in (XML, HEAD + XML, HEAD + XML.replace("<flow>", '<flow type="new">') + TAIL + "conntrack v1.4.7 x\n"):
        assert read(raw, "xml") == DOCUMENT
    assert len(formats.read(HEAD + XML + TAIL + HEAD + XML)) == 2


def test_commands() -> None:
    assert read(COMMAND) == COMMANDED
    assert written(DOCUMENT, "save") == COMMAND + "\n"
    for line in (
        "conntrack --create=expect " + COMMAND[10:],
        COMMAND.replace("--orig-", "--").replace("--port-src 1400 --port-dst", "--sport 1400 --dport"),
        "# by hand\n" + COMMAND.replace("-I expect", "-Iexp").replace("-p tcp", "-ptcp") + "\n",
    ):
        assert read(line) == COMMANDED


@pytest.mark.parametrize("output", ["text", "xml", "save", "json"])
def test_expectation_that_was_read_can_be_declared(output: str) -> None:
    document = read(written(DOCUMENT, output))
    declared = expectation.from_document(document)
    assert expectation.creation(declared)["master.protocol"] == 6
    assert read(written(document, output)) == document


def test_json() -> None:
    raw = written(DOCUMENT, "json")
    assert json.loads(raw) == [{**DOCUMENT, "master": {**DOCUMENT["master"], "protocol": "tcp"}}]  # type: ignore[dict-item]
    udp = {
        "protocol": "udp",
        "original": {"source": "::1", "destination": "::2", "source_port": 1, "destination_port": 2},
    }
    with pytest.raises(formats.Unreadable, match="document: has both entries and expectations"):
        formats.read(json.dumps([udp, DOCUMENT]))
    with pytest.raises(formats.InvalidValue, match="entries and expectations"):
        formats.write([formats.from_document(udp), formats.from_document(DOCUMENT)])


def test_a_declaration_is_written_as_it_will_be_listed() -> None:
    declared = {"tuple": {**DOCUMENT["tuple"], "source": None}, "master": DOCUMENT["master"]}  # type: ignore[dict-item]
    zero = "src=10.1.0.2 dst=192.0.2.21 sport=0 dport=20000 mask-src=255.255.255.255"
    listed = FTP.replace(zero, zero.replace("10.1.0.2", "0.0.0.0").replace("255.255.255.255", "0.0.0.0"))
    assert written(declared, "text") == listed.replace("300 ", "").replace(" helper=ftp", "") + "\n"


@pytest.mark.parametrize("output", ["text", "xml", "json"])
@given(declarations())
@examples(100)
def test_output_format_preserves_its_values(output: str, document: Any) -> None:
    wanted = expectation.from_document(document)
    (read,) = formats.read(formats.write([wanted], output))
    for part in ("tuple", *(["master"] if "master" in document else [])):
        for name, value in tuple_of(wanted, part).items():
            assert (name, value) == (name, read.get(f"{part}.{name}", 6 if name == "protocol" else None))
    for key in ("zone", "timeout", "class", "helper"):
        assert read.get(key) == wanted.get(key) or (key, wanted.get(key), read.get(key)) == ("class", None, 0)
    assert read.get("flags", 0) == wanted.get("flags", 0)
    assert formats.read(formats.write([read], output)) == [read], "a second round trip has the same result"


def test_unknown_words_and_line_prefixes_are_skipped_or_kept() -> None:
    line = f"Nov 29 01:55:00 gw conntrack[5]: {FTP} fast nmark=7"
    with pytest.raises(formats.Unreadable, match="'Nov 29 01:55:00 gw conntrack.5.:' is not a word"):
        formats.read(line)
    found = formats.examine(f"{line}\nhello\n", unknown="skip")
    assert (found.table, [formats.to_document(one) for one in found.entries]) == ("expect", [DOCUMENT])
    assert found.skipped == {"head": 1, "fast": 1, "nmark": 1, "lines without an entry": 1}
    (kept,) = formats.examine(line, unknown="keep").entries
    assert kept["extra"] == {"head": b"Nov 29 01:55:00 gw conntrack[5]:", "fast": b"", "nmark": b"7"}


@pytest.mark.parametrize(
    ("raw", "where", "fault"),
    [
        (f"{FTP}\nudp 17 29 src=10.0.0.1", "line 2", "is not a line of conntrack -L expect"),
        (FTP.replace("proto=6", "proto=300"), "line 1", "out of range"),
        (FTP.replace(" dst=192.0.2.21", "", 1), "line 1", "tuple.destination: is missing"),
        (FTP.replace("master-dst=192.0.2.21 ", ""), "line 1", "master.destination: is missing"),
        (FTP.replace(" sport=1400", ""), "line 1", "master.source_port: is missing"),
        (FTP + " class=1", "line 1", "class: is given twice"),
        (FTP + " dport=1", "line 1", "dport: is given twice"),
        (FTP.replace("dport=20000", "dport=x"), "line 1", "dport: 'x' is not a number"),
        (FTP.replace("master-dst=192.0.2.21", "master-dst=::1"), "line 1", "IPv4"),
        (FTP + " helper", "line 1", "'helper' is not a word of conntrack -L expect"),
        (COMMAND + "\n-U expect -t 5", "line 2", "-U: creates no expectation; write -I expect"),
        (COMMAND + "\n-D expect -p tcp", "line 2", "-D: deletes"),
        (COMMAND + "\n-I -p tcp", "line 2", "-I: creates no expectation"),
        (COMMAND.replace("-p tcp ", ""), "line 1", "-p: is missing"),
        (COMMAND.replace("--tuple-dst 192.0.2.21 ", ""), "line 1", "tuple.destination: is missing"),
        (HEAD + XML + "<flow/>" + TAIL, "flow 2", "has no layer3 and layer4"),
        (HEAD + XML.replace("<class>0", "<class>x") + TAIL, "flow 1", "class: 'x' is not a number"),
        (HEAD + XML.replace("<class>", "<nmark/><class>") + TAIL, "flow 1", "'<nmark>' is not a word"),
        (HEAD + XML.replace("<sport>0", "<port/><sport>0") + TAIL, "flow 1", "'<port>' is not a word"),
        (HEAD + XML + XML[:300], "flow 2", "is truncated"),
    ],
)
def test_unreadable_input_is_reported_with_its_place(raw: str, where: str, fault: str) -> None:
    with pytest.raises(formats.Unreadable) as caught:
        formats.read(raw)
    assert caught.value.key == where
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({**DOCUMENT, "master": {**DOCUMENT["master"], "protocol": "udp"}}, "master.protocol: differs"),  # type: ignore[dict-item]
        ({key: value for key, value in DOCUMENT.items() if key != "master"}, "master: is missing"),
        ({**DOCUMENT, "helper": "a b"}, "helper: 'a b' cannot be written"),
    ],
)
def test_values_that_cannot_be_written_are_refused(document: Any, fault: str) -> None:
    with pytest.raises(formats.InvalidValue, match=fault):
        written(document, "text" if "helper" in fault else "save")


@pytest.mark.parametrize("output", ["text", "xml"])
@pytest.mark.parametrize("mask", [{"source": "255.255.255.255"}, {"source_port": 0}, {"destination_port": 65535}])
def test_a_part_of_a_mask_is_written_in_full(output: str, mask: Any) -> None:
    document = {key: value for key, value in DOCUMENT.items() if key not in ("master", "class", "mask")}
    (read,) = formats.read(formats.write([expectation.from_document({**document, "mask": mask})], output))
    assert formats.to_document(read)["mask"] == DOCUMENT["mask"]


def test_a_protocol_without_options() -> None:
    numbers = {"icmp_type": 8, "icmp_code": 0, "icmp_id": 7}
    ends = {"protocol": "icmp", "source": "10.1.0.2", "destination": "192.0.2.21", **numbers}
    document = {"tuple": ends, "mask": {"source": "255.255.255.255"}, "master": ends}
    with pytest.raises(formats.InvalidValue, match="master.icmp_type: conntrack has no option for it"):
        written(document, "save")
