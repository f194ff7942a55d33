# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that damaged and malicious messages and texts are read or refused with the key; `make fuzz` finds more cases."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from ansible_collections.netops.conntrack.tests.fuzz import guard
from ansible_collections.netops.conntrack.tests.fuzz.mutations import mutated
from ansible_collections.netops.conntrack.tests.fuzz.targets import TARGETS, Target
from ansible_collections.netops.conntrack.tests.profiles import examples

MESSAGES, TEXT, XML = TARGETS["messages"], TARGETS["text"], TARGETS["xml"]


def contents(target: Target) -> list[bytes]:
    return [path.read_bytes() for path in target.inputs()]


@pytest.mark.parametrize(
    "path",
    [path for target in (MESSAGES, TEXT, XML) for path in (*target.inputs(), *target.fixed())],
    ids=lambda path: f"{path.parent.parent.name}-{path.parent.name}-{path.stem}",
)
def test_known_inputs_are_handled(path: Path) -> None:
    with guard.limited():
        TARGETS[path.parent.name].run(path.read_bytes())


@pytest.mark.parametrize("target", [MESSAGES, TEXT, XML], ids=lambda target: target.name)
def test_the_corpus_has_a_file_for_each_sample(target: Target) -> None:
    """Run `make fuzz FUZZ=--samples` to write the files."""
    assert {path.stem for path in target.inputs()} == set(target.samples())


@examples(300)
@given(mutated(contents(MESSAGES)))
def test_a_mutated_message_is_read_equally_or_refused(data: bytes) -> None:
    with guard.limited():
        MESSAGES.run(data)


@examples(150)
@given(mutated(contents(TEXT)))
def test_a_mutated_text_is_read_or_refused(data: bytes) -> None:
    with guard.limited():
        TEXT.run(data)


@examples(150)
@given(mutated(contents(XML)))
def test_a_mutated_document_of_xml_is_read_or_refused(data: bytes) -> None:
    with guard.limited():
        XML.run(data)


# the guard itself


def test_other_errors_are_findings() -> None:
    with pytest.raises(KeyError), guard.named(ValueError):
        raise KeyError("x")


@pytest.mark.parametrize("message", ["x" * 2001, "\x1b", "\udc80"])
def test_bad_messages_are_findings(message: str) -> None:
    with pytest.raises(guard.Violation), guard.named(ValueError):
        raise ValueError(message)


def loop_endlessly() -> None:
    while True:
        pass


def test_time_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "PROCESSOR_TIME", 0.05)
    with pytest.raises(guard.TooSlow), guard.limited():
        loop_endlessly()
    with pytest.raises(guard.TooSlow), guard.limited(seconds=0.05):
        time.sleep(60)


def test_memory_is_limited() -> None:
    with pytest.raises(MemoryError), guard.limited():
        bytes(guard.MEMORY + (64 << 20))


def test_layouts_that_differ_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.layout import MessageLayout

    entry = MessageLayout.entry

    def wrong(self: MessageLayout, message: bytes) -> Any:
        return {**entry(self, message), "mark": -1}

    monkeypatch.setattr(MessageLayout, "entry", wrong)
    with pytest.raises(guard.Violation, match="a layout and the general decoder differ"):
        MESSAGES.run((MESSAGES.corpus / "dump.bin").read_bytes())
