# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that lines of `conntrack -L` and `-E` are read as programs and kernels of several versions print them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats

UDP = (
    "udp      17 29 src=10.0.0.1 dst=192.0.2.1 sport=4000 dport=53 [UNREPLIED] "
    "src=192.0.2.1 dst=10.0.0.1 sport=53 dport=4000 mark=0 use=1"
)
UDP_DOCUMENT = {
    "family": "ipv4",
    "protocol": "udp",
    "original": {"source": "10.0.0.1", "destination": "192.0.2.1", "source_port": 4000, "destination_port": 53},
    "reply": {"source": "192.0.2.1", "destination": "10.0.0.1", "source_port": 53, "destination_port": 4000},
    "status": [],
    "timeout": 29,
    "use": 1,
    "mark": 0,
}
ESP_TUPLES = "src=10.0.0.1 dst=192.0.2.1 src=192.0.2.1 dst=10.0.0.1"


def read(line: str) -> Any:
    (entry,) = formats.read(line, "text")
    return to_document(entry)


def test_a_line() -> None:
    assert read(UDP) == UDP_DOCUMENT
    assert formats.write([from_document(UDP_DOCUMENT)]) == UDP + "\n"


@pytest.mark.parametrize(
    "line",
    [
        "ipv4     2 " + UDP,
        "    [NEW] " + UDP,
        " [UPDATE] " + UDP,
        "[DESTROY] " + UDP,
        "    [NEW] " + UDP + " [USERSPACE] portid=16652 progname=my program",
        UDP.replace(" use=1", " secmark=0 use=1"),
        UDP.replace(" use=1", " zone=0 use=1"),
        UDP.replace(" use=1", " delta-time=8 use=1 labels"),
        UDP + "\nconntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown.\n",
        "\n\n" + UDP + "  \r\n",
    ],
)
def test_variants_of_a_line_are_read_equally(line: str) -> None:
    assert read(line) == UDP_DOCUMENT


def test_an_event_has_its_time() -> None:
    line = f"[1795437970.380952]\t[DESTROY] {UDP}"
    assert read(line)["timestamps"] == {"event": "2026-11-23T12:46:10.380952000Z"}
    assert read(line.replace(".380952", ".42    "))["timestamps"]["event"].endswith(".000042000Z"), "padded with blanks"


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ("[UNREPLIED] {} ", []),
        ("{} ", ["seen_reply"]),
        ("{} [ASSURED] ", ["seen_reply", "assured"]),
        ("{} [OFFLOAD] ", ["seen_reply", "offload"]),
        ("{} [HW_OFFLOAD] ", ["seen_reply", "hw_offload"]),
        ("[UNREPLIED] {} [ASSURED] ", ["assured"]),
    ],
)
def test_flags(flags: str, status: list[str]) -> None:
    line = "unknown  50 29 src=10.0.0.1 dst=192.0.2.1 " + flags.format("src=192.0.2.1 dst=10.0.0.1") + "mark=0"
    document = read(line)
    assert document["status"] == status
    assert formats.write([from_document(document)]) == line + "\n"


def test_an_offloaded_entry_has_neither_timeout_nor_state() -> None:
    line = (
        "tcp      6 src=10.0.0.1 dst=192.0.2.1 sport=1 dport=2 src=192.0.2.1 dst=10.0.0.1 sport=2 dport=1 "
        "[OFFLOAD] mark=0 use=3"
    )
    document = read(line)
    assert "timeout" not in document
    assert "tcp" not in document
    assert formats.write([from_document(document)]) == line + "\n"


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("tcp 6 5 ESTABLISHED", "tcp", {"state": "established"}),
        ("tcp 6 5 LISTEN", "tcp", {"state": "syn_sent2"}),
        ("tcp 6 CLOSE", "tcp", {"state": "close"}),
        ("tcp 6 5 0xb", "tcp", {"state": 11}),
        ("sctp 132 5 HEARTBEAT_SENT", "sctp", {"state": "heartbeat_sent"}),
        ("dccp 33 5 PARTOPEN", "dccp", {"state": "partopen"}),
    ],
)
def test_states(words: str, key: str, value: Any) -> None:
    line = f"{words} src=10.0.0.1 dst=192.0.2.1 sport=1 dport=2 src=192.0.2.1 dst=10.0.0.1 sport=2 dport=1"
    assert read(line)[key] == value


