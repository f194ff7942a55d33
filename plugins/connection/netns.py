# SPDX-FileCopyrightText: netops.conntrack contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run modules inside a network namespace of the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: netns
short_description: Run modules inside a network namespace of the controller
version_added: 0.1.0
author:
  - netops.conntrack contributors (!UNKNOWN)
description:
  - Runs every task inside a network namespace of the machine that Ansible itself runs on, so that each
    namespace is a host in the inventory, with its own addresses, routes, rules and conntrack table.
  - Any module works unchanged. Only the network is the namespace's; files, processes and users are the
    controller's.
options:
  netns:
    description:
      - The network namespace, either by its name under C(/run/netns), as C(ip netns list) prints it, or by an
        absolute path such as C(/proc/4711/ns/net).
      - The default is the address of the inventory host.
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: ansible_netns_name
  nsenter:
    description:
      - The program that enters the namespace, with arguments of its own where it needs some.
      - C(sudo -n nsenter) serves a controller that does not run as root.
      - C(nsenter --user=/proc/4711/ns/user --preserve-credentials) enters a namespace that belongs to a user
        namespace of one's own, for instance that of a rootless container.
    type: str
    default: nsenter
    ini:
      - section: netns_connection
        key: nsenter
    env:
      - name: ANSIBLE_NETNS_NSENTER
    vars:
      - name: ansible_netns_nsenter
  become_success_timeout:
    description:
      - Seconds to wait for become to succeed. Less than one second means the default.
    type: int
    default: 10
    vars:
      - name: ansible_netns_become_success_timeout
  become_strip_preamble:
    description:
      - Remove what become itself prints before the command begins. Disable it to diagnose become.
    type: bool
    default: true
    vars:
      - name: ansible_netns_become_strip_preamble
extends_documentation_fragment:
  - connection_pipelining
requirements:
  - The program C(nsenter) of util-linux on the controller.
  - CAP_SYS_ADMIN over the namespace, as root has.
notes:
  - The remote user is ignored. Tasks run as the user who runs Ansible. Become makes them run as another one,
    after the namespace is entered.
  - All mounts stay as they are. What C(ip netns exec) adds to them, such as C(/etc/netns/NAME/resolv.conf),
    is not seen here.
"""

EXAMPLES = r"""
# inventory: three namespaces, by name, by path, and in a user namespace of one's own
all:
  vars:
    ansible_connection: netops.conntrack.netns
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  hosts:
    blue:
    gateway:
      ansible_netns_name: /proc/4711/ns/net
    container:
      ansible_netns_name: /proc/4712/ns/net
      ansible_netns_nsenter: nsenter --user=/proc/4712/ns/user --preserve-credentials
"""

import os
import shlex
import stat
import subprocess

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as LocalConnection

NAMES = "/run/netns"


class Connection(LocalConnection):
    """The local connection, with every command started by nsenter(1).

    A program enters, not setns(2): the worker itself must stay where it is, since the lookups and filters of
    the same task belong to the controller's network; Python has setns only from 3.12 on; and a program can be
    put behind sudo when Ansible itself does not run as root.
    """

    transport = "netops.conntrack.netns"

    def _connect(self) -> Connection:
        super()._connect()
        refusal = self._refusal()
        if refusal:
            raise AnsibleConnectionFailure(refusal)
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Run a shell command inside the namespace: status, output, errors."""
        inside = shlex.join([*self._enter(), constants.DEFAULT_EXECUTABLE.split()[0], "-c", cmd])
        result: tuple[int, bytes, bytes] = super().exec_command(f"exec {inside}", in_data=in_data, sudoable=sudoable)
        return result

    def _path(self) -> str:
        return os.path.join(NAMES, self.get_option("netns"))

    def _enter(self) -> list[str]:
        return [*shlex.split(self.get_option("nsenter")), f"--net={self._path()}", "--"]

    def _refusal(self) -> str | None:
        """Why the namespace cannot be entered and what to do about it; None when it can be."""
        name, path, program = self.get_option("netns"), self._path(), self.get_option("nsenter")
        if not name or ("/" in name and not name.startswith("/")):
            return (
                f"{name!r} is neither the name of a network namespace nor an absolute path to one: "
                "set ansible_netns_name."
            )
        if not os.path.lexists(path):
            return f"There is no network namespace {path}: {_way_to(name)}."
        if not _may_be_namespace(path):
            return f"{path} is not a regular file, and so no network namespace: set ansible_netns_name to one."
        try:
            entered = subprocess.run(
                [*self._enter(), "true"],
                check=False,
                capture_output=True,
                text=True,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError as error:
            return (
                f"The program {error.filename!r} cannot be run to enter the network namespace {path} "
                f"({error.strerror}): install util-linux on the controller, or name the program in "
                "ansible_netns_nsenter."
            )
        if entered.returncode == 0:
            return None
        reason = entered.stderr.strip() or f"{program} ended with status {entered.returncode}"
        if "Invalid argument" in reason:
            return f"{path} is no network namespace ({reason}): set ansible_netns_name to one."
        return (
            f"The network namespace {path} cannot be entered ({reason}): run Ansible as root, "
            "or set ansible_netns_nsenter to 'sudo -n nsenter'."
        )


def _may_be_namespace(path: str) -> bool:
    """False for a FIFO, for instance, on which nsenter would wait for ever."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # nsenter may see more, under sudo


def _way_to(name: str) -> str:
    """What to do about a namespace that is not there."""
    if name.startswith("/"):
        return "name the namespace of a process that is running"
    try:
        known = sorted(os.listdir(NAMES))
    except OSError:
        known = []
    others = f", or name one of {', '.join(known)}" if known else ""
    return f"create it with 'ip netns add {shlex.quote(name)}'{others}"
