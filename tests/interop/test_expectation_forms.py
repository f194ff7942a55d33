# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lists of expectations are identical to those of conntrack(8), and the client reads them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from tests import clock
from tests.lab import Namespace

Filled = tuple[Namespace, list[dict[str, Any]]]

FTP = {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21}
FTP6 = {"source": "2001:db8::2", "destination": "2001:db8::21", "source_port": 1400, "destination_port": 21}
SIP = {"protocol": "udp", **FTP, "destination_port": 5060}
ENDS = {"source": "192.0.2.21", "destination": "10.1.0.2"}
TO_CLIENT = {"protocol": "tcp", **ENDS, "destination_port": 4000}
#: Declarations, with the helper of each master.
DECLARED: list[tuple[str, dict[str, Any]]] = [
    ("ftp", {"master": FTP, "tuple": TO_CLIENT}),
    (
        "ftp",
        {
            "master": {**FTP, "source_port": 1401},
            "tuple": {**TO_CLIENT, "destination_port": 4001},
            "flags": ["permanent", "inactive"],
            "mask": {"source": "255.255.255.0", "source_port": 0xFF},
        },
    ),
    (
        "ftp",
        {"master": FTP6, "tuple": {"protocol": "tcp", **FTP6, "destination_port": 4000}, "flags": ["permanent"]},
    ),
    (
        "pptp",
        {
            "master": {"protocol": "tcp", **FTP, "destination_port": 1723},
            "tuple": {**ENDS, "protocol": "gre", "source_key": 0, "destination_key": 1},
        },
    ),
    ("sip", {"master": SIP, "tuple": {**TO_CLIENT, "protocol": "udp"}, "class": 1}),
]


@pytest.fixture(scope="module")
def filled(root: None) -> Iterator[Filled]:
    """Return a namespace with expectations, and the expectations as the client reads them."""
    with Namespace() as namespace, namespace.entered(), Table() as table:
        for helper, declared in DECLARED:
            wanted = expectation.from_document(declared)
            master = {"protocol": "tcp", "helper": helper, "timeout": 600}
            master["protocol"] = declared["master"].get("protocol", "tcp")
            ends = {key: value for key, value in declared["master"].items() if key != "protocol"}
            try:
                table.create(from_document({**master, "original": ends}))
            except Unsupported:
                continue  # this kernel lacks the helper
            expectation.create(table, wanted)
        found = list(expectation.read_all(table))
        if not found:
            pytest.skip("this kernel has no helper (modprobe nf_conntrack_ftp)")
        yield namespace, found


def printed(filled: Filled, *options: str) -> str:
    """Return the program's list of both families. Without `-f`, the program lists only IPv4."""
    namespace, _found = filled
    return "".join(namespace.conntrack("-L", "expect", "-f", family, *options) for family in ("ipv4", "ipv6"))


def without_timeout(lines: str) -> list[str]:
    return sorted(" ".join(line.split()[1:]) for line in lines.splitlines())


def as_read(found: dict[str, Any], *missing: str) -> dict[str, Any]:
    """Return the document that a list can contain, without keys that lists lack and keys that change."""
    document = expectation.to_document(found)
    if document["tuple"]["protocol"] != "gre":
        document["master"] = {key: value for key, value in document["master"].items() if key != "protocol"}
    left_out = ("id", "function", "nat", "timeout", *missing)
    return {key: value for key, value in document.items() if key not in left_out}


def by_tuple(entries: list[dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    documents = [expectation.to_document(entry) for entry in entries]
    for document in documents:
        assert document.pop("timeout") > 0
    return {repr(document["tuple"]): document for document in documents}


def test_lists_are_identical(filled: Filled) -> None:
    theirs = printed(filled)
    assert without_timeout(formats.write(filled[1], "text")) == without_timeout(theirs)
    read = formats.examine(theirs)
    assert read.table == "expect"
    wanted = {repr(expectation.to_document(found)["tuple"]): as_read(found) for found in filled[1]}
    assert by_tuple(read.entries) == wanted
    assert without_timeout(formats.write(read.entries, "text")) == without_timeout(theirs), "the text differs"


def test_xml_documents_are_identical(filled: Filled) -> None:
    namespace, found = filled
    theirs = printed(filled, "-o", "xml")
    of_ipv4 = [one for one in found if one["family"] == 2]
    ours = formats.write(of_ipv4, "xml")

    def lines(document: str) -> list[str]:
        return [line.partition("<timeout>")[0] + line.partition("</timeout>")[2] for line in document.splitlines()]

    assert sorted(lines(ours)) == sorted(lines(namespace.conntrack("-L", "expect", "-o", "xml")))
    wanted = {repr(expectation.to_document(found)["tuple"]): as_read(found) for found in filled[1]}
    assert by_tuple(formats.read(theirs)) == wanted, "the text contains two documents"


def test_list_of_the_kernel_is_read(filled: Filled) -> None:
    namespace, found = filled
    path = Path("/proc/thread-self/net/nf_conntrack_expect")
    with namespace.entered():
        if not path.exists():
            pytest.skip("this kernel has no /proc/net/nf_conntrack_expect")
        shown = path.read_text()
    wanted = {repr(expectation.to_document(one)["tuple"]): as_read(one, "mask", "master", "class") for one in found}
    assert by_tuple(formats.read(shown)) == wanted


def test_program_accepts_the_commands(filled: Filled) -> None:
    """The program finds the master, but sends only the addresses of the expectation, not its protocol and ports."""
    found = next(one for one in filled[1] if one["tuple.protocol"] == 6 and one["family"] == 2 and not one["flags"])
    (line,) = formats.write([found], "save").splitlines()
    with Namespace() as other, other.entered(), Table() as table:
        master = expectation.to_document(found)["master"]
        ends = {key: value for key, value in master.items() if key != "protocol"}
        table.create(from_document({"protocol": "tcp", "original": ends, "helper": "ftp", "timeout": 600}))
        other.conntrack(*shlex.split(line))
        (made,) = expectation.read_all(table)
    assert expectation.to_document(made)["master"] == master
    assert made["tuple.source"] == found["tuple.source"]
    assert made["tuple.destination"] == found["tuple.destination"]
    (read,) = formats.read(line)
    assert expectation.to_document(read)["tuple"] == expectation.to_document(found)["tuple"]


@pytest.mark.parametrize("output", ["text", "xml", "timestamp"])
def test_events_are_read(namespace: Namespace, tmp_path: Path, output: str) -> None:
    namespace.conntrack("--version")
    report = tmp_path / "events"
    with report.open("w") as stream, namespace.entered(), Table() as table:
        try:
            table.create(from_document({"protocol": "tcp", "original": FTP, "helper": "ftp", "timeout": 600}))
        except Unsupported:
            pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
        options = [] if output == "text" else ["-o", output]
        listener = namespace.start(["conntrack", "-E", "expect", *options], stdout=stream)
        namespace.wait_for_subscriber()
        wanted = expectation.from_document(DECLARED[0][1])
        expectation.create(table, wanted)
        expectation.delete(table, wanted)
        clock.wait_until(lambda: report.read_text().count(" proto=" if output != "xml" else "</flow>") == 2)
        listener.terminate()
        listener.wait()
    events = formats.read(report.read_text())
    assert [expectation.to_document(event)["tuple"] for event in events] == [
        expectation.to_document(wanted)["tuple"]
    ] * 2
