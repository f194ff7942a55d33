# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table that one kernel saved is restored on another kernel.

`make kernels` boots the oldest and the newest kernel a second time. The environment variable
`CONNTRACK_EXCHANGE_FROM` names the folder with the table that the other kernel saved. Without the variable, the table
comes from the running kernel.
"""

from __future__ import annotations

import base64
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.save import save
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import samples
from tests.features import lacks
from tests.lab import Namespace

from .test_snapshot import NO_LABELS, entries, fill, numbers, run, seen, untimed

pytestmark = pytest.mark.every_kernel

Document = dict[str, Any]

#: The folder in which to save the table for another kernel, and the folder with the tables of other kernels
TO, FROM = (os.environ.get(f"CONNTRACK_EXCHANGE_{name}") for name in ("TO", "FROM"))
#: Protocols that only some kernels track, by the capability that shows it
PROTOCOLS = {"dccp": "tracks_dccp", "udplite": "tracks_udplite"}


def save_everything(folder: Path) -> Path:
    """Save a table with entries of every kind, and the output of conntrack(8), in one JSON file."""
    with Namespace("here") as here, here.entered(), Table() as table:
        here.firewall.use_labels()
        fill(table)
        for family in samples.FAMILIES:
            for protocol, capability in PROTOCOLS.items():
                if not lacks(capability):
                    table.create(from_document(samples.flow(family, protocol, 77, 78, timeout=900)))
        shown, found = seen(here), untimed(entries(table))
        snapshot = folder / "snapshot.gz"
        save(table, str(snapshot), EVERYTHING, NO_LABELS, False)
    file = folder / f"{platform.release()}.json"
    content = {"snapshot": base64.b64encode(snapshot.read_bytes()).decode(), "shown": shown}
    file.write_text(json.dumps({"kernel": platform.release(), "entries": list(found.values()), **content}))
    snapshot.unlink()
    return file


@pytest.fixture(params=[None] if FROM is None else sorted(Path(FROM).glob("*.json")), ids=str)
def saved(request: pytest.FixtureRequest, root: None, tmp_path: Path) -> Document:
    file: Path = request.param or save_everything(tmp_path)
    content: Document = json.loads(file.read_text())
    (tmp_path / "table.gz").write_bytes(base64.b64decode(content["snapshot"]))
    return content


@pytest.fixture
def target(root: None) -> Iterator[Namespace]:
    with Namespace("target") as namespace:
        namespace.firewall.use_labels()
        yield namespace


def test_a_table_is_saved_for_another_kernel(root: None, tmp_path: Path) -> None:
    folder = tmp_path if TO is None else Path(TO)
    content = json.loads(save_everything(folder).read_text())
    assert len(content["entries"]) > 40
    assert {entry["protocol"] for entry in content["entries"]} >= {"tcp", "udp", "sctp", "gre", "icmp", "icmpv6"}


def is_refused(entry: Document) -> bool:
    """Return whether this kernel rejects the entry: without ports if it tracks the protocol, otherwise with ports."""
    capability = PROTOCOLS.get(entry.get("protocol", ""))
    return capability is not None and lacks(capability) == bool(entry["original"].get("source_port"))


def test_a_table_is_restored(saved: Document, target: Namespace, tmp_path: Path) -> None:
    """The module names each entry that this kernel rejects. All others are restored without a difference."""
    refused = [entry for entry in saved["entries"] if is_refused(entry)]
    wanted = [entry for entry in saved["entries"] if not is_refused(entry)]
    with target.entered(), Table() as table:
        done = run(table, tmp_path / "table.gz")
        assert numbers(done) == {"created": len(wanted)} | ({"failed": len(refused)} if refused else {})
        named = [failure["entry"]["protocol"] for failure in done["failed_entries"]]
        assert sorted(named) == sorted(entry["protocol"] for entry in refused)
        assert all(failure["msg"] for failure in done["failed_entries"])
        found = list(untimed(entries(table)).values())
        assert by_text(found) == by_text(wanted)
        again = run(table, tmp_path / "table.gz")
        assert numbers(again) == {"unchanged": len(wanted)} | ({"failed": len(refused)} if refused else {})
    shown = [line for line in saved["shown"] if not (line.startswith("{") and is_refused(json.loads(line)))]
    assert seen(target) == shown


def by_text(documents: list[Document]) -> list[str]:
    return sorted(json.dumps(document, sort_keys=True) for document in documents)
