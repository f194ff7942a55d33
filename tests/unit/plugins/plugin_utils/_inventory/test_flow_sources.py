# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An inventory reads only complete snapshots that its options name, and reports wrong options."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import ENTRIES, Header, Writer
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.records import records
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.tuple import default_reply
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError, InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import namespace, sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory import flow_sources
from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.flow_sources import endpoints_of
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import FakeKernel, refusal

Document = dict[str, Any]

DEFAULTS: Document = {
    "match": "everything",
    "except": "nothing",
    "side": "both",
    "addresses": "own",
    "separate_by": ["zone"],
    "netns": None,
    "gateway": None,
    "snapshots": None,
    "label_map": None,
    "max_hosts": 5000,
    "max_listed": 50,
}
CLIENTS = {f"10.0.0.{number}" for number in range(1, 11)}


def flow(number: int, **keys: Any) -> Document:
    ends = {"source": f"10.0.0.{number}", "destination": "10.9.0.9", "source_port": number, "destination_port": 53}
    entry = from_document({"protocol": "udp", "original": ends, **keys})
    return {**default_reply(entry), **entry}


def save(path: Path, *entries: Document, host: str = "gw1", labels: dict[str, int] | None = None) -> None:
    """Write a snapshot as the module does."""
    rows = [(tuple(entry), tuple(entry.values())) for entry in entries or map(flow, range(1, 11))]
    with Writer(str(path), Header(host, "6.18.1", "2030-01-31T12:00:00Z", labels or {})) as writer:
        for columns in records(rows):
            writer.write(ENTRIES, columns, ("family", "protocol"))


def found(folder: Path, **options: Any) -> dict[str, Document]:
    return dict(endpoints_of({**DEFAULTS, **options}, str(folder)).hosts())


def problem(folder: Path, **options: Any) -> str:
    with pytest.raises(ConntrackError) as caught:
        endpoints_of({**DEFAULTS, **options}, str(folder))
    return str(caught.value)


