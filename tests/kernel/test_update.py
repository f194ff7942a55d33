# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Change many entries of the running kernel at once: matching entries of all kinds, and only if they differ."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations.update import (
    UpdateFailed,
    parse_wanted,
    update,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING, parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import MAX_BATCH_SIZE
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import UNLIMITED
from tests import clock, features, samples, views
from tests.lab import Namespace

pytestmark = pytest.mark.every_kernel

Document = dict[str, Any]

#: More than two batches of requests
MANY = 2 * MAX_BATCH_SIZE + 2


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        yield table


def fill(table: Table, *documents: Document) -> None:
    errors = table.create_all(creation(from_document(document)) for document in documents)
    assert [str(error) for error in errors if error] == []


def udp(port: int, family: str = "ipv4", **more: Any) -> Document:
    return samples.flow(family, "udp", port, 53, timeout=600, **more)


def ftp(port: int, **more: Any) -> Document:
    return samples.flow("ipv4", "tcp", port, 21, timeout=600, **more)


def run(table: Table, match: Any = None, timeout_min: int = 0, check: bool = False, **wanted: Any) -> Document:
    """Return the result of one run of the module. A failure has its message under `msg`."""
    limit = wanted.pop("limit", UNLIMITED)
    chosen = EVERYTHING if match is None else parse_match(match)
    try:
        return update(table, chosen, parse_wanted(wanted, timeout_min), limit, check_mode=check)
    except UpdateFailed as failed:
        return {"msg": str(failed), **failed.result}


def seen(namespace: Namespace) -> dict[int, Document]:
    """Return the entries by their source port, as pyroute2 reads them."""
    return {entry["original"]["source_port"]: entry for entry in views.by_pyroute2(namespace)}


@pytest.mark.parametrize("family", ["ipv4", pytest.param("ipv6", marks=pytest.mark.running_kernel_only)])
def test_marks_under_a_mask_of_many_entries(table: Table, namespace: Namespace, family: str) -> None:
    """Bits outside the mask and other entries do not change, and entries with the right mark get no request."""
    other = "ipv6" if family == "ipv4" else "ipv4"
    fill(table, *(udp(port, family, mark=port & 0xFF0F) for port in range(1, MANY)))
    fill(table, *(udp(port, family, mark=port & 0xFF0F | 0x20) for port in range(MANY, MANY + 100)))
    fill(table, *(udp(port, other, mark=0x150) for port in range(1, 100)))
    match = {"family": family, "destination_port": 53}

    def marks() -> dict[tuple[str, int], int]:
        return {(flow["family"], flow["original"]["source_port"]): flow["mark"] for flow in namespace.table()}

    before = marks()
    predicted = run(table, match, check=True, mark="0x20/0xf0")
    assert marks() == before
    with namespace.events() as changes:
        done = run(table, match, mark="0x20/0xf0")
    assert changes.kinds() == ["update"] * (MANY - 1)
    assert marks() == {key: mark & ~0xF0 | 0x20 if key[0] == family else mark for key, mark in before.items()}
    assert (done["matched"], done["updated"], done["unchanged"], done["gone"]) == (MANY + 99, MANY - 1, 100, 0)
    assert done == predicted
    with namespace.events() as changes:
        again = run(table, match, mark="0x20/0xf0")
    assert changes.kinds() == []
    assert (again["changed"], again["unchanged"]) == (False, MANY + 99)


def test_entries_of_every_kind(table: Table, namespace: Namespace) -> None:
    """Update entries in zones, with one direction in a zone, with NAT, and of protocols without ports."""
    kinds = [sample for _name, sample in samples.SAMPLES if not sample.needs]
    fill(table, *(sample.declared for sample in kinds))
    before = sorted(views.by_pyroute2(namespace), key=repr)
    done = run(table, mark="0x77/0xff", status=["assured"])
    assert (done["matched"], done["refused"], done["gone"]) == (len(kinds), 0, 0)
    after = sorted(views.by_pyroute2(namespace), key=repr)
    assert len(after) == len(before) == len(kinds)
    assert {entry["mark"] & 0xFF for entry in after} == {0x77}
    assert all("assured" in entry["status"] for entry in after)

    def rest(entries: list[Document]) -> list[str]:
        return sorted(
            repr({key: value for key, value in entry.items() if key not in ("mark", "status", "timeout", "use")})
            for entry in entries
        )

    assert rest(after) == rest(before)
    assert not run(table, mark="0x77/0xff", status=["assured"])["changed"]


def test_only_one_zone_is_updated(table: Table, namespace: Namespace) -> None:
    """The same tuple in two zones and in no zone, and with one direction in a zone."""
    one_way = udp(2)
    one_way["original"]["zone"] = 7
    fill(table, udp(1), udp(1, zone=5), udp(1, zone=6), one_way)
    assert run(table, {"zone": 5}, mark="5")["updated"] == 1
    assert run(table, {"original_zone": 7}, mark="7")["updated"] == 1
    marks = {(flow["original"]["source_port"], flow.get("zone", 0)): flow["mark"] for flow in namespace.table()}
    assert marks == {(1, 0): 0, (1, 5): 5, (1, 6): 0, (2, 0): 7}


