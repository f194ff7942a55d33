# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of the lab with an SSH server, and plays that connect to it.

The server reads the machine's files but cannot write them. It has accounts and sudo rules of its own, and it sees
only its own processes. It runs in a mount and a process namespace, and ends with the process that holds them.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import programs
from tests.lab import Host
from tests.plays import TIMEOUT

COLLECTION = Path(__file__).parents[1]
#: The system's Python, because a user who logs in may not be allowed to start the Python of the tests.
PYTHON = "/usr/bin/python3"
#: Python that has CAP_NET_ADMIN for every user.
CAPABLE_PYTHON = "/mnt/python3"
#: Python in a mount namespace without /proc, for root.
BLIND_PYTHON = "/mnt/blind-python3"
PORTS = (22, 2200)
USERS = ("operator", "bystander")
#: Starts a program in namespaces. They end when the program ends, or the process that started it ends.
OWN = "unshare --mount --pid --fork --kill-child --mount-proc".split()
PROGRAMS = "ssh ssh-keygen sshd sudo su mount unshare".split()

#: Options of the client. A connection is dead after nine seconds without a reply; a busy server needs several seconds.
#: `ConnectTimeout` is longer than a machine stands still.
CLIENT_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "30",
    "GlobalKnownHostsFile": "/dev/null",
    "IdentitiesOnly": "yes",
    "LogLevel": "ERROR",
    "ServerAliveCountMax": "3",
    "ServerAliveInterval": "3",
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
}

#: Seconds that sudo may take to start. They exceed the time in which the client detects a dead connection.
ANSIBLE_TIMEOUT = "60"

# $1 is the folder with the server's files. PID 1 of the new processes is this shell, which reaps orphans like init.
START = """
set -e
trap 'exit 0' TERM
mount -t tmpfs -o mode=0755 tmpfs /mnt
cp -a "$1/." /mnt/
for file in passwd shadow group sudoers pam.d/su pam.d/sudo; do
    [ ! -e /etc/$file ] || mount --bind /mnt/etc/$file /etc/$file
done
for folder in /run /tmp /var/log; do
    mount -t tmpfs -o mode=1777 tmpfs $folder
done
mkdir -m 0755 /run/sshd
mount -o remount,bind,ro /
PROGRAM -D -e -f /mnt/sshd_config &
wait
"""

BLIND = """\
#!/bin/sh
exec unshare --mount sh -c 'while umount -l /proc 2>/dev/null; do :; done; exec PYTHON "$@"' sh "$@"
"""

SERVER_CONFIGURATION = """
HostKey /mnt/host_key
AuthorizedKeysFile /mnt/authorized_keys
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
PrintLastLog no
PrintMotd no
UseDNS no
UsePAM no
AllowTcpForwarding yes
Subsystem sftp internal-sftp
"""

# The output format of plays: a line of JSON for each result, and for the summary.
CALLBACK = """
import json

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "lines"

    def _line(self, outcome, done):
        name = done.task.get_name()
        told = {"name": name, "host": done.host.get_name(), "outcome": outcome, "result": done.result}
        self._display.display("RESULT " + json.dumps(told, default=repr))

    def v2_runner_on_ok(self, result):
        self._line("ok", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._line("failed", result)

    def v2_runner_on_unreachable(self, result):
        self._line("unreachable", result)

    def v2_playbook_on_stats(self, stats):
        summary = {host: stats.summarize(host) for host in stats.processed}
        self._display.display("SUMMARY " + json.dumps(summary))
"""


class Done(NamedTuple):
    """The result of a task: ok, failed, unreachable."""

    outcome: str
    result: dict[str, Any]


def skip_unless_possible() -> None:
    """Skip the test, with the reason, if such a server cannot run."""
    if os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        pytest.skip("needs root: sshd opens sessions of other users")
    programs.require(*PROGRAMS)
    if not os.access(PYTHON, os.X_OK):
        pytest.skip(f"{PYTHON} is absent")


