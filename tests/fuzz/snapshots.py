# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshot files, unchanged and with a valid checksum."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import (
    ENTRIES,
    EXPECTATIONS,
    Header,
    Snapshot,
    Writer,
    check_place,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.bulk.records import (
    KEYS,
    creations,
    declarations,
    document_of,
    entries,
    records,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.tests.fuzz.guard import named
from ansible_collections.netops.conntrack.tests.unit.support import corpus

_KEYS = {ENTRIES: KEYS, EXPECTATIONS: {"family", "extra", *(row.key for row in expectation.EXPECTATION)}}


def run(data: bytes) -> None:
    """Check the steps that restore a file with conntrack_snapshot, up to the first request to the kernel."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "snapshot")
        for content in (data, sealed(data)):
            with open(path, "wb") as file:
                file.write(content)
            with named(InvalidValue):
                check_place(path)
            with named(InvalidValue), Snapshot(path) as snapshot:
                _read(snapshot)


def _read(snapshot: Snapshot) -> None:
    json.dumps([snapshot.header.as_result(), snapshot.header.as_line()]).encode()
    for of, known in _KEYS.items():
        if not snapshot.keys[of] <= known:
            return  # conntrack_snapshot refuses unknown keys by name
    rows = [(block.keys, row) for block in snapshot.blocks(ENTRIES) for row in block.rows]
    for work in (entries, declarations, creations):
        with named(InvalidValue):
            list(work().each(rows))
    for block in snapshot.blocks(EXPECTATIONS):
        for row in block.rows:
            with named(InvalidValue):
                expectation.from_document(document_of((block.keys, row)))


def sealed(data: bytes) -> bytes:
    """Return the same lines with valid counts and a valid checksum, as an attacker can write them."""
    first, _end, body = data.partition(b"\n")
    try:
        header = json.loads(first)
        counts = dict.fromkeys((ENTRIES, EXPECTATIONS), 0)
        of: Any = ""
        for line in body.split(b"\n")[:-1]:
            if line.startswith(b"{"):
                of = json.loads(line)["of"]
            else:
                counts[of] += 1
        header.update(counts, sha256="0" * 64)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return data
    line = json.dumps(header).encode() + b"\n"
    digest = hashlib.sha256(body + line).hexdigest()
    return line.replace(b"0" * 64, digest.encode()) + body


def samples() -> dict[str, bytes]:
    """Return a small snapshot, plain and compressed."""
    header = Header("gw1", "6.18.1", "2030-01-31T12:00:00Z", {"voip": 5})
    parsed = [
        from_document({key: value for key, value in sample.document.items() if key != "extra"})
        for sample in corpus.ANSWERS
    ]
    rows = [(tuple(entry), tuple(entry.values())) for entry in parsed if "reply.source" in entry][:4]
    expected = {"tuple.source": "10.1.0.2", "tuple.destination": "192.0.2.21", "tuple.protocol": "udp"}
    expected.update({"tuple.source_port": 0, "tuple.destination_port": 20000})
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "snapshot")
        with Writer(path, header) as writer:
            for columns in records(rows):
                writer.write(ENTRIES, columns, ("family", "protocol"))
            writer.write(EXPECTATIONS, {key: [value] for key, value in expected.items()})
        with open(path, "rb") as file:
            plain = file.read()
    short = plain[: plain.index(b"\n", plain.index(b"\n") + 1) + 1]
    return {
        "plain": plain,
        "short": short,
        "gzip": gzip.compress(plain, 0, mtime=0),
        "deflated": gzip.compress(plain, 9, mtime=0),
    }
