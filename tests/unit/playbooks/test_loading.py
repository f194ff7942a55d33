# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks and rulebooks load without a warning, even if a duplicate key is an error."""

from __future__ import annotations

import os
import subprocess
import sys

from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

FILES = sorted([*(CHECKOUT / "playbooks").rglob("*.yml"), *(CHECKOUT / "extensions/eda/rulebooks").rglob("*.yml")])
LOAD = """
import sys
from ansible.parsing.dataloader import DataLoader
for path in sys.argv[1:]:
    assert DataLoader().load_from_file(path), path
"""


def test_playbooks_and_rulebooks_load_without_warnings() -> None:
    assert {path.name for path in FILES} > {"apply.yml", "flush_forbidden.yml", "move.yml"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, FILES)],
        check=False,
        env={**os.environ, "ANSIBLE_DUPLICATE_YAML_DICT_KEY": "error"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
