# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Call the filters as a template does."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

PREFIX = "ansible_collections.netops.conntrack.plugins.filter."
to_conntrack = importlib.import_module(PREFIX + "to_conntrack").to_conntrack
from_conntrack = importlib.import_module(PREFIX + "from_conntrack").from_conntrack

ENTRY = {
    "family": "ipv4",
    "protocol": "udp",
    "original": {"source": "10.0.0.1", "destination": "192.0.2.1", "source_port": 4000, "destination_port": 53},
    "reply": {"source": "192.0.2.1", "destination": "10.0.0.1", "source_port": 53, "destination_port": 4000},
    "status": ["seen_reply"],
    "timeout": 29,
    "mark": 0,
    "labels": ["voice", 5],
}
LINE = (
    "udp      17 29 src=10.0.0.1 dst=192.0.2.1 sport=4000 dport=53 "
    "src=192.0.2.1 dst=10.0.0.1 sport=53 dport=4000 mark=0"
)


def without_labels(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "labels"}


def test_round_trip() -> None:
    assert to_conntrack([ENTRY]) == LINE + "\n"
    assert from_conntrack(LINE) == [without_labels(ENTRY)]
    assert from_conntrack([LINE, "", LINE]) == [without_labels(ENTRY)] * 2


@pytest.mark.parametrize("output", ["extended,labels", "xml,labels", "json"])
def test_names_of_labels_are_kept(output: str) -> None:
    (read,) = from_conntrack(to_conntrack([ENTRY], output))
    assert set(read.pop("labels")) == {"voice", 5}
    assert read == without_labels(ENTRY)


def test_a_label_map(tmp_path: Path) -> None:
    (tmp_path / "connlabel.conf").write_text("5 bulk\n9 voice\n")
    path = str(tmp_path / "connlabel.conf")
    assert to_conntrack([ENTRY], "labels", label_map=path).endswith(" labels=bulk,voice\n")
    assert from_conntrack(LINE + " labels=5,9", label_map=path)[0]["labels"] == ["bulk", "voice"]
    with pytest.raises(AnsibleFilterError, match="label_map: .*No such file"):
        to_conntrack([ENTRY], label_map=path + "x")


def types_of(value: Any) -> set[type]:
    if isinstance(value, dict):
        return {type(value)}.union(*(types_of(item) for pair in value.items() for item in pair))
    if isinstance(value, list):
        return {type(value)}.union(*map(types_of, value))
    return {type(value)}


def test_tagged_values() -> None:
    """Values of a play carry tags; the filters return plain values."""
    from ansible._internal._datatag._tags import Origin, TrustedAsTemplate

    def tagged(value: Any) -> Any:
        if isinstance(value, dict):
            return {tagged(key): tagged(item) for key, item in value.items()}
        if isinstance(value, list):
            return [tagged(item) for item in value]
        return Origin(path="/play.yml").tag(TrustedAsTemplate().tag(value) if isinstance(value, str) else value)

    assert to_conntrack(tagged([ENTRY]), tagged("text")) == LINE + "\n"
    assert types_of(to_conntrack(tagged([ENTRY]), tagged("json"))) == {str}
    read = from_conntrack(tagged(LINE), tagged("text"))
    assert read == [without_labels(ENTRY)]
    assert types_of(read) == {dict, list, str, int}


def test_in_a_template() -> None:
    """Ansible finds the filters, and reports an invalid text in one sentence."""
    tree = Path(importlib.import_module(PREFIX + "to_conntrack").__file__ or "").parents[5]
    back_again = "netops.conntrack.from_conntrack | netops.conntrack.to_conntrack('extended')"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", "ansible.builtin.debug"),
            *("-a", "msg={{ text | " + back_again + " }}", "-e", json.dumps({"text": LINE})),
        ],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tree), "ANSIBLE_LOCALHOST_WARNING": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'"msg": "ipv4     2 {LINE}\\n"' in done.stdout


def test_json_is_a_list() -> None:
    assert json.loads(to_conntrack([ENTRY], "json"))[0]["original"] == ENTRY["original"]


