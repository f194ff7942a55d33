# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run modules as Ansible does on a target: in a separate process, with arguments and a result in JSON."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import runpy
import sys
from typing import Any

import pytest

from tests.lab import Namespace

Document = dict[str, Any]

# Imports that each fork would otherwise repeat
IMPORTED = (
    *("client.dump.deletions", "client.host.ssh_session", "client.match.keys", "client.match.message_filter"),
    *("client.probe", "client.table", "client.match.attribute_keys", "_argspec.match", "_module", "_operations.flush"),
    "_reconcile.entries",
)
for name in IMPORTED:
    importlib.import_module(f"ansible_collections.netops.conntrack.plugins.module_utils.{name}")
importlib.import_module("ansible.module_utils.basic")

MODULES = "ansible_collections.netops.conntrack.plugins.modules"


def run(namespace: Namespace, module: str, check_mode: bool = False, **arguments: Any) -> Document:
    """Return the result of a module in the namespace. It runs in a fork of this process, to save time."""
    return answer(*namespace.call(execute, module, given(check_mode, arguments)))


def run_in_new_process(namespace: Namespace, module: str, **arguments: Any) -> Document:
    """Return the result of a module that runs in a new Python process."""
    command = [sys.executable, "-m", f"{MODULES}.{module}"]
    done = namespace.run(command, input=given(False, arguments), check=False)
    return answer(done.returncode, done.stdout or done.stderr)


def given(check_mode: bool, arguments: Document) -> str:
    return json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_check_mode": check_mode, **arguments}})


def answer(status: int, output: str) -> Document:
    result: Document = json.loads(output)
    assert status == int(result.get("failed", False))
    return result


def execute(module: str, arguments: str) -> tuple[int, str]:
    """Run a module as the main program of this process, which must end afterwards."""
    del sys.argv[1:]
    sys.stdin = io.TextIOWrapper(io.BytesIO(arguments.encode()))
    with contextlib.redirect_stdout(io.StringIO()) as output, pytest.raises(SystemExit) as exit_:
        runpy.run_module(f"{MODULES}.{module}", run_name="__main__", alter_sys=True)
    return int(exit_.value.code or 0), output.getvalue()
