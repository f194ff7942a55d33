# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that each output format preserves what it can express; a missing value is better than a wrong one."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client import uapi
from ansible_collections.netops.conntrack.plugins.module_utils.client.codec import types
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import OFFLOADED, UNTRACKED
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import (
    protocol_keys,
    reversed_tuple,
    tuple_of,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support.strategies import documents, live_entries

pytestmark = pytest.mark.portability

Entry = Any
LABELS = LabelMap({"voice": 1, "bulk": 77}, "connlabel.conf")
NOW = 5_000_000_000
STATES = {6: "tcp.state", 132: "sctp.state", 33: "dccp.state"}
PORTS = ["original.source_port", "original.destination_port", "reply.source_port", "reply.destination_port"]
NAT = uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT

ALIKE = ["timeout", "mark", "use", "id", "helper", "security_context", "zone", "original.zone", "reply.zone", "labels"]
COUNTERS = [f"counters.{way}.{what}" for way in ("original", "reply") for what in ("packets", "bytes")]


@pytest.fixture(autouse=True, scope="module")
def utc() -> Iterator[None]:
    """Set the time zone to UTC, because times are in local time and an hour can repeat at the end of summer time."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@st.composite
def listed_entries(draw: Any) -> Entry:
    """Draw an entry as a kernel lists it, without values that an output format confuses with others."""
    entry = draw(live_entries())
    if entry.get("zone") or entry.get("original.zone"):
        entry.pop("reply.zone", None)
    if entry["original.protocol"] in UNTRACKED and not any(entry.get(key) for key in PORTS):
        for key in PORTS:
            entry.pop(key, None)
    return entry


def tuples(entry: Entry) -> Entry:
    return {f"{way}.{name}": value for way in ("original", "reply") for name, value in tuple_of(entry, way).items()}


def meaningful(entry: Entry, keys: list[str]) -> Entry:
    """Return the keys with a meaning: a zone 0, no helper and no labels equal a missing value."""
    silent = ("zone", "original.zone", "reply.zone", "helper", "labels", "security_context")
    return {key: entry[key] for key in keys if key in entry and (entry[key] or key not in silent)}


def state(entry: Entry) -> Entry:
    return meaningful(entry, [STATES.get(entry["original.protocol"], "")])


def of_text(entry: Entry) -> Entry:
    status = entry.get("status", 0)
    flags = [uapi.IPS_HW_OFFLOAD, uapi.IPS_OFFLOAD, uapi.IPS_ASSURED]
    shown = next((flag for flag in flags if status & flag), 0)
    seconds = entry["timestamps.start"] // 10**9 * 10**9
    return {
        "family": entry["family"],
        **tuples(entry),
        **meaningful(entry, ALIKE + COUNTERS),
        **state(entry),
        "status": status & uapi.IPS_SEEN_REPLY | shown,
        "timestamps.start": seconds,
    }


def of_xml(entry: Entry) -> Entry:
    return {
        **of_text(entry),
        "status": entry.get("status", 0) & (uapi.IPS_SEEN_REPLY | uapi.IPS_ASSURED),
        "timestamps.start": entry["timestamps.start"],
    }


def of_save(entry: Entry) -> Entry:
    protocol, status = entry["original.protocol"], entry.get("status", 0)
    kept = uapi.IPS_SEEN_REPLY | uapi.IPS_ASSURED | uapi.IPS_FIXED_TIMEOUT
    plain = reversed_tuple(tuple_of(entry, "original"))
    beside = {"source": "source_port source_key icmp_id", "destination": "destination_port destination_key icmp_id"}
    for end, bit in (("destination", uapi.IPS_SRC_NAT), ("source", uapi.IPS_DST_NAT)):
        names = [end, *(name for name in beside[end].split() if name in protocol_keys(protocol))]
        if any(entry.get(f"reply.{name}") != plain.get(name) for name in names):
            kept |= bit
    preserved = {
        "family": entry["family"],
        **tuples(entry),
        **meaningful(entry, ["zone", "original.zone", "reply.zone", "labels"]),
        "timeout": entry.get("timeout", 120),
    }
    if "status" in entry:
        preserved["status"] = status & kept
    if entry.get("mark"):
        preserved["mark"] = entry["mark"]
    if protocol in STATES:
        established = types.TCP_STATES["established"] if protocol == 6 else types.SCTP_STATES["established"]
        default = established if status & OFFLOADED and protocol != 33 else 0
        preserved[STATES[protocol]] = entry.get(STATES[protocol], default)
    if protocol == 132:
        preserved.update({f"sctp.{way}_vtag": entry.get(f"sctp.{way}_vtag", 0) for way in ("original", "reply")})
    if protocol == 33:
        preserved["dccp.role"] = entry.get("dccp.role", 0)
    return preserved


ROUND_TRIPS = [
    ("text,id,ktimestamp,labels", of_text),
    ("extended,id,ktimestamp,labels", of_text),
    ("xml,ktimestamp,labels", of_xml),
    ("save,labels", of_save),
]


@pytest.mark.parametrize(("output", "preserved"), ROUND_TRIPS, ids=[output for output, _held in ROUND_TRIPS])
@given(st.lists(listed_entries(), max_size=3))
@examples(150)
def test_output_format_preserves_its_values(output: str, preserved: Any, entries: list[Entry]) -> None:
    written = formats.write(entries, output, LABELS, NOW)
    read = formats.read(written, None, LABELS)
    assert read == [preserved(entry) for entry in entries]
    assert formats.write(read, output, LABELS, NOW) == written, "a second write gives the same text"
    assert formats.read(written, output.partition(",")[0], LABELS) == read


@given(st.lists(documents(), max_size=3))
@examples(100)
def test_json_preserves_everything(given_documents: list[Any]) -> None:
    entries = [from_document(document, LABELS) for document in given_documents]
    written = formats.write(entries, "json", LABELS)
    shown = [to_document(entry, LABELS) for entry in entries]
    assert json.loads(written) == shown
    assert [to_document(entry, LABELS) for entry in formats.read(written, None, LABELS)] == shown
    assert len(written.splitlines()) == max(len(entries), 1) + 2


@given(documents(), st.sampled_from(["extended,id,labels", "save,labels", "xml,labels"]))
@examples(150)
def test_a_declaration_is_written_as_it_will_be_listed(document: Any, output: str) -> None:
    entry = from_document(document)
    (read,) = formats.read(formats.write([entry], output, now=NOW))
    assert tuple_of(read, "original") == tuple_of(entry, "original") or entry["original.protocol"] in UNTRACKED
    for end, answered_by in (("source", "destination"), ("destination", "source")):
        wanted = entry.get(f"nat.{end}.address_min")
        if wanted is not None:
            assert read[f"reply.{answered_by}"] == wanted
    assert read.get("labels", 0) == entry.get("labels", 0)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")), st.sampled_from([None, *formats.FORMS]))
@examples(200)
def test_random_text_is_read_or_refused(raw: str, form: Any) -> None:
    for unknown in formats.UNKNOWN:
        with contextlib.suppress(formats.Unreadable):
            entries = formats.examine(raw, form, unknown=unknown, ignore_gaps=True).entries
            json.dumps([formats.to_document(entry) for entry in entries]).encode()


@given(st.data(), st.sampled_from(["extended,id,ktimestamp", "save", "xml,ktimestamp", "json"]))
@examples(300)
def test_damaged_text_is_read_or_refused(data: Any, output: str) -> None:
    written = formats.write([data.draw(listed_entries())], output, now=NOW)
    position = data.draw(st.integers(0, len(written)))
    cut = data.draw(st.integers(0, 5))
    filling = data.draw(st.sampled_from(["", " ", "=", "[", "<", "-", "9" * 30, "src=::1", "\0", "\u0663", '"', "--"]))
    damaged = written[:position] + filling + written[position + cut :]
    for unknown in formats.UNKNOWN:
        with contextlib.suppress(formats.Unreadable):
            entries = formats.examine(damaged, unknown=unknown).entries
            json.dumps([formats.to_document(entry) for entry in entries]).encode()


@pytest.mark.parametrize(
    ("raw", "form"),
    [
        ("", "text"),
        ("udp      17 29 src=", "text"),
        ("ipv4     2 udp      17 29 src=", "text"),
        ("[1795437970.380952]\t    [NEW] udp", "text"),
        ("    [NEW] udp", "text"),
        ("conntrack v1.4.7 (conntrack-tools): 0 flow entries have been shown.", "text"),
        ("-A -t 10", "save"),
        ("# by hand\n\n  -I -t 10", "save"),
        ("conntrack -A -t 10", "save"),
        ("conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown.\n-A -t 10", "save"),
        ("NOTICE: Netlink socket buffer size has been set to 4000000 bytes.\n--create -t 10", "save"),
        ("NOTICE: Netlink socket buffer size has been set to 4000000 bytes.\n<flow>", "xml"),
        ("nfct_labelmap_new: No such file or directory\nudp      17 29 src=", "text"),
        ("sudo /usr/sbin/conntrack -A -t 10", "save"),
        ("- l3proto = 2 proto=6 src=", "text"),
        ("300 proto=6 src=", "text"),
        ('<?xml version="1.0" encoding="utf-8"?>', "xml"),
        ("\n<conntrack/>", "xml"),
        ("[]", "json"),
        ("[\n\n]", "json"),
        ('\n[ {"a": 1}]', "json"),
        ('{"a": 1}\n{"a": 2}', "json"),
    ],
)
def test_format_is_recognised(raw: str, form: str) -> None:
    assert formats.recognised(raw) == form


@pytest.mark.parametrize("form", [None, *formats.FORMS])
@pytest.mark.parametrize("raw", ["", "\n", "  \n\n"])
def test_empty_text_has_no_entries(raw: str, form: Any) -> None:
    assert formats.read(raw, form) == []


@pytest.mark.parametrize("output", ["text", "extended", "save", "xml", "json"])
def test_output_without_entries_can_be_read(output: str) -> None:
    assert formats.read(formats.write([], output)) == []


@pytest.mark.parametrize(
    "output", ["", "yaml", "text,xml", "save,id", "save,extended", "json,id", "id,", "save,ktimestamp", "id;labels"]
)
def test_invalid_output_is_refused(output: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        formats.write([], output)
    assert "write one of text, extended, save, xml, json" in caught.value.problem


def test_output_options_alone_imply_text() -> None:
    assert formats.parse_output("id, labels") == ("text", (False, True, False, True))
    assert formats.parse_output("xml,extended,timestamp") == ("xml", (True, False, False, False))


def test_invalid_format_is_refused() -> None:
    with pytest.raises(InvalidValue, match="form: 'yaml' is not an output format"):
        formats.read("x", "yaml")


UDP = {
    "protocol": "udp",
    "original": {"source": "10.0.0.1", "destination": "192.0.2.1", "source_port": 1, "destination_port": 2},
}


def test_json_lines() -> None:
    line = json.dumps(UDP)
    assert formats.read(f"{line}\n{line}\n") == [from_document(UDP)] * 2
    assert formats.read(line) == [from_document(UDP)]


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        ('[{"protocol": "udp"}]', "entry 1"),
        ("[1]", "entry 1"),
        ("{", "document"),
        ('{"a": 1}\n{', "document"),
        ("[" * 50_000, "document"),
        ("{}\n" + "[" * 50_000, "document"),
    ],
)
def test_invalid_json_is_refused(raw: str, where: str) -> None:
    with pytest.raises(formats.Unreadable) as caught:
        formats.read(raw, "json")
    assert caught.value.key == where


def test_names_of_labels_need_no_map() -> None:
    names = formats.Names()
    entry = formats.from_document({**UDP, "labels": ["voice", 5, "bulk"]}, names)
    for output in ("labels", "save,labels", "xml,labels", "json"):
        (read,) = formats.read(formats.write([entry], output, names, NOW), None, formats.Names())
        assert sorted(map(str, to_document(read, formats.Names())["labels"])) == ["128", "129", "5"], (
            "other names' bits"
        )
        again = formats.Names()
        (read,) = formats.read(formats.write([entry], output, names, NOW), None, again)
        assert set(to_document(read, again)["labels"]) == {"voice", 5, "bulk"}


@pytest.mark.parametrize("label", ["a,b", "", " a", "a ", 128, -1, "128", "-1", "0x80", None, "a\n", "a\x1bb", 5.0])
def test_invalid_label_is_refused(label: Any) -> None:
    with pytest.raises(InvalidValue, match="labels"):
        formats.from_document({**UDP, "labels": [label]}, formats.Names())


def test_nat_ranges_cannot_be_written() -> None:
    declared = {**UDP, "nat": {"source": {"address": "203.0.113.1-203.0.113.9"}}}
    with pytest.raises(InvalidValue, match="nat.source.address: is a range"):
        formats.write([from_document(declared)])


@pytest.mark.parametrize("helper", ["two words", "line\nfeed", "\udc80"])
def test_helper_that_would_be_misread_is_refused(helper: str) -> None:
    entry = {**from_document(UDP), "helper": helper}
    with pytest.raises(InvalidValue, match="helper"):
        formats.write([entry])


def test_ages_are_calculated_from_the_current_time() -> None:
    entry = {**from_document(UDP), "timestamps.start": int((time.time() - 10_000) * 10**9)}
    assert "delta-time=100" in formats.write([entry])


LOST = (
    "WARNING: We have hit ENOBUFS! We are losing events.\n"
    "This message means that the current netlink socket buffer size is too small.\n"
    "Please, check --buffer-size in conntrack(8) manpage.\n"
)
NOTICE = "NOTICE: Netlink socket buffer size has been set to 4000000 bytes.\n"
FAILED = "conntrack v1.4.7 (conntrack-tools): Operation failed: Device or resource busy\n"


@pytest.mark.parametrize("output", ["text", "extended", "save", "xml"])
def test_messages_of_the_program_are_recognised(output: str) -> None:
    """The program reports to standard error, which users often redirect to the same file."""
    line = formats.write([from_document(UDP)], output)
    plain = formats.read(line)
    assert formats.read(NOTICE + line + NOTICE) == plain
    for report, what in ((LOST, "lost events .ENOBUFS."), (FAILED, "failed .Device or resource busy.")):
        raw = NOTICE + line + report + line.replace('<?xml version="1.0" encoding="utf-8"?>\n', "") + report
        number = 2 + len(line.splitlines())
        with pytest.raises(
            formats.Unreadable, match=f"line {number}: conntrack {what}, .*; use ignore_gaps=true to read the rest"
        ):
            formats.read(raw)
        found = formats.examine(raw, ignore_gaps=True)
        assert (found.table, found.entries, found.skipped, found.gaps) == ("conntrack", plain * 2, {}, 2)


def test_invalid_choice_is_refused() -> None:
    with pytest.raises(InvalidValue, match="unknown: 'ignore' is not a valid choice; write one of fail, keep, skip"):
        formats.examine("", unknown="ignore")
