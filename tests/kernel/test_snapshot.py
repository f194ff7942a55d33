# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table that is saved, flushed and restored is the same table, for the collection and for conntrack(8)."""

from __future__ import annotations

import gzip
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import Snapshot
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.restore import RestoreFailed, restore
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.save import save
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import identity
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING, parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock, samples, views
from tests.features import lacks
from tests.lab import Namespace
from tests.modules import run as run_module

pytestmark = pytest.mark.oldest_and_newest_kernel

Document = dict[str, Any]

NO_LABELS = LabelMap()
MANY = 5_000


@pytest.fixture(params=[pytest.param("snapshot", marks=pytest.mark.running_kernel_only), "snapshot.gz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    namespace.firewall.use_labels()
    with namespace.entered(), Table() as table:
        yield table


@pytest.fixture
def target(root: None) -> Iterator[Namespace]:
    """Return the namespace in which to restore the table."""
    with Namespace("target") as namespace:
        namespace.firewall.use_labels()
        yield namespace


def fill(table: Table) -> bool:
    """Create entries of every kind, and expectations of FTP sessions. Return whether the kernel has the FTP helper."""
    helper = "helper" not in samples.create_all(lambda declared: table.create(from_document(declared)), Unsupported)
    if helper:
        for family, zone in (("ipv4", 5), ("ipv6", 5), ("ipv4", 0)):
            master = {"protocol": "tcp", **samples.ends(family, **samples.ports(40000, 21))}
            if not zone:
                declared = {"protocol": "tcp", "original": {**master}, "helper": "ftp", "timeout": 9000}
                del declared["original"]["protocol"]
                table.create(from_document(declared))
            ends = samples.turned(family, destination_port=4000 + zone)
            announced = {"tuple": {"protocol": "tcp", **ends}, "master": master, "zone": zone, "timeout": 777}
            wanted = expectation.from_document(announced)
            expectation.create(table, wanted)
            expectation.update(table, wanted)
    return helper


def run(table: Table, path: Path, **options: Any) -> Document:
    check, match, scope = options.pop("check", False), options.pop("match", None), options.pop("scope", None)
    policy = Policy(**{"on_existing": "keep", **options})
    with Snapshot(str(path)) as snapshot:
        try:
            return restore(
                table,
                snapshot,
                EVERYTHING if match is None else parse_match(match),
                policy,
                NO_LABELS,
                check,
                scope=None if scope is None else parse_match(scope),
            )
        except RestoreFailed as failure:
            return {"msg": str(failure), **failure.result}


def numbers(result: Document, of: str = "counts") -> Document:
    return {key: count for key, count in result[of].items() if count}


def entries(table: Table) -> dict[Any, Document]:
    documents = [to_document(entry) for entry in table.dump()]
    assert all("extra" not in document for document in documents)
    return {identity(from_document(document)): views.lasting(document) for document in documents}


def untimed(entries: dict[Any, Document]) -> dict[Any, Document]:
    """Return the entries without timeouts, because the test takes some seconds."""
    return {
        key: {name: value for name, value in document.items() if name != "timeout"} for key, document in entries.items()
    }


def expectations(table: Table) -> list[Document]:
    found = [expectation.to_document(one) for one in expectation.located(table, expectation.read_all(table))]
    for one in found:
        del one["id"]
        assert one["timeout"] == clock.left_of(777)
        del one["timeout"]
    return sorted(found, key=json.dumps)


def seen(namespace: Namespace) -> list[str]:
    """Return the table as other programs read it."""
    steady = [
        {key: value for key, value in entry.items() if key not in ("id", "use", "timeout")}
        for entry in views.by_text(namespace) + views.by_pyroute2(namespace)
    ]
    expected = [line.split(maxsplit=1)[1] for line in namespace.conntrack("-L", "expect").splitlines()]
    return sorted([*(json.dumps(entry, sort_keys=True) for entry in steady), *expected])


def test_entries_and_expectations_of_every_kind_are_restored(
    table: Table, namespace: Namespace, target: Namespace, path: Path
) -> None:
    helper = fill(table)
    before, expected, shown = entries(table), expectations(table), seen(namespace)
    assert len(before) > 40
    assert len(expected) == (3 if helper else 0)
    done = save(table, str(path), EVERYTHING, NO_LABELS, False)
    assert (done["snapshot"]["entries"], done["snapshot"]["expectations"]) == (len(before), len(expected))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with target.entered(), Table() as other:
        predicted = run(other, path, check=True)
        assert target.count() == 0
        restored = run(other, path)
        assert "msg" not in restored, restored["failed_entries"]
        assert predicted == restored
        assert numbers(restored) == {"created": len(before)}
        assert numbers(restored, "expectation_counts") == ({"created": 3} if helper else {})
        assert entries(other) == before
        assert expectations(other) == expected
        assert seen(target) == shown
        again = run(other, path)
        assert not again["changed"]
        assert numbers(again) == {"unchanged": len(before)}
        updated = run(other, path, on_existing="update")
        assert not updated["changed"], updated["diff"]


def test_nat_done_bits_are_lost_without_nat(table: Table, path: Path) -> None:
    """As documented in the guide, these bits are lost. An entry with NAT keeps both of its bits."""
    own, other = {"source": {"address": "10.0.0.1"}}, {"source": {"address": "198.51.100.9"}}
    ends = {"source": "10.0.0.1", "destination": "192.0.2.80"}
    for number, nat in enumerate((own, other)):
        flow = {"protocol": "udp", "original": {**ends, **samples.ports(4000 + number, 53)}, "nat": nat, "timeout": 600}
        table.create(from_document(flow))
    before = {entry["original.source_port"]: entry["status"] for entry in table.dump()}
    assert before == {4000: 0x188, 4001: 0x198}
    save(table, str(path), EVERYTHING, NO_LABELS, False)
    for entry in list(table.dump()):
        table.delete(entry)
    assert numbers(run(table, path)) == {"created": 2}
    assert {entry["original.source_port"]: entry["status"] for entry in table.dump()} == {4000: 0x8, 4001: 0x198}


def test_snapshot_is_readable_with_zcat(table: Table, tmp_path: Path) -> None:
    fill(table)
    save(table, str(tmp_path / "it.gz"), EVERYTHING, LabelMap({"voip": 5}), False)
    lines = gzip.decompress((tmp_path / "it.gz").read_bytes()).decode().splitlines()
    header = json.loads(lines[0])
    assert header["entries"] + header["expectations"] == sum(line.startswith("[") for line in lines)
    assert header["labels"] == {"voip": 5}
    assert any('"192.0.2.1","198.51.100.2"' in line for line in lines)


def test_lost_labels_are_reported_without_a_rule(table: Table, path: Path, root: None) -> None:
    fill(table)
    save(table, str(path), EVERYTHING, NO_LABELS, False)
    labelled = sum("labels" in entry for entry in table.dump())
    with Namespace("bare") as bare, bare.entered(), Table() as other:
        done = run(other, path)
        assert numbers(done) == {"created": table.count() - labelled} | ({"failed": labelled} if labelled else {})
        assert bare.count() == table.count()
        assert all("without its labels" in failure["msg"] for failure in done["failed_entries"])


def test_entries_of_an_untracked_protocol_are_not_restored(table: Table, path: Path) -> None:
    """Linux tracks DCCP before 6.17 only."""
    from tests.unit.plugins.module_utils._snapshot.test_restore import flow, write

    dccp = [{**flow(port, timeout=600), "protocol": "dccp"} for port in (1, 2)]
    write(str(path), *dccp, flow(3, timeout=600))
    done = run(table, path)
    untracked = lacks("tracks_dccp")
    assert numbers(done) == ({"created": 1, "failed": 2} if untracked else {"created": 3})
    assert sorted(entry["original.protocol"] for entry in table.dump()) == ([6] if untracked else [6, 33, 33])


def test_nat_of_a_gre_key_is_reported_and_creates_no_entry(table: Table, path: Path) -> None:
    """Linux translates the keys only for its PPTP helper (nf_nat_l4proto_unique_tuple), and reports no error."""
    from tests.unit.plugins.module_utils._snapshot.test_restore import flow, write

    def tunnel(key: int, outside_key: int) -> Document:
        original = {"source": "10.0.0.1", "destination": "192.0.2.80", "source_key": key, "destination_key": 9}
        reply = {"source": "192.0.2.80", "destination": "198.51.100.9", "source_key": 9, "destination_key": outside_key}
        translation = {"address": "198.51.100.9", **({} if key == outside_key else {"port": outside_key})}
        return {
            "family": "ipv4",
            "protocol": "gre",
            "timeout": 600,
            **{f"original.{name}": value for name, value in original.items()},
            **{f"reply.{name}": value for name, value in reply.items()},
            **{f"nat.source.{name}": value for name, value in translation.items()},
        }

    write(str(path), tunnel(5, 5), tunnel(6, 7), flow(3, timeout=600))
    done = run(table, path)
    assert numbers(done) == {"created": 2, "failed": 1}
    (failure,) = done["failed_entries"]
    assert failure["index"] == 1
    assert "the kernel did not accept nat.source" in failure["msg"]
    assert "keys of GRE" in failure["msg"]
    assert sorted(entry.get("original.source_key", 0) for entry in table.dump()) == [0, 5]


def test_second_of_two_conflicting_entries_is_reported(table: Table, path: Path) -> None:
    """Check mode compares only nearby records, so it does not detect this error in an edited snapshot."""
    from tests.unit.plugins.module_utils._snapshot.test_restore import flow, write

    ends = {"source": "10.0.0.2", "destination": "10.0.0.1", "source_port": 80, "destination_port": 1}
    mirrored = {"family": "ipv4", "protocol": "tcp", **{f"original.{key}": end for key, end in ends.items()}}
    write(str(path), *[flow(port, timeout=600) for port in range(1, 301)], {**mirrored, "timeout": 600})
    assert numbers(run(table, path, check=True)) == {"created": 301}
    done = run(table, path)
    assert numbers(done) == {"created": 300, "failed": 1}
    (failure,) = done["failed_entries"]
    assert failure["index"] == 300
    assert "its original tuple is taken by tcp 10.0.0.1:1 -> 10.0.0.2:80" in failure["msg"]
    assert table.count() == 300


@pytest.mark.running_kernel_only
def test_many_entries_are_restored(table: Table, namespace: Namespace, path: Path) -> None:
    def flows() -> Iterator[Document]:
        for number in range(MANY):
            source, translated = f"10.{number >> 14}.{number >> 7 & 127}.{number & 127}", number % 3 == 0
            yield {
                "protocol": "tcp",
                "original": {"source": source, "destination": "192.0.2.80", **samples.ports(4000 + number % 7, 443)},
                "tcp": {"state": "established"},
                "status": ["seen_reply", "assured"],
                "mark": number % 5,
                "labels": [number % 3] if number % 100 == 0 else [],
                "timeout": 9000,
                **({"nat": {"source": {"address": "198.51.100.9", "port": 1024 + number}}} if translated else {}),
            }

    assert not [error for error in table.create_declared(flows()) if error]
    before = untimed(entries(table))
    save(table, str(path), EVERYTHING, NO_LABELS, False)
    namespace.conntrack("-F")
    assert numbers(run(table, path)) == {"created": MANY}
    assert untimed(entries(table)) == before
    namespace.conntrack("-D", "-m", "3")
    assert numbers(run(table, path, check=True)) == {"created": MANY // 5, "unchanged": MANY * 4 // 5}
    assert numbers(run(table, path)) == {"created": MANY // 5, "unchanged": MANY * 4 // 5}
    assert untimed(entries(table)) == before


def test_purge_keeps_entries_out_of_scope(table: Table, namespace: Namespace, path: Path) -> None:
    fill(table)
    save(table, str(path), EVERYTHING, NO_LABELS, False)
    before = entries(table)
    namespace.conntrack(
        "-R",
        "-",
        input="-I -p udp -s 10.9.9.1 -d 10.9.9.2 --sport 1 --dport 2 -t 600 -w 5\n"
        "-I -p udp -s 10.9.9.1 -d 10.9.9.2 --sport 1 --dport 2 -t 600 -w 6\n",
    )
    for check in (True, False):
        done = run(table, path, check=check, scope={"zone": 5})
        assert numbers(done) == {"deleted": 1, "unchanged": len(before)}
        assert "10.9.9.1" in done["diff"]["before"]
    assert [flow.get("zone") for flow in namespace.table() if flow["original"]["source"] == "10.9.9.1"] == [6]
    assert len(entries(table)) == len(before) + 1


def test_expectation_is_restored_with_its_master(table: Table, target: Namespace, path: Path) -> None:
    if not fill(table):
        pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
    done = save(table, str(path), parse_match({"zone": 5}), NO_LABELS, False)
    assert done["snapshot"]["expectations"] == 2
    with target.entered(), Table() as other:
        for check in (True, False):
            done = run(other, path, check=check, match={"family": "ipv6"})
            assert numbers(done, "expectation_counts") == {"created": 1}
        (found,) = expectation.read_all(other)
        assert found["family"] == 10


def test_restore_needs_only_the_file(namespace: Namespace, target: Namespace, tmp_path: Path) -> None:
    """Run the module in separate processes: save in one namespace and restore in the other, both selected by path."""
    path = str(tmp_path / "it.gz")
    namespace.conntrack("-I", *"-p udp -s 10.1.0.2 -d 192.0.2.53 --sport 1 --dport 53 -t 600 -m 7".split())
    done = run_module(namespace, "conntrack_snapshot", state="saved", path=path)
    assert (done["changed"], done["snapshot"]["entries"]) == (True, 1)
    done = run_module(namespace, "conntrack_snapshot", state="restored", path=path, netns=target.path)
    assert (done["changed"], numbers(done), done["checksum"] != "") == (True, {"created": 1}, True)
    (flow,) = target.table()
    assert (flow["mark"], flow["timeout"]) == (7, clock.left_of(600))


def refusals() -> list[Any]:
    return [
        pytest.param({"state": "saved", "purge": True, "scope": {"zone": 5}}, "purge: has an effect only", id="saved"),
        pytest.param({"state": "restored", "purge": True}, "scope: is missing", id="scope"),
        pytest.param({"state": "restored", "match": {}}, "match: specifies nothing", id="match"),
        pytest.param({"state": "restored", "report_limit": -1}, "report_limit: -1 is negative", id="report_limit"),
        pytest.param({"state": "restored", "path": "/proc/self/status"}, "is not a snapshot", id="foreign"),
        pytest.param({"state": "saved", "path": ""}, "path: is empty; write the name of a file.", id="empty"),
        pytest.param({"state": "restored", "path": ""}, "path: is empty; write the name of a file.", id="none"),
        pytest.param({"state": "saved", "path": "/nowhere/it"}, "there is no directory /nowhere", id="nowhere"),
    ]


@pytest.mark.running_kernel_only  # rejected before the first request to the kernel
@pytest.mark.parametrize(("arguments", "expected_error"), refusals())
def test_invalid_options_are_refused_in_one_sentence(
    namespace: Namespace, tmp_path: Path, arguments: Document, expected_error: str
) -> None:
    path = tmp_path / "it"
    run_module(namespace, "conntrack_snapshot", state="saved", path=str(path))
    before = path.read_bytes()
    done = run_module(namespace, "conntrack_snapshot", **{"path": str(path), **arguments})
    assert expected_error in done["msg"]
    assert done["msg"].endswith("Nothing was changed.")
    assert not done["changed"]
    assert (done["counts"]["created"], done["snapshot"], done["failed_entries"]) == (0, {}, [])
    assert path.read_bytes() == before
