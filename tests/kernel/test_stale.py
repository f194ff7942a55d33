# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stale flows: the modules find the entries of a gateway that the current rules would treat differently."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import NotPermitted
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate import ruleset, scratch
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.evaluator import Reevaluation
from tests import clock, programs
from tests.lab import Host, Lab
from tests.modules import MODULES, answer, given, run, run_in_new_process

from .stale_gateway import OUTSIDE

pytestmark = pytest.mark.oldest_and_newest_kernel

ETH_P_ALL, ETH_P_IP = 0x0003, 0x0800  # linux/if_ether.h
CLIENT, BLOCKED, SERVER = "10.1.0.2", "10.1.0.66", "198.51.100.7"
HANDSHAKE = {"flags": ["window_scale", "sack_permitted"], "window_scale": 7}


def tcp(source: str, port: int, destination: str, destination_port: int, **more: Any) -> dict[str, Any]:
    """Return an established connection with the TCP flags of a complete handshake."""
    ends = {"source": source, "source_port": port, "destination": destination, "destination_port": destination_port}
    state = {"state": "established", "original": HANDSHAKE, "reply": HANDSHAKE}
    status = ["seen_reply", "assured"]
    return {"protocol": "tcp", "original": ends, "tcp": state, "status": status, "timeout": 600, **more}


def from_wan(address: str, port: int | None = None) -> dict[str, Any]:
    return {"nat": {"destination": {"address": address, **({} if port is None else {"port": port})}}}


def to_wan(address: str = OUTSIDE) -> dict[str, Any]:
    return {"nat": {"source": {"address": address}}}


def load(gateway: Host, *entries: dict[str, Any]) -> None:
    assert run(gateway, "conntrack_entries", entries=list(entries))["counts"]["created"] == len(entries)


