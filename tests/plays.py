# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run playbooks of the collection by their names, as users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[1]
TIMEOUT = 600.0
#: Saves six processes on the host in each task. The pages, the rulebooks and tests/fleet/test_src.py do not use it.
PIPELINING = {"ANSIBLE_PIPELINING": "1"}


class Controller:
    """A controller with this collection, in a folder, independent of the configuration of the tests' user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tree = folder / "ansible_collections/netops"
        tree.mkdir(parents=True)
        (tree / "conntrack").symlink_to(CHECKOUT)
        (folder / "ansible.cfg").touch()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(folder),
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_REMOTE_TMP": str(folder / "remote"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def play(
        self, playbook: str | Path, namespaces: Mapping[str, Mapping[str, Any]], *options: str, **variables: Any
    ) -> tuple[int, str]:
        """Run netops.conntrack.PLAYBOOK or a file, and return the exit status and the output.

        :param namespaces: Variables of each host, including `ansible_netns_name`.
        """
        inventory = {
            "all": {
                "vars": {
                    "ansible_connection": "netops.conntrack.netns",
                    "ansible_python_interpreter": sys.executable,
                    "ansible_become": False,
                },
                "hosts": dict(namespaces),
            }
        }
        (self.folder / "inventory.json").write_text(json.dumps(inventory))
        name = f"netops.conntrack.{playbook}" if isinstance(playbook, str) else str(playbook)
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", name, *options]
            + ["--inventory", str(self.folder / "inventory.json"), "--extra-vars", json.dumps(variables)],
            check=False,
            env={**self.environment, **PIPELINING},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        print(done.stdout, done.stderr)
        return done.returncode, done.stdout