def test_icmp_id_and_entry_id_are_distinguished() -> None:
    line = (
        "icmp     1 29 src=10.0.0.1 dst=192.0.2.1 type=8 code=0 id=5 src=192.0.2.1 dst=10.0.0.1 type=0 code=0 id=6 "
        "mark=0 use=1 id=7"
    )
    document = read(line)
    assert [document["original"]["icmp_id"], document["reply"]["icmp_id"], document["id"]] == [5, 6, 7]
    assert formats.write([from_document(document)], "id") == line + "\n"


def test_untracked_ports_are_omitted() -> None:
    """The program prints 0 for ports that do not exist."""
    line = (
        "dccp     33 29 src=10.0.0.1 dst=192.0.2.1 sport=0 dport=0 [UNREPLIED] "
        "src=192.0.2.1 dst=10.0.0.1 sport=0 dport=0"
    )
    document = read(line)
    assert document["original"] == {"source": "10.0.0.1", "destination": "192.0.2.1"}
    assert formats.write([from_document(document)]) == line + "\n"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("udp", "begins with a protocol"),
        ("udp 17 29", "is missing"),
        ("udp 300 29 " + ESP_TUPLES, "out of range"),
        ("unknown 50 29 src=10.0.0.1 dst=192.0.2.1", "reply.source: is missing"),
        ("unknown 50 29 src=10.0.0.1 dst=192.0.2.1 src=192.0.2.1", "reply.destination: is missing"),
        (UDP.replace(" sport=53", ""), "reply.source_port: is missing"),
        (UDP + " src=10.0.0.1", "is given twice"),
        (UDP + " mark=1", "is given twice"),
        (UDP.replace("mark=0", "mark=x"), "mark: 'x' is not a number"),
        (UDP.replace("sport=53", "sport=65536"), "sport: 65536 is out of range"),
        (UDP.replace("src=10.0.0.1", "src=10.0.0"), "src: '10.0.0' is not an address"),
        (UDP.replace("dst=10.0.0.1", "dst=::1"), "is not of IPv4"),
        ("ipv6     10 " + UDP, "family: the addresses are not of ipv6"),
        (
            UDP + " colour=red",
            "'colour' is not a word of conntrack -L; use unknown=skip or unknown=keep to read the rest",
        ),
        ("gw " + UDP, "'gw' is not a word of conntrack -L"),
        (UDP + " \x1b[31m=5", "'\\\\x1b[31m' is not a word"),
        (UDP + f" {'x' * 5000}", f"'{'x' * 77}...' is not a word"),
        (UDP.replace("mark=0", "mark=" + "9" * 5000), f"mark: '{'9' * 380}"),
        ("[" + "9" * 5000 + ".1]\t" + UDP, "is not a word"),
        ("x" * 70_000, "is longer than 65,536 characters"),
        ("[ " * 32_000, "begins with a protocol"),
        (UDP + " labels=" + ",".join(f"l{n}" for n in range(129)), "labels: 129 are too many"),
        (UDP + " [COLOUR]", "is not a word"),
        (UDP + " [start=Mon Foo 23 12:44:17 2026]", "is not a word"),
        (UDP + " [start=Mon Nov 23 12:44:17 1926]", "start"),
        (UDP.replace("29 src", "29 ESTABLISHED src"), "udp has no states"),
        (UDP.replace("udp      17", "tcp      6").replace("29 src", "29 OPEN src"), "is not a known TCP state"),
        (UDP.replace("udp      17", "unknown  50"), "has no source_port"),
        ("icmp 1 29 " + ESP_TUPLES, "icmp_type: is missing"),
        (UDP + " zone-orig=1 zone=2", "zone"),
    ],
)
def test_unreadable_line_is_reported(line: str, fault: str) -> None:
    with pytest.raises(formats.Unreadable) as caught:
        formats.read(f"{UDP}\n\n{line}\n{UDP}")
    assert caught.value.key == "line 3"
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1100


VENDOR = (
    "ipv4     2 tcp      6 94 SYN_SENT src=10.0.9.2 dst=192.0.2.1 sport=51447 dport=443 packets=1 bytes=60 nmark=1 "
    "[UNREPLIED] src=192.0.2.1 dst=10.0.9.2 sport=443 dport=51447 packets=0 bytes=0 [FASTNAT] mark=0 nmark=0 use=3"
)
PLAIN = VENDOR.replace(" nmark=1", "").replace(" [FASTNAT]", "").replace(" nmark=0", "")


