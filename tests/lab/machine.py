# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A machine with network namespaces: what runs on it sees only its own processes and its own /run/netns."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import clock, programs

from .namespace import Namespace

#: Names given namespaces, hides the processes outside, and runs until its input ends.
_SCRIPT = """
set -e
mount -t tmpfs tmpfs /run
mkdir /run/netns
while [ $# -gt 0 ]; do
    touch "/run/netns/$1"
    mount --bind "$2" "/run/netns/$1"
    shift 2
done
mount -t proc proc /proc
echo ready
exec cat
"""
PROGRAMS = ("unshare", "nsenter", "mount", "sh", "cat")


class Machine:
    """A machine whose own network namespace is `own`, and on which other namespaces have names.

    It ends with the block. Programs and modules that run on it see the files of this machine, except /proc and /run.

    :raises unittest.SkipTest: if a program is missing, or this user may not create the namespaces.
    """

    def __init__(self, own: Namespace, named: Mapping[str, Namespace]) -> None:
        programs.require(*PROGRAMS)
        self.own = own
        files = [part for name, namespace in named.items() for part in (name, namespace.path)]
        # The output is a pipe: the process is the first of its PID namespace, and all others end with it
        self._process = own.start(
            ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _SCRIPT, "sh", *files], stdin=-1
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line != "ready\n":
            raise unittest.SkipTest(f"this user may not create such a machine: {line}{self._process.stdout.read()}")
        (self._first,) = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(timeout=clock.HUNG)

    def command(self, arguments: list[str]) -> list[str]:
        """Return the command that runs a program on the machine, in the network namespace of the caller."""
        return ["nsenter", f"--target={self._first}", "--mount", "--pid", "--", *arguments]

    def shell(self, command: str, folder: Path) -> list[str]:
        """Return the command that runs a shell command on the machine, in a folder and in its own network namespace."""
        inside = ["bash", "-c", f"cd {shlex.quote(str(folder))}\n{command}"]
        return ["nsenter", f"--target={self._first}", "--net", "--mount", "--pid", "--", *inside]

    def start_in(self, namespace: Namespace) -> None:
        """Start a process of the machine in a network namespace. It runs as long as the machine."""
        process = namespace.start(self.command(["sh", "-c", "echo ready; exec sleep infinity"]))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

    def module(
        self, name: str, check_mode: bool = False, env: Mapping[str, str] | None = None, **arguments: Any
    ) -> dict[str, Any]:
        """Run a module on the machine with additional environment variables, and return its result."""
        command = [sys.executable, "-m", f"ansible_collections.netops.conntrack.plugins.modules.{name}"]
        given = {"ANSIBLE_MODULE_ARGS": {"_ansible_check_mode": check_mode, **arguments}}
        done = self.own.run(
            self.command(command), input=json.dumps(given), check=False, env={**os.environ, **(env or {})}
        )
        result: dict[str, Any] = json.loads(done.stdout or f"{{{done.stderr}")
        assert done.returncode == int(result.get("failed", False)), done.stderr
        return result
