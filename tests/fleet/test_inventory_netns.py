# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the inventory plugin netns as users do: real namespaces, real ansible-inventory, real plays inside."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.lab import Lab, Namespace, has_ipv6
from tests.plays import CHECKOUT, PIPELINING, TIMEOUT, Controller

Document = dict[str, Any]

GUIDE = CHECKOUT / "docs/docsite/rst/guide_inventory.rst"
OF_GUIDE = re.compile(
    r"^\.\. code-block:: yaml\n\n((?: {4}.*\n)*? {4}plugin: netops\.conntrack\.netns\n(?: {4}.*\n)*)", re.M
)
#: A name that Linux allows, both for a namespace and for a link.
TEMPLATE = "{{7*7}}"

#: Each host reads the links of the inventory, and its own bridge, from the files of its own network.
PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.slurp:
        src: /proc/self/net/dev
      register: devices
    - ansible.builtin.assert:
        that: (devices.content | b64decode).splitlines()[2:] | map('split', ':') | map('first') | map('trim') | sort ==
          (netns_links | map(attribute='name') | sort)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with names of namespaces. Symbolic links work like mounts, and need no cleanup."""
    folder = tmp_path / "netns"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **Controller(tmp_path).environment,
        **PIPELINING,
        "ANSIBLE_INVENTORY_ENABLED": "netops.conntrack.netns",
        "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }


def ansible(program: str, *arguments: str, environment: dict[str, str]) -> Any:
    command = [sys.executable, "-m", "ansible", program, *arguments]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    print(done.stdout, done.stderr)
    return done


def listed(printed: str) -> Any:
    """Parse the output of ansible-inventory, which marks text that is not a template."""
    return json.loads(printed, object_hook=lambda found: found.get("__ansible_unsafe", found))


def test_namespaces_are_hosts_and_plays_run_inside(
    ip: str, lab: Lab, folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """The values equal those of ip(8), with the inventory of the guide; a name is never a template."""
    gateway, client, bridge = lab.host("tenant-gateway"), lab.host("tenant-client"), lab.switch("tenant-bridge")
    lab.link(client, gateway, ["10.1.0.2/24", "2001:db8:1::2/64"], ["10.1.0.1/24", "2001:db8:1::1/64"])
    client.route("default", "10.1.0.1")
    client.route("default", "2001:db8:1::1")
    for change in (
        f"link add {TEMPLATE} type bridge",
        "route add blackhole 10.66.0.0/16 table 1000 metric 7",
        "route add 10.77.0.0/16 nexthop via 10.1.0.2 nexthop via 10.1.0.3",
        "route add 10.78.0.0/16 via inet6 2001:db8:1::2",
    ):
        gateway.run([ip, *change.split()])
    lab.link(gateway, bridge)
    for name, namespace in (*lab.hosts.items(), ("tenant-old", client), ("other", client)):
        (folder / name).symlink_to(namespace.path)
    (folder / f"tenant-{TEMPLATE}").symlink_to(client.path)

    (text,) = OF_GUIDE.findall(GUIDE.read_text())
    inventory, playbook = tmp_path / "tenants.netns.yml", tmp_path / "playbook.yml"
    inventory.write_text(textwrap.dedent(text) + "folder: netns\nstrict: true\n")
    playbook.write_text(PLAYBOOK)

    wait_for_links(lab.hosts.values(), ip)
    done = ansible("inventory", "-i", str(inventory), "--list", environment=environment)
    assert done.returncode == 0
    found = listed(done.stdout)
    hosts = found["_meta"]["hostvars"]
    assert set(hosts) == {*lab.hosts, f"tenant-{TEMPLATE}"}
    assert set(found["routed"]["hosts"]) == {"tenant-client", f"tenant-{TEMPLATE}"}
    assert found["bridge_bridge"]["hosts"] == ["tenant-bridge"]
    assert found["bridge___7_7__"]["hosts"] == ["tenant-gateway"]
    for name, namespace in lab.hosts.items():
        compare(namespace, hosts[name], ip)
    routes = {route["destination"]: route for route in hosts["tenant-gateway"]["netns_routes"]}
    assert routes["10.66.0.0/16"] == {
        "family": "ipv4",
        "destination": "10.66.0.0/16",
        "type": "blackhole",
        "table": 1000,
        "metric": 7,
    }
    assert routes["10.77.0.0/16"]["nexthops"] == [
        {"gateway": gateway, "link": "tenant-client"} for gateway in ("10.1.0.2", "10.1.0.3")
    ]
    assert routes["10.78.0.0/16"]["gateway"] == "2001:db8:1::2"
    port = next(link for link in hosts["tenant-bridge"]["netns_links"] if link["name"] == "tenant-gateway")
    assert port["master"] == "bridge"

    done = ansible("playbook", "-i", str(inventory), str(playbook), environment=environment)
    recap = done.stdout.partition("PLAY RECAP")[2]
    assert len(re.findall(r"ok=2 .* failed=0", recap)) == len(hosts)


def wait_for_links(namespaces: Iterable[Namespace], ip: str) -> None:
    """Wait until links have their final state, because the kernel sets states and addresses with a delay."""
    until, before = time.monotonic() + TIMEOUT, None
    while time.monotonic() < until:
        now = [json.loads(namespace.run([ip, "-json", "address"]).stdout) for namespace in namespaces]
        changing = any("LOWER_UP" in link["flags"] and link["operstate"] != "UP" for links in now for link in links[1:])
        if now == before and not changing:
            return
        before = now
        time.sleep(0.2)


def compare(namespace: Namespace, host: Document, ip: str) -> None:
    """Compare the variables of a host with the output of ip(8)."""
    links = json.loads(namespace.run([ip, "-json", "-details", "address"]).stdout)
    addresses = {
        link["ifname"]: [f"{address['local']}/{address['prefixlen']}" for address in link["addr_info"]]
        for link in links
    }
    assert host["netns_links"] == [
        {
            "name": link["ifname"],
            "index": link["ifindex"],
            "kind": link.get("linkinfo", {}).get("info_kind"),
            "mac": link["address"],
            "state": link["operstate"].lower(),
            "mtu": link["mtu"],
            "addresses": addresses[link["ifname"]],
            **({"master": link["master"]} if "master" in link else {}),
        }
        for link in sorted(links, key=lambda link: link["ifindex"])
    ]
    assert sorted(host["netns_addresses"]) == sorted(itertools.chain(*addresses.values()))
    main = [
        (route["family"], route["destination"], route.get("gateway"), route.get("link"), route["metric"])
        for route in host["netns_routes"]
        if route["table"] == "main" and "nexthops" not in route
    ]
    expected = [
        (
            f"ipv{family}",
            route["dst"],
            route.get("gateway", route.get("via", {}).get("host")),
            route.get("dev"),
            route.get("metric", 0),
        )
        for family in (4, *([6] if has_ipv6() else []))
        for route in json.loads(namespace.run([ip, f"-{family}", "-json", "route"]).stdout or "[]")
        if "nexthops" not in route
    ]
    assert sorted(main, key=str) == sorted(expected, key=str)


@pytest.mark.thorough
def test_many_namespaces_are_listed_and_other_names_left_out(
    lab: Lab, folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    """A name without a namespace, and a file that a killed ip(8) left behind, are left out."""
    paths = [lab.host(name).path for name in ("one", "two", "three")]
    for number in range(300):
        (folder / f"tenant{number}").symlink_to(paths[number % 3])
    (folder / "gone").symlink_to("/proc/0/ns/net")
    (folder / "left").touch()
    (tmp_path / "netns.yml").write_text(
        "plugin: netops.conntrack.netns\nfolder: netns\n"
        f"cache: true\ncache_plugin: ansible.builtin.jsonfile\ncache_connection: {tmp_path}/cache\n"
    )
    arguments = ("inventory", "-i", str(tmp_path / "netns.yml"), "--list")
    first = ansible(*arguments, environment=environment).stdout
    assert set(listed(first)["_meta"]["hostvars"]) == {f"tenant{number}" for number in range(300)}

    (folder / "tenant0").unlink()
    assert ansible(*arguments, environment=environment).stdout == first, "from the cache"
    fresh = ansible(*arguments, "--flush-cache", environment=environment).stdout
    assert len(listed(fresh)["_meta"]["hostvars"]) == 299


def test_namespaces_of_ip_are_found_by_default(
    ip: str, tmp_path: Path, environment: dict[str, str], root: None
) -> None:
    """The file contains only the plugin's name, and plays enter namespaces with the name alone."""
    (tmp_path / "netns.yml").write_text("plugin: netops.conntrack.netns\n")
    (tmp_path / "playbook.yml").write_text(PLAYBOOK)
    play = [sys.executable, "-m", "ansible", "playbook", "-i", "netns.yml", "playbook.yml"]
    # In a mount namespace of its own, the test neither sees nor changes the machine's namespaces
    script = 'mount -t tmpfs none /run && "$0" netns add blue && "$0" netns add green && "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, ip, *play],
        check=False,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    print(done.stdout, done.stderr)
    if "Operation not permitted" in done.stderr and "PLAY" not in done.stdout:
        pytest.skip("this machine forbids separate mount namespaces")
    recap = done.stdout.partition("PLAY RECAP")[2]
    assert re.findall(r"^(\S+) .*ok=2 .* failed=0", recap, re.MULTILINE) == ["blue", "green"]


def test_missing_requirement_is_reported_with_a_remedy(
    lab: Lab, folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    setpriv = programs.require("setpriv")
    host = lab.host("blue")
    (folder / "blue").symlink_to(host.path)
    (tmp_path / "netns.yml").write_text("plugin: netops.conntrack.netns\nfolder: netns\n")
    (tmp_path / "pyroute2.py").write_text("raise ImportError\n")
    command = [sys.executable, "-m", "ansible", "inventory", "-i", str(tmp_path / "netns.yml"), "--list"]
    for prefix, more, reported in (
        (
            [setpriv, "--bounding-set=-sys_admin"],
            {},
            f"cannot enter the namespace {folder}/blue: Operation not permitted",
        ),
        ([], {"PYTHONPATH": str(tmp_path)}, "This inventory requires the Python package pyroute2"),
    ):
        done = subprocess.run(
            [*prefix, *command],
            check=False,
            env={**environment, **more},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode != 0
        assert done.stderr.count(reported) == 2, "once in the warning, and once where Ansible explains it"
