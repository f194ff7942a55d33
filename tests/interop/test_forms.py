# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The output formats are identical to those of conntrack(8), except for errors and losses of the program."""

from __future__ import annotations

import itertools
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from tests import clock, samples, views
from tests.lab import Namespace
from tests.samples import CLIENT, OUTSIDE, SERVER, Sample, ends, flow

Entry = dict[str, Any]
NAMES = {1: "voice", 64: "bulk"}


def more(family: str) -> Iterator[Sample]:
    """Yield entries that the samples lack and that the output formats need."""
    yield Sample("dccp", {"family": family, "protocol": "dccp", "original": ends(family)}, {})
    yield Sample("marked", flow(family, "udp", 100, 1, mark=0x80000000), {})
    yield Sample("labelled", flow(family, "udp", 101, 1, labels=[1, 64]), {})
    yield Sample("labelled-without-a-name", flow(family, "udp", 102, 1, labels=[1, 5]), {})
    for number, state in enumerate(views.SCTP_STATES[:9]):
        sctp = {"state": state, "original_vtag": 1, "reply_vtag": 0xFFFFFFFE}
        yield Sample(f"sctp-{state}", flow(family, "sctp", 200 + number, 1, sctp=sctp), {})
    for number, state in enumerate(views.TCP_STATES):
        yield Sample(f"tcp-{state}", flow(family, "tcp", 300 + number, 1, tcp={"state": state}), {})
    for number, nat in enumerate(
        [
            {"source": {"address": CLIENT[family], "port": 5}},
            {"destination": {"address": SERVER[family], "port": 6}},
            {"source": {"address": OUTSIDE[family]}, "destination": {"port": 7}},
            {"source": {"address": OUTSIDE[family], "port": 403}, "destination": {"address": OUTSIDE[family]}},
        ]
    ):
        translated = flow(family, "udp", 400 + number, 1, nat=nat)
        del translated["reply"]
        yield Sample(f"nat-{number}", translated, {})


def stable(namespace: Namespace, table: Table, *options: str) -> tuple[str, list[Entry], float]:
    """Return the output of the program, the entries at that time, and the time."""
    deadline = time.monotonic() + clock.HUNG
    while time.monotonic() < deadline:
        before, entries = int(time.time()), list(table.dump())
        shown = namespace.conntrack("-L", *options)
        if list(table.dump()) == entries and int(time.time()) == before:
            return shown, entries, before
    raise AssertionError("the table keeps changing")


def sort_of(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: repr(identity(entry)))


@pytest.fixture(scope="module")
def filled(root: None) -> Iterator[tuple[Namespace, Table]]:
    """Return a table with an entry of every kind, with counters and timestamps."""
    with Namespace() as namespace:
        namespace.firewall.use_labels()
        namespace.sysctl("nf_conntrack_acct", 1)
        namespace.sysctl("nf_conntrack_timestamp", 1)
        with namespace.entered(), Table() as table:
            others = [sample for family in samples.FAMILIES for sample in more(family)]
            samples.create_all(lambda declared: table.create(from_document(declared)), Unsupported, *others)
            yield namespace, table


@pytest.mark.parametrize(
    "output", ["text", "extended", "id", "extended,id", "ktimestamp", "extended,id,ktimestamp", "timestamp"]
)
def test_lists_are_identical(filled: tuple[Namespace, Table], output: str) -> None:
    options = ["-o", output] if output != "text" else []
    theirs, entries, now = stable(*filled, *options)
    ours = formats.write(entries, output, now=now)
    assert sorted(ours.splitlines()) == sorted(theirs.splitlines())
    assert len(ours.splitlines()) > 90


def test_list_is_read_without_differences(filled: tuple[Namespace, Table]) -> None:
    """Each entry of the list equals the entry in the table, except for values that lists lack."""
    theirs, entries, _now = stable(*filled, "-o", "extended,id,ktimestamp")
    read = {entry["id"]: to_document(entry) for entry in formats.read(theirs)}
    assert len(read) == len(entries)
    keys = "family protocol original reply zone timeout mark helper counters use id".split()
    for entry in entries:
        document = to_document(entry)
        shown = read[entry["id"]]
        assert {key: shown.get(key) for key in keys} == {key: document.get(key) for key in keys}
        assert set(shown["status"]) == set(document["status"]) & {"seen_reply", "assured"}
        for protocol in ("tcp", "sctp"):
            assert shown.get(protocol, {}).get("state") == document.get(protocol, {}).get("state")
        assert shown["timestamps"]["start"][:19] == document["timestamps"]["start"][:19]


