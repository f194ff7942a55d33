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
  - Runs every task inside a network namespace of the controller. Each namespace is a host in the inventory, with its
    own addresses, routes, rules and conntrack table.
  - Modules need no change. Files, processes and users are those of the controller.
  - The plugin does not mount C(/sys) again. C(/sys/class/net) therefore lists the links of the controller, and
    M(ansible.builtin.setup) reports wrong interfaces.
options:
  netns:
    description:
      - The network namespace, either by its name under C(/run/netns), as listed by C(ip netns list), or by an
        absolute path such as C(/proc/4711/ns/net).
      - The default is C(ansible_host) if it is set, or else the name of the inventory host.
    type: str
    default: inventory_hostname
    vars:
      - name: inventory_hostname
      - name: ansible_host
      - name: ansible_netns_name
  nsenter:
    description:
      - The program that enters the namespace, with optional arguments.
      - Use C(sudo -n nsenter) if Ansible does not run as root.
      - Use C(nsenter --user=/proc/4711/ns/user --preserve-credentials) for the network namespace of a rootless
        container that you started. The program then also enters the user namespace of the container.
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
      - Number of seconds to wait until become has succeeded. A value below 1 selects the default.
    type: int
    default: 10
    vars:
      - name: ansible_netns_become_success_timeout
  become_strip_preamble:
    description:
      - Remove the text that become prints before the output of the command, for example a prompt. Set this option to
        V(false) to diagnose become.
    type: bool
    default: true
    vars:
      - name: ansible_netns_become_strip_preamble
extends_documentation_fragment:
  - connection_pipelining
requirements:
  - The program C(nsenter) of util-linux on the controller.
  - CAP_SYS_ADMIN in the user namespace that owns the network namespace. Root has this capability.
notes:
  - The remote user is ignored. Tasks run as the user that runs Ansible, or as root if O(nsenter) begins with C(sudo).
    Become switches to another user after the plugin enters the namespace.
  - The plugin does not change mounts. Unlike C(ip netns exec), it does not mount C(/etc/netns/NAME/resolv.conf) over
    C(/etc/resolv.conf). Tasks use the files in C(/etc) of the controller.
"""

EXAMPLES = r"""
# inventory: three namespaces, by name, by path, and in another user namespace
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

    nsenter(1) is used instead of setns(2) for three reasons. The worker must stay in its namespace, because lookups
    and filters of the task use the network of the controller. Python has os.setns() only since 3.12. A program can be
    run by sudo if Ansible does not run as root.
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
        """The reason why the namespace cannot be entered, with a remedy. None if it can be entered."""
        name, path, program = self.get_option("netns"), self._path(), self.get_option("nsenter")
        if not name or ("/" in name and not name.startswith("/")):
            return (
                f"{name!r} is neither the name of a network namespace nor an absolute path to one: "
                "set ansible_netns_name."
            )
        if not os.path.lexists(path):
            return f"There is no network namespace {path}: {_way_to(name)}."
        if not _may_be_namespace(path):
            return f"{path} is not a regular file, so it is not a network namespace: set ansible_netns_name to one."
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
            return f"{path} is not a network namespace ({reason}): set ansible_netns_name to one."
        return (
            f"The network namespace {path} cannot be entered ({reason}): run Ansible as root, "
            "or set ansible_netns_nsenter to 'sudo -n nsenter'."
        )


def _may_be_namespace(path: str) -> bool:
    """False for other kinds of file, for example a FIFO, which nsenter would block on."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # nsenter may have more permissions, with sudo


def _way_to(name: str) -> str:
    """The remedy for a namespace that does not exist."""
    if name.startswith("/"):
        return "name the namespace of a process that is running"
    try:
        known = sorted(os.listdir(NAMES))
    except OSError:
        known = []
    others = f", or name one of {', '.join(known)}" if known else ""
    return f"create it with 'ip netns add {shlex.quote(name)}'{others}"
