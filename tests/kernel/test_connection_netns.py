# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run tasks with Ansible in namespaces. A task changes only its own namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import clock, programs
from tests.lab import Lab, Namespace

Ansible = Callable[..., str]

COLLECTION = Path(__file__).parents[2]
# With become, another user may not be allowed to start the Python of this test
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


@pytest.fixture
def ansible(tmp_path: Path) -> Ansible:
    """Run one module on a host over the connection, and return the output of Ansible."""
    tree = tmp_path / "ansible_collections/netops"
    tree.mkdir(parents=True)
    (tree / "conntrack").symlink_to(COLLECTION)
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_REMOTE_TMP": str(tmp_path / "remote"),
        "ANSIBLE_PYTHON_INTERPRETER": PYTHON,
        "ANSIBLE_NOCOLOR": "1",
    }

    def run(host: str, module: str, arguments: str, *more: str, inside: tuple[str, ...] = ()) -> str:
        program = Path(sys.executable).with_name("ansible")
        command = [
            str(program),
            host,
            "-i",
            f"{host},",
            "-c",
            "netops.conntrack.netns",
            "-m",
            module,
            "-a",
            arguments,
        ]
        done = subprocess.run(
            [*inside, *command, *more],
            check=False,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=clock.HUNG,
        )
        return done.stdout

    return run


def of(namespace: Namespace, **variables: str) -> list[str]:
    """Return the options of a host for this namespace."""
    words = {"ansible_netns_name": namespace.path, **variables}
    return [word for name, value in words.items() for word in ("-e", f"{name}='{value}'")]


@pytest.mark.usefixtures("ip")
@pytest.mark.parametrize("pipelining", ["true", pytest.param("false", marks=pytest.mark.thorough)])
def test_modules_run_inside(ansible: Ansible, lab: Lab, pipelining: str) -> None:
    left, right = lab.host("left"), lab.host("right")
    lab.link(left, right, ["192.0.2.1/24"], ["192.0.2.2/24"])
    for host, address in ((left, "192.0.2.1"), (right, "192.0.2.2")):
        printed = ansible(host.name, "command", "ip -brief address", *of(host, ansible_pipelining=pipelining))
        assert f"{address}/24" in printed
        assert "rc=0" in printed


def test_setting_changes_only_in_the_namespace(ansible: Ansible, namespace: Namespace) -> None:
    with Namespace() as other:
        writing = "echo 1 > /proc/sys/net/netfilter/nf_conntrack_acct"
        assert "rc=0" in ansible("host", "shell", writing, *of(namespace))
        assert (namespace.sysctl("nf_conntrack_acct"), other.sysctl("nf_conntrack_acct")) == ("1", "0")


def test_files_are_on_the_controller(ansible: Ansible, namespace: Namespace, tmp_path: Path) -> None:
    assert "CHANGED" in ansible("host", "copy", f"content=text dest={tmp_path}/one", *of(namespace))
    assert "CHANGED" in ansible("host", "fetch", f"src={tmp_path}/one dest={tmp_path}/two flat=true", *of(namespace))
    assert (tmp_path / "two").read_text() == "text"


@pytest.mark.parametrize("pipelining", [pytest.param("true", marks=pytest.mark.thorough), "false"])
def test_become_works_inside(ansible: Ansible, namespace: Namespace, pipelining: str) -> None:
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        pytest.skip("needs root: a separate user namespace has only one user")
    programs.require("sudo")
    with namespace.entered():
        inside = os.readlink("/proc/thread-self/ns/net")
    become = ("--become", "--become-user", "nobody")
    # Only root can read the files of a module: they are sent through a pipe, or made readable for all.
    options = of(namespace, ansible_pipelining=pipelining, ansible_shell_allow_world_readable_temp="true")
    printed = ansible(
        "host",
        "shell",
        "id -un; readlink /proc/self/ns/net",
        *options,
        *become,
        "-e",
        "ansible_remote_tmp=/tmp",
    )
    assert ["nobody", inside] == printed.split()[-2:]


@pytest.mark.usefixtures("ip")
def test_namespace_is_selected_by_name(ansible: Ansible, root: None) -> None:
    """The namespace is one of ip-netns(8). With a private /run, the /run of the machine does not change."""
    script = 'mount -t tmpfs none /run && ip netns add blue && ip -n blue link add marked type veth && exec "$@"'
    inside = ("unshare", "--mount", "--net", "sh", "-c", script, "sh")
    assert "marked" in ansible("blue", "command", "ip -brief link", inside=inside)
    printed = ansible("red", "command", "true", inside=inside)
    assert "UNREACHABLE" in printed
    assert "create it with 'ip netns add red', or name one of blue." in printed


@pytest.mark.usefixtures("ip")
def test_namespace_that_a_user_namespace_owns(ansible: Ansible, root: None, tmp_path: Path) -> None:
    """Enter the namespace of a rootless container together with the user namespace that owns it."""
    ready = tmp_path / "ready"
    script = f"ip link add marked type veth && touch {ready} && exec sleep 600"
    with subprocess.Popen(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script]) as container:
        try:
            while not ready.exists():
                assert container.poll() is None
            nsenter = f"nsenter --user=/proc/{container.pid}/ns/user --preserve-credentials"
            options = {
                "ansible_netns_name": f"/proc/{container.pid}/ns/net",
                "ansible_netns_nsenter": nsenter,
            }
            words = [word for name, value in options.items() for word in ("-e", f"{name}='{value}'")]
            assert "marked" in ansible("host", "command", "ip -brief link", *words)
        finally:
            container.kill()


def test_missing_privilege_is_reported_with_a_remedy(ansible: Ansible, namespace: Namespace) -> None:
    """Without the capability, nsenter fails as for any user other than root."""
    unprivileged = "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin nsenter"
    printed = ansible("host", "command", "true", *of(namespace, ansible_netns_nsenter=unprivileged))
    assert "UNREACHABLE" in printed
    assert "Operation not permitted" in printed
    assert "run Ansible as root" in printed
