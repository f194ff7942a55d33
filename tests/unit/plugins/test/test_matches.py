# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Call the test plugin as a template does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given

from ansible_collections.netops.conntrack.plugins.module_utils.client.codec.types import STATUS_BITS
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import __file__, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.test.matches import matches
from ansible_collections.netops.conntrack.tests.unit.support.strategies import NOW, live_entries
from ansible_collections.netops.conntrack.tests.unit.support.strategies import matches as some_matches

#: The status that the kernel reports for an entry with such a reply.
IS_TRANSLATED = STATUS_BITS["src_nat"] | STATUS_BITS["dst_nat"]
ENTRY: dict[str, Any] = {
    "family": "ipv4",
    "protocol": "tcp",
    "original": {"source": "10.0.0.1", "destination": "192.0.2.1", "source_port": 4000, "destination_port": 443},
    "reply": {"source": "10.20.0.5", "destination": "10.0.0.1", "source_port": 8443, "destination_port": 4000},
    "status": ["seen_reply", "assured", "confirmed", "dst_nat", "dst_nat_done"],
    "tcp": {"state": "established"},
    "timeout": 29,
    "mark": 0x12,
    "labels": [5],
}


@given(some_matches(), live_entries())
def test_result_agrees_with_the_modules(match: Any, entry: Any) -> None:
    entry = {**entry, "status": entry.get("status", 0) | IS_TRANSLATED}
    with mock.patch("time.time_ns", return_value=NOW):
        try:
            found = parse_match(match)(entry)
        except InvalidValue as fault:
            with pytest.raises(AnsibleFilterError, match=re.escape(str(fault))):
                matches(to_document(entry), match)
        else:
            assert matches(to_document(entry), match) is found


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ({"source": "10.0.0.0/24", "destination_port": "https", "nat": "destination"}, True),
        ({"reply_source": "10.20.0.5", "state": "established", "mark": "0x10/0xf0"}, True),
        ({"source": "10.0.0.0/24", "except": {"labels": [5]}}, False),
        ([{"source": "10.0.1.0/24"}, {"labels": "bulk"}], True),
        ([{"source": "10.0.1.0/24"}, {"labels_not": "bulk"}], False),
    ],
)
def test_single_match_and_list_of_matches(tmp_path: Path, match: Any, holds: bool) -> None:
    (tmp_path / "connlabel.conf").write_text("5 bulk\n9 voice\n")
    assert matches(ENTRY, match, label_map=str(tmp_path / "connlabel.conf")) is holds


@pytest.mark.parametrize(
    ("entry", "match", "fault"),
    [
        ("text", {"protocol": "tcp"}, "matches: 'text' is no"),
        ({}, {"protocol": "tcp"}, "matches: protocol: is missing"),
        (ENTRY, None, "matches: match: None is not a match"),
        (ENTRY, [], "matches: match: an empty list matches nothing"),
        (ENTRY, {}, "matches: match: specifies nothing, so it would match everything"),
        (ENTRY, {"sauce": "10.0.0.1"}, "matches: match.sauce: no such key (did you mean source?)"),
        (ENTRY, {"source": None}, "matches: match.source: is null; write a value"),
        (ENTRY, {"bytes_above": 5}, "matches: "),
        (ENTRY, {"labels": "voice"}, "matches: match.labels"),
        ({**ENTRY, "labels": ["voice"]}, {"protocol": "tcp"}, "matches: labels"),
    ],
)
def test_invalid_input_is_refused(tmp_path: Path, entry: Any, match: Any, fault: str) -> None:
    """The plugin reports one sentence, and never returns a result."""
    (tmp_path / "connlabel.conf").write_text("5 bulk\n")
    with pytest.raises(AnsibleFilterError) as caught:
        matches(entry, match, label_map=str(tmp_path / "connlabel.conf"))
    assert str(caught.value).startswith(fault)
    assert "\n" not in str(caught.value)


def test_in_a_template() -> None:
    tree = Path(__file__).parents[6]
    old = {"reply_source": "10.20.0.0/24", "state": "established"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", "ansible.builtin.debug"),
            *("-a", "msg={{ flows | select('netops.conntrack.matches', old) | map(attribute='original.source') }}"),
            *("-e", json.dumps({"flows": [{**ENTRY, "tcp": {"state": "close"}}, ENTRY], "old": old})),
        ],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tree), "ANSIBLE_LOCALHOST_WARNING": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.partition("=>")[2])["msg"] == ["10.0.0.1"]