class Server:
    """sshd inside a host, for root and the USERS, who may become root without a password."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "client_key"
        files = folder / "server"
        self._fill(files)
        try:
            self._start(host, files)
        finally:
            shutil.rmtree(files)  # the server has its copy

    def _start(self, host: Host, files: Path) -> None:
        script = START.replace("PROGRAM", programs.require("sshd"))
        #: The process that holds the namespaces. When it is killed, all processes of its sessions end.
        self.process = process = host.start([*OWN, "sh", "-c", script, "sh", str(files)], env=environment())
        assert process.stdout is not None
        server_output: list[str] = []
        # Twice per port, for both families
        while sum(line.startswith("Server listening") for line in server_output) < 2 * len(PORTS):
            server_output.append(process.stdout.readline())
            if not server_output[-1]:
                raise RuntimeError("sshd did not start: " + "".join(server_output))

    def _fill(self, root: Path) -> None:
        (root / "etc/pam.d").mkdir(parents=True)
        for name, path in (("client", self.key), ("host", root / "host_key")):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path)],
                check=True,
                env=environment(),
            )
        shutil.copy(self.key.with_suffix(".pub"), root / "authorized_keys")
        ports = "".join(f"Port {port}\n" for port in PORTS)
        (root / "sshd_config").write_text(ports + SERVER_CONFIGURATION)
        machine = Path("/etc/passwd").read_text().splitlines()
        accounts = ["root:x:0:0::/mnt/home/root:/bin/sh"]
        accounts += [account for account in machine if account.partition(":")[0] not in ("root", *USERS)]
        for number, user in enumerate(("root", *USERS)):
            home = root / "home" / user
            home.mkdir(parents=True)
            if user != "root":
                os.chown(home, 61000 + number, 61000 + number)
                accounts.append(f"{user}:x:{61000 + number}:{61000 + number}::/mnt/home/{user}:/bin/sh")
        names = [account.partition(":")[0] for account in accounts]
        _write(root / "etc/passwd", accounts)
        _write(root / "etc/shadow", [f"{name}:*:19000:0:99999:7:::" for name in names], 0o600)
        _write(root / "etc/group", [Path("/etc/group").read_text().strip()])
        _write(root / "etc/sudoers", ["Defaults !syslog", "ALL ALL=(ALL:ALL) NOPASSWD: ALL"], 0o440)
        allowed = [f"{kind} sufficient pam_permit.so" for kind in ("auth", "account", "session")]
        for program in ("su", "sudo"):
            _write(root / "etc/pam.d" / program, allowed)
        python = root / Path(CAPABLE_PYTHON).name
        shutil.copy(PYTHON, python)
        give_net_admin(python)
        _write(root / Path(BLIND_PYTHON).name, BLIND.replace("PYTHON", PYTHON).splitlines(), 0o755)


def give_net_admin(program: Path) -> None:
    """Set cap_net_admin+ep like setcap(8): linux/capability.h, struct vfs_cap_data."""
    revision_2_effective, net_admin = 0x02000001, 1 << 12
    os.setxattr(program, "security.capability", struct.pack("<5I", revision_2_effective, net_admin, 0, 0, 0))


class Operator:
    """A host with a user's key, which runs plays on a server."""

    def __init__(self, host: Host, server: Server) -> None:
        self.host = host
        self.server = server
        self.folder = server.folder / "ansible"
        tree = self.folder / "ansible_collections/netops"
        tree.mkdir(parents=True)
        (tree / "conntrack").symlink_to(COLLECTION)
        (self.folder / "callback").mkdir()
        (self.folder / "callback/lines.py").write_text(CALLBACK)
        (self.folder / "ansible.cfg").touch()

    def play(
        self, tasks: list[dict[str, Any]], variables: dict[str, Any], persist: bool = True, **more: str
    ) -> dict[str, Done]:
        """Run tasks on the server, and return the results of the tasks that ran, by name.

        :param persist: All tasks share one connection.
        :param more: Options of the client.
        """
        playbook = self.folder / "play.json"
        playbook.write_text(
            json.dumps([{"hosts": "gateway", "gather_facts": False, "vars": variables, "tasks": tasks}])
        )
        mode = ("auto", "600s") if persist else ("no", "no")
        options = {**CLIENT_OPTIONS, "ControlMaster": mode[0], "ControlPersist": mode[1], **more}
        # Persistent connections end with the process namespace. The path of a socket must be short.
        with tempfile.TemporaryDirectory(prefix="ssh-") as sockets:
            printed = self.host.run(
                [*OWN, sys.executable, "-m", "ansible", "playbook", "-i", "gateway,", str(playbook)],
                check=False,
                timeout=TIMEOUT,
                env={
                    **environment(),
                    "ANSIBLE_CALLBACK_PLUGINS": str(self.folder / "callback"),
                    "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
                    "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
                    "ANSIBLE_HOME": str(self.folder / "home"),
                    "ANSIBLE_PRIVATE_KEY_FILE": str(self.server.key),
                    "ANSIBLE_SSH_ARGS": "-F /dev/null " + " ".join(f"-o {k}={v}" for k, v in options.items()),
                    "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
                    "ANSIBLE_STDOUT_CALLBACK": "lines",
                    "ANSIBLE_TIMEOUT": ANSIBLE_TIMEOUT,
                },
            )
        done = {}
        for line in printed.stdout.splitlines():
            if line.startswith("RESULT "):
                task = json.loads(line[len("RESULT ") :])
                done[task["name"]] = Done(task["outcome"], task["result"])
        assert done, printed.stdout + printed.stderr
        return done

    @contextmanager
    def logged_in(self, *targets: tuple[str, str, int]) -> Iterator[None]:
        """Open other, idle sessions by user, address and port; at least one."""
        options = [f"-o{name}={value}" for name, value in CLIENT_OPTIONS.items()]
        command = ["ssh", "-F", "/dev/null", *options, "-i", str(self.server.key)]
        with ExitStack() as stack:
            sessions = []
            for user, address, port in targets:
                arguments = [*command, "-p", str(port), f"{user}@{address}", "echo ready; cat"]
                sessions.append(self.host.start(arguments, stdin=subprocess.PIPE, env=environment()))
                stack.callback(_kill, sessions[-1])
            for session in sessions:
                assert session.stdout is not None
                assert session.stdout.readline() == "ready\n"
            yield


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def environment() -> dict[str, str]:
    """Return the environment of the test, without the variables of the SSH session in which the test itself may run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "SSH_"))}
    return {**kept, "LC_ALL": "C.UTF-8"}


def _write(path: Path, lines: list[str], mode: int = 0o644) -> None:
    path.write_text("".join(line + "\n" for line in lines))
    path.chmod(mode)