def judged(gateway: Host, **options: Any) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the stale entries by source and destination port."""
    result = run(gateway, "conntrack_info", stale=True, **options)
    return {(one["original"]["source"], one["original"]["destination_port"]): one for one in result["entries"]}


CURRENT = [
    tcp(CLIENT, 4000, SERVER, 443, **to_wan()),
    tcp(SERVER, 4001, OUTSIDE, 8080, **from_wan("10.1.0.80", 80)),
    tcp(SERVER, 4002, OUTSIDE, 22),
    tcp(OUTSIDE, 4003, SERVER, 80),
    tcp("2001:db8:1::2", 4004, "2001:db8:9::1", 443),
    tcp("127.0.0.1", 4005, "127.0.0.1", 80),
]
STALE = [
    tcp(CLIENT, 5000, SERVER, 8443, **to_wan("203.0.113.9")),
    tcp(CLIENT, 5001, SERVER, 8444),
    tcp(SERVER, 5002, OUTSIDE, 8080, **from_wan("10.1.0.81", 80)),
    tcp(BLOCKED, 5003, SERVER, 443, **to_wan()),
    tcp(SERVER, 5004, OUTSIDE, 23),
    tcp("127.0.0.1", 5005, "127.0.0.1", 23),
]


def test_flows_that_agree_with_the_rules_are_unchanged(gateway: Host) -> None:
    load(gateway, *CURRENT)
    result = run(gateway, "conntrack_info", stale=True)
    assert result["entries"] == []
    assert result["verdicts"] == {
        "unchanged": len(CURRENT),
        "nat_changed": 0,
        "refused": 0,
        "untracked": 0,
        "uncertain": 0,
    }


def test_stale_flow_has_its_verdict_and_the_deciding_rule(gateway: Host) -> None:
    load(gateway, *CURRENT, *STALE)
    found = judged(gateway)
    assert {key: one["verdict"] for key, one in found.items()} == {
        (CLIENT, 8443): "nat_changed",
        (CLIENT, 8444): "nat_changed",
        (SERVER, 8080): "nat_changed",
        (BLOCKED, 443): "refused",
        (SERVER, 23): "refused",
        ("127.0.0.1", 23): "refused",
    }
    masqueraded = found[CLIENT, 8443]
    assert masqueraded["expected"] == {"source": {"address": OUTSIDE, "port": 5000}}
    assert {**masqueraded["rule"], "handle": 0} == {
        "family": "ip",
        "table": "nat",
        "chain": "postrouting",
        "handle": 0,
        "comment": "to the internet",
    }
    handle = masqueraded["rule"]["handle"]
    assert f'comment "to the internet" # handle {handle}' in gateway.run(["nft", "-a", "list", "ruleset"]).stdout
    assert found[SERVER, 8080]["expected"] == {"destination": {"address": "10.1.0.80", "port": 80}}
    assert found[BLOCKED, 443]["rule"]["comment"] == "blocked hosts"
    assert found[BLOCKED, 443]["expected"] is None


def test_flush_removes_only_stale_flows(gateway: Host) -> None:
    load(gateway, *CURRENT, *STALE)
    checked = run(gateway, "conntrack_flush", stale=True, keep_ssh=False, check_mode=True)
    assert (checked["changed"], checked["flushed"], gateway.count()) == (True, len(STALE), len(CURRENT + STALE))
    flushed = run(gateway, "conntrack_flush", stale=True, keep_ssh=False)
    assert {**checked, "entries": 0} == {**flushed, "entries": 0}
    assert flushed["verdicts"]["unchanged"] == len(CURRENT)
    ports = {flow["original"]["source_port"] for flow in gateway.table()}
    assert ports == {one["original"]["source_port"] for one in CURRENT}
    again = run(gateway, "conntrack_flush", stale=True, keep_ssh=False)
    assert (again["changed"], again["flushed"]) == (False, 0)


@pytest.mark.running_kernel_only
def test_flush_is_limited_to_verdicts_and_match(gateway: Host) -> None:
    load(gateway, *CURRENT, *STALE)
    refused = run(gateway, "conntrack_flush", stale=["refused"], match={"source": "10.1.0.0/24"}, keep_ssh=False)
    assert refused["flushed"] == 1
    assert refused["verdicts"] == {"unchanged": 1, "nat_changed": 2, "refused": 1, "untracked": 0, "uncertain": 0}


@pytest.mark.running_kernel_only
def test_flush_above_the_limit_removes_nothing(gateway: Host) -> None:
    load(gateway, *CURRENT, *STALE)
    failed = run(gateway, "conntrack_flush", stale=True, limit=2, keep_ssh=False)
    assert failed["failed"]
    assert f"{len(STALE)} entries match, more than the limit of 2" in failed["msg"]
    assert gateway.count() == len(CURRENT + STALE)


def test_undecidable_flow_is_uncertain_and_kept(gateway: Host) -> None:
    """A rate limit decides, and its state at the next packet is unknown."""
    load(gateway, tcp(CLIENT, 6000, "10.1.0.9", 2222))
    # In a fork of a process that has imported parts of the controller, warnings are not in the result
    result = run_in_new_process(gateway, "conntrack_flush", stale=True, keep_ssh=False)
    assert (result["flushed"], result["verdicts"]["uncertain"]) == (0, 1)
    (warning,) = result["warnings"]
    assert "1 of 1 flows are uncertain and were left out. Most frequent reason: limit." in str(warning)
    for options in ({}, {"group_by": ["source"]}):
        assert run_in_new_process(gateway, "conntrack_info", stale=True, **options)["warnings"] == [warning]
    facts = run(gateway, "conntrack_facts", gather_subset=["stale"])["ansible_facts"]["conntrack"]["stale"]
    (decided,) = facts["rules"]
    assert (decided["verdict"], decided["entries"], decided["rule"]["comment"]) == ("uncertain", 1, "slowly")
    assert decided["reason"] == "limit"


def test_untracked(gateway: Host) -> None:
    flow = {"source": CLIENT, "source_port": 6000, "destination": OUTSIDE, "destination_port": 6081}
    load(gateway, {"protocol": "udp", "original": flow, "timeout": 600})
    (one,) = judged(gateway).values()
    assert (one["verdict"], one["rule"]["table"]) == ("untracked", "raw")


def settings() -> dict[str, str]:
    """Return every readable sysctl of the network namespace of this thread."""
    found = {}
    for path in Path("/proc/sys/net").rglob("*"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found[str(path)] = path.read_text()
    del found["/proc/sys/net/netfilter/nf_conntrack_count"]  # some kernels count the entries of all namespaces
    return found


@contextlib.contextmanager
def no_packets() -> Iterator[None]:
    """Fail if an IPv4 packet passes a link of the network namespace of this thread during the block."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as packets:
        yield
        packets.setblocking(False)
        seen = []
        with contextlib.suppress(BlockingIOError):
            while True:
                _data, (link, protocol, *_rest) = packets.recvfrom(100)
                seen.append((link, protocol))
        assert ETH_P_IP not in {protocol for _link, protocol in seen}, seen


