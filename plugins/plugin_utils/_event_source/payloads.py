# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert events to documents for rules."""

from __future__ import annotations

import re
from typing import Any

from ...module_utils.client.entry.document import to_document
from ...module_utils.client.entry.labels import LabelMap
from ...module_utils.client.entry.nested import Document
from ...module_utils.client.events.subscription import ENTRY_GROUPS
from ...module_utils.client.expectation import expectation
from .streams import EventLoss, StreamItem

#: Text that starts a template: the delimiters of Jinja, and Ansible's header that sets other delimiters.
_OPENINGS = re.compile(r"\{(?=[{%#])|^#(?=jinja2:)")


def document_of(item: StreamItem, labels: LabelMap) -> Document:
    """The document for an event or a loss of events."""
    if isinstance(item, EventLoss):
        document: Document = {"type": "overrun", "table": item.table, "overruns": item.overruns}
        if item.resync is not None:
            document["resync"] = {kind: getattr(item.resync, kind) for kind in ENTRY_GROUPS}
        return document
    by_process = {"port_id": item.port_id} if item.port_id else {}
    if item.kind not in ENTRY_GROUPS:
        shown = neutralize_templates(expectation.to_document(item.entry))
        return {"type": item.kind, "expectation": shown, **by_process}
    return {
        "type": item.kind,
        "entry": neutralize_templates(to_document(item.entry, labels)),
        "missed": item.missed,
        "by_update": item.by_update,
        **by_process,
    }


def neutralize_templates(value: Any) -> Any:
    """The value without text that Jinja would evaluate as a template.

    ansible-rulebook writes the values that a rule passes on into a playbook, where Ansible evaluates templates. In
    untrusted names of labels, helpers and security contexts, a space separates the two characters of a delimiter.
    """
    if isinstance(value, str):
        return _OPENINGS.sub(r"\g<0> ", value)
    if isinstance(value, dict):
        return {key: neutralize_templates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [neutralize_templates(item) for item in value]
    return value
