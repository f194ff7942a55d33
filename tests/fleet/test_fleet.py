# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run tasks on a hundred hosts: each host has its own result, even if others fail, and the summary names both.

Twenty gateways are reached by SSH. Each has its own sshd, and the user becomes root. Eighty tenants are namespaces of
the controller; without STRICT=1 there are thirteen. A task on all hosts takes 40 seconds of processor time, mostly of
Ansible and sshd. There are therefore only two such tasks. The test with failing hosts uses the gateways and thirteen
tenants, and the test of batches in the playbook flush uses some of the gateways.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.lab import Host, Lab
from tests.profiles import STRICT
from tests.ssh import (
    ANSIBLE_TIMEOUT,
    CALLBACK,
    CLIENT_OPTIONS,
    COLLECTION,
    OWN,
    PYTHON,
    Server,
    environment,
    skip_unless_possible,
)

Document = dict[str, Any]

GATEWAYS = [f"gateway-{number:02}" for number in range(20)]
#: A hundred hosts in total with STRICT=1, otherwise a third of that.
TENANTS = [f"tenant-{number:02}" for number in range(80 if STRICT else 13)]
#: Special gateways: four that wait, one that dies while it waits, one that does not answer, one without a listener on
#: its port, and one where the user has no privileges.
WAITING, DYING, SILENT, REFUSING, UNPRIVILEGED = GATEWAYS[10:14], *GATEWAYS[16:]
#: The gateways, and some of the tenants with the special ones.
THIRD = [*GATEWAYS, *TENANTS[-13:]]
#: Special tenants: one that does not exist, and one whose kernel does not count bytes.
MISSING, UNCOUNTED = TENANTS[-2:]
UNREACHABLE = {DYING, SILENT, REFUSING, MISSING}

OLD, NEW = "198.51.100.1", "198.51.100.2"
STALE = {"nat": "source", "reply_destination": OLD}
LEAVING = "-p tcp -s 10.1.0.9 -d 192.0.2.99 --sport 99 --dport 99".split()
PATIENCE = 900.0


class Result(NamedTuple):
    """The outcome of a task on a host: ok, failed, unreachable."""

    outcome: str
    result: Document


class Run:
    """The output of Ansible for a run: the result of each task and host, and the summary."""

    def __init__(self, status: int, lines: list[str]) -> None:
        self.status = status
        self.tasks: dict[str, dict[str, Result]] = {}
        self.summary: dict[str, dict[str, int]] = {}
        for line in lines:
            kind, _space, text = line.partition(" ")
            if kind == "RESULT":
                record = json.loads(text)
                self.tasks.setdefault(record["name"], {})[record["host"]] = Result(record["outcome"], record["result"])
            elif kind == "SUMMARY":
                self.summary = json.loads(text)
        assert self.summary, "".join(lines)

    def outcomes(self, task: str) -> dict[str, set[str]]:
        """Return the hosts by the outcome of a task."""
        hosts: dict[str, set[str]] = {}
        for host, record in self.tasks[task].items():
            hosts.setdefault(record.outcome, set()).add(host)
        return hosts