def test_list_of_the_kernel_is_read(filled: tuple[Namespace, Table]) -> None:
    namespace, table = filled
    path = Path("/proc/thread-self/net/nf_conntrack")
    with namespace.entered():
        if not path.exists():
            pytest.skip("this kernel has no /proc/net/nf_conntrack")
        shown = path.read_text()
    assert {identity(entry) for entry in formats.read(shown)} == {identity(entry) for entry in table.dump()}


def test_labels_are_identical(filled: tuple[Namespace, Table], tmp_path: Path) -> None:
    """The program leaves out labels without a name; if an entry has no other label, it also leaves out the "="."""
    namespace, table = filled
    program = views.LabelledProgram(namespace, tmp_path, NAMES)
    names = LabelMap({name: bit for bit, name in NAMES.items()})
    plain = re.compile(r" \d+ (?=src|[A-Z])|delta-time=\d+|use=\d+")
    theirs = [plain.sub("", line) for line in program("-L", "-o", "extended,id,labels").splitlines()]
    written = formats.write(table.dump(), "extended,id,labels", names)
    ours = [plain.sub("", line) for line in written.splitlines()]
    assert any(line.endswith("labels=voice,bulk") for line in ours)
    named = [re.sub(r",?\b\d+(?=,|$)", "", line) if " labels=" in line else line for line in ours]
    assert sorted(line.replace("=,", "=") for line in named) == sorted(theirs)
    assert any(line.endswith("labels=voice,5") for line in ours)
    with_names = {entry["id"]: entry.get("labels") for entry in formats.read(written, "text", names)}
    assert with_names == {entry["id"]: entry.get("labels") for entry in table.dump()}


@pytest.mark.parametrize("output", ["xml", "xml,ktimestamp", "xml,extended,id"])
def test_xml_documents_are_identical(filled: tuple[Namespace, Table], output: str) -> None:
    """The program leaves out the ICMP values, and uses the names of TCP states for SCTP."""
    theirs, entries, now = stable(*filled, "-o", output)
    ours = formats.write(entries, output, now=now)
    assert sorted(ours.splitlines()) != sorted(theirs.splitlines())
    changed = []
    for line in ours.splitlines():
        if 'protoname="icmp' in line:
            line = re.sub(r"<type>\d+</type><code>\d+</code><id>\d+</id>", "", line)
        if 'protoname="sctp"' in line:
            line = re.sub(
                r"(?<=<state>)\w+",
                lambda state: views.TCP_STATES[views.SCTP_STATES.index(state[0].lower())].upper(),
                line,
            )
        changed.append(line)
    assert sorted(changed) == sorted(theirs.splitlines())


def test_xml_document_of_the_program_is_read(filled: tuple[Namespace, Table]) -> None:
    theirs, entries, _now = stable(*filled, "-o", "xml,ktimestamp")
    read = {entry["id"]: to_document(entry) for entry in formats.read(theirs)}
    assert len(read) == len(entries)
    for entry in entries:
        document, shown = to_document(entry), read[entry["id"]]
        if document["protocol"] in ("icmp", "icmpv6"):
            assert "icmp_id" not in shown["original"]
            continue
        for key in "family protocol original reply zone timeout mark helper counters timestamps use".split():
            assert shown.get(key) == document.get(key)
        if document["protocol"] == "sctp" and document["sctp"]["state"] != "cookie_echoed":
            assert shown["sctp"]["state"] == document["sctp"]["state"]


def is_lossy(entry: Entry) -> bool:
    """Return whether the program's own command creates a different entry, or none."""
    status = to_document(entry)["status"]
    plain = {key: value for key, value in entry.items() if not key.startswith("nat.")}
    ends_moved = [
        plain[f"reply.{there}"] != plain[f"original.{here}"]
        for here, there in (("source", "destination"), ("destination", "source"))
    ]
    ports_moved = [
        plain.get(f"reply.{there}_port") != plain.get(f"original.{here}_port")
        for here, there in (("source", "destination"), ("destination", "source"))
    ]
    translated = "src_nat" in status or "dst_nat" in status
    both = "src_nat" in status and "dst_nat" in status
    return (
        bool(entry["mark"])
        or "expected" in status
        or entry["original.protocol"] == 33
        or (to_document(entry).get("sctp") or {}).get("state") == "heartbeat_sent"
        or entry.get("original.icmp_id") != entry.get("reply.icmp_id")
        or (both and any(ports_moved))
        or (translated and any(port and not end for port, end in zip(ports_moved, ends_moved, strict=True)))
    )