@contextlib.contextmanager
def kernel_log() -> Iterator[list[str]]:
    """Collect the messages about packets, links or rules that the kernel logs during the block, if its log is readable.

    The log is that of all namespaces.
    """
    messages: list[str] = []
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        yield messages
        return
    try:
        os.lseek(log, 0, os.SEEK_END)
        yield messages
        with contextlib.suppress(BlockingIOError):
            while True:
                record = os.read(log, 8192).decode(errors="replace")
                if re.search(r"tun|veth|nft|nf_|netfilter|conntrack|IPv[46]", record):
                    messages.append(record)
    finally:
        os.close(log)


def test_host_does_not_change(gateway: Host) -> None:
    load(gateway, *CURRENT, *STALE)
    gateway.wait_for_links()  # links and addresses that come up later would appear as changes

    def state() -> list[Any]:
        commands = (["nft", "-a", "list", "ruleset"], ["ip", "address"], ["ip", "route", "show", "table", "all"])
        with gateway.entered():
            return [*(gateway.run(command).stdout for command in commands), settings()]

    def flows() -> list[str]:
        return sorted(str({**flow, "timeout": 0}) for flow in gateway.table())

    before, flows_before = state(), flows()
    logged = []
    for _turn in range(3):
        with gateway.events() as events, gateway.entered(), no_packets(), kernel_log() as messages:
            assert judged(gateway)
        assert state() == before
        assert flows() == flows_before
        assert len(events) == 0
        logged.append(messages)
        if not messages:
            break
    # Other tests use the same kernel, and links of other hosts of the lab may come up late
    assert not all(logged), logged


@pytest.mark.running_kernel_only
@pytest.mark.parametrize(
    ("value", "error_text"),
    [
        ("sometimes", "stale: 'sometimes' is not a verdict; write one or more of nat_changed, refused, untracked"),
        ([], "stale: [] is not a list; write true, or a list of nat_changed, refused, untracked"),
        (["uncertain"], "stale: 'uncertain' is not a verdict"),
    ],
)
def test_error_names_an_invalid_value(gateway: Host, value: Any, error_text: str) -> None:
    failed = run(gateway, "conntrack_flush", stale=value)
    assert failed["failed"]
    assert error_text in failed["msg"]


@pytest.mark.running_kernel_only
@pytest.mark.parametrize("value", [False, "false", "False", "no", None])
def test_without_a_verdict_a_match_is_required(gateway: Host, value: Any) -> None:
    """Otherwise, a template that returns a string would flush the table."""
    load(gateway, *CURRENT)
    failed = run(gateway, "conntrack_flush", stale=value, keep_ssh=False)
    assert failed["failed"]
    assert ("stale: is null" if value is None else "match: is missing") in failed["msg"]
    assert gateway.count() == len(CURRENT)


@pytest.mark.running_kernel_only
def test_null_is_not_every_verdict(gateway: Host) -> None:
    load(gateway, *CURRENT)
    failed = run(gateway, "conntrack_flush", stale=None, match={"protocol": "tcp"}, keep_ssh=False)
    assert failed["failed"]
    assert gateway.count() == len(CURRENT)


@pytest.mark.running_kernel_only
def test_stale_is_refused_for_expectations(gateway: Host) -> None:
    failed = run(gateway, "conntrack_info", stale=True, table="expect")
    assert failed["failed"]
    assert "stale: is for the table conntrack" in failed["msg"]


BALANCED = """
table ip balance {
    chain prerouting {
        type nat hook prerouting priority -110; policy accept;
        ip daddr 203.0.113.1 tcp dport 9000 dnat to CHOICE map { 0 : 10.1.0.80, 1 : 10.1.0.81, 2 : 10.1.0.82 }
    }
}
"""