@pytest.mark.parametrize(
    ("entries", "output", "fault"),
    [
        ("text", "text", "takes a list of entries, not str"),
        (ENTRY, "text", "takes a list of entries, not dict"),
        (None, "text", "takes a list of entries, not NoneType"),
        ([ENTRY, {}], "text", "entry 2.protocol: is missing"),
        ([ENTRY, "x"], "text", "entry 2: 'x' is no"),
        ([{**ENTRY, "timeout": datetime.timedelta(1)}], "text", "entry 1.timeout"),
        ([{**ENTRY, "labels": ["a,b"]}], "text", "entry 1.labels: 'a,b' is not a label"),
        ([ENTRY], "yaml", "output: 'yaml' does not go with text; write one of"),
        ([ENTRY], "save,id", "output: 'id' does not go with save; write one of"),
        ([ENTRY], None, "output"),
        ([ENTRY], ["text"], "output"),
    ],
)
def test_invalid_entries_and_outputs_are_refused(entries: Any, output: Any, fault: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        to_conntrack(entries, output)
    assert str(caught.value).startswith("to_conntrack")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "form", "fault"),
    [
        (None, None, "takes a text or its lines, not NoneType"),
        ([1], None, "takes a text or its lines, not list"),
        ({"a": 1}, None, "takes a text or its lines, not dict"),
        (LINE + "\nhello", None, "line 2: is not a line of conntrack -L"),
        (LINE, "save", "line 1: is not a line of conntrack -o save"),
        (LINE, "yaml", "form: 'yaml' is not an output format"),
        (LINE, ["text"], "form"),
        ("<x>", None, "flow 1: <x> has no layer4"),
        ("<x></y>", None, "line 1: is not valid XML"),
        ("[", None, "line 1"),
        ("[1]", "json", "entry 1: 1 is no"),
    ],
)
def test_invalid_texts_are_refused(raw: Any, form: Any, fault: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        from_conntrack(raw, form)
    assert str(caught.value).startswith("from_conntrack")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(importlib.import_module(PREFIX + "from_conntrack").display, "warning", messages.append)
    return messages


def test_skipped_words_are_counted(warnings: list[str]) -> None:
    assert (
        from_conntrack([LINE + " [FASTNAT] nmark=0", LINE + " nmark=1", "hello"], unknown="skip")
        == [without_labels(ENTRY)] * 2
    )
    assert warnings == [
        "from_conntrack skipped, with the number of times: nmark (2), [FASTNAT] (1), lines without an entry (1)"
    ]
    warnings.clear()
    from_conntrack([f"{LINE} word{number}=1" for number in range(12)], unknown="skip")
    assert warnings[0].endswith("word9 (1), and 2 others")


def test_kept_words_can_be_declared(warnings: list[str]) -> None:
    (kept,) = from_conntrack(LINE + " [FASTNAT] nmark=0", unknown="keep")
    assert kept["extra"] == {"[FASTNAT]": "", "nmark": "30"}
    assert to_conntrack([kept]) == LINE + "\n"
    assert warnings == []


def test_lost_events(warnings: list[str]) -> None:
    raw = [LINE, "WARNING: We have hit ENOBUFS! We are losing events.", LINE]
    with pytest.raises(AnsibleFilterError, match=r"line 2: conntrack lost events \(ENOBUFS\)"):
        from_conntrack(raw)
    assert len(from_conntrack(raw, ignore_gaps=True)) == 2
    assert warnings == ["from_conntrack: the list is incomplete, conntrack reports lost events or failures: 1"]
    with pytest.raises(AnsibleFilterError, match="ignore_gaps: 'false' is not a boolean"):
        from_conntrack(raw, ignore_gaps="false")


def test_expectations() -> None:
    line = (
        "300 proto=6 src=10.1.0.2 dst=192.0.2.21 sport=0 dport=20000 mask-src=255.255.255.255 "
        "mask-dst=255.255.255.255 sport=0 dport=65535 master-src=10.1.0.2 master-dst=192.0.2.21 sport=1400 dport=21 "
        "class=0 helper=ftp"
    )
    found = from_conntrack(line)
    assert found[0]["tuple"]["destination_port"] == 20000
    for output in ("text", "xml", "save", "json"):
        assert from_conntrack(to_conntrack(found, output))[0]["tuple"] == found[0]["tuple"]
    assert to_conntrack(found) == line + "\n"
    with pytest.raises(AnsibleFilterError, match="to_conntrack: the list has both entries and expectations"):
        to_conntrack([ENTRY, *found])
