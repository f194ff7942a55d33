# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that damaged and malicious snapshots are read or refused with the key; `make fuzz` finds more cases."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from ansible_collections.netops.conntrack.tests.fuzz.guard import limited
from ansible_collections.netops.conntrack.tests.fuzz.mutations import mutated
from ansible_collections.netops.conntrack.tests.fuzz.targets import TARGETS
from ansible_collections.netops.conntrack.tests.profiles import examples

TARGET = TARGETS["snapshots"]


@pytest.mark.parametrize(
    "path", [*TARGET.inputs(), *TARGET.fixed()], ids=lambda path: f"{path.parent.parent.name}-{path.stem}"
)
def test_known_inputs_are_handled(path: Path) -> None:
    with limited():
        TARGET.run(path.read_bytes())


def test_the_corpus_has_a_file_for_each_sample() -> None:
    """Run `make fuzz FUZZ=--samples` to write the files."""
    assert {path.stem for path in TARGET.inputs()} == set(TARGET.samples())


@examples(200)
@given(mutated([path.read_bytes() for path in TARGET.inputs()]))
def test_a_mutated_snapshot_is_read_or_refused(data: bytes) -> None:
    with limited():
        TARGET.run(data)
