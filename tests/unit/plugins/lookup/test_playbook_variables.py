# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the variables of a playbook as ansible-playbook sets them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PLAYS = """
- hosts: "{{{{ _conntrack.target_hosts }}}}"
  serial: "{{{{ _conntrack.batches | default(0) }}}}"
  gather_facts: false
  vars:
    _conntrack: "{{{{ lookup('netops.conntrack.playbook_variables', '{name}') }}}}"
  tasks:
    - ansible.builtin.debug:
        msg: "{{{{ _conntrack }}}}"
"""
MATCH = {"source": "{{ inventory_hostname }}"}


class Ended(NamedTuple):
    """The end of a run: its exit status, the variables of each host, and the whole output in one line."""

    status: int
    variables: dict[str, dict[str, Any]]
    printed: str


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Ended]:
    """Run a play with the hosts a and b that shows the variables of a playbook."""

    def run(name: str, *options: str, inventory: dict[str, Any] | None = None, **extra: Any) -> Ended:
        playbook = tmp_path / "playbook.yml"
        playbook.write_text(PLAYS.format(name=name))
        hosts = {"all": {"hosts": {"a": {}, "b": {}}, "vars": inventory or {}}}
        (tmp_path / "inventory.json").write_text(json.dumps(hosts))
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "inventory.json", "playbook.yml", *options]
            + ["--extra-vars", json.dumps(extra)],
            check=False,
            cwd=tmp_path,
            env={**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1", "PWD": "/nowhere"},
            capture_output=True,
            text=True,
        )
        found = re.findall(r"^ok: \[(.)\] => (\{\n.*?^\})", done.stdout, re.DOTALL | re.MULTILINE)
        variables = {host: json.loads(text)["msg"] for host, text in found}
        print(done.stdout, done.stderr)
        return Ended(done.returncode, variables, " ".join((done.stdout + done.stderr).split()))

    return run


def test_values_come_from_extra_variables_and_the_inventory(play: Callable[..., Ended], tmp_path: Path) -> None:
    """A relative path starts at the working directory of the process; the environment variable PWD has no effect."""
    ended = play(
        "apply",
        inventory={"conntrack_label_map": "/etc/{{ inventory_hostname }}.conf", "conntrack_exporter": "x"},
        target_hosts=["a", "b"],
        conntrack_src="here/gateway.yml",
        conntrack_report_limit="{{ omit }}",
        conntrack_batches="1",
    )
    assert (ended.status, ended.printed.count("PLAY [")) == (0, 2)
    assert ended.variables == {
        name: {
            "target_hosts": ["a", "b"],
            "src": str(tmp_path / "here/gateway.yml"),
            "label_map": f"/etc/{name}.conf",
            "batches": "1",
        }
        for name in "ab"
    }


def test_old_names_have_an_effect_only_as_extra_variables(play: Callable[..., Ended]) -> None:
    ended = play("flush", target_hosts="a", match=MATCH, limit=5, conntrack_limit=6, inventory={"except": MATCH})
    assert ended.status == 0
    assert ended.variables["a"]["match"] == {"source": "a"}
    assert ended.variables["a"]["limit"] == 6
    assert "except" not in ended.variables["a"]
    assert ended.printed.count("[DEPRECATION WARNING]: The variable match of the playbook netops.conntrack.flush") == 1
    assert "limit of the playbook netops.conntrack.flush is now named conntrack_limit. It is ignored" in ended.printed

    ended = play("flush", target_hosts="a", inventory={"match": MATCH, "max_share": 10})
    assert ended.status != 0
    assert (
        "conntrack_match or conntrack_all: is required; the variable match has no effect without the prefix."
        in ended.printed
    )
    assert "[WARNING]: max_share: has no effect in the inventory; use conntrack_max_share." in ended.printed
    assert "DEPRECATION" not in ended.printed


def test_names_and_hosts_are_checked_before_the_first_play(play: Callable[..., Ended]) -> None:
    ended = play("flush", target_hosts="c", conntrack_mtach=MATCH)
    assert ended.status != 0
    assert "failed: conntrack_mtach: the playbook flush has no such variable; use conntrack_match." in ended.printed
    assert "PLAY [" not in ended.printed


def test_a_pattern_that_matches_only_outside_the_limit_fails(play: Callable[..., Ended]) -> None:
    ended = play("flush", "--limit", "b", target_hosts="a", conntrack_all=True)
    assert ended.status != 0
    assert "target_hosts: 'a' matches no host of the inventory, or none within --limit." in ended.printed


def test_values_are_checked_before_a_host_is_contacted(play: Callable[..., Ended]) -> None:
    ended = play("drain", target_hosts="all", conntrack_match=MATCH, inventory={"conntrack_max_count": "many"})
    assert ended.status != 0
    assert "conntrack_max_count: 'many' is not valid; use an integer. Nothing was changed." in ended.printed
    assert not ended.variables


def test_old_names_in_vars_of_import_playbook_are_refused(play: Callable[..., Ended], tmp_path: Path) -> None:
    """They would have no effect, and a playbook without its match may remove too much."""
    assert play("flush", "--syntax-check").status == 0
    imports = [{"ansible.builtin.import_playbook": "playbook.yml", "vars": {"match": MATCH, "target_hosts": "a"}}]
    (tmp_path / "site.yml").write_text(json.dumps(imports))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "a,b", "site.yml"],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "match: is accepted only as an extra variable; use conntrack_match." in done.stderr