class Fleet:
    """The hosts, a controller that reaches them, and the number of flows of each by the old and the new address."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.folder = folder
        self.controller = lab.host("controller")
        switch = lab.switch("switch")
        lab.link(self.controller, switch, ["10.0.0.250/24"])
        self.hosts: dict[str, Host] = {}
        self.servers: dict[str, Server] = {}
        for number, name in enumerate(GATEWAYS, start=1):
            gateway = self.hosts[name] = lab.host(name)
            lab.link(gateway, switch, [f"10.0.0.{number}/24"])
            gateway.firewall.track()  # so that the table contains the session, too
            (folder / name).mkdir()
            self.servers[name] = Server(gateway, folder / name)
        self.hosts |= {name: lab.host(name) for name in TENANTS}
        tree = folder / "ansible_collections/netops"
        tree.mkdir(parents=True)
        (tree / "conntrack").symlink_to(COLLECTION)
        (folder / "callback").mkdir()
        (folder / "callback/lines.py").write_text(CALLBACK)
        (folder / "ansible.cfg").touch()

    def fill(self) -> dict[str, tuple[int, int]]:
        """Create flows on each host, and return how many use the old address and how many the new one."""
        numbers = {}
        for position, (name, host) in enumerate(self.hosts.items()):
            host.sysctl("nf_conntrack_acct", int(name != UNCOUNTED))
            host.conntrack("-F")
            numbers[name] = (1 + position % 7, 1 + position % 5)
            add(host, *numbers[name])
        return numbers

    def remaining_flows(self) -> dict[str, tuple[int, int]]:
        """Return the number of flows of each host by the old and by the new address, according to conntrack(8)."""

        def count_by_address(host: Host) -> tuple[int, int]:
            udp = [flow["reply"]["destination"] for flow in host.table() if flow["protocol"] == "udp"]
            return udp.count(OLD), udp.count(NEW)

        return {name: count_by_address(host) for name, host in self.hosts.items()}

    def run(
        self,
        *playbooks: str | list[Document],
        forks: int,
        hosts: Sequence[str] = (*GATEWAYS, *TENANTS),
        variables: Document | None = None,
        of_hosts: dict[str, Document] | None = None,
        while_running: Callable[[str], None] | None = None,
    ) -> Run:
        """Run playbooks, by name or by content, with these hosts in the inventory.

        :param while_running: Receives each line of output as soon as it is printed.
        """
        arguments = ["--forks", str(forks), "--extra-vars", json.dumps(variables or {})]
        for number, playbook in enumerate(playbooks):
            if not isinstance(playbook, str):
                path = self.folder / f"play{number}.json"
                path.write_text(json.dumps(playbook))
                playbook = str(path)
            arguments.append(playbook)
        inventory = self.folder / "inventory.json"
        inventory.write_text(json.dumps(self._inventory(hosts, of_hosts or {})))
        # Persistent connections end with the process namespace. Ansible is process 1 in it, and namespaces are
        # found by the descriptors of that process. The path of a socket must be short.
        with tempfile.TemporaryDirectory(prefix="ssh-") as sockets:
            process = self.controller.start(
                [*OWN, sys.executable, "-m", "ansible", "playbook", "--inventory", str(inventory), *arguments],
                env={**self._environment(), "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets},
                pass_fds=[descriptor(self.hosts[name]) for name in TENANTS],
            )
            assert process.stdout is not None
            patience = threading.Timer(PATIENCE, process.kill)
            patience.start()
            lines = []
            for line in process.stdout:
                lines.append(line)
                if while_running is not None:
                    while_running(line)
            patience.cancel()
            return Run(process.wait(), lines)

    def _inventory(self, hosts: Sequence[str], of_hosts: dict[str, Document]) -> Document:
        gateways = {
            name: {
                "ansible_host": f"10.0.0.{number}",
                "ansible_ssh_private_key_file": str(self.servers[name].key),
                **of_hosts.get(name, {}),
            }
            for number, name in enumerate(GATEWAYS, start=1)
            if name in hosts
        }
        tenants = {
            name: {
                "ansible_netns_name": f"/proc/1/fd/{descriptor(self.hosts[name])}",
                **of_hosts.get(name, {}),
            }
            for name in TENANTS
            if name in hosts
        }
        return {
            "all": {
                "vars": {"ansible_python_interpreter": PYTHON},
                "children": {
                    "gateways": {
                        "hosts": gateways,
                        "vars": {"ansible_user": "operator", "ansible_become": True},
                    },
                    "tenants": {
                        "hosts": tenants,
                        "vars": {"ansible_connection": "netops.conntrack.netns", "ansible_become": False},
                    },
                },
            }
        }

    def _environment(self) -> dict[str, str]:
        options = {**CLIENT_OPTIONS, "ControlMaster": "auto", "ControlPersist": "600s"}
        return {
            **environment(),
            "ANSIBLE_CALLBACK_PLUGINS": str(self.folder / "callback"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_HOME": str(self.folder / "home"),
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_SSH_ARGS": "-F /dev/null " + " ".join(f"-o {name}={value}" for name, value in options.items()),
            "ANSIBLE_STDOUT_CALLBACK": "lines",
            "ANSIBLE_TIMEOUT": ANSIBLE_TIMEOUT,
        }


def descriptor(host: Host) -> int:
    """Open the namespace of a host in this process, and return the descriptor."""
    return int(host.path.rpartition("/")[2])


def add(host: Host, old: int, new: int) -> None:
    """Add flows by the old and by the new address."""
    addresses = [OLD] * old + [NEW] * new
    flows = [
        f"-A -p udp -s 10.1.0.2 -d 192.0.2.53 --sport {port} --dport 53 -t 600 -n {address}\n"
        for port, address in enumerate(addresses, start=1)
    ]
    host.conntrack("-R", "-", input="".join(flows))


def link(gateway: Host, state: str) -> None:
    """Set the link of a host up or down."""
    with gateway.rtnetlink() as rtnetlink:
        rtnetlink.link("set", index=rtnetlink.link_lookup(ifname="switch")[0], state=state)


@pytest.fixture(scope="module")
def fleet(root: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    skip_unless_possible()
    with Lab() as lab:
        yield Fleet(lab, tmp_path_factory.mktemp("fleet"))


def check_facts(facts: dict[str, Document], numbers: dict[str, tuple[int, int]]) -> None:
    """Check that the facts of each host are correct; gateways have the session in addition."""
    for name, by_host in facts.items():
        flows = sum(numbers[name])
        assert by_host["by_protocol"]["udp"] == by_host["nat"]["source"] == flows, name
        assert by_host["count"] == flows or name in GATEWAYS, name
        assert by_host["by_protocol"].get("tcp", 0) >= (name in GATEWAYS), name


@pytest.mark.thorough
def test_one_host_above_the_share_stops_a_hundred(fleet: Fleet) -> None:
    """With ten forks, the last host stops all.

    The messages name what each host would remove, and no host removes anything.
    """
    numbers = fleet.fill()
    busy = fleet.hosts[TENANTS[-1]]
    busy.conntrack("-F")
    add(busy, 150, 5)
    numbers[busy.name] = (150, 5)
    facts_task = {"name": "facts", "netops.conntrack.conntrack_facts": {"gather_subset": ["min", "summary"]}}
    run = fleet.run(
        [{"hosts": "all", "gather_facts": False, "tasks": [facts_task]}],
        "netops.conntrack.flush",
        forks=10,
        variables={"target_hosts": "all", "conntrack_match": STALE},
    )
    assert run.status != 0
    facts = {name: record.result["ansible_facts"]["conntrack"] for name, record in run.tasks["facts"].items()}
    assert facts.keys() == fleet.hosts.keys()
    check_facts(facts, numbers)
    by_host = run.tasks["Check the share of the table"]
    assert by_host.keys() == fleet.hosts.keys()
    for name, (old, new) in numbers.items():
        record = by_host[name]
        assert record.outcome == ("failed" if name == busy.name else "ok")
        assert record.result["msg"].startswith(f"{old} of "), name
        assert name in GATEWAYS or f"{old} of {old + new} entries would be removed" in record.result["msg"], name
    assert "-e conntrack_max_share=97" in by_host[busy.name].result["msg"]
    assert "Remove the entries" not in run.tasks
    assert fleet.remaining_flows() == numbers
    assert {name for name, counts in run.summary.items() if counts["failures"]} == {busy.name}


@pytest.mark.thorough
def test_lost_gateway_is_reported_and_the_others_are_flushed(fleet: Fleet) -> None:
    """The connection to the gateway breaks while the first batch runs; the gateway is in the last batch."""
    numbers = fleet.fill()
    gateways = GATEWAYS[:8]
    victim = gateways[5]

    def cut_link(line: str) -> None:
        if '"Check that no host has failed"' in line:
            link(fleet.hosts[victim], "down")

    try:
        run = fleet.run(
            "netops.conntrack.flush",
            forks=10,
            variables={"target_hosts": ",".join(gateways), "conntrack_match": STALE, "conntrack_batches": [1, 7]},
            while_running=cut_link,
        )
    finally:
        link(fleet.hosts[victim], "up")
    assert run.status != 0
    assert run.outcomes("Remove the entries") == {"ok": set(gateways) - {victim}, "unreachable": {victim}}
    (record,) = run.tasks["Show what was done"].values()
    for name, (old, _new) in numbers.items():
        if name in gateways and name != victim:
            assert record.result["msg"][name].startswith(f"{old} removed")
            numbers[name] = (0, numbers[name][1])
    assert (
        "Data could not be sent" in record.result["msg"][victim] or "Failed to connect" in record.result["msg"][victim]
    )
    assert run.outcomes("Fail if the entries were not removed")["failed"] == {victim}
    assert fleet.remaining_flows() == numbers


@pytest.mark.thorough
def test_each_host_has_its_own_result_or_error(fleet: Fleet) -> None:
    """Run with fifty forks and several kinds of failing hosts.

    One host has no listener, one does not answer, one does not exist and one dies while it runs a module. On one
    host the user lacks privileges, and the kernel of one lacks a feature.

    This test is the last one, because the host that dies is not started again.
    """
    numbers = fleet.fill()
    waiting = [fleet.hosts[name] for name in (*WAITING, DYING)]
    for host in waiting:
        host.conntrack("-I", *LEAVING, "-t", "600", "--state", "ESTABLISHED")

    over = threading.Event()

    def while_running() -> None:
        while not all(any(host.subscriptions()) for host in waiting):
            if over.wait(0.1):
                return
        for host in waiting:
            host.wait_for_reader()
        fleet.servers[DYING].process.kill()
        link(fleet.hosts[DYING], "down")
        for name in WAITING:
            fleet.hosts[name].conntrack("-D", *LEAVING)

    wait = {"name": "wait", "netops.conntrack.conntrack_wait": {"match": {"destination_port": 99}, "timeout": 600}}
    match = [{**STALE, "bytes_below": 1}, {"destination_port": 22, "state": "established"}]
    flush = {"name": "flush", "netops.conntrack.conntrack_flush": {"match": match}}
    report = fleet.folder / "report.json"
    link(fleet.hosts[SILENT], "down")
    watcher = threading.Thread(target=while_running)
    watcher.start()
    try:
        run = fleet.run(
            [
                {"ansible.builtin.import_playbook": "netops.conntrack.report"},
                {"hosts": ",".join([*WAITING, DYING]), "gather_facts": False, "tasks": [wait]},
                {"hosts": "all", "gather_facts": False, "tasks": [flush]},
            ],
            variables={"conntrack_report_path": str(report.with_suffix(".html"))},
            forks=50,
            hosts=THIRD,
            of_hosts={
                REFUSING: {"ansible_port": 2222},
                UNPRIVILEGED: {"ansible_user": "bystander", "ansible_become": False},
                MISSING: {"ansible_netns_name": "/proc/1/fd/9999"},
            },
        )
    finally:
        over.set()
        watcher.join()
        link(fleet.hosts[SILENT], "up")

    reported = {host["name"]: host for host in json.loads(report.read_text())["hosts"]}
    unknown = {name: host["reasons"][0] for name, host in reported.items() if host["figures"] is None}
    check_facts({name: host["figures"] for name, host in reported.items() if name not in unknown}, numbers)
    for name, about, expected_text in (
        (SILENT, "unreachable", ""),
        (REFUSING, "unreachable", "Connection refused"),
        (MISSING, "unreachable", "There is no network namespace /proc/1/fd/9999"),
        (UNPRIVILEGED, "failed", "This needs CAP_NET_ADMIN"),
    ):
        assert unknown[name]["about"] == about
        assert expected_text in unknown.pop(name)["text"]
    assert not unknown

    assert run.outcomes("wait") == {"ok": set(WAITING), "unreachable": {DYING}}
    assert [run.tasks["wait"][name].result["initial"] for name in WAITING] == [1] * len(WAITING)
    failed = {UNPRIVILEGED, UNCOUNTED}
    done = set(THIRD) - UNREACHABLE - failed
    assert run.outcomes("flush") == {"ok": done, "failed": failed, "unreachable": UNREACHABLE - {DYING}}
    assert "requires accounting, which is off" in run.tasks["flush"][UNCOUNTED].result["msg"]
    for name in done:
        flushed = run.tasks["flush"][name].result
        assert (flushed["flushed"], flushed["kept"]) == (numbers[name][0], int(name in GATEWAYS)), name
        numbers[name] = (0, numbers[name][1])
    assert fleet.remaining_flows() == numbers

    assert run.status != 0
    assert run.summary.keys() == reported.keys() == set(THIRD)
    for kind, names in (("unreachable", UNREACHABLE), ("failures", failed)):
        assert {name: counts[kind] for name, counts in run.summary.items() if counts[kind]} == dict.fromkeys(names, 1)
