# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of `conntrack -L -o save`, and such as people write for `conntrack -R`."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import shape, text

ENDS = "-s 10.0.0.1 -d 192.0.2.1 -r 192.0.2.1 -q 10.0.0.1"
PORTS = "--sport 4000 --dport 53 --reply-port-src 53 --reply-port-dst 4000"
UDP = f"-A -t 29 -u SEEN_REPLY,ASSURED {ENDS} -p udp {PORTS}"
UDP_DOCUMENT = {
    "family": "ipv4",
    "protocol": "udp",
    "original": {"source": "10.0.0.1", "destination": "192.0.2.1", "source_port": 4000, "destination_port": 53},
    "reply": {"source": "192.0.2.1", "destination": "10.0.0.1", "source_port": 53, "destination_port": 4000},
    "status": ["seen_reply", "assured"],
    "timeout": 29,
}


def read(line: str) -> Any:
    (entry,) = text.read(line, "save")
    return shape.present(entry)


def write(document: Any) -> str:
    return text.write([shape.parse(document)], "save").rstrip("\n")


def test_a_command() -> None:
    assert read(UDP) == UDP_DOCUMENT
    assert write(UDP_DOCUMENT) == UDP


@pytest.mark.parametrize(
    "line",
    [
        UDP.replace("-A", "-I"),
        UDP.replace("-A", "--update"),
        "conntrack " + UDP,
        UDP.replace("-A", "-D") + " [USERSPACE] portid=16652 progname=it's mine",
        "# what the phone said\n\n  " + UDP + "\n",
        f"-A -p udp {PORTS} -t 29 {ENDS} -u assured,seen_reply",
        "-A -p 17 -s 10.0.0.1 -d 192.0.2.1 --sport 4000 --dport 53 -t 29 -u SEEN_REPLY,ASSURED",
        "-A -p udp -r 192.0.2.1 -q 10.0.0.1 --reply-port-src 53 --reply-port-dst 4000 -t 29 -u SEEN_REPLY,ASSURED",
        (
            '-A --timeout=29 --status "SEEN_REPLY,ASSURED" -f ipv4 --orig-src 10.0.0.1 --orig-dst=192.0.2.1 -p UDP '
            "-c 7 --orig-port-src 4000 --orig-port-dst 53"
        ),
    ],
)
def test_the_same_in_other_words(line: str) -> None:
    assert read(line) == UDP_DOCUMENT


SNAT = {"source": {"address": "203.0.113.7", "port": 1500}}


@pytest.mark.parametrize(
    ("reply", "nat", "words"),
    [
        ("192.0.2.1:53 203.0.113.7:4000", ["src_nat"], "-r 192.0.2.1 -n 203.0.113.7"),
        ("192.0.2.1:53 203.0.113.7:1500", ["src_nat"], "-r 192.0.2.1 -n 203.0.113.7"),
        ("192.0.2.1:53 10.0.0.1:1500", ["src_nat"], "-r 192.0.2.1 -n 10.0.0.1:1500"),
        ("192.0.2.9:8053 10.0.0.1:4000", ["dst_nat"], "-g 192.0.2.9 -q 10.0.0.1"),
        ("192.0.2.1:8053 10.0.0.1:4000", ["dst_nat"], "-g 192.0.2.1:8053 -q 10.0.0.1"),
        ("192.0.2.9:53 203.0.113.7:4000", ["src_nat", "dst_nat"], "-g 192.0.2.9 -n 203.0.113.7"),
        ("192.0.2.9:8053 203.0.113.7:1500", ["src_nat", "dst_nat"], "-g 192.0.2.9:8053 -n 203.0.113.7:1500"),
        ("192.0.2.9:53 203.0.113.7:1500", ["src_nat", "dst_nat"], "-g 192.0.2.9 -n 203.0.113.7:1500"),
        ("192.0.2.1:53 203.0.113.7:1500", [], "-r 192.0.2.1 -q 203.0.113.7"),
    ],
)
def test_translations(reply: str, nat: list[str], words: str) -> None:
    """The program takes a port from the reply only if one end alone is translated, and its address with it."""
    (source, source_port), (destination, destination_port) = (end.split(":") for end in reply.split())
    document = {
        **UDP_DOCUMENT,
        "reply": {
            "source": source,
            "destination": destination,
            "source_port": int(source_port),
            "destination_port": int(destination_port),
        },
        "status": nat,
    }
    line = write(document)
    assert f" {words} -p" in line
    assert read(line) == shape.present(shape.parse(document))


def test_a_declared_translation_is_as_good_as_one_in_force() -> None:
    declared = {"protocol": "udp", "original": UDP_DOCUMENT["original"], "nat": SNAT, "timeout": 29}
    assert "-r 192.0.2.1 -n 203.0.113.7 -p udp" in write(declared)
    assert read(write(declared))["nat"] == SNAT


@pytest.mark.parametrize(
    ("options", "nat"),
    [
        ("-n 203.0.113.7", {"source": {"address": "203.0.113.7", "port": 4000}}),
        ("-n 203.0.113.7:1500", SNAT),
        ("--dst-nat 192.0.2.9:80", {"destination": {"address": "192.0.2.9", "port": 80}}),
    ],
)
def test_translations_of_people(options: str, nat: Any) -> None:
    line = f"-I -t 29 -p udp -s 10.0.0.1 -d 192.0.2.1 --sport 4000 --dport 53 {options}"
    assert read(line)["nat"] == nat