def test_commands_are_identical(filled: tuple[Namespace, Table]) -> None:
    theirs, entries, now = stable(*filled, "-o", "save")
    kept = [entry for entry in entries if not is_lossy(entry)]
    ours = formats.write(kept, "save", now=now).splitlines()
    assert len(ours) > 50
    assert [line for line in ours if line not in theirs.splitlines()] == []
    others = formats.write([entry for entry in entries if is_lossy(entry)], "save", now=now).splitlines()
    assert [line for line in others if line in theirs.splitlines()] == []


def load(namespace: Namespace, commands: str) -> subprocess.CompletedProcess[str]:
    namespace.conntrack("--version")  # skips the test without the program
    return namespace.run(["conntrack", "-R", "-"], input=commands, check=False)


def test_commands_restore_the_table(filled: tuple[Namespace, Table]) -> None:
    """`conntrack -R` restores the table from the client's output, including NAT."""
    _namespace, table = filled
    entries = [entry for entry in table.dump() if entry.get("sctp.state") != 8]  # see the next test
    commands = formats.write(entries, "save")
    with Namespace() as other:
        loaded = load(other, commands)
        assert (loaded.returncode, loaded.stderr) == (0, "")
        with other.entered(), Table() as copy:
            made = sort_of(list(copy.dump()))
        assert len(made) == len(entries)
        for now, was in zip(made, sort_of(entries), strict=True):
            document, expected = to_document(now), to_document(was)
            moved = was.get("original.icmp_id") != was.get("reply.icmp_id")
            if moved:  # no option of the program sets this value
                assert document["reply"].pop("icmp_id") == was["original.icmp_id"]
                expected["reply"].pop("icmp_id")
            for key in ("family", "protocol", "original", "reply", "zone", "mark", "nat"):
                if key != "nat" or not moved:
                    assert document.get(key) == expected.get(key)
            assert document["timeout"] == clock.near(expected["timeout"])
            may_differ = {"expected", "seq_adjust", "helper", "src_nat_done", "dst_nat_done"}
            assert set(document["status"]) ^ set(expected["status"]) <= may_differ
            for protocol in ("tcp", "sctp"):
                assert document.get(protocol, {}).get("state") == expected.get(protocol, {}).get("state")
            assert document.get("sctp") == expected.get("sctp")


def test_a_state_that_the_program_cannot_load(filled: tuple[Namespace, Table]) -> None:
    """The program writes the state as (null), and crashes when it reads this value or the name of the state."""
    theirs, _entries, _now = stable(*filled, "-p", "sctp", "-o", "save")
    (line,) = [line for line in theirs.splitlines() if "(null)" in line and CLIENT["ipv4"] in line]
    (read,) = formats.read(line)
    assert not any(key.startswith("sctp.") for key in read)
    with Namespace() as other:
        for state in ("(null)", "HEARTBEAT_SENT"):
            assert load(other, line.replace("(null)", state) + "\n").returncode < 0


def test_commands_of_the_program_are_read(filled: tuple[Namespace, Table]) -> None:
    """The program and the collection create the same entries from the program's commands."""
    theirs, _entries, _now = stable(*filled, "-o", "save")
    lines = [line for line in theirs.splitlines() if "EXPECTED" not in line and "(null)" not in line]
    lines = [line for line in lines if "dccp" not in line]
    with Namespace() as other, other.entered(), Table() as copy:
        assert load(other, "\n".join(lines) + "\n").returncode == 0
        made = {identity(entry): to_document(entry) for entry in copy.dump()}
    read = {identity(entry): to_document(entry) for entry in formats.read("\n".join(lines))}
    assert read.keys() == made.keys()
    assert len(read) == len(lines)
    for key_of, document in read.items():
        if len(document.get("nat", {})) == 2:  # the program ignores the ports in its own output
            continue
        for key in ("family", "protocol", "original", "reply", "zone", "nat", "sctp"):
            assert document.get(key) == made[key_of].get(key)


