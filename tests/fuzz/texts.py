# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Output of conntrack: lists, events, commands and XML, of entries and of expectations."""

from __future__ import annotations

import json
from typing import Sequence

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.text import formats
from ansible_collections.netops.conntrack.tests.fuzz.guard import Violation, check_message, named
from ansible_collections.netops.conntrack.tests.unit.support import corpus

NOW = 1_900_000_000
_OUTPUTS = ("text,id,ktimestamp,labels", "save,labels", "xml,ktimestamp,labels", "json")

_EXPECTATION = {
    "tuple": {
        "source": "10.1.0.2",
        "destination": "192.0.2.21",
        "protocol": "tcp",
        "source_port": 0,
        "destination_port": 20000,
    },
    "master": {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21},
    "timeout": 300,
    "helper": "ftp",
}


def run_text(data: bytes) -> None:
    """Check lists, events, commands and JSON."""
    _run(data, (None, "text", "save", "json"))


def run_xml(data: bytes) -> None:
    """Check XML."""
    _run(data, (None, "xml"))


def _run(data: bytes, forms: Sequence[str | None]) -> None:
    raw = data.decode("utf-8", "surrogateescape")
    for form in forms:
        for unknown in formats.UNKNOWN:
            with named(formats.Unreadable):
                _check(formats.examine(raw, form, formats.Names(), unknown, ignore_gaps=True))
        with named(formats.Unreadable):
            formats.examine(raw, form)


def _check(found: formats.Reading) -> None:
    """Show the entries, and write them in each format that can represent them."""
    for name in found.skipped:
        check_message(name)
    json.dumps([formats.to_document(entry) for entry in found.entries]).encode()
    for output in _OUTPUTS:
        with named(InvalidValue):
            formats.write(found.entries, output, now=NOW)


def _written(output: str) -> str:
    entries = []
    for sample in corpus.ANSWERS:
        entry = from_document({key: value for key, value in sample.document.items() if key not in ("extra", "nat")})
        try:
            formats.write([entry], output, now=NOW)
        except InvalidValue:
            continue
        entries.append(entry)
    return formats.write(entries[:3], output, now=NOW)


def text_samples() -> dict[str, bytes]:
    """Return texts as conntrack and the kernel print them."""
    listed = _written("text")
    extended = _written("extended,id,labels").replace(" use=", " [start=Mon Nov 23 12:30:14 2026] use=", 1)
    line = listed.splitlines()[0]
    events = f"[1795437970.380952]\t    [NEW] {line}\n[DESTROY] {line} [USERSPACE] portid=16652 progname=a b\n"
    lost = "WARNING: We have hit ENOBUFS! We are losing events.\n"
    found = {
        "list": listed,
        "extended": extended,
        "events": events + lost,
        "save": _written("save,labels"),
        "commands": f"# by hand\nsudo conntrack {_written('save').splitlines()[0]}\n--create --proto='udp'\n",
        "labels": line + " labels=a,b c,5 delta-time=8 secmark=0 zone=2\n",
        "json": _written("json"),
        "expect_list": formats.write([expectation.from_document(_EXPECTATION)], "text", now=NOW),
        "expect_save": formats.write([expectation.from_document(_EXPECTATION)], "save", now=NOW),
    }
    return {name: raw.encode() for name, raw in found.items()}


def xml_samples() -> dict[str, bytes]:
    """Return documents as conntrack prints them."""
    document = _written("xml,id,ktimestamp,labels")
    flow = next(line for line in document.splitlines() if line.startswith("<flow>"))
    found = {
        "list": document,
        "events": flow.replace("<flow>", '<flow type="new">') + f"\n{flow} [USERSPACE] portid=1 progname=a<b&c\n",
        "others": document.replace("<mark>", "<nmark>7</nmark><mark>") + "<x/>",
        "cut": document[: document.rfind("</flow>")],
        "expect": formats.write([expectation.from_document(_EXPECTATION)], "xml", now=NOW),
    }
    if "<flow" not in document:
        raise Violation("the sample has no flow")
    return {name: raw.encode() for name, raw in found.items()}
