# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources of flows for the inventory: the table of this machine, that of a namespace, or snapshots."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import recorded, requested_match
from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import ENTRIES, Snapshot
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk import records
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue, NotPermitted, quoted
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import namespace
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.flow_hosts import SIDES, Endpoints

Options = Mapping[str, Any]

_WILD = ("*", "?", "[")


def endpoints_of(options: Options, folder: str) -> Endpoints:
    """The endpoints for the options of the inventory. Paths in options are relative to `folder`.

    Raises `ConntrackError`.
    """
    for name in ("max_hosts", "max_listed"):
        if options[name] < 0:
            raise InvalidValue(name, f"{options[name]} is negative; write 0 or more")
    found = Endpoints(
        SIDES if options["side"] == "both" else (options["side"],),
        options["addresses"],
        options["separate_by"],
        options["max_hosts"],
        options["max_listed"],
    )
    if options["snapshots"] is None:
        _read_table(options, folder, found)
        return found
    for other in ("netns", "gateway"):
        if options[other] is not None:
            cure = "write one of them" if other == "netns" else "write a name beside the path of each snapshot"
            raise InvalidValue(other, f"snapshots is set, too; {cure}")
    for saved in _snapshots(options["snapshots"], folder):
        _read_snapshot(saved, options, folder, found)
    return found


def _label_map(options: Options, folder: str) -> LabelMap | None:
    path = options["label_map"]
    return None if path is None else LabelMap.read(_below(folder, path))


def _below(folder: str, path: str) -> str:
    return os.path.join(folder, os.path.expanduser(path))


# a table


def _read_table(options: Options, folder: str, found: Endpoints) -> None:
    name = options["netns"]
    if name is None:
        _scan(options, folder, options["gateway"] or os.uname().nodename, found)
        return

    def work() -> None:
        namespace.enter_named(name)
        _scan(options, folder, options["gateway"] or name, found)

    namespace.run_in_thread(work)


def _scan(options: Options, folder: str, gateway: str, found: Endpoints) -> None:
    labels = _label_map(options, folder) or LabelMap.read()
    match = recorded(requested_match(dict(options), labels), "match or except")
    found.set_source(gateway, labels)
    try:
        with Table() as table:
            table.scan(found, match.where)
        found.finish()
    except NotPermitted as error:
        raise error.with_hint(
            "This needs CAP_NET_ADMIN in the user namespace that owns the network namespace: run as root, or read a "
            "snapshot instead (snapshots)"
        ) from None


# snapshots


class _Saved(NamedTuple):
    """A snapshot: the key of its option, its path, and the name of the gateway, or None for that in the snapshot."""

    key: str
    path: str
    name: str | None


def _snapshots(given: Any, folder: str) -> Iterator[_Saved]:
    if not given:
        raise InvalidValue("snapshots", "an empty list; name a file, or leave it out to read a table")
    for place, item in enumerate(given):
        key = f"snapshots[{place}]"
        about = {"path": item} if isinstance(item, str) else item
        if not isinstance(about, Mapping) or set(about) - {"path", "name"}:
            raise InvalidValue(key, f"{quoted(item)} is not a snapshot; write a path, or a dictionary of path and name")
        for name in ("path", "name"):
            value = about.get(name, "" if name == "path" else None)
            if value is not None and not (isinstance(value, str) and value):
                raise InvalidValue(f"{key}.{name}", f"{quoted(value)} is not a valid value; write text")
        path = _below(folder, about["path"])
        paths = sorted(glob.glob(path)) if any(sign in path for sign in _WILD) and not os.path.exists(path) else [path]
        if not paths:
            raise InvalidValue(key, f"{path} does not exist; write the path of a snapshot")
        for one in paths:
            yield _Saved(key, one, about.get("name"))


def _read_snapshot(saved: _Saved, options: Options, folder: str, found: Endpoints) -> None:
    try:
        snapshot = Snapshot(saved.path)
    except InvalidValue as fault:
        raise InvalidValue(saved.key, fault.problem) from None
    with snapshot:
        header = snapshot.header
        labels = _label_map(options, folder) or LabelMap(header.labels, f"the snapshot {saved.path}")
        match = requested_match(dict(options), labels)
        found.set_source(saved.name or header.host, labels)
        for entry in _entries(snapshot, saved):
            if match(entry):
                found.add(entry)


def _entries(snapshot: Snapshot, saved: _Saved) -> Iterator[Entry]:
    """The entries of a snapshot. Some thousand are read ahead."""
    rows = ((block.keys, row) for block in snapshot.blocks(ENTRIES) for row in block.rows)
    try:
        yield from records.entries().each(rows)
    except InvalidValue as fault:
        problem = f"{saved.path} has an invalid entry ({fault}); use another copy of it"
        raise InvalidValue(saved.key, problem) from None