@pytest.mark.parametrize("output", ["extended,id,timestamp", "save", "xml,timestamp,ktimestamp", "userspace"])
def test_events_are_read(namespace: Namespace, tmp_path: Path, output: str) -> None:
    namespace.conntrack("--version")
    namespace.firewall.track()
    namespace.sysctl("nf_conntrack_acct", 1)
    namespace.sysctl("nf_conntrack_timestamp", 1)
    report = tmp_path / "events"
    with report.open("w") as stream:
        listener = namespace.start(["conntrack", "-E", "-o", output], stdout=stream)
        with namespace.entered(), Table() as table:
            namespace.wait_for_subscriber()
            declared = from_document(flow("ipv4", "tcp", 1, 2, tcp={"state": "established"}))
            table.create(declared)
            table.update({**declared, "mark": 7})
            (entry,) = table.dump()
            table.delete(entry)
            clock.wait_until(lambda: report.read_text().count("[USERSPACE]") == 3)
        listener.terminate()
        listener.wait()
    result = formats.examine(report.read_text(), unknown="skip")
    events = result.entries
    assert len(events) == (2 if output == "save" else 3)
    assert result.skipped == ({"lines without an entry": 1} if output == "save" else {}), "the delete command"
    for event in events:
        assert to_document(event)["original"] == to_document(entry)["original"]
    if output.startswith("extended"):
        assert all(abs(event["timestamps.event"] / 1e9 - time.time()) <= clock.elapsed() + 1 for event in events)
    if output != "save":
        assert [event.get("mark") for event in events[:2]] == [0, 7]
        assert events[2]["counters.original.packets"] == 0


def test_an_empty_table(namespace: Namespace) -> None:
    """The program prints no document for an empty table. The collection prints an empty document."""
    for output in ("extended", "save", "xml"):
        theirs = namespace.conntrack("-L", "-o", output)
        assert formats.read(theirs) == []
        assert formats.write([], output) == (theirs if output != "xml" else formats.write([], "xml"))
    assert formats.read(formats.write([], "xml")) == []


# Lines that users write for `conntrack -R`

ENTRY = "-t 600 -p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2"
TCP = "-t 600 -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2"
ACCEPTED = [
    "-I --proto udp --src 10.0.0.1 --dst 10.0.0.2 --sport 1 --dport 2 --timeout 600",
    f"-I conntrack {ENTRY}",
    f"-Iconntrack {ENTRY}",
    f"-I conn {ENTRY}",
    f"--create=conntrack {ENTRY}",
    f"--cre {ENTRY}",
    "-I -pudp -s10.0.0.1 -d10.0.0.2 --orig-port-s 1 --orig-port-d=2 -t600",
    f"/usr/sbin/conntrack -A {ENTRY}",
    f"sudo conntrack -A {ENTRY}",
    f"-t 600 -A {ENTRY[6:]}",
    f"-A {ENTRY} -m 0x105/0xff",
    f"-A {ENTRY} -m 010 -w 010",
    "-A -t 01000 -p 021 -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 010",
    f"-A {ENTRY} -n 10.0.0.9:010",
    "-A -t 600 -p gre -s 10.0.0.1 -d 10.0.0.2 --srckey 010 --dstkey 0x10",
    f"-A -g {ENTRY}",
    f"-A {ENTRY} --dst-nat",
    f"-A {ENTRY} --dst-nat 10.0.0.9",
    f"-A {ENTRY} --dst-nat 10.0.0.9:7",
    "-A -t 600 -p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1 --dport 2 -g [2001:db8::3]:5",
    "-A -t 600 -p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1 --dport 2 -g 2001:db8::3",
    f"-A {TCP} --state LISTEN",
    f'-A {TCP} --state "SYN_SENT2" -uASSURED,SEEN_REPLY',
]
REFUSED = [
    f"-A {ENTRY} --st ESTABLISHED",
    f"-A {ENTRY} --d 5",
    f"-A {ENTRY} -o save",
    f"-A {ENTRY} -z",
    f"-A {ENTRY} -b 5",
    f"-A expect {ENTRY}",
    f"-A {ENTRY} -g [10.0.0.9]",
    f"-A {ENTRY} -g 10.0.0.9:",
    "-A -t 600 -p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1 --dport 2 -g [2001:db8::3]",
    "-A -t 600 -p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1 --dport 2 -g [2001:db8::3",
]


@pytest.mark.parametrize("line", ACCEPTED)
def test_line_has_the_same_meaning_for_the_program(namespace: Namespace, line: str) -> None:
    loaded = load(namespace, line + "\n")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    with namespace.entered(), Table() as table:
        (made,) = table.dump()
    (read,) = formats.read(line)
    assert identity(read) == identity(made)
    there, document = to_document(made), to_document(read)
    for key in ("reply", "nat", "zone"):
        assert document.get(key) == there.get(key)
    assert document.get("mark", 0) == there["mark"]
    assert there["timeout"] == clock.left_of(document["timeout"])
    assert document.get("tcp", {}).get("state") == there.get("tcp", {}).get("state")


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_that_the_program_refuses(namespace: Namespace, line: str) -> None:
    assert load(namespace, line + "\n").returncode != 0
    with pytest.raises(formats.Unreadable, match="line 1"):
        formats.read(line, "save")


