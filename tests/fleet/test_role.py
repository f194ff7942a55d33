# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the role gateway in a play, with a namespace as the gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Namespace
from tests.plays import Controller

FLOW = "-p udp -s 10.1.0.2 -d 192.0.2.53 --sport {} --dport 53 -t 600"
ENTRY = {
    "protocol": "udp",
    "original": {"source": "10.1.0.2", "destination": "192.0.2.53", "source_port": 9, "destination_port": 53},
    "timeout": 600,
}
DECLARED: dict[str, Any] = {
    "settings": {"accounting": True},
    "absent": [{"source_port": 4}],
    "entries": {"declared": [ENTRY]},
}


@pytest.fixture
def gateway(namespace: Namespace) -> Namespace:
    """A gateway with one entry that must not exist, and one that is not declared."""
    for port in (3, 4):
        namespace.conntrack("-I", *FLOW.format(port).split())
    return namespace


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    """A playbook with the role, and a file with the declaration in the folder `files` beside it."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files/gateway.json").write_text(json.dumps(DECLARED))
    playbook = tmp_path / "site.yml"
    play = {"name": "Gateways", "hosts": "all", "gather_facts": False, "roles": ["netops.conntrack.gateway"]}
    playbook.write_text(json.dumps([play]))
    return playbook


def ports(gateway: Namespace) -> list[int]:
    return sorted(entry["original"]["source_port"] for entry in gateway.table())


def is_changed(printed: str) -> bool:
    found = re.search(r"^gateway +: ok=\d+ +changed=(\d) .*failed=0", printed, re.MULTILINE)
    assert found, printed
    return found[1] == "1"


def test_the_role_makes_the_predicted_changes_once(gateway: Namespace, playbook: Path, tmp_path: Path) -> None:
    """The second run takes the same declaration from a file."""
    controller = Controller(tmp_path)
    host = {"gateway": {"ansible_netns_name": gateway.path}}
    before = gateway.sysctl("nf_conntrack_acct")
    status, printed = controller.play(playbook, host, "--check", "--diff", gateway_conntrack_config=DECLARED)
    assert (status, is_changed(printed)) == (0, True)
    assert "-udp 10.1.0.2:4 -> 192.0.2.53:53" in printed
    assert '+    "udp 10.1.0.2:9 -> 192.0.2.53:53": {' in printed
    assert (ports(gateway), gateway.sysctl("nf_conntrack_acct")) == ([3, 4], before)
    assert "Gathering Facts" not in printed

    status, printed = controller.play(playbook, host, gateway_conntrack_config=DECLARED)
    assert (status, is_changed(printed)) == (0, True)
    assert (ports(gateway), gateway.sysctl("nf_conntrack_acct")) == ([3, 9], "1")

    status, printed = controller.play(playbook, host, gateway_conntrack_src="gateway.json")
    assert (status, is_changed(printed)) == (0, False)


def test_errors_are_reported_in_one_sentence_and_nothing_is_changed(
    gateway: Namespace, playbook: Path, tmp_path: Path
) -> None:
    """Each host is the same gateway with another error in its variables."""
    refused: dict[str, tuple[dict[str, Any], str]] = {
        "key": ({"config": {**DECLARED, "setings": {}}}, "setings: no such key (did you mean settings?). Nothing was"),
        "missing": ({}, "gateway_conntrack_config or gateway_conntrack_src: is required. Nothing was changed."),
        "both": ({"config": DECLARED, "src": "gateway.json"}, "gateway_conntrack_src: only one of them can be set; "),
        "name": ({"config": DECLARED, "lable_map": "x"}, "gateway_conntrack_lable_map: the role netops.conntrack"),
        "type": ({"config": DECLARED, "report_limit": "few"}, "'gateway_conntrack_report_limit' is of type "),
    }
    hosts = {
        name: {
            "ansible_netns_name": gateway.path,
            **{f"gateway_conntrack_{option}": value for option, value in variables.items()},
        }
        for name, (variables, _message) in refused.items()
    }
    _status, printed = Controller(tmp_path).play(playbook, hosts)
    for name, (_variables, message) in refused.items():
        failed = re.search(rf"^fatal: \[{name}\]: FAILED! => (.*)$", printed, re.MULTILINE)
        assert failed, name
        assert message in json.loads(failed[1])["msg"]
    assert ports(gateway) == [3, 4]