def test_unknown_words_are_skipped_or_kept() -> None:
    """A router's kernel prints flags and numbers of its own."""
    with pytest.raises(formats.Unreadable, match="line 1: 'nmark' is not a word"):
        formats.read(VENDOR)
    (plain,) = formats.read(PLAIN)
    skipped = formats.examine(f"{VENDOR}\n{PLAIN}\n{VENDOR}", unknown="skip")
    assert skipped.entries == [plain] * 3
    assert skipped.skipped == {"nmark": 4, "[FASTNAT]": 2}
    (kept,) = formats.examine(VENDOR, unknown="keep").entries
    assert kept == {**plain, "extra": {"nmark": b"1 0", "[FASTNAT]": b""}}
    assert from_document(to_document(kept))["extra"] == kept["extra"], "it can be declared"


@pytest.mark.parametrize(
    "head",
    ["12:00:01", "Nov 29 01:55:00 gw conntrack[17]:", "2026-11-29T01:55:00+01:00 gw 5 x[1]:", "<6>[  12.5] kernel:"],
)
def test_line_prefixes_are_skipped_or_kept(head: str) -> None:
    for line in (UDP, f"    [NEW] {UDP}", f"[1795437970.380952]\t[DESTROY] {UDP}", f"ipv4     2 {UDP}"):
        (plain,) = formats.read(line)
        skipped = formats.examine(f"{head} {line}", "text", unknown="skip")
        assert (skipped.entries, skipped.skipped) == ([plain], {"head": 1})
        (kept,) = formats.examine(f"{head} {line}", "text", unknown="keep").entries
        assert kept.pop("extra") == {"head": head.encode()}
        assert kept == plain


def test_unrelated_lines_are_skipped() -> None:
    lines = f"{UDP}\nNov 29 01:55:00 gw sshd[5]: session opened\n{UDP}"
    for unknown in ("fail", "keep"):
        with pytest.raises(formats.Unreadable, match="line 2: is not a line of conntrack -L"):
            formats.examine(lines, unknown=unknown)
    found = formats.examine(lines, unknown="skip")
    assert len(found.entries) == 2
    assert found.skipped == {"lines without an entry": 1}


def test_invalid_value_is_not_skipped_as_an_unknown_word() -> None:
    with pytest.raises(formats.Unreadable, match="line 1: mark"):
        formats.examine(UDP.replace("mark=0", "mark=x"), unknown="skip")


def test_number_of_counted_words_is_limited() -> None:
    found = formats.examine("\n".join(f"{UDP} word{number}=1" for number in range(300)), unknown="skip")
    assert len(found.skipped) == 101
    assert found.skipped["other words"] == 200


@pytest.mark.parametrize("tail", ["", " [USERSPACE] portid=5 progname=x labels=y", " delta-time=5"])
def test_labels_with_blanks(tail: str) -> None:
    """The labels are the last word of a line, except for the process that made the change."""
    names = formats.Names({"test label 1": 1, "voice": 2})
    (entry,) = formats.read(f"{UDP} labels=test label 1,voice{tail}", "text", names)
    assert entry["labels"] == 6
    assert formats.read(formats.write([entry], "labels", names), "text", names) == [entry]
    (unnamed,) = formats.read(f"{UDP} labels=test label 1,10gbit{tail}", "text", formats.Names())
    assert unnamed["labels"] == 3 << 128
    (kept,) = formats.examine(f"{UDP} labels=test label 1 zone=3 [X]", "text", names, "keep").entries
    assert (kept["labels"], kept["zone"], kept["extra"]) == (2, 3, {"[X]": b""})


@pytest.mark.parametrize("name", ["a b=c", "a [b", "a\nb"])
def test_label_that_cannot_be_read_again_is_refused(name: str) -> None:
    with pytest.raises(formats.InvalidValue, match="labels: .* cannot be read again"):
        formats.write([{**from_document(UDP_DOCUMENT), "labels": 2}], "labels", formats.Names({name: 1}))


def test_number_of_label_names_is_limited() -> None:
    lines = [f"{UDP} labels={','.join(f'l{number}-{n}' for n in range(128))}" for number in range(9)]
    assert len(formats.read("\n".join(lines[:8]), "text", formats.Names())) == 8
    with pytest.raises(formats.Unreadable, match="line 9: labels: there are more than 1,024 names of labels"):
        formats.read("\n".join(lines), "text", formats.Names())
