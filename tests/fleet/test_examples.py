# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run every playbook in examples/ unchanged, with real traffic. Only the inventory is another one.

The inventory has the groups of examples/inventory.yml, and the folder `tasks` is beside it, too.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from tests import clock, programs
from tests.fleet.test_howto import fill, once_a_process_listens
from tests.lab import Gateway, Lab, Namespace, isolation
from tests.lab.handover import PORT, SERVER, Site
from tests.plays import CHECKOUT, PIPELINING, TIMEOUT, Controller

EXAMPLES = CHECKOUT / "examples"
INVENTORY = EXAMPLES / "inventory.yml"
OLD, NEW = Gateway.OUTSIDE
COLLECTED = "var/lib/prometheus/node-exporter"

#: Changes to /etc and /var/lib stay in this mount namespace, which has the folders that the machine may lack.
PRIVATE = """
mount -t tmpfs none "$0"
for name in etc var/lib; do
    mkdir -p "$0/$name/upper" "$0/$name/work"
    mount -t overlay -o "lowerdir=/$name,upperdir=$0/$name/upper,workdir=$0/$name/work" none "/$name"
done
mkdir -p /var/lib/prometheus/node-exporter
echo ready
exec sleep infinity
"""


@pytest.fixture(scope="module")
def private(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Return the ID of a process whose mount namespace has folders of its own."""
    programs.require("conntrack", "nft", "nsenter")
    process = subprocess.Popen(  # pylint: disable=consider-using-with,subprocess-popen-preexec-fn
        ["unshare", "--mount", "sh", "-ec", PRIVATE, str(tmp_path_factory.mktemp("private"))],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=isolation.end_with_parent,
    )
    assert process.stdout is not None
    with process:
        if process.stdout.readline() != "ready\n":
            pytest.skip("mount namespaces of one's own are forbidden here")
        yield process.pid
        process.kill()


@pytest.fixture(scope="module")
def network(root: None) -> Iterator[Gateway]:
    """Return one network for all tests of this file. Both clients have a mirror, too."""
    with Lab() as lab:
        gateway = lab.gateway_topology()
        for client in (gateway.client1, gateway.client2):
            client.mirror(Gateway.PORT)
        yield gateway


@pytest.fixture
def gateway(network: Gateway) -> Iterator[Namespace]:
    """Return the gateway. Afterwards, its table is empty, and it has only the rules of the lab."""
    yield network.gateway
    rules = network.gateway.run(["nft", "list", "tables"]).stdout
    for table in re.findall(r"^table (\w+ example_\w+)$", rules, re.MULTILINE):
        network.gateway.nft(f"delete table {table}")
    network.translate_to(0)
    network.gateway.empty()


class Result:
    """The output of a run, and the number of tasks that changed something, by host."""

    def __init__(self, printed: str) -> None:
        self.printed = printed
        self.changed = {
            host: int(number) for host, number in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", printed, re.M)
        }


Play = Callable[..., Result]


@pytest.fixture
def play(private: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Run an example on hosts with the names in its inventory."""
    controller = Controller(tmp_path)
    (tmp_path / "tasks").symlink_to(EXAMPLES / "tasks")

    def run(name: str, hosts: Mapping[str, Namespace], *options: str, times: int = 1, status: int = 0) -> Result:
        inventory = yaml.safe_load(INVENTORY.read_text())["all"]
        inventory["vars"] = {
            "ansible_connection": "netops.conntrack.netns",
            "ansible_python_interpreter": sys.executable,
            "ansible_become": False,
        }
        for group in inventory["children"].values():
            group["hosts"] = {
                host: {"ansible_netns_name": hosts[host].path} for host in group["hosts"] if host in hosts
            }
        (tmp_path / "inventory.json").write_text(json.dumps({"all": inventory}))
        command = ["nsenter", f"--mount=/proc/{private}/ns/mnt", f"--wd={tmp_path}", sys.executable, "-m", "ansible"]
        command += ["playbook", "-i", str(tmp_path / "inventory.json"), *options]
        done = subprocess.run(
            command + times * [str(EXAMPLES / f"{name}.yml")],
            check=False,
            env={**controller.environment, **PIPELINING},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        print(done.stdout, done.stderr)
        assert done.returncode == status
        return Result(done.stdout)

    return run


def playbooks() -> set[str]:
    return {path.stem for path in EXAMPLES.glob("*.yml")} - {INVENTORY.stem}


def test_each_example_is_tested() -> None:
    assert playbooks() == {name.removeprefix("test_") for name in globals()} & playbooks()
    assert len(playbooks()) == 10


def test_each_example_begins_with_its_purpose_its_command_and_what_to_change() -> None:
    for name in playbooks():
        lines = (EXAMPLES / f"{name}.yml").read_text().partition("\n---\n")[2].splitlines()
        comment = lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]
        assert len(comment) == 3, name
        assert f"ansible-playbook -i examples/inventory.yml examples/{name}.yml" in comment[1], name


def ids(namespace: Namespace) -> set[int]:
    return {entry["id"] for entry in namespace.table()}


def test_remove_stale_flows(tun: None, network: Gateway, gateway: Namespace, play: Play) -> None:
    """The flow to the internet uses the new address, and the entry of the flow between the clients stays."""
    gateway.firewall.clear("snat")
    gateway.nft((EXAMPLES / "files/nat.nft").read_text().replace(NEW, OLD))
    with (
        network.client1.udp(Gateway.SERVER, Gateway.PORT, source_port=4001) as flow,
        network.client1.udp(Gateway.CLIENTS[1], Gateway.PORT, source_port=4002) as inside,
    ):
        assert inside.seen_as().address == Gateway.CLIENTS[0]
        kept = ids(gateway)
        assert flow.seen_as().address == OLD
        result = play("remove_stale_flows", {"gw1": gateway}, times=2)
        assert result.changed == {"gw1": 3}, "rules, load, flush, and nothing in the second run"
        assert "1 flows are affected" in result.printed
        assert ids(gateway) == kept
        assert flow.seen_as().address == NEW


def test_block_host(network: Gateway, gateway: Namespace, play: Play) -> None:
    """The connection of the blocked host ends, although established connections are accepted. Others continue."""
    gateway.nft(
        "table inet example_filter { chain forward { type filter hook forward priority filter; policy accept;\n"
        "ct state established accept\n}\n}"
    )
    with (
        network.client1.tcp(Gateway.SERVER, Gateway.PORT) as blocked,
        network.client2.tcp(Gateway.SERVER, Gateway.PORT) as other,
    ):
        blocked.seen_as()
        other.seen_as()
        result = play("block_host", {"gw1": gateway}, times=2)
        assert result.changed == {"gw1": 3}
        assert "1 connections ended, 0 kept" in result.printed
        assert [entry["original"]["source"] for entry in gateway.table()] == [Gateway.CLIENTS[1]]
        with pytest.raises(TimeoutError):
            blocked.seen_as(timeout=1)
        other.seen_as()


@pytest.mark.thorough
def test_drain_backend(network: Gateway, gateway: Namespace, play: Play) -> None:
    """The playbook waits for the client of the old backend. A new connection reaches the new backend."""
    for client in (network.client1, network.client2):
        client.mirror(443)
    rules = "table ip example_service { chain prerouting { type nat hook prerouting priority dstnat\n"
    gateway.nft(f"{rules}ip daddr {OLD} tcp dport 443 dnat to {Gateway.CLIENTS[0]}\n}}\n}}")
    connection = network.server.tcp(OLD, 443, source_port=40001)
    connection.seen_as()
    (entry,) = gateway.table()
    assert entry["reply"]["source"] == Gateway.CLIENTS[0]
    with once_a_process_listens(gateway, connection.close):
        result = play("drain_backend", {"gw1": gateway}, times=2)
    assert result.changed == {"gw1": 2}, "rules and load; the wait changes nothing"
    assert re.search("1 connections at the start, 0 after", result.printed)
    with network.server.tcp(OLD, 443, source_port=40002) as connection:
        connection.seen_as()
    backends = {entry["original"]["source_port"]: entry["reply"]["source"] for entry in gateway.table()}
    assert backends[40002] == Gateway.CLIENTS[1]


def test_declare_entries(network: Gateway, gateway: Namespace, play: Play) -> None:
    """The packets of the flows use the declared ports, and another entry with the mark is deleted."""
    network.server.mirror(5060)
    old = "-I -p udp -s 10.1.0.9 -d 203.0.113.80 --sport 5060 --dport 5060 -t 600 -m 0x50"
    gateway.conntrack(*old.split())
    result = play("declare_entries", {"gw1": gateway}, times=2)
    assert result.changed == {"gw1": 1}
    assert "2 created, 0 updated, 1 deleted, 0 unchanged" in " ".join(result.printed.split())
    marked = [entry["timeout"] for entry in gateway.table() if entry["mark"] == 0x50]
    assert marked == 2 * [clock.left_of(3600)]
    for client, port in ((network.client1, 6060), (network.client2, 6061)):
        with client.udp(Gateway.SERVER, 5060, source_port=5060) as flow:
            assert flow.seen_as() == (OLD, port)


@pytest.mark.thorough
def test_declare_gateway(network: Gateway, gateway: Namespace, play: Play) -> None:
    """The gateway has the settings, the policy and the entry, and no flow to the former network."""
    programs.require("nfct")
    before = {name: gateway.sysctl(name) for name in ("nf_conntrack_acct", "nf_conntrack_tcp_timeout_established")}
    gateway.conntrack(*"-I -p udp -s 10.1.0.2 -d 10.66.0.9 --sport 1 --dport 2 -t 600".split())
    result = play("declare_gateway", {"gw1": gateway}, times=2)
    assert result.changed == {"gw1": 1}
    assert [gateway.sysctl(name) for name in before] == ["1", "86400"]
    policy = gateway.run(["nfct", "get", "timeout", "example-dns"]).stdout
    assert re.findall(r"\.(\w+) = (\d+),", policy)[-2:] == [("UNREPLIED", "5"), ("REPLIED", "10")]
    with network.client2.udp(Gateway.SERVER, Gateway.PORT) as flow:
        flow.seen_as()
    entries = gateway.conntrack("-L")
    assert "mark=81" in entries
    assert "10.66.0.9" not in entries
    assert entries.count("packets=1 ") == 2, "accounting counts the flow of the client"
    for name, value in before.items():
        gateway.sysctl(name, value)
    gateway.run(["nfct", "delete", "timeout", "example-dns"])


@pytest.mark.thorough
def test_reboot_gateway(network: Gateway, gateway: Namespace, play: Play) -> None:
    """Two connections with the same port keep their translated ports. The second one began first after the reboot."""
    with (
        network.client1.tcp(Gateway.SERVER, Gateway.PORT, source_port=40001) as one,
        network.client2.tcp(Gateway.SERVER, Gateway.PORT, source_port=40001) as other,
    ):
        before = [flow.seen_as() for flow in (one, other)]
        assert len(set(before)) == 2
        play("reboot_gateway", {"gw1": gateway}, "--tags=save")
        gateway.empty()
        result = play("reboot_gateway", {"gw1": gateway}, "--tags=restore", times=2)
        assert result.changed == {"gw1": 1}
        assert "2 of 2 entries created" in result.printed
        assert [flow.seen_as() for flow in (other, one)] == before[::-1]


@pytest.mark.thorough
def test_move_gateway(lab: Lab, play: Play) -> None:
    """A connection continues through the new gateway, and the server receives the same address and port."""
    site = Site(lab)
    hosts = {"gw1": site.old, "gw2": site.new, "core": site.client, "edge": site.server}
    with site.client.tcp(SERVER["ipv4"], PORT, source_port=40001) as connection:
        before = connection.seen_as()
        play("move_gateway", hosts)
        site.old.empty()
        assert connection.seen_as() == before
        assert site.old.count() == 0, "packets still pass the old gateway"


@pytest.mark.thorough
def test_report(network: Gateway, gateway: Namespace, play: Play, tmp_path: Path) -> None:
    """The run succeeds, and fails after flows of a client could not be NATed because no port was free."""

    def failures() -> int:
        return sum(int(suite.get("failures", "")) for suite in ET.parse(tmp_path / "conntrack.xml").iter("testsuite"))

    with network.client1.udp(Gateway.SERVER, Gateway.PORT) as flow:
        flow.seen_as()
    assert set(play("report", {"gw1": gateway}).changed.values()) <= {0, 1}
    assert "gw1" in (tmp_path / "conntrack.html").read_text()
    assert failures() == 0
    gateway.firewall.clear("snat")
    gateway.nft(
        "table ip example_range { chain postrouting { type nat hook postrouting priority srcnat\n"
        f'oifname "server" meta l4proto udp snat to {OLD}:1024-1033\n}}\n}}'
    )
    with ExitStack() as stack:
        for _flow in range(12):
            stack.enter_context(network.client1.udp(Gateway.SERVER, Gateway.PORT)).send()
        play("report", {"gw1": gateway}, status=2)
    assert failures() > 0


@pytest.mark.thorough
def test_metrics(network: Gateway, gateway: Namespace, play: Play, private: int) -> None:
    """The file has the flows that the kernel counts, by client network, and promtool accepts it."""
    before = gateway.sysctl("nf_conntrack_acct")
    for client, flows in ((network.client1, 3), (network.client2, 1)):
        for _flow in range(flows):
            with client.udp(Gateway.SERVER, Gateway.PORT) as flow:
                flow.seen_as()
    play("metrics", {"gw1": gateway})
    assert gateway.sysctl("nf_conntrack_acct", before) == "1"
    text = Path(f"/proc/{private}/root/{COLLECTED}/conntrack.prom").read_text()
    assert re.search(rf"^conntrack_entries\{{.*\}} {gateway.count()}$", text, re.MULTILINE)
    assert re.search(r'site="example"', text)
    assert len(re.findall(r'source="10\.[12]\.0\.0/24"', text)) >= 2
    if programs.exists("promtool"):
        subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)


@pytest.mark.thorough
def test_find_top_clients(network: Gateway, gateway: Namespace, play: Play) -> None:
    """The client with the most flows comes first."""
    fill(gateway, 3)
    with network.client2.udp(Gateway.SERVER, Gateway.PORT) as flow:
        flow.seen_as()
    result = play("find_top_clients", {"gw1": gateway})
    assert result.changed == {"gw1": 0}
    assert re.findall(r'"flows": (\d+),\s+"source": "(.*?)"', result.printed) == [("3", "10.1.0.2"), ("1", "10.2.0.2")]
