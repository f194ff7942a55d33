# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Declare many entries at once on the running kernel, and compare the table as conntrack(8) shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entries import (
    EntriesFailed,
    parse_entries,
    reconcile_all,
)
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.purge import purge_of
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.reconciler import Policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples
from tests.lab import Namespace

pytestmark = pytest.mark.every_kernel

MANY = 10_000


@pytest.fixture
def table(emptied_namespace: Namespace) -> Iterator[Table]:
    with emptied_namespace.entered(), Table() as table:
        yield table


def run(
    table: Table, documents: list[Any], check_mode: bool = False, scope: Any = None, **policy: Any
) -> dict[str, Any]:
    declared = parse_entries(documents)
    purge = None if scope is None else purge_of(table, parse_match(scope), declared)
    try:
        return reconcile_all(table, declared, Policy(**policy), LabelMap(), check_mode, purge)
    except EntriesFailed as failed:
        return failed.result


def flow(number: int, **keys: Any) -> dict[str, Any]:
    return {
        "protocol": "udp",
        "original": {
            "source": f"10.1.{number >> 8 & 255}.{number & 255}",
            "destination": "192.0.2.53",
            "source_port": 1024 + number,
            "destination_port": 53,
        },
        "timeout": 600,
        **keys,
    }


@pytest.mark.thorough
@pytest.mark.running_kernel_only
def test_ten_thousand_entries_are_created_once_and_updated(table: Table, emptied_namespace: Namespace) -> None:
    documents = [flow(number, mark=number) for number in range(MANY)]
    predicted = run(table, documents, check_mode=True)
    assert emptied_namespace.conntrack("-C").strip() == "0"
    done = run(table, documents)
    assert {**done, "diff": 0} == {**predicted, "diff": 0}
    assert done["counts"]["created"] == MANY
    assert emptied_namespace.conntrack("-C").strip() == str(MANY)
    assert len(emptied_namespace.conntrack("-L", "-m", "77").splitlines()) == 1
    again = run(table, documents)
    assert (again["changed"], again["counts"]["unchanged"]) == (False, MANY)
    documents[77]["mark"] = 0x10000
    changed = run(table, documents)
    assert changed["counts"] == {**again["counts"], "unchanged": MANY - 1, "updated": 1}
    assert emptied_namespace.conntrack("-L", "-m", "77") == ""
    assert run(table, documents, state="absent")["counts"]["deleted"] == MANY
    assert emptied_namespace.conntrack("-C").strip() == "0"


def test_purge_removes_only_undeclared_entries_in_scope(table: Table, emptied_namespace: Namespace) -> None:
    run(table, [flow(number, mark=number % 4) for number in range(400)])
    declared = [flow(number, mark=1) for number in range(0, 400, 10)]
    scope = {"mark": [1, 2]}
    predicted = run(table, declared, check_mode=True, scope=scope)
    done = run(table, declared, scope=scope)
    assert done["counts"] == predicted["counts"]
    # Every tenth entry is declared. Half of them have mark 2, half have mark 0, and none has mark 1.
    assert done["counts"] == {
        "created": 0, "updated": 40, "replaced": 0, "deleted": 200 - 20, "unchanged": 0, "failed": 0
    }  # fmt: skip
    assert done["diff"] == predicted["diff"]
    removed = [shown for name, shown in done["diff"]["before"].items() if name not in done["diff"]["after"]]
    assert len(removed) == 100
    assert {key for shown in removed for key in shown} == {"family", "protocol", "original"}
    listed = emptied_namespace.conntrack("-L")
    marks = re.findall(r"mark=(\d+)", listed)
    assert {mark: marks.count(mark) for mark in set(marks)} == {"1": 40, "0": 80, "3": 100}
    assert not run(table, declared, scope=scope)["changed"]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_gathered_entries_of_every_kind_are_unchanged(table: Table, family: str) -> None:
    documents = [sample.declared for sample in samples.samples(family) if sample.needs in ("", "helper")]
    done = run(table, documents)
    assert done["counts"]["created"] == len(documents), done["failed_entries"]
    gathered = [to_document(entry) for entry in table.dump()]
    assert len(gathered) == len(documents)
    assert run(table, gathered)["counts"]["unchanged"] == len(documents)


def test_error_explains_that_nat_has_no_unused_port(table: Table) -> None:
    nat = {"source": {"address": "203.0.113.1", "port": "4000-4001"}}
    assert run(table, [flow(number, nat=nat) for number in (1, 2)])["counts"]["created"] == 2
    (failed,) = run(table, [flow(3, nat=nat)])["failed_entries"]
    assert "EEXIST" in failed["msg"]
    assert "write a larger range" in failed["msg"]


def test_labels_without_a_rule_fail_and_create_no_entry(namespace: Namespace) -> None:
    with namespace.entered(), Table() as table:
        failed = run(table, [flow(0, labels=[3]), flow(1)])
    assert (failed["counts"]["created"], failed["counts"]["failed"]) == (1, 1)
    assert "Labels are kept only where a rule" in failed["failed_entries"][0]["msg"]
    assert namespace.conntrack("-C").strip() == "1"


ZONED: list[dict[str, Any]] = [{}, {"zone": 5}, {"original": {"zone": 5}}, {"reply": {"zone": 5}}]


def zoned(number: int, zone: dict[str, Any], **keys: Any) -> dict[str, Any]:
    original = flow(number)["original"]
    reply = {
        "source": original["destination"],
        "destination": original["source"],
        "source_port": original["destination_port"],
        "destination_port": original["source_port"],
    }
    whole = flow(number, reply=reply, **keys)
    return {**whole, **{key: {**whole[key], **more} if key in whole else more for key, more in zone.items()}}


@pytest.mark.parametrize("of_master", ZONED, ids=str)
@pytest.mark.parametrize("of_child", ZONED, ids=str)
def test_child_is_created_if_the_kernel_finds_its_master(
    table: Table, of_child: dict[str, Any], of_master: dict[str, Any]
) -> None:
    master = zoned(0, of_master)
    child = zoned(1, of_child, master={**flow(0)["original"], "protocol": "udp"})
    run(table, [master])
    refusals = list(table.create_declared([child]))
    accepted = refusals == [None]
    for error in table.delete_all(list(table.dump())):
        assert error is None
    predicted = run(table, [child, master], check_mode=True)
    done = run(table, [child, master])
    assert predicted["counts"]["created"] == done["counts"]["created"] == (2 if accepted else 1), refusals
