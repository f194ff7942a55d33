# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that commands of `conntrack -L -o save`, and commands that users write for `conntrack -R`, are read."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats

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
    (entry,) = formats.read(line, "save")
    return to_document(entry)


def write(document: Any) -> str:
    return formats.write([from_document(document)], "save").rstrip("\n")


def test_a_command() -> None:
    assert read(UDP) == UDP_DOCUMENT
    assert write(UDP_DOCUMENT) == UDP


@pytest.mark.parametrize(
    "line",
    [
        UDP.replace("-A", "-I"),
        UDP.replace("-A", "--update"),
        "conntrack " + UDP,
        UDP.replace("-A", "-U") + " [USERSPACE] portid=16652 progname=it's mine",
        "# from the telephone server\n\n  " + UDP + "\n",
        f"-A -p udp {PORTS} -t 29 {ENDS} -u assured,seen_reply",
        "-A -p 17 -s 10.0.0.1 -d 192.0.2.1 --sport 4000 --dport 53 -t 29 -u SEEN_REPLY,ASSURED",
        "-A -p udp -r 192.0.2.1 -q 10.0.0.1 --reply-port-src 53 --reply-port-dst 4000 -t 29 -u SEEN_REPLY,ASSURED",
        (
            '-A --timeout=29 --status "SEEN_REPLY,ASSURED" -f ipv4 --orig-src 10.0.0.1 --orig-dst=192.0.2.1 -p UDP '
            "-c 7 --orig-port-src 4000 --orig-port-dst 53"
        ),
        "-I conntrack " + UDP[3:].replace("-p udp", "--proto udp"),
        "-Iconntrack " + UDP[3:].replace("-p ", "-p").replace("-s ", "-s").replace("-t ", "-t").replace("-u ", "-u"),
        "--create=conn " + UDP[3:],
        "--cre " + UDP[3:].replace("-t", "--time").replace("--sport", "--orig-port-s").replace("--dport", "--dp"),
        "-t 29 -p udp -A" + UDP[8:].replace(" -p udp", ""),
        "sudo /usr/sbin/conntrack " + UDP,
        UDP.replace("-t 29", "-t 029"),
        UDP.replace("-p udp", "-p 021"),
        "NOTICE: Netlink socket buffer size has been set to 4000000 bytes.\n" + UDP,
    ],
)
def test_variants_of_a_command_are_read_equally(line: str) -> None:
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
def test_nat_is_written_as_options(reply: str, nat: list[str], words: str) -> None:
    """The program takes a port from the reply only if one end alone has NAT and its address changes as well."""
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
    assert read(line) == to_document(from_document(document))


def test_declared_nat_is_written_as_existing_nat() -> None:
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
def test_nat_of_handwritten_commands_is_read(options: str, nat: Any) -> None:
    line = f"-I -t 29 -p udp -s 10.0.0.1 -d 192.0.2.1 --sport 4000 --dport 53 {options}"
    assert read(line)["nat"] == nat


def test_nat_of_ipv6_is_read() -> None:
    line = "-I -t 29 -p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1 --dport 2 -n "
    assert read(line + "[2001:db8::3]:5")["nat"] == {"source": {"address": "2001:db8::3", "port": 5}}
    assert read(line + "2001:db8::3")["nat"] == {"source": {"address": "2001:db8::3", "port": 1}}


def test_nated_icmp_id_is_written() -> None:
    """The line contains the id as a port, which the program ignores because it has no option for the id."""
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


def test_mark_and_labels_that_the_program_omits_are_written() -> None:
    assert "-u SEEN_REPLY,ASSURED -m 7 -s" in write({**UDP_DOCUMENT, "mark": 7})
    entry = from_document({**UDP_DOCUMENT, "labels": [5]})
    assert "--label-add 5 -s" in formats.write([entry], "save,labels")
    assert "label" not in formats.write([entry], "save")


def test_status_bits_that_the_kernel_refuses_are_not_written() -> None:
    """The status `expected` needs a master, for which the program has no option."""
    assert "-u SEEN_REPLY -s" in write({**UDP_DOCUMENT, "status": ["expected", "seen_reply"]})
    assert read(UDP.replace("SEEN_REPLY,ASSURED", "EXPECTED"))["status"] == ["expected"]


def test_options_that_the_program_requires_are_written() -> None:
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