@pytest.mark.parametrize("choice", ["numgen random mod 3", "numgen inc mod 3", "jhash ip saddr mod 3"])
def test_random_nat_is_unchanged_if_it_is_possible(gateway: Host, choice: str) -> None:
    gateway.nft(BALANCED.replace("CHOICE", choice))
    backends = ["10.1.0.80", "10.1.0.81", "10.1.0.82", "10.1.0.83"]
    load(gateway, *(tcp(SERVER, 7000 + i, OUTSIDE, 9000, **from_wan(to, 9000)) for i, to in enumerate(backends)))
    result = run(gateway, "conntrack_info", stale=True)
    assert result["verdicts"]["unchanged"] == 3
    (stale,) = result["entries"]
    assert (stale["nat"]["destination"]["address"], stale["verdict"]) == ("10.1.0.83", "nat_changed")


@pytest.mark.running_kernel_only
def test_verdicts_without_a_rule_are_counted(gateway: Host) -> None:
    load(gateway, tcp(CLIENT, 40001, SERVER, 443, **to_wan()))
    gateway.run(["ip", "route", "del", "default"])
    facts = run(gateway, "conntrack_facts", gather_subset=["stale"])["ansible_facts"]["conntrack"]["stale"]
    assert facts["rules"] == [{"verdict": "refused", "rule": None, "reason": None, "entries": 1}]


REEVALUATE = """
import sys, time
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.evaluator import Reevaluation
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
with Table() as table, Reevaluation() as reevaluation:
    entries = list(table.dump())
    reevaluation.judge(entries)
    print("judging", flush=True)
    while True:
        reevaluation.judge(entries)
"""


def namespaces(of: str = "[0-9]*") -> set[str]:
    """Return the network namespaces that processes use or hold open."""
    found = set()
    for path in (*Path("/proc").glob(f"{of}/task/*/ns/net"), *Path("/proc").glob(f"{of}/fd/*")):
        with contextlib.suppress(OSError):
            found.add(os.readlink(path))
    return {name for name in found if name.startswith("net:")}


