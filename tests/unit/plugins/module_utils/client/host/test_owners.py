# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the process of a socket, with its unit and container, is read correctly from /proc."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.host import owners
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.owners import Owner
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.sockets import LocalSocket

pytestmark = pytest.mark.portability

ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("cgroup", "unit", "container"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service", None),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/web.service\n", "user@1000.service", None),
        ("0::/user.slice/user-0.slice/session-3.scope\n", "session-3.scope", None),
        (f"0::/system.slice/docker-{ID}.scope\n", f"docker-{ID}.scope", ID),
        (f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n", *(None, ID)),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", f"libpod-{ID}.scope", ID),
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope\n", f"cri-containerd-{ID}.scope", ID),
        (f"0::/kubepods/besteffort/pod7/{ID}\n", None, ID),
        ("0::/lxc.payload.web1/system.slice/nginx.service\n", "nginx.service", "web1"),
        ("0::/machine.slice/systemd-nspawn@web.service/payload\n", "systemd-nspawn@web.service", "web"),
        ("0::/\n", None, None),
        ("", None, None),
        ("nonsense\n0::/system.slice/a.service\n", "a.service", None),
    ],
)
def test_unit_and_container(cgroup: str, unit: Any, container: Any) -> None:
    if "12:pids" in cgroup:
        cgroup = cgroup.rpartition("0::")[0]  # a host with cgroups of version 1
    assert (owners.unit_of(cgroup), owners.container_of(cgroup)) == (unit, container)


def process(proc: Path, pid: int, inodes: Any, name: str = "web", user: int = 0, cgroup: str = "") -> None:
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    for number, inode in enumerate(inodes):
        os.symlink(f"socket:[{inode}]", folder / "fd" / str(number))
    (folder / "comm").write_text(f"{name}\n")
    (folder / "status").write_text(f"Name:\t{name}\nUid:\t9\t{user}\t9\t9\n")
    (folder / "cgroup").write_text(cgroup)


def test_the_first_process_with_a_socket_can_have_a_higher_id(tmp_path: Path) -> None:
    """IDs are used again, so a child can have a lower ID than the process from which it has the socket."""
    for pid, ticks in ((30, 5000), (200, 4000)):
        process(tmp_path, pid, [7], name="a) b")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (a) b) S {' '.join(['1'] * 18)} {ticks} 0 0\n")
    assert owners._processes_of({"7"}, str(tmp_path)) == {"7": 200}


def test_the_process_with_a_socket(tmp_path: Path) -> None:
    """systemd keeps the sockets that it passes to a service; several processes of a service can have one socket."""
    process(tmp_path, 1, [7, 8], "systemd")
    process(tmp_path, 30, [7], user=4294967294, cgroup="0::/system.slice/web.service\n")
    process(tmp_path, 200, [7, 9])
    assert owners._processes_of({"7", "8", "9", "10"}, str(tmp_path)) == {"7": 30, "8": 1, "9": 200}
    one = LocalSocket((6, b"", 0, b"", 0), 0, 7, 2, b"")
    assert owners._owner(one, 30, str(tmp_path)) == Owner("web", 30, "4294967294", "web.service", None)
    assert owners._owner(one, 31, str(tmp_path)) == Owner(None, 31, owners.user_name(0), None, None), "it has ended"
    assert owners._owner(one, None, str(tmp_path)) == Owner(None, None, owners.user_name(0), None, None)
    assert owners._owner(one._replace(inode=0), None, str(tmp_path)) == Owner(None, None, None, None, None)
