# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbook of the demo on the hosts of a lab, independent of the configuration of the user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
#: Seconds after which the play is considered hung.
TIMEOUT = 600.0


def run_playbook(namespaces: dict[str, str], variables: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Run playbooks/demo.yml with --diff on the host named gateway.

    :param namespaces: The path of the namespace of each host.
    :returns: The exit status of ansible-playbook, and the results that the play wrote, or an empty dictionary.
    """
    with tempfile.TemporaryDirectory(prefix="conntrack-demo-") as name:
        folder = Path(name)
        collections = folder / "collections/ansible_collections/netops"
        collections.mkdir(parents=True)
        (collections / "conntrack").symlink_to(CHECKOUT)
        (folder / "ansible.cfg").touch()
        (folder / "inventory.json").write_text(json.dumps(_inventory(namespaces)))
        variables = {"target_hosts": "gateway", "conntrack_report": str(folder / "report.json"), **variables}
        command = [sys.executable, "-m", "ansible", "playbook", "--diff", "--inventory", str(folder / "inventory.json")]
        done = subprocess.run(
            [*command, "--extra-vars", json.dumps(variables), str(CHECKOUT / "playbooks/demo.yml")],
            check=False,
            env=_environment(folder),
            timeout=TIMEOUT,
        )
        report = folder / "report.json"
        return done.returncode, json.loads(report.read_text()) if report.exists() else {}


def _inventory(namespaces: dict[str, str]) -> dict[str, Any]:
    return {
        "all": {
            "vars": {
                "ansible_connection": "netops.conntrack.netns",
                "ansible_python_interpreter": sys.executable,
                "ansible_pipelining": True,
            },
            "hosts": {name: {"ansible_netns_name": path} for name, path in namespaces.items()},
        }
    }


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {
        **kept,
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_REMOTE_TMP": str(folder / "remote"),
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        "ANSIBLE_FORCE_COLOR": str(sys.stdout.isatty()),
    }