def test_labels_are_added_and_removed_and_others_kept(table: Table, namespace: Namespace) -> None:
    namespace.firewall.use_labels()
    labels = {1: [1, 64, 127], 2: [5], 3: [], 4: [0, 5, 96]}
    fill(table, *(udp(port, labels=bits) for port, bits in labels.items()))
    with namespace.events() as changes:
        done = run(table, labels_add=[5, 96], labels_remove=["127", 64])
    assert changes.kinds() == ["update"] * 3
    assert (done["updated"], done["unchanged"]) == (3, 1)
    assert {port: entry.get("labels", []) for port, entry in seen(namespace).items()} == {
        1: [1, 5, 96],
        2: [5, 96],
        3: [5, 96],
        4: [0, 5, 96],
    }
    with namespace.events() as changes:
        assert not run(table, labels_add=[5, 96], labels_remove=["127", 64])["changed"]
    assert changes.kinds() == []


def test_labels_without_a_rule_fail_and_other_changes_are_applied(table: Table, namespace: Namespace) -> None:
    fill(table, *(udp(port) for port in range(1, 4)))
    done = run(table, labels_add=[5], mark="9", timeout=500)
    assert (done["refused"], done["updated"], done["changed"]) == (3, 0, True)
    assert done["msg"].startswith("3 of 3 entries were not changed, or not in full, the first because: updating udp ")
    assert "add one, such as 'ct label set' in nftables" in done["failed_entries"][0]["msg"]
    assert sorted(change["key"] for change in done["changes"]) == ["mark"] * 3 + ["timeout"] * 3
    shown = seen(namespace).values()
    assert [(entry["mark"], "labels" in entry) for entry in shown] == [(9, False)] * 3
    assert [entry["timeout"] for entry in shown] == [clock.left_of(500)] * 3


def test_timeout_is_shortened_or_extended_only_on_request(table: Table, namespace: Namespace) -> None:
    left = {1: 6000, 2: 300, 3: 600, 4: 86400}
    fill(table, *({**udp(port), "timeout": seconds} for port, seconds in left.items()))
    with namespace.events() as changes:
        assert run(table, timeout=1200)["updated"] == 2
    assert len(changes) == 2
    timeouts = {port: entry["timeout"] for port, entry in seen(namespace).items()}
    assert timeouts == {port: clock.left_of(seconds) for port, seconds in {1: 1200, 2: 300, 3: 600, 4: 1200}.items()}
    with namespace.events() as changes:
        assert not run(table, timeout=1200)["changed"]
    assert not changes
    assert run(table, timeout=1200, timeout_min=500)["updated"] == 1
    assert seen(namespace)[2]["timeout"] == clock.left_of(1200)


def test_fixed_timeout_is_kept_as_predicted(table: Table, namespace: Namespace) -> None:
    """The timeout stays on every kernel, although Linux 5.10 would accept another one."""
    fill(table, udp(1, status=["fixed_timeout"]), udp(2))
    predicted = run(table, check=True, timeout=300, mark="1")
    done = run(table, timeout=300, mark="1")
    assert done["msg"] == predicted["msg"]
    assert (done["updated"], done["refused"]) == (1, 1)
    shown = seen(namespace)
    assert [shown[port]["mark"] for port in (1, 2)] == [1, 1]
    assert [shown[port]["timeout"] for port in (1, 2)] == [clock.left_of(600), clock.left_of(300)]


def test_timeout_is_set_before_it_becomes_fixed(table: Table, namespace: Namespace) -> None:
    fill(table, udp(1))
    for updated in (1, 0):
        assert run(table, timeout=300, status=["fixed_timeout"])["updated"] == updated
    assert "fixed_timeout" in seen(namespace)[1]["status"]
    assert seen(namespace)[1]["timeout"] == clock.left_of(300)


def test_helper_is_removed_or_the_failure_is_reported(table: Table, namespace: Namespace) -> None:
    try:
        table.create(from_document(ftp(1, helper="ftp")))
    except Unsupported:
        pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")
    fill(table, ftp(2))
    done = run(table, {"destination_port": 21}, helper="", mark="7")
    assert [entry["mark"] for entry in seen(namespace).values()] == [7, 7]
    assert done["unchanged"] == 0
    if features.lacks("helper_removal"):
        assert (done["updated"], done["refused"]) == (1, 1)
        assert "This kernel cannot remove the helper of an entry" in done["failed_entries"][0]["msg"]
        assert seen(namespace)[1]["helper"] == "ftp"
    else:
        assert (done["updated"], done["refused"]) == (2, 0)
        assert "helper" not in seen(namespace)[1]
        assert not run(table, {"destination_port": 21}, helper="", mark="7")["changed"]


def test_update_above_the_limit_changes_nothing(table: Table, namespace: Namespace) -> None:
    fill(table, *(udp(port) for port in range(1, 11)))
    with namespace.events() as changes:
        done = run(table, {"source_port": "1-6"}, mark="1", limit=5)
    assert re.match("6 entries match, more than the limit of 5: .*, 3 more. Nothing was changed", done["msg"])
    assert not changes
    assert run(table, {"source_port": "1-5"}, mark="1", limit=5)["updated"] == 5
    assert sum(entry["mark"] for entry in seen(namespace).values()) == 5


def test_labels_that_a_rule_sets_after_the_plan_are_kept(table: Table, namespace: Namespace) -> None:
    """The request contains only the named labels, with a mask, and not all labels that were read."""
    namespace.firewall.use_labels()
    fill(table, udp(1, labels=[1]))
    planned = parse_wanted({"labels_add": [5], "labels_remove": [1]}).plan(next(table.dump()))
    table.update({**from_document(udp(1)), "labels": 1 << 1 | 1 << 100})
    table.update(planned.request)
    assert seen(namespace)[1]["labels"] == [5, 100]