def test_sctp_tags_have_the_byte_order_of_the_machine() -> None:
    """The program does not convert the byte order, neither for output nor for input."""
    document = {
        "protocol": "sctp",
        "original": UDP_DOCUMENT["original"],
        "sctp": {"state": "established", "original_vtag": 1, "reply_vtag": 0xFFFFFFFE},
    }
    little = "--orig-vtag 16777216 --reply-vtag 4278190079"
    line = write(document)
    assert line.endswith(little if sys.byteorder == "little" else "--orig-vtag 1 --reply-vtag 4294967294")
    assert read(line)["sctp"] == document["sctp"]


def test_state_without_a_name_is_ignored() -> None:
    line = f"-A -t 29 -u UNSET {ENDS} -p sctp {PORTS} --state (null) --orig-vtag 1 --reply-vtag 2"
    assert "sctp" not in read(line)


def test_protocol_is_read_by_any_of_its_names() -> None:
    """The names are those of a match, not those of this machine."""
    v6 = "-s 2001:db8::1 -d 2001:db8::2 -r 2001:db8::2 -q 2001:db8::1"
    for name, number in types.OTHER_PROTOCOLS.items():
        if number in types.PROTOCOLS.values():
            continue
        assert read(f"-A -t 29 -p {name} {ENDS}")["protocol"] == number
    assert read(f"-A -t 29 -p ipv6-icmp {v6} --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 1")["protocol"] == "icmpv6"
    assert read(f"-A -t 29 -p icmp {ENDS} --icmp-type 8 --icmp-code 0 --icmp-id 1")["protocol"] == "icmp"
    with pytest.raises(formats.Unreadable, match="is not a known protocol"):
        read(f"-A -t 29 -p no-such {ENDS}")


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("-A", "-p: is missing"),
        ("-L", "-L: is not valid with -A, -I and -U"),
        ("--sport 1", "has no -A, -I or -U"),
        (f"-A -t 29 {ENDS}", "-p: is missing"),
        (UDP + " -m", "-m: has no value"),
        (UDP + " -t 30", "-t: is given twice"),
        (UDP + " --timeout 30", "--timeout: is given twice"),
        (UDP + " --colour red", "'--colour' is not a word of conntrack -o save; use unknown=skip or unknown=keep"),
        (UDP + " red", "'red' is not a word"),
        (UDP.replace("-t 29", "-t x"), "-t: 'x' is not a number"),
        (UDP.replace("ASSURED", "SURE"), "-u: 'SURE' is not a status; write UNSET"),
        (UDP.replace("-s 10.0.0.1", "-s 10.0.0.0/8"), "leave out the prefix length"),
        (UDP + " -n 203.0.113.7:x", "-n: 'x' is not a number"),
        (UDP + " --state ESTABLISHED", "udp has no states"),
        (UDP.replace("--sport 4000 ", ""), "original.source_port: is missing"),
        (UDP.replace("-d 192.0.2.1 ", ""), "original.destination: is missing"),
        (UDP + ' -u "', "quotation"),
        (UDP + " --st NEW", "--st: is ambiguous; write one of "),
        (UDP + " -w 09", "-w: '09' is not an octal number"),
        (UDP.replace("-A", "-A expect"), "-A: the table is expect"),
        (UDP.replace("-A", "-A dying"), "-A: the table is dying"),
        (UDP + " -g192.0.2.9", "-g: conntrack ignores an address in the same word; write -g 192.0.2.9"),
        (
            UDP + " --src-nat=192.0.2.9",
            "--src-nat: conntrack ignores an address in the same word; write --src-nat 192.0.2.9",
        ),
        (UDP + " --label-del", "--label-del: is not valid with -A, -I and -U"),
        (UDP + " --label voice --labelmap /etc/labels", "--labelmap: names a file of label names, which is not read"),
        (UDP + " --labelm=/etc/labels", "--labelmap: names a file of label names, which is not read"),
        (UDP + " -M/etc/labels", "-M: names a file of label names, which is not read"),
        (UDP + " -A", "-A: is given twice"),
        ("Nov 29 01:55:00 gw[5]: " + UDP, "'Nov 29 01:55:00 gw[5]:' is not a word of conntrack -o save"),
        ("it's", "has no -A, -I or -U"),
        (f"-A -t 29 -p 50 {ENDS} -n 203.0.113.7:5", "leave :5 out"),
        (f"-A -t 29 -p icmp {ENDS} --icmp-type 3 --icmp-code 0 --icmp-id 1", "icmp_type"),
        (UDP + " -w 1 --orig-zone 2", "zone"),
    ],
)
def test_unreadable_command_is_reported(line: str, fault: str) -> None:
    with pytest.raises(formats.Unreadable) as caught:
        formats.read(f"# first\n{UDP}\n{line}\n{UDP}", "save")
    assert caught.value.key == "line 3"
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (UDP.replace("-A", "-D"), "-D: deletes entries"),
        ("conntrack -D -s 10.0.0.1", "-D: deletes entries"),
        ("--delete -p udp", "--delete: deletes entries"),
        ("-U -s 10.0.0.1 -m 7 -p udp", "-U: changes existing entries that match"),
        ("-U -p udp -s 10.0.0.1 -d 192.0.2.1 --sport 4000 --dport 53 -m 7", "-U: changes existing entries that match"),
        (UDP.replace("-A", "-U") + " -m 5/0xff", "-U: 5/0xff changes some bits of the mark"),
        ("Nov 29 01:55:00 gw sshd[5]: session opened", "has no -A, -I or -U"),
        ("-t 5 -s 10.0.0.1", "has no -A, -I or -U"),
        ("-Aexpectations -s 10.0.0.1", "-A: 'expectations' is not a table; write one of conntrack, expect"),
        ("--create=nat -p udp", "--create: 'nat' is not a table"),
        ("-A " + "x" * 70_000, "is longer than 65,536 characters"),
    ],
)
def test_commands_that_create_no_entry_are_refused(line: str, fault: str) -> None:
    """If these lines created entries, they would undo their purpose."""
    for unknown in ("fail", "keep"):
        with pytest.raises(formats.Unreadable) as caught:
            formats.examine(f"{UDP}\n{line}\n", "save", unknown=unknown)
        assert caught.value.key == "line 2"
        assert fault in caught.value.problem
    found = formats.examine(f"{UDP}\n{line}\n{UDP}\n", "save", unknown="skip")
    assert [to_document(entry) for entry in found.entries] == [UDP_DOCUMENT] * 2
    assert found.skipped == {"lines without an entry": 1}


