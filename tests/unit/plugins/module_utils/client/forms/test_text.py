# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of `conntrack -L` and `-E`, as programs and kernels of several ages print them."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import shape, text

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
    (entry,) = text.read(line, "text")
    return shape.present(entry)


def test_a_line() -> None:
    assert read(UDP) == UDP_DOCUMENT
    assert text.write([shape.parse(UDP_DOCUMENT)]) == UDP + "\n"


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
def test_the_same_in_other_words(line: str) -> None:
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
    assert text.write([shape.parse(document)]) == line + "\n"


def test_an_offloaded_entry_has_neither_timeout_nor_state() -> None:
    line = (
        "tcp      6 src=10.0.0.1 dst=192.0.2.1 sport=1 dport=2 src=192.0.2.1 dst=10.0.0.1 sport=2 dport=1 "
        "[OFFLOAD] mark=0 use=3"
    )
    document = read(line)
    assert "timeout" not in document
    assert "tcp" not in document
    assert text.write([shape.parse(document)]) == line + "\n"


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


def test_an_id_of_icmp_and_one_of_the_entry() -> None:
    line = (
        "icmp     1 29 src=10.0.0.1 dst=192.0.2.1 type=8 code=0 id=5 src=192.0.2.1 dst=10.0.0.1 type=0 code=0 id=6 "
        "mark=0 use=1 id=7"
    )
    document = read(line)
    assert [document["original"]["icmp_id"], document["reply"]["icmp_id"], document["id"]] == [5, 6, 7]
    assert text.write([shape.parse(document)], "id") == line + "\n"


def test_ports_that_the_kernel_does_not_track() -> None:
    """They are shown as 0, and are none."""
    line = (
        "dccp     33 29 src=10.0.0.1 dst=192.0.2.1 sport=0 dport=0 [UNREPLIED] "
        "src=192.0.2.1 dst=10.0.0.1 sport=0 dport=0"
    )
    document = read(line)
    assert document["original"] == {"source": "10.0.0.1", "destination": "192.0.2.1"}
    assert text.write([shape.parse(document)]) == line + "\n"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("udp", "begins with a protocol"),
        ("udp 17 29", "is missing"),
        ("udp 300 29 " + ESP_TUPLES, "out of range"),
        ("unknown 50 29 src=10.0.0.1 dst=192.0.2.1", "reply.source: is missing"),
        ("unknown 50 29 src=10.0.0.1 dst=192.0.2.1 src=192.0.2.1", "reply.destination: is missing"),
        (UDP.replace(" sport=53", ""), "reply.source_port: is missing"),
        (UDP + " src=10.0.0.1", "comes twice"),
        (UDP + " mark=1", "comes twice"),
        (UDP.replace("mark=0", "mark=x"), "mark: 'x' is not a number"),
        (UDP.replace("sport=53", "sport=65536"), "sport: 65536 is out of range"),
        (UDP.replace("src=10.0.0.1", "src=10.0.0"), "src: '10.0.0' is not an address"),
        (UDP.replace("dst=10.0.0.1", "dst=::1"), "is not of IPv4"),
        ("ipv6     10 " + UDP, "family: the addresses are not of ipv6"),
        (UDP + " colour=red", "'colour' is no word"),
        (UDP + " [COLOUR]", "is no word"),
        (UDP + " [start=Mon Foo 23 12:44:17 2026]", "is no word"),
        (UDP + " [start=Mon Nov 23 12:44:17 1926]", "start"),
        (UDP.replace("29 src", "29 ESTABLISHED src"), "udp has no states"),
        (UDP.replace("udp      17", "tcp      6").replace("29 src", "29 OPEN src"), "is no TCP state"),
        (UDP.replace("udp      17", "unknown  50"), "has no source_port"),
        ("icmp 1 29 " + ESP_TUPLES, "icmp_type: is missing"),
        (UDP + " zone-orig=1 zone=2", "zone"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: str, fault: str) -> None:
    with pytest.raises(text.Unreadable) as caught:
        text.read(f"{UDP}\n\n{line}\n{UDP}")
    assert caught.value.key == "line 3"
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)
