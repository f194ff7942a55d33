# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Expectations: conntrack(8) reads and deletes those of the client, and the client those of conntrack(8)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import NotFound, Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import Subscription
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock
from tests.lab import Namespace
from tests.lab.table import expectations_from_program

CONTROL = {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21}
EXPECTED = {"protocol": "tcp", "source": "192.0.2.21", "destination": "10.1.0.2", "destination_port": 4000}
DECLARED = {"master": CONTROL, "tuple": EXPECTED}
PARTS = ("tuple", "mask", "master")

# The options with which the program finds an expectation. The ports of the answers are required, with any value.
NAMED = "-p tcp -s 192.0.2.21 -d 10.1.0.2 --sport 0 --dport 4000 --reply-port-src 0 --reply-port-dst 0".split()
MADE = (
    "-t 600 -p tcp --orig-src 10.1.0.2 --orig-dst 192.0.2.21 --orig-port-src 1400 --orig-port-dst 21 "
    "--tuple-src 192.0.2.21 --tuple-dst 10.1.0.2 --tuple-port-src 0 --tuple-port-dst 4000 "
    "--mask-src 255.255.255.255 --mask-dst 255.255.255.255 --mask-port-src 0 --mask-port-dst 65535"
).split()


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        try:
            table.create(from_document({"protocol": "tcp", "original": CONTROL, "helper": "ftp", "timeout": 600}))
        except Unsupported:
            pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
        yield table


def create(table: Table, **more: Any) -> dict[str, Any]:
    wanted = expectation.from_document({**DECLARED, **more})
    expectation.create(table, wanted)
    return expectation.to_document(expectation.get(table, wanted))


def as_program_shows(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document with the protocol and the keys in the places where the program shows them."""
    shown = {key: document[key] for key in ("class", "helper", "flags", *PARTS)}
    for part in PARTS:
        shown[part] = {key: value for key, value in document[part].items() if key != "protocol"}
    return {"protocol": document["tuple"]["protocol"], **shown}


def lasting(shown: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in shown.items() if key not in ("timeout", "event")}


def test_program_lists(table: Table, namespace: Namespace) -> None:
    found = create(table, flags=["permanent"], mask={"source": "255.255.255.0", "source_port": 0xFF})
    (shown,) = namespace.expectations()
    assert lasting(shown) == as_program_shows(found)


def test_program_gets(table: Table, namespace: Namespace) -> None:
    found = create(table)
    (shown,) = expectations_from_program(namespace.conntrack("-G", "expect", *NAMED))
    assert lasting(shown) == as_program_shows(found)


def test_program_deletes(table: Table, namespace: Namespace) -> None:
    found = create(table)
    namespace.conntrack("-D", "expect", *NAMED, check=False)  # the exit status is 1, for no deletions
    with pytest.raises(NotFound):
        expectation.get(table, expectation.from_document(found))


def test_program_flushes(table: Table, namespace: Namespace) -> None:
    create(table)
    namespace.conntrack("-F", "expect")
    assert list(expectation.read_all(table)) == []


def test_program_inserts(table: Table, namespace: Namespace) -> None:
    """The program sends the addresses and the master, but neither the protocol nor the ports of the expectation."""
    namespace.conntrack("-I", "expect", *MADE)
    (found,) = expectation.located(table, expectation.read_all(table))
    document = expectation.to_document(found)
    (shown,) = namespace.expectations()
    assert document["tuple"].items() >= {"source": "192.0.2.21", "destination": "10.1.0.2"}.items()
    assert document["master"] == {"protocol": "tcp", **CONTROL}
    assert (shown["tuple"]["source"], shown["master"]) == ("192.0.2.21", CONTROL)
    expectation.delete(table, found)
    assert namespace.expectations() == []


def test_both_report_the_same_events(table: Table, namespace: Namespace, tmp_path: Path) -> None:
    """The program and the client report the same events."""
    namespace.conntrack("--version")  # skip the test without the program
    event_file = tmp_path / "events"
    with event_file.open("w") as file:
        program = namespace.start(["conntrack", "-E", "expect"], stdout=file, stderr=None)
        namespace.wait_for_subscriber()
        with Subscription(["expectation_new", "expectation_destroy"]) as subscription:
            found = create(table)
            expectation.delete(table, expectation.from_document(found))
            events = [event for number in range(2) for event in subscription.receive()]
        clock.wait_until(lambda: len(event_file.read_text().splitlines()) >= 2)
        program.terminate()
        program.wait()
    assert [event.kind for event in events] == ["expectation_new", "expectation_destroy"]
    assert [expectation.to_document(event.entry)["id"] for event in events] == [found["id"]] * 2
    shown = expectations_from_program(event_file.read_text())
    assert [one["event"] for one in shown] == ["new", "destroy"]
    assert [lasting(one) for one in shown] == [as_program_shows(found)] * 2
