# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create a folder in which Python and Ansible find this checkout as `ansible_collections.netops.conntrack`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
TREE = CHECKOUT / ".cache/tree"
#: Environment variables with the paths on which Python, mypy and Ansible find collections.
VARIABLES = ("PYTHONPATH", "MYPYPATH", "ANSIBLE_COLLECTIONS_PATH")


def make() -> Path:
    """Create the folder, and return it. Several processes may do so at the same time."""
    link = TREE / "ansible_collections/netops/conntrack"
    link.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(CHECKOUT)
    return TREE


def use() -> None:
    """Make the collection importable in this process and in the processes that it starts."""
    tree = str(make())
    sys.path.insert(0, tree)
    for variable in VARIABLES:
        os.environ[variable] = os.pathsep.join(filter(None, (tree, os.environ.get(variable))))