@pytest.mark.parametrize("option", ["-g10.0.0.9:7", "--dst-nat=10.0.0.9:7"])
def test_nat_that_the_program_ignores(namespace: Namespace, option: str) -> None:
    """The program creates an entry without NAT, which no user can intend."""
    assert load(namespace, f"-A {ENTRY} {option}\n").returncode == 0
    assert "10.0.0.9" not in namespace.conntrack("-L")
    with pytest.raises(
        formats.Unreadable, match="conntrack ignores an address in the same word; write (-g|--dst-nat) 10.0.0.9:7"
    ):
        formats.read(f"-A {ENTRY} {option}")


def test_documents_of_single_commands_are_read(namespace: Namespace) -> None:
    """`-U` and `-D` print a flow without a document. `-G` prints one in a document without an end tag."""
    namespace.conntrack("-I", *ENTRY.split())
    ends = "-p udp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2".split()
    (listed,) = formats.read(namespace.conntrack("-L", "-o", "xml"))
    got = namespace.conntrack("-G", *ends, "-o", "xml")
    updated = namespace.conntrack("-U", *ends, "-m", "7", "-o", "xml")
    deleted = namespace.conntrack("-D", *ends, "-o", "xml")
    assert "</conntrack>" not in got
    assert "<conntrack>" not in updated + deleted
    entries = formats.read(got + updated + deleted + got)
    assert [identity(entry) for entry in entries] == [identity(listed)] * 4
    assert [entry["mark"] for entry in entries] == [0, 7, 7, 0]


def test_labels_with_blanks(namespace: Namespace, tmp_path: Path) -> None:
    namespace.firewall.use_labels()
    names = {1: "test label 1", 2: "voice"}
    program = views.LabelledProgram(namespace, tmp_path, names)
    labels = formats.Names({name: bit for bit, name in names.items()})
    declared = {**flow("ipv4", "udp", 1, 2), "labels": ["test label 1", "voice"]}
    (line,) = formats.write([formats.from_document(declared, labels)], "save,labels", labels).splitlines()
    program(*shlex.split(line))
    with namespace.entered(), Table() as table:
        (made,) = table.dump()
    assert made["labels"] == 6
    for output in ("extended,labels", "xml,labels"):
        shown = program("-L", "-o", output)
        assert "test label 1" in shown
        (read,) = formats.read(shown, None, labels)
        assert read["labels"] == 6
        (unnamed,) = formats.read(shown, None, unknown_names := formats.Names())
        assert to_document(unnamed, unknown_names)["labels"] == ["test label 1", "voice"]
    (theirs,) = program("-L", "-o", "labels").splitlines()
    assert theirs.endswith(" labels=test label 1,voice")
    assert formats.write([made], "labels", labels).endswith(" labels=test label 1,voice\n")


def test_lost_events_are_reported(namespace: Namespace, tmp_path: Path) -> None:
    """A listener that is too slow reports this on its standard error."""
    namespace.conntrack("--version")
    namespace.firewall.track()
    report = tmp_path / "events"
    with report.open("w") as stream:
        listener = namespace.start(["conntrack", "-E", "-b", "8192"], stdout=stream, stderr=stream)
        clock.wait_until(lambda: "NOTICE" in report.read_text())
        listener.send_signal(signal.SIGSTOP)
        with namespace.entered(), Table() as table:
            for number in range(1, 2000):
                table.create(from_document(flow("ipv4", "udp", number, 2)))
        listener.send_signal(signal.SIGCONT)
        clock.wait_until(lambda: "--buffer-size" in report.read_text())
        # The message comes before the events that were kept, and the kernel drops more events until these are read
        ports = itertools.count(2000)

        def receives_another_event() -> bool:
            port = next(ports)
            with namespace.entered(), Table() as table:
                table.create(from_document(flow("ipv4", "udp", port, 2)))
            time.sleep(0.05)
            return f"sport={port} " in report.read_text()

        clock.wait_until(receives_another_event)
        listener.terminate()
        listener.wait()
    raw = report.read_text()
    assert "NOTICE" in raw
    with pytest.raises(formats.Unreadable, match=r"conntrack lost events \(ENOBUFS\)"):
        formats.read(raw)
    found = formats.examine(raw, ignore_gaps=True)
    assert (found.skipped, found.gaps) == ({}, raw.count("ENOBUFS"))
    assert 0 < len(found.entries) < 1999
