# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's own programs, in each ansible-core, treat the contents of a snapshot as data and never as templates.

This test is not in tests/fleet, because trust depends on ansible-core, and the unit tests run with all its releases.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.file import ENTRIES, Header, Writer

CHECKOUT = Path(__file__).parents[4]

#: A playbook that uses a variable in every possible way.
PLAYBOOK = """
- hosts: all
  gather_facts: false
  connection: local
  vars:
    own: "{{ conntrack_labels[0] }}"
  tasks:
    - ansible.builtin.debug:
        msg: "{{ conntrack_labels }} {{ conntrack_gateways | first }} {{ own }} {{ composed }}"
    - ansible.builtin.set_fact:
        again: "{{ composed }}"
    - ansible.builtin.debug:
        var: again
    - ansible.builtin.debug:
        var: hostvars[inventory_hostname]
    - ansible.builtin.assert:
        that: conntrack_helpers == [wanted]
      vars:
        wanted: !unsafe "{{ 8191*8191 }}"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    tree = tmp_path / "ansible_collections/netops"
    tree.mkdir(parents=True)
    (tree / "conntrack").symlink_to(CHECKOUT)
    (tmp_path / "ansible.cfg").touch()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }


def ansible(program: str, *arguments: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-m", "ansible", program, *arguments]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_values_of_a_snapshot_are_never_templates(tmp_path: Path, environment: dict[str, str]) -> None:
    """Otherwise a user who names a label, a host or a helper on a gateway could run programs on the controller."""
    template = f"{{{{ lookup('pipe', 'touch {tmp_path}/run') }}}}"
    columns: dict[str, Any] = {
        "family": ["ipv4"],
        "protocol": ["udp"],
        "original.source": ["10.1.0.2"],
        "original.destination": ["10.9.0.9"],
        "original.source_port": [5],
        "original.destination_port": [53],
        "labels": [[5]],
        "helper": ["{{ 8191*8191 }}"],
    }
    with Writer(str(tmp_path / "gw1.gz"), Header(template, template, template, {template: 5})) as writer:
        writer.write(ENTRIES, columns)
    inventory, playbook = tmp_path / "flows.yml", tmp_path / "playbook.yml"
    inventory.write_text(
        "plugin: netops.conntrack.flows\n"
        "snapshots: [gw1.gz]\n"
        "strict: true\n"
        "compose: {composed: 'conntrack_labels[0]'}\n"
        "groups: {some: 'conntrack_labels[0] is string'}\n"
        "keyed_groups: [{prefix: label, key: conntrack_labels}, {prefix: again, key: composed}]\n"
        f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {tmp_path}/cache\n"
    )
    playbook.write_text(PLAYBOOK)

    listed = json.loads(ansible("inventory", "-i", str(inventory), "--list", environment=environment))
    variables = listed["_meta"]["hostvars"]["10.1.0.2"]
    untrusted = {"__ansible_unsafe": template}
    assert (variables["conntrack_labels"], variables["conntrack_gateways"]) == ([untrusted], [untrusted])
    assert variables["composed"] == untrusted
    assert str(8191 * 8191) not in json.dumps(listed)

    (tmp_path / "gw1.gz").unlink()  # from here on, the values come from the cache
    printed = ansible("playbook", "-i", str(inventory), str(playbook), environment=environment)
    assert "ok=5" in printed
    assert printed.count("lookup('pipe'") >= 5
    assert not (tmp_path / "run").exists()
