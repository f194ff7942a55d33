# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules receive entries in the collection's usual form, and no name from a host becomes a template."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import Environment

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.overrun import Resync
from ansible_collections.netops.conntrack.plugins.module_utils.client.events.subscription import Event
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.payloads import (
    document_of,
    neutralize_templates,
)
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.streams import EventLoss
from ansible_collections.netops.conntrack.tests.unit.support.strategies import live_entries

JINJA = Environment(keep_trailing_newline=True)


@given(live_entries())
def test_entry_has_the_usual_form(entry: Any) -> None:
    document = document_of(Event("update", entry, by_update=True), LabelMap())
    assert document == {"type": "update", "entry": to_document(entry), "missed": False, "by_update": True}
    document = document_of(Event("update", entry, by_update=True, port_id=4711), LabelMap())
    assert document.pop("port_id") == 4711
    assert document == document_of(Event("update", entry, by_update=True), LabelMap())


@given(st.text(alphabet="{}%# jinja2:a"))
@example("{{{ 1 }}}")
@example("{%{{1}}")
@example("#jinja2:variable_start_string:'['")
def test_text_is_never_a_template(text: str) -> None:
    shown = neutralize_templates(text)
    assert JINJA.from_string(shown).render() == shown
    assert not shown.startswith("#jinja2:")
    assert shown.replace(" ", "") == text.replace(" ", "")


def test_names_in_every_place_are_neutralized() -> None:
    labels = LabelMap({"{{lookup('pipe','id')}}": 3})
    ends = {"source": "10.0.0.1", "destination": "10.0.0.9", "source_port": 1, "destination_port": 2}
    entry = from_document({"protocol": "tcp", "original": ends, "helper": "{%set_x%}"})
    entry.update({"labels": 1 << 3, "security_context": "{#c#}"})
    shown = document_of(Event("new", entry), labels)["entry"]
    assert shown["labels"] == ["{ {lookup('pipe','id')}}"]
    assert shown["helper"] == "{ %set_x%}"
    assert shown["security_context"] == "{ #c#}"
    expected = document_of(Event("expectation_new", {"helper": "{{x}}"}), labels)
    assert expected == {"type": "expectation_new", "expectation": {"helper": "{ {x}}"}}
    assert document_of(Event("expectation_new", {}, port_id=5), labels)["port_id"] == 5


@pytest.mark.parametrize(
    ("loss", "document"),
    [
        (EventLoss("expect", 2), {"type": "overrun", "table": "expect", "overruns": 2}),
        (
            EventLoss("conntrack", 1, Resync(5, 0, 3)),
            {
                "type": "overrun",
                "table": "conntrack",
                "overruns": 1,
                "resync": {"new": 5, "update": 0, "destroy": 3},
            },
        ),
    ],
)
def test_contents_of_a_loss(loss: EventLoss, document: dict[str, Any]) -> None:
    assert document_of(loss, LabelMap()) == document