def test_a_killed_process_leaves_nothing(gateway: Host) -> None:
    load(gateway, *CURRENT, *STALE)
    before = gateway.run(["nft", "-a", "list", "ruleset"]).stdout, gateway.run(["ip", "-o", "link"]).stdout
    process = gateway.start(
        [sys.executable, "-c", REEVALUATE], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "judging\n"
    (scratch_namespace,) = namespaces(str(process.pid)) - {os.readlink(gateway.path)}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (gateway.run(["nft", "-a", "list", "ruleset"]).stdout, gateway.run(["ip", "-o", "link"]).stdout) == before
    assert scratch_namespace not in namespaces()
    assert gateway.count() == len(CURRENT + STALE)


def judge_nothing() -> None:
    with Reevaluation():
        pass


def test_without_the_capability(gateway: Host) -> None:
    """A process in its own user namespace cannot create a network namespace with access to the gateway's rules."""

    def judge() -> str:
        drop_sys_admin()
        with pytest.raises(NotPermitted) as refused:
            judge_nothing()
        return str(refused.value)

    error_text = gateway.call(judge)
    assert "CAP_SYS_ADMIN" in error_text


def drop_sys_admin() -> None:
    """Drop CAP_SYS_ADMIN from this process."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    words = list(struct.unpack("=6I", data.raw))
    for word in range(3):
        words[word] &= ~(1 << 21)
    assert libc.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *words))) == 0


def test_without_the_tun_device(gateway: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scratch, "TUN", str(tmp_path / "tun"))
    with pytest.raises(scratch.CannotReevaluate, match="cannot be opened .No such file or directory.; load the kernel"):
        gateway.call(judge_nothing)


TCP_RESET = "-A FORWARD -p tcp --dport 25 -m comment --comment no_mail -j REJECT --reject-with tcp-reset".split()


def test_a_target_of_iptables_that_checks_the_protocol(gateway: Host) -> None:
    gateway.run(["iptables-nft", *TCP_RESET])
    load(gateway, *CURRENT, tcp(CLIENT, 8000, SERVER, 25, **to_wan()))
    ((key, refused),) = judged(gateway).items()
    assert (key, refused["verdict"], refused["rule"]["chain"]) == ((CLIENT, 25), "refused", "FORWARD")
    assert refused["rule"]["comment"] == "no_mail"


def test_ruleset_that_the_kernel_does_not_accept_again(gateway: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel does not dump the protocol of such a rule, and rejects the rule without it."""
    gateway.run(["iptables-nft", *TCP_RESET])
    monkeypatch.setattr(ruleset, "_compat", lambda family, expressions: b"")
    with pytest.raises(
        scratch.CannotReevaluate, match="a rule .*target.* of the chain FORWARD of table ip filter: Inval"
    ):
        gateway.call(judge_nothing)


def test_flows_that_an_ipsec_policy_may_affect_are_uncertain(gateway: Host) -> None:
    ends = ["src", "10.1.0.0/24", "dst", "192.0.2.0/24", "dir", "out"]
    tunnel = ["tmpl", "src", OUTSIDE, "dst", "198.51.100.1", "proto", "esp", "mode", "tunnel"]
    load(gateway, *CURRENT, *STALE)
    gateway.run(["ip", "xfrm", "policy", "add", *ends, *tunnel])
    result = run(gateway, "conntrack_flush", stale=True, keep_ssh=False)
    assert (result["flushed"], result["verdicts"]["uncertain"]) == (0, len(STALE))


def test_flows_that_traffic_control_may_affect_are_uncertain(gateway: Host) -> None:
    load(gateway, *CURRENT, *STALE)
    gateway.run(["tc", "qdisc", "add", "dev", "lan", "clsact"])
    verdicts = run(gateway, "conntrack_info", stale=True)["verdicts"]
    from_lan = [flow for flow in STALE if flow["original"]["source"].startswith("10.1.")]
    assert verdicts["uncertain"] == len(from_lan)
    assert verdicts["nat_changed"] + verdicts["refused"] == len(STALE) - len(from_lan)


def test_rule_without_an_effect_turns_on_tracking(lab: Lab) -> None:
    """The copy leaves this rule out, but must still track packets."""
    host = lab.host("host")
    host.nft("add table inet t; add chain inet t c; add rule inet t c ct state new counter")
    load(host, tcp("127.0.0.1", 4005, "127.0.0.1", 80))
    assert run(host, "conntrack_info", stale=True)["verdicts"]["unchanged"] == 1


def test_flows_are_untracked_without_rules(lab: Lab) -> None:
    host = lab.host("host")
    load(host, tcp("127.0.0.1", 4005, "127.0.0.1", 80))
    assert run(host, "conntrack_info", stale=True)["verdicts"]["untracked"] == 1


SCOPED = [
    {"source": CLIENT, "source_port": 5353, "destination": "224.0.0.251", "destination_port": 5353},
    {"source": "fe80::1", "source_port": 5353, "destination": "ff02::fb", "destination_port": 5353},
    {"source": "fe80::1", "source_port": 546, "destination": "fe80::2", "destination_port": 547},
]


def test_multicast_and_link_local_flows_are_uncertain(gateway: Host) -> None:
    """The multicast groups depend on the programs of the host, and the link of such a flow on its packet."""
    load(gateway, *({"protocol": "udp", "original": ends, "timeout": 600} for ends in SCOPED))
    result = run(gateway, "conntrack_flush", stale=True)
    assert (result["flushed"], result["verdicts"]["uncertain"]) == (0, len(SCOPED))


def test_a_flow_without_an_address_is_uncertain(gateway: Host) -> None:
    """An example is DHCP: in the copy, the host would send the packet from another address."""
    ends = {"source": "0.0.0.0", "source_port": 68, "destination": "255.255.255.255", "destination_port": 67}
    load(gateway, {"protocol": "udp", "original": ends, "timeout": 600})
    assert run(gateway, "conntrack_info", stale=True)["verdicts"]["uncertain"] == 1


def test_flows_whose_events_a_rule_limits_are_tracked(gateway: Host) -> None:
    """A host with conntrackd uses such a rule, because conntrackd does not need events of new entries."""
    gateway.run("iptables-nft -t raw -A PREROUTING -j CT --ctevents destroy".split())
    load(gateway, *CURRENT, *STALE)
    found = judged(gateway)
    assert len(found) == len(STALE)
    assert "untracked" not in {one["verdict"] for one in found.values()}


TIMEOUTS = """
table inet timeouts {
    ct timeout long { protocol tcp; l3proto ip; policy = { syn_sent : 300, established : 3000 }; }
    chain prerouting {
        type filter hook prerouting priority 0; policy accept;
        meta l4proto tcp ct timeout set "long"
    }
}
"""


def test_flows_with_a_timeout_policy(gateway: Host) -> None:
    """The entries in the copy need the same timeouts, so the module copies the policy without changes."""
    gateway.nft(TIMEOUTS)
    load(gateway, *CURRENT, *STALE)
    found = judged(gateway)
    assert len(found) == len(STALE)
    assert {one["verdict"] for one in found.values()} == {"nat_changed", "refused"}


TAGGED = """
table inet filter {
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname "lan.5" tcp dport 25 drop comment "guests send no mail"
    }
}
"""


def test_links_of_vlans(gateway: Host) -> None:
    done = gateway.run(["ip", "link", "add", "link", "lan", "name", "lan.5", "type", "vlan", "id", "5"], check=False)
    if done.returncode:
        pytest.skip("this kernel lacks vlan")
    gateway.run(["ip", "link", "set", "lan.5", "up"])
    gateway.address("lan.5", "10.5.0.1/24")
    gateway.nft(TAGGED)
    load(
        gateway,
        tcp("10.5.0.9", 1, SERVER, 25),
        tcp("10.5.0.9", 2, SERVER, 80),
        tcp(CLIENT, 3, SERVER, 25, **to_wan()),
    )
    ((key, mail),) = judged(gateway, match={"destination_port": 25}).items()
    assert (key, mail["verdict"]) == (("10.5.0.9", 25), "refused")
    assert mail["rule"]["comment"] == "guests send no mail"


CONTAINER = "unshare --user --map-root-user --net --pid --fork --kill-child --mount-proc sleep 600".split()
RULES_OF_A_CONTAINER = """
table inet filter {
    chain input {
        type filter hook input priority 0; policy accept;
        ct state established,related accept
        tcp dport 9 drop comment "closed"
    }
}
"""


@pytest.fixture
def container(root: None, ip: str) -> Iterator[int]:
    """Start a process in its own user, network, PID and mount namespaces, and yield its process ID."""
    programs.require("nft")
    with subprocess.Popen(CONTAINER) as process:
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

            def is_ready() -> bool:
                """Whether the child has its user ids and /proc: unshare(1) sets them up before it becomes sleep(1)."""
                assert process.poll() is None, "unshare has failed"
                child = children.read_text().strip()
                return bool(child) and Path(f"/proc/{child}/comm").read_text() == "sleep\n"

            clock.wait_until(is_ready)
            yield int(children.read_text())
        finally:
            process.kill()


def test_in_a_container_and_from_its_host(tun: None, container: int, ip: str) -> None:
    inside = ["nsenter", f"--target={container}", "--user", "--preserve-credentials", "--net", "--pid", "--mount"]

    def execute(*command: str, stdin: str = "") -> str:
        return subprocess.run([*inside, *command], input=stdin, check=True, capture_output=True, text=True).stdout

    def run_module(command: list[str], module: str, **arguments: Any) -> dict[str, Any]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [*command, sys.executable, "-m", f"{MODULES}.{module}"]
        done = subprocess.run(
            command, input=given(False, arguments), env=environment, check=False, capture_output=True, text=True
        )
        return answer(done.returncode, done.stdout or json.dumps({"failed": True, "msg": done.stderr}))

    execute(ip, "link", "set", "lo", "up")
    execute(ip, "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    execute(ip, "address", "add", "10.7.0.1/24", "dev", "eth0")
    execute(ip, "link", "set", "eth0", "up")
    execute("nft", "-f", "-", stdin=RULES_OF_A_CONTAINER)
    entries = [tcp("10.7.0.9", 1, "10.7.0.1", 9), tcp("10.7.0.9", 2, "10.7.0.1", 10)]
    assert run_module(inside, "conntrack_entries", entries=entries)["counts"]["created"] == 2

    seen_inside = run_module(inside, "conntrack_info", stale=True)
    seen_from_host = run_module([], "conntrack_info", stale=True, netns=f"/proc/{container}/ns/net")
    for result in (seen_inside, seen_from_host):
        (stale,) = result["entries"]
        assert (stale["original"]["destination_port"], stale["verdict"]) == (9, "refused")
        assert stale["rule"]["comment"] == "closed"
    assert seen_inside["verdicts"] == seen_from_host["verdicts"]