def test_a_translation_of_ipv6() -> None:
    line = "-I -t 29 -p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1 --dport 2 -n "
    assert read(line + "[2001:db8::3]:5")["nat"] == {"source": {"address": "2001:db8::3", "port": 5}}
    assert read(line + "2001:db8::3")["nat"] == {"source": {"address": "2001:db8::3", "port": 1}}


def test_a_changed_id_of_icmp_is_told() -> None:
    """In a way that the program passes over: it has none."""
    document = {
        "protocol": "icmp",
        "original": {"source": "10.0.0.1", "destination": "192.0.2.1", "icmp_type": 8, "icmp_code": 0, "icmp_id": 1},
        "nat": {"source": {"address": "203.0.113.7", "port": 77}},
    }
    line = write(document)
    assert line == (
        "-A -t 120 -u UNSET -s 10.0.0.1 -d 192.0.2.1 -r 192.0.2.1 -n 203.0.113.7:77 "
        "-p icmp --icmp-type 8 --icmp-code 0 --icmp-id 1"
    )
    assert read(line)["reply"]["icmp_id"] == 77


def test_what_the_program_loses_is_written() -> None:
    assert "-u SEEN_REPLY,ASSURED -m 7 -s" in write({**UDP_DOCUMENT, "mark": 7})
    entry = shape.parse({**UDP_DOCUMENT, "labels": [5]})
    assert "--label-add 5 -s" in text.write([entry], "save,labels")
    assert "label" not in text.write([entry], "save")


def test_what_the_kernel_would_refuse_is_not() -> None:
    """`expected` needs a master, of which no option tells."""
    assert "-u SEEN_REPLY -s" in write({**UDP_DOCUMENT, "status": ["expected", "seen_reply"]})
    assert read(UDP.replace("SEEN_REPLY,ASSURED", "EXPECTED"))["status"] == ["expected"]


def test_what_the_program_insists_on_is_there() -> None:
    tcp = {"protocol": "tcp", "original": UDP_DOCUMENT["original"]}
    assert write(tcp).startswith("-A -t 120 -s")
    assert write(tcp).endswith("--state NONE")
    assert write({**tcp, "status": ["seen_reply", "offload"]}).endswith("--state ESTABLISHED")
    sctp = write({**tcp, "protocol": "sctp"})
    assert sctp.endswith("--state NONE --orig-vtag 0 --reply-vtag 0")
    dccp = write({"protocol": "dccp", "original": {"source": "10.0.0.1", "destination": "192.0.2.1"}})
    zeros = "--sport 0 --dport 0 --reply-port-src 0 --reply-port-dst 0"
    assert dccp.endswith(f"-p dccp {zeros} --state NONE --role client")
    assert "source_port" not in read(dccp)["original"]


def test_tags_are_in_the_machines_order() -> None:
    """The program forgets to turn them, on the way out and on the way in."""
    document = {
        "protocol": "sctp",
        "original": UDP_DOCUMENT["original"],
        "sctp": {"state": "established", "original_vtag": 1, "reply_vtag": 0xFFFFFFFE},
    }
    little = "--orig-vtag 16777216 --reply-vtag 4278190079"
    line = write(document)
    assert line.endswith(little if sys.byteorder == "little" else "--orig-vtag 1 --reply-vtag 4294967294")
    assert read(line)["sctp"] == document["sctp"]


def test_a_state_of_which_the_program_has_no_name() -> None:
    line = f"-A -t 29 -u UNSET {ENDS} -p sctp {PORTS} --state (null) --orig-vtag 1 --reply-vtag 2"
    assert "sctp" not in read(line)


def test_a_protocol_by_a_name_of_the_system() -> None:
    assert read(f"-A -t 29 -p icmp {ENDS} --icmp-type 8 --icmp-code 0 --icmp-id 1")["protocol"] == "icmp"
    with pytest.raises(text.Unreadable, match="is no protocol"):
        read(f"-A -t 29 -p no-such {ENDS}")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("-A", "-p: is missing"),
        ("-L", "begins with -A"),
        ("--sport 1", "begins with -A"),
        (f"-A -t 29 {ENDS}", "-p: is missing"),
        (UDP + " -m", "-m: has no value"),
        (UDP + " -t 30", "-t: comes twice"),
        (UDP + " --timeout 30", "--timeout: comes twice"),
        (UDP + " --colour red", "'--colour' is no option"),
        (UDP + " red", "'red' is no option"),
        (UDP.replace("-t 29", "-t x"), "-t: 'x' is not a number"),
        (UDP.replace("ASSURED", "SURE"), "-u: 'SURE' is no status; write UNSET"),
        (UDP.replace("-s 10.0.0.1", "-s 10.0.0.0/8"), "leave out the prefix length"),
        (UDP + " -n 203.0.113.7:x", "-n: 'x' is not a number"),
        (UDP + " --state ESTABLISHED", "udp has no states"),
        (UDP.replace("--sport 4000 ", ""), "original.source_port: is missing"),
        (UDP.replace("-d 192.0.2.1 ", ""), "original.destination: is missing"),
        (UDP + ' -u "', "quotation"),
        (f"-A -t 29 -p 50 {ENDS} -n 203.0.113.7:5", "leave :5 out"),
        (f"-A -t 29 -p icmp {ENDS} --icmp-type 3 --icmp-code 0 --icmp-id 1", "icmp_type"),
        (UDP + " -w 1 --orig-zone 2", "zone"),
    ],
)
def test_a_command_that_cannot_be_read_is_named(line: str, fault: str) -> None:
    with pytest.raises(text.Unreadable) as caught:
        text.read(f"# first\n{UDP}\n{line}\n{UDP}", "save")
    assert caught.value.key == "line 3"
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
