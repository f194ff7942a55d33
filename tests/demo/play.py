# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the playbook of the demo on the hosts of a lab, independent of the user's configuration."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
#: Seconds after which the play is considered hung.
TIMEOUT = 600.0
#: How the log of a play names the file of each module.
MODULE_FILE = re.compile(r"Using module file (\S+/ansible_collections/netops/conntrack/\S+)")


def run_playbook(
    namespaces: dict[str, str], variables: dict[str, Any], installed: Path | None = None
) -> tuple[int, dict[str, Any], set[Path]]:
    """Run playbooks/demo.yml with --diff on the host named gateway.

    :param namespaces: The path of the namespace of each host.
    :param installed: The folder in which the collection is installed; None uses the checkout.
    :returns: The exit status of ansible-playbook, the results that the play wrote, or an empty dictionary, and the
        files of the collection's modules that it used.
    """
    with tempfile.TemporaryDirectory(prefix="conntrack-demo-") as name:
        folder = Path(name)
        if installed is None:
            tree = folder / "collections/ansible_collections/netops"
            tree.mkdir(parents=True)
            (tree / "conntrack").symlink_to(CHECKOUT)
        (folder / "ansible.cfg").touch()
        (folder / "inventory.json").write_text(json.dumps(_inventory(namespaces)))
        variables = {"target_hosts": "gateway", "conntrack_report": str(folder / "report.json"), **variables}
        command = [sys.executable, "-m", "ansible", "playbook", "--diff", "--inventory", str(folder / "inventory.json")]
        done = subprocess.run(
            [*command, "--extra-vars", json.dumps(variables), "netops.conntrack.demo"],
            check=False,
            env=_environment(folder, (installed or folder / "collections").absolute()),
            timeout=TIMEOUT,
        )
        report = folder / "report.json"
        modules = {Path(name) for name in MODULE_FILE.findall((folder / "log").read_text(encoding="utf-8"))}
        return done.returncode, json.loads(report.read_text()) if report.exists() else {}, modules


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


def _environment(folder: Path, collections: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return {
        **kept,
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_REMOTE_TMP": str(folder / "remote"),
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
        "ANSIBLE_LOG_PATH": str(folder / "log"),
        "ANSIBLE_LOG_VERBOSITY": "3",  # with the files of the modules
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml",
        "ANSIBLE_FORCE_COLOR": str(sys.stdout.isatty()),
    }
