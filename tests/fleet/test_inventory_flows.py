# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the inventory plugin flows as users do: real traffic, real ansible-inventory, real plays on its hosts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._snapshot.save import save
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import EVERYTHING
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import programs
from tests.lab import Gateway, Lab, Namespace, has_ipv6
from tests.plays import CHECKOUT, PIPELINING, TIMEOUT, Controller

Document = dict[str, Any]

GUIDE = CHECKOUT / "docs/docsite/rst/guide_inventory.rst"
BLOCK = re.compile(r"^\.\. code-block:: yaml\n\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)
#: Only this plugin reads the files, so that no other plugin adds messages.
ALONE = {"ANSIBLE_INVENTORY_ENABLED": "netops.conntrack.flows"}


def of_guide(sign: str) -> str:
    """Return the block of the guide that contains this text."""
    return next(text for text in map(textwrap.dedent, BLOCK.findall(GUIDE.read_text())) if sign in text)


class Site:
    """A controller with inventories of flows in its folder, and with a choice of the namespace in which it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**Controller(folder).environment, **ALONE, **PIPELINING}

    def write(self, text: str | Document, name: str = "flows.yml") -> str:
        """Write an inventory of this plugin."""
        path = self.folder / name
        path.write_text(text if isinstance(text, str) else json.dumps({"plugin": "netops.conntrack.flows", **text}))
        return str(path)

    def ansible(self, program: str, *arguments: str, inside: Namespace | None = None, **environment: str) -> Any:
        """Run one of Ansible's programs, in a namespace or in that of the tests, and return the result."""
        command = [sys.executable, "-m", "ansible", program, *arguments]
        environment = {**self.environment, **environment}
        if inside is not None:
            done = inside.run(command, check=False, timeout=TIMEOUT, env=environment)
        else:
            done = subprocess.run(
                command, check=False, timeout=TIMEOUT, env=environment, capture_output=True, text=True
            )
        print(done.stdout, done.stderr)
        return done

    def hosts(self, *inventories: str, **more: Any) -> dict[str, Document]:
        """Return the hosts of inventories, with their variables."""
        files = [option for inventory in inventories for option in ("-i", inventory)]
        done = self.ansible("inventory", *files, "--list", **more)
        assert done.returncode == 0
        assert "WARNING" not in done.stderr
        found: dict[str, Document] = listed(done.stdout)["_meta"]["hostvars"]
        return found


def listed(printed: str) -> Any:
    """Parse the output of ansible-inventory, which marks text that is not a template."""
    return json.loads(printed, object_hook=lambda found: found.get("__ansible_unsafe", found))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """Open connections that stay open until the test ends."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def busy(gateway_lab: Gateway, opened: contextlib.ExitStack) -> Gateway:
    """Open flows of all kinds from two clients through the gateway, which counts their packets and bytes."""
    gateway_lab.gateway.sysctl("nf_conntrack_acct", 1)
    one, two, server = gateway_lab.client1, gateway_lab.client2, (gateway_lab.SERVER, gateway_lab.PORT)
    flows = [*(one.udp(*server) for _turn in range(3)), two.udp(*server), two.tcp(*server)]
    if has_ipv6():
        flows.append(one.tcp(gateway_lab.SERVER_IPV6, gateway_lab.PORT))
    for flow in flows:
        opened.enter_context(contextlib.closing(flow))
        flow.seen_as()
    assert one.ping(gateway_lab.SERVER) == 1
    return gateway_lab


def test_play_of_the_guide_runs_on_exactly_the_database_clients(
    lab: Lab, site: Site, opened: contextlib.ExitStack
) -> None:
    """One of three clients has never used the database, and one cannot reach the new server."""
    gateway, network = lab.host("gateway", forwarding=True), lab.switch("network")
    lab.link(gateway, network, ["10.0.0.1/24"])
    servers = {address: lab.host(f"server{address[-1]}") for address in ("10.0.0.5", "10.0.0.6")}
    for address, server in servers.items():
        lab.link(server, network, [f"{address}/24"])
        server.route("default", "10.0.0.1")
        for port in (5432, 80):
            server.mirror(port)
    clients = {}
    for number in (1, 2, 3):
        client = clients[f"10.{number}.0.2"] = lab.host(f"client{number}")
        lab.link(client, gateway, [f"10.{number}.0.2/24"], [f"10.{number}.0.1/24"])
        client.route("default", f"10.{number}.0.1")
    gateway.firewall.track()
    gateway.firewall.drop("forward", source="10.2.0.2", destination="10.0.0.6")
    conversations = [("10.1.0.2", "10.0.0.5", 5432), ("10.2.0.2", "10.0.0.5", 5432)]
    conversations += [("10.3.0.2", "10.0.0.5", 80), ("10.3.0.2", "10.0.0.6", 5432)]
    for source, destination, port in conversations:
        flow = opened.enter_context(contextlib.closing(clients[source].tcp(destination, port)))
        flow.seen_as()

    inventory = site.write(of_guide("state: established"), "clients.flows.yml")
    playbook = site.write(of_guide("wait_for"), "reach.yml")
    reached = {  # otherwise Ansible uses SSH
        "ansible_connection": "netops.conntrack.netns",
        "ansible_netns_name": "{{ namespaces[conntrack_address] }}",
        "ansible_python_interpreter": sys.executable,
        "namespaces": {address: client.path for address, client in clients.items()},
    }
    done = site.ansible("playbook", "-i", inventory, playbook, "-e", json.dumps(reached), inside=gateway)
    recap = done.stdout.partition("PLAY RECAP")[2]
    assert re.findall(r"^(\S+) .* failed=(\d)", recap, re.MULTILINE) == [("10.1.0.2", "0"), ("10.2.0.2", "1")]
    assert "Timeout when waiting for 10.0.0.6:5432" in done.stdout


def test_hosts_and_numbers_agree_with_the_table(busy: Gateway, site: Site) -> None:
    """The values equal those of conntrack(8); with groups, composed variables and extra ones."""
    inventory = site.write(
        {
            "netns": busy.gateway.path,
            "gateway": "gw1",
            "side": "both",
            "strict": True,
            "use_extra_vars": True,
            "match": {"protocol": "{{ protocols }}"},
            "compose": {"ansible_user": "'admin'", "place": "places[conntrack_address] | default('outside')"},
            "groups": {"servers": "'udp/7' in conntrack_as_destination.services"},
            "keyed_groups": [
                {"prefix": "uses", "key": "conntrack_as_source.services.keys() | list"},
                {"prefix": "at", "key": "place"},
            ],
        }
    )
    extra = {"protocols": ["tcp", "udp", "icmp"], "places": {"10.1.0.2": "first floor", "10.2.0.2": "cellar"}}
    variables = ("-e", json.dumps(extra))
    done = site.ansible("inventory", "-i", inventory, "--list", *variables)
    found = listed(done.stdout)
    assert {name: set(found[name]["hosts"]) for name in ("servers", "uses_icmp", "at_first_floor", "at_cellar")} == {
        "servers": {busy.SERVER},
        "uses_icmp": {"10.1.0.2"},
        "at_first_floor": {"10.1.0.2"},
        "at_cellar": {"10.2.0.2"},
    }
    hosts = found["_meta"]["hostvars"]
    assert {host["ansible_user"] for host in hosts.values()} == {"admin"}
    table = busy.gateway.table()
    for side, end in (("source", ("original", "source")), ("destination", ("reply", "source"))):
        seen = Counter(entry[end[0]][end[1]] for entry in table)
        assert seen == {
            name: host[f"conntrack_as_{side}"]["flows"]
            for name, host in hosts.items()
            if host[f"conntrack_as_{side}"]["flows"]
        }
    counted = re.findall(r" src=(\S+) .*? bytes=(\d+) .*? bytes=(\d+) ", busy.gateway.conntrack("-L"))
    moved: Counter[str] = Counter()
    for source, there, back in counted:
        moved[source] += int(there) + int(back)
    assert {name: hosts[name]["conntrack_bytes"] for name in moved} == moved
    client = hosts["10.2.0.2"]
    assert client["conntrack_gateways"] == ["gw1"]
    assert client["conntrack_zones"] == client["conntrack_marks"] == [0]
    assert {name: row["flows"] for name, row in client["conntrack_as_source"]["services"].items()} == {
        "tcp/7": 1,
        "udp/7": 1,
    }

    graph = site.ansible("inventory", "-i", inventory, "--graph", *variables).stdout
    assert re.search(r"--@servers:\n  \|  \|--203\.0\.113\.80\n", graph)
    assert ("2001:db8:1::2" in graph) is has_ipv6()


def test_addresses_on_each_side_of_nat(busy: Gateway, site: Site) -> None:
    """The server sees all clients as one address, that of the gateway."""
    inventories = [
        site.write(
            {
                "netns": busy.gateway.path,
                "addresses": addresses,
                "match": {"family": "ipv4"},
                "compose": {addresses: "conntrack_flows"},
            },
            f"{addresses}.flows.yml",
        )
        for addresses in ("own", "as_server_sees")
    ]
    hosts = site.hosts(*inventories)
    assert {name: (host.get("own"), host.get("as_server_sees")) for name, host in hosts.items()} == {
        "10.1.0.2": (4, None),
        "10.2.0.2": (2, None),
        busy.OUTSIDE[0]: (None, 6),
    }


@pytest.mark.thorough
def test_a_cached_inventory_needs_no_table(busy: Gateway, site: Site) -> None:
    """It also needs neither the gateway nor root, until the user requests a fresh one."""
    inventory = site.write(
        {
            "netns": busy.gateway.path,
            "cache": True,
            "cache_plugin": "ansible.builtin.jsonfile",
            "cache_connection": str(site.folder / "cache"),
        }
    )
    first = site.hosts(inventory)
    assert {"10.1.0.2", "10.2.0.2"} <= set(first)
    busy.gateway.conntrack("-D", "-s", "10.1.0.2", check=False)
    assert site.hosts(inventory) == first
    done = site.ansible("inventory", "-i", inventory, "--list", "--flush-cache")
    assert set(listed(done.stdout)["_meta"]["hostvars"]) == set(first) - {"10.1.0.2"}


def test_snapshots_of_several_gateways_form_one_inventory(busy: Gateway, site: Site) -> None:
    """The module saves a snapshot on each gateway, one of them without the flows of a client."""
    (site.folder / "snapshots").mkdir()
    for name in ("gw1", "gw2"):
        busy.gateway.call(snapshot, str(site.folder / f"snapshots/{name}.gz"))
        busy.gateway.conntrack("-D", "-s", "10.1.0.2", check=False)
    inventory = site.write(
        {"snapshots": ["snapshots/gw2.gz", {"path": "snapshots/gw1.gz", "name": "north"}], "match": {"protocol": "udp"}}
    )
    hosts = site.hosts(inventory)
    here = os.uname().nodename
    assert {name: (host["conntrack_gateways"], host["conntrack_flows"]) for name, host in hosts.items()} == {
        "10.1.0.2": (["north"], 3),
        "10.2.0.2": (sorted(["north", here]), 2),
    }


def snapshot(path: str) -> None:
    with Table() as table:
        save(table, path, EVERYTHING, LabelMap(), check_mode=False)


def test_each_error_is_one_sentence(namespace: Namespace, site: Site) -> None:
    """The message contains the option's name and the correct form, for each inventory on its own."""
    (site.folder / "odd.gz").write_text("{}\n")
    wrong: dict[str, tuple[Document, str]] = {
        "misspelt": ({"mach": {"port": 5432}}, "mach: no such option; write one of "),
        "match": ({"match": {"prot": "tcp"}}, "match.prot: no such key; write protocol"),
        "nothing": ({"match": []}, "match: an empty list matches nothing; leave it out or add a match"),
        "null": ({"except": None}, "except: is null; leave it out or give it a value"),
        "undefined": (
            {"match": {"source": "{{ backend }}"}},
            "match: 'backend' is undefined; templates here can use only extra variables (-e)",
        ),
        "side": ({"side": "left"}, "Invalid value 'left' for config 'side'"),  # a message of Ansible itself
        "netns": ({"netns": "no-such-namespace"}, "netns: cannot enter /run/netns/no-such-namespace: No such file"),
        "snapshot": ({"snapshots": ["odd.gz"]}, f"snapshots[0]: {site.folder}/odd.gz is not a snapshot; name a file"),
        "hosts": ({"max_hosts": -1}, "max_hosts: -1 is negative; write 0 or more"),
        "bytes": (
            {"netns": namespace.path, "match": {"bytes_above": 1}},
            "match or except: requires accounting, which is off; set net.netfilter.nf_conntrack_acct=1",
        ),
    }
    files = [
        option
        for name, (options, _said) in wrong.items()
        for option in (
            "-i",
            site.write(
                {"netns": namespace.path, **options} if "snapshots" not in options else options, f"{name}.flows.yml"
            ),
        )
    ]
    done = site.ansible("inventory", *files, "--list")
    shown = re.findall(r"^\[WARNING\]: Failed to parse inventory with '.*?' plugin: (.*)", done.stderr, re.MULTILINE)
    assert len(shown) == len(wrong)
    for sentence, (name, (_options, beginning)) in zip(shown, wrong.items(), strict=True):
        assert beginning in sentence, name
    assert "Valid values are: source, destination, both" in done.stderr


def test_missing_privilege_is_reported_with_a_remedy(namespace: Namespace, site: Site) -> None:
    setpriv = programs.require("setpriv")
    inventory = site.write({"gateway": "gw1"})
    command = [setpriv, "--bounding-set=-net_admin", sys.executable, "-m", "ansible", "inventory", "-i", inventory]
    done = namespace.run([*command, "--list"], env=site.environment)
    (shown,) = re.findall(r"^\[WARNING\]: Failed to parse inventory with '.*?' plugin: (.*)", done.stderr, re.MULTILINE)
    assert shown.startswith("reading the table: Operation not permitted (EPERM). This needs CAP_NET_ADMIN")
    assert shown.endswith("run as root, or read a snapshot instead (snapshots)")
