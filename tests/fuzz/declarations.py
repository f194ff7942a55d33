# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files in YAML, JSON and JSON lines: matches, entries, and declarations for a gateway."""

from __future__ import annotations

import json
from typing import Any

import yaml

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.config import read_declaration
from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.entries import parse_entries
from ansible_collections.netops.conntrack.plugins.module_utils._source import file
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from ansible_collections.netops.conntrack.tests.fuzz.guard import check_message, named

LABELS = LabelMap({"voip": 5, "bulk": 77})
UDP = {
    "protocol": "udp",
    "original": {"source": "10.0.0.1", "destination": "192.0.2.1", "source_port": 4000, "destination_port": 53},
}
ENTRY = from_document(UDP)

CONFIG = {
    "settings": {"max": 262144, "accounting": True, "timeouts": {"tcp_established": 86400, "udp": 30}},
    "timeout_policies": [{"name": "long", "protocol": "udp", "timeouts": {"unreplied": 60, "replied": 600}}],
    "absent": [{"protocol": "udp", "destination_port": 53, "except": {"source": "10.0.0.0/8"}}],
    "entries": {
        "declared": [
            {
                "protocol": "tcp",
                "zone": 5,
                "original": {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1, "destination_port": 2},
                "nat": {"source": {"address": "192.0.2.1-192.0.2.9", "port": "1000-2000"}},
                "timeout": 600,
                "mark": "0x1/0xff",
                "labels": ["voip", 3],
                "status": ["seen_reply", "assured"],
                "tcp": {"state": "established", "original": {"window_scale": 7, "flags": ["sack_permitted"]}},
            }
        ],
        "purge": True,
        "scope": {"zone": 5},
        "timeout_min": 60,
    },
    "expectations": [
        {
            "tuple": {"source": "10.1.0.2", "destination": "192.0.2.21", "protocol": "tcp", "destination_port": 2000},
            "master": {
                "source": "10.1.0.2",
                "destination": "192.0.2.21",
                "source_port": 1400,
                "destination_port": 21,
            },
            "helper": "ftp",
        }
    ],
}
MATCHES = [
    {"protocol": ["tcp", "udp"], "source": "10.0.0.0/8", "port": "1-1024", "mark": "0x1/0xff", "age_above": 60},
    {"state": "established", "nat": "any", "status_not": ["assured"], "labels": ["voip"], "except": {"zone": [1, 2]}},
]


def run(data: bytes) -> None:
    """Check the modules with a file, and with options of the same content."""
    seen: list[Any] = []
    for name in ("a", "a.json", "a.jsonl", "a.yml"):
        with named(file.SourceFault):
            documents = file.parse(data, name)
            if not any(documents == other for other in seen):
                seen.append(documents)
                _check(documents)
    with named(InvalidValue):
        parse_match(data.decode("utf-8", "surrogateescape"), LABELS)


def _check(documents: list[Any]) -> None:
    with named(file.SourceFault):
        json.dumps(file.config_in(documents, "a")).encode()
    with named(InvalidValue):
        entries = parse_entries(file.entries_in(documents, "a"), LABELS)
        json.dumps([to_document(entry, LABELS) for entry in entries]).encode()
    for document in documents[:3]:
        _check_one(document)
        for item in document[:3] if isinstance(document, list) else ():
            _check_one(item)


def _check_one(document: Any) -> None:
    with named(InvalidValue):
        match = parse_match(document, LABELS)
        match(ENTRY)
    with named(InvalidValue):
        expectation.parse_match(document, LABELS)
    with named(InvalidValue):
        json.dumps(formats.to_document(formats.from_document(document, formats.Names()))).encode()
    _declaration, faults = read_declaration(document, LABELS)
    check_message(str(faults))


def samples() -> dict[str, bytes]:
    """Return declarations as users write them."""
    anchored = (
        "- &a {protocol: udp, mark: 1}\n- {<<: *a, zone: 2, original: &b {source: 10.0.0.1}}\n- *a\n- {reply: *b}\n"
    )
    found = {
        "config_yaml": yaml.safe_dump(CONFIG, sort_keys=False),
        "config_json": json.dumps(CONFIG),
        "entries_yaml": yaml.safe_dump([UDP, CONFIG["entries"]["declared"][0]], sort_keys=False),  # type: ignore[index]
        "entries_jsonl": f"{json.dumps(UDP)}\n{json.dumps(UDP)}\n",
        "match_json": json.dumps(MATCHES),
        "match_yaml": yaml.safe_dump(MATCHES[1]),
        "expectation_json": json.dumps(CONFIG["expectations"][0]),  # type: ignore[index]
        "anchors_yaml": anchored,
        "scalars_yaml": "\ufeff--- {a: 0x10, b: 1:2:3, c: 1e3, d: .inf, e: 2030-01-31, f: 'x', g: ~}\n--- [1, 2]\n",
    }
    return {name: written.encode() for name, written in found.items()}