@pytest.fixture(autouse=True)
def no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevent the tests from reading the table and the settings of the machine that they run on."""

    def forbidden(*arguments: Any) -> None:
        raise AssertionError("the test must not read the table of the machine")

    monkeypatch.setattr(flow_sources, "Table", forbidden)
    monkeypatch.setattr(sysctl, "read", forbidden)


# snapshots


@pytest.mark.parametrize("name", ["gw1", "gw1.gz"])
def test_the_flows_of_a_snapshot_are_found(tmp_path: Path, name: str) -> None:
    save(tmp_path / name)
    hosts = found(tmp_path, snapshots=[name])
    assert set(hosts) == {*CLIENTS, "10.9.0.9"}
    assert hosts["10.9.0.9"]["conntrack_as_destination"]["flows"] == 10
    assert hosts["10.0.0.1"]["conntrack_gateways"] == ["gw1"]


def test_snapshots_of_several_gateways_form_one_inventory(tmp_path: Path) -> None:
    """Snapshots are given by pattern and by name; each host has the names of its gateways."""
    (tmp_path / "north").mkdir()
    for place, host in (("north/a.gz", "gw1"), ("north/b.gz", "gw2"), ("south.gz", "gw1")):
        save(tmp_path / place, flow(1), host=host)
    host = found(tmp_path, snapshots=["north/*.gz", {"path": str(tmp_path / "south.gz"), "name": "gw3"}])["10.0.0.1"]
    assert host["conntrack_gateways"] == ["gw1", "gw2", "gw3"]
    assert host["conntrack_flows"] == 3


def test_match_and_except_select_from_a_snapshot(tmp_path: Path) -> None:
    save(tmp_path / "gw1")
    match = {"source": "10.0.0.1-10.0.0.4"}
    hosts = found(tmp_path, snapshots=["gw1"], match=match, side="source", **{"except": [{"source": "10.0.0.2"}]})
    assert set(hosts) == {"10.0.0.1", "10.0.0.3", "10.0.0.4"}


def test_labels_have_the_names_of_the_snapshot_unless_a_map_is_given(tmp_path: Path) -> None:
    """A match on a name uses the bit with that name on the gateway."""
    save(tmp_path / "gw1", flow(1, labels=[5]), flow(2, labels=[6]), labels={"voice": 5})
    match = {"labels": "voice"}
    hosts = found(tmp_path, snapshots=["gw1"], match=match, side="source")
    assert {name: host["conntrack_labels"] for name, host in hosts.items()} == {"10.0.0.1": ["voice"]}

    (tmp_path / "connlabel.conf").write_text("6 voice\n")
    hosts = found(tmp_path, snapshots=["gw1"], match=match, side="source", label_map="connlabel.conf")
    assert set(hosts) == {"10.0.0.2"}
    assert "from the snapshot" in problem(tmp_path, snapshots=["gw1"], match={"labels": "video"})


def test_incomplete_snapshot_is_refused(tmp_path: Path) -> None:
    """Half of a table would contain half of the hosts."""
    save(tmp_path / "gw1")
    whole = (tmp_path / "gw1").read_bytes()
    (tmp_path / "gw1").write_bytes(whole.replace(b"10.0.0.1", b"10.6.6.6"))
    error_text = problem(tmp_path, snapshots=["gw1"])
    assert error_text.startswith("snapshots[0]: ")
    assert "does not match its checksum" in error_text
    (tmp_path / "gw1").write_bytes(whole[:-5])
    assert "is truncated" in problem(tmp_path, snapshots=["gw1"])


def test_fifo_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    save(tmp_path / "gw1")
    expected_error = f"{tmp_path}/fifo cannot be read: it is a FIFO, not a regular file"
    assert problem(tmp_path, snapshots=["fifo"]) == f"snapshots[0]: {expected_error}"
    assert problem(tmp_path, snapshots=["gw1", "f*"]) == f"snapshots[1]: {expected_error}"
    label_map = problem(tmp_path, snapshots=["gw1"], label_map="fifo")
    assert label_map == f"label_map: {tmp_path}/fifo: it is a FIFO, not a regular file"
    netns = problem(tmp_path, netns=str(tmp_path / "fifo"))
    assert netns.startswith(f"netns: cannot enter {tmp_path}/fifo: it is a FIFO, not a regular file; name a namespace")


def test_error_names_the_snapshot_of_an_invalid_entry(tmp_path: Path) -> None:
    """Such a file may be written by hand, including its checksum."""
    columns = {"family": ["ipv4"], "protocol": ["udp"], "original.source": ["{{ 7 * 7 }}"]}
    with Writer(str(tmp_path / "odd"), Header("gw1", "6.18.1", "2030-01-31T12:00:00Z", {})) as writer:
        writer.write(ENTRIES, columns)
    error_text = problem(tmp_path, snapshots=["odd"])
    assert error_text.startswith(f"snapshots[0]: {tmp_path}/odd has an invalid entry (original")
    assert error_text.endswith("use another copy of it")


def test_match_of_counters_requires_counters_in_the_snapshot(tmp_path: Path) -> None:
    save(tmp_path / "gw1")
    assert "match.bytes_above: cannot be evaluated" in problem(tmp_path, snapshots=["gw1"], match={"bytes_above": 5})


# options


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"snapshots": []}, "snapshots: an empty list; name a file"),
        ({"snapshots": [7]}, "snapshots[0]: 7 is not a snapshot; write a path"),
        ({"snapshots": [{"path": "a", "nmae": "b"}]}, "snapshots[0]: {"),
        ({"snapshots": [{"name": "b"}]}, "snapshots[0].path: '' is not a valid value; write text"),
        ({"snapshots": [{"path": "a", "name": 7}]}, "snapshots[0].name: 7 is not a valid value; write text"),
        ({"snapshots": ["gone"]}, "snapshots[0]: "),
        ({"snapshots": ["a"], "netns": "blue"}, "netns: snapshots is set, too; write one of them"),
        ({"snapshots": ["a"], "gateway": "blue"}, "gateway: snapshots is set, too; write a name beside the path"),
        ({"netns": ""}, "netns: is empty; name a namespace"),
        ({"max_hosts": -1}, "max_hosts: -1 is negative; write 0 or more"),
        ({"max_listed": -1}, "max_listed: -1 is negative; write 0 or more"),
    ],
)
def test_error_names_the_option_and_the_remedy(tmp_path: Path, options: Document, error_text: str) -> None:
    assert problem(tmp_path, **options).startswith(error_text)


def test_a_pattern_without_files_is_an_error(tmp_path: Path) -> None:
    text = problem(tmp_path, snapshots=["missing/*.gz"])
    assert text.startswith("snapshots[0]: ")
    assert "/missing/*.gz does not exist; write the path of a snapshot" in text


@pytest.mark.parametrize(
    ("match", "error_text"),
    [
        ({"prot": "tcp"}, "match.prot: no such key; write protocol"),
        ({}, "match: specifies nothing, so it would match everything"),
        ([], "match: an empty list matches nothing"),
        (None, "match: is null; leave it out or give it a value"),
        ({"port": "nonsuch"}, "match.port: 'nonsuch' is not the name of a service"),
        ({"source": "{{ backend }}"}, "match.source: '{{ backend }}' is not an address; write an IPv4"),
    ],
)
def test_error_of_a_match_is_that_of_the_modules(tmp_path: Path, match: Any, error_text: str) -> None:
    save(tmp_path / "gw1")
    assert problem(tmp_path, snapshots=["gw1"], match=match).startswith(error_text)


# tables


def test_missing_privilege_is_reported_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel()
    kernel.respond = lambda request: [refusal(request, errno.EPERM)]  # type: ignore[method-assign]
    monkeypatch.setattr(flow_sources, "Table", lambda: Table(kernel.connect))
    error_text = problem(tmp_path)
    assert "Operation not permitted (EPERM)" in error_text
    assert error_text.endswith("run as root, or read a snapshot instead (snapshots)")
    assert "become" not in error_text, "an inventory has no privilege escalation"


def test_error_names_a_namespace_that_cannot_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def enter(path: str) -> None:
        assert threading.current_thread() is not threading.main_thread(), "the main thread must keep its namespace"
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(namespace, "enter", enter)
    error_text = problem(tmp_path, netns="blue")
    assert error_text.startswith("netns: cannot enter /run/netns/blue: Operation not permitted; name a namespace under")
    assert error_text.endswith("and run as root")


def test_match_of_unrecorded_values_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysctl, "read", {"accounting": 0}.get)
    assert "requires accounting, which is off" in problem(tmp_path, match={"bytes_above": 5})


def test_strings_in_the_form_of_templates_are_unchanged(tmp_path: Path) -> None:
    """The tests with Ansible's programs show what Ansible does with these strings."""
    template = "{{ lookup('pipe', 'touch /pwned') }}"
    save(tmp_path / "gw1", flow(1, labels=[5]), host=template, labels={template: 5})
    hosts = found(tmp_path, snapshots=["gw1"], side="source")
    assert hosts["10.0.0.1"]["conntrack_gateways"] == hosts["10.0.0.1"]["conntrack_labels"] == [template]
    assert json.loads(json.dumps(hosts)) == hosts, "cached values must be plain"


def test_limit_of_hosts_ends_the_reading(tmp_path: Path) -> None:
    save(tmp_path / "gw1")
    with pytest.raises(InvalidValue, match="max_hosts: there are more than 3 hosts"):
        found(tmp_path, snapshots=["gw1"], max_hosts=3)