def test_unknown_words_are_skipped_or_kept() -> None:
    line = "Nov 29 01:55:00 gw[5]: " + UDP + " --nmark 7 fast --offload"
    (kept,) = formats.examine(line, "save", unknown="keep").entries
    assert kept.pop("extra") == {"head": b"Nov 29 01:55:00 gw[5]:", "--nmark": b"7", "fast": b"", "--offload": b""}
    assert to_document(kept) == UDP_DOCUMENT
    found = formats.examine(line, "save", unknown="skip")
    assert found.entries == [kept]
    assert found.skipped == {"head": 1, "--nmark": 1, "fast": 1, "--offload": 1}


def test_mask_of_a_mark_is_ignored_at_creation() -> None:
    assert read(UDP + " -m 0x105/0xff")["mark"] == 0x105
    assert read(UDP + " -m 010")["mark"] == 8, "as strtoul(3) reads it"
    assert read(UDP.replace("--sport 4000", "--sport 04000")) == UDP_DOCUMENT, "the program reads ports in decimal"


@pytest.mark.parametrize("option", ["-g", "--dst-nat", "-n"])
def test_nat_option_without_an_address_is_ignored(option: str) -> None:
    assert read(f"-A {option} {UDP[3:]}") == UDP_DOCUMENT
    assert read(f"{UDP} {option}") == UDP_DOCUMENT


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("[192.0.2.9]", "has brackets and no port; write 192.0.2.9 or [192.0.2.9]:PORT"),
        ("[192.0.2.9]:", "no port"),
        ("[192.0.2.9", "no port"),
        ("192.0.2.9:", "has no port after the colon"),
    ],
)
def test_incomplete_nat_address_is_refused(value: str, fault: str) -> None:
    """The program refuses these, too."""
    line = f"-I -t 29 -p udp -s 10.0.0.1 -d 192.0.2.1 --sport 4000 --dport 53 --dst-nat {value}"
    with pytest.raises(formats.Unreadable, match=r"--dst-nat: ") as caught:
        formats.read(line, "save")
    assert fault in caught.value.problem


def test_labels_with_blanks() -> None:
    names = formats.Names({"test label 1": 1, "voice": 2})
    entry = formats.from_document({**UDP_DOCUMENT, "labels": ["test label 1", "voice"]}, names)
    line = formats.write([entry], "save,labels", names)
    assert '--label-add "test label 1,voice" -s' in line
    assert formats.read(line, "save", names) == [entry]
    assert formats.read(line.replace("1,voice", '1" -l "voice'), "save", names) == [entry]
    for name in ('a"b', "a'b", "a\\b"):
        with pytest.raises(formats.InvalidValue, match="labels: .* cannot be written in a command"):
            formats.write([entry], "save,labels", formats.Names({name: 1}))
