# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every program in docs/examples has the described result. Other programs verify the table."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock, samples, views
from tests.lab import Namespace
from tests.lab import table as lab_table

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


def command(example: str) -> list[str]:
    return [sys.executable, "-W", "error", str(EXAMPLES / f"{example}.py")]


def run(namespace: Namespace, *examples: str) -> str:
    """Run examples one after another, and return the output of the last one."""
    return [namespace.run(command(example)).stdout for example in examples][-1]


@contextlib.contextmanager
def running(namespace: Namespace, example: str) -> Iterator[subprocess.Popen[str]]:
    """Run an example that listens until it is interrupted."""
    process = namespace.start(command(example), env={**os.environ, "PYTHONUNBUFFERED": "1"})
    watchdog = threading.Timer(clock.HUNG, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Listening")
        yield process
    finally:
        watchdog.cancel()
        process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _line in range(count)]


def shown(namespace: Namespace) -> dict[int, dict[str, Any]]:
    """Return every entry as pyroute2 reads it, by the source port."""
    return {entry["original"]["source_port"]: entry for entry in views.by_pyroute2(namespace)}


def fill(namespace: Namespace, *documents: dict[str, Any]) -> None:
    with namespace.entered(), Table() as table:
        for document in documents:
            table.create(from_document(document))


def test_every_example_has_a_test() -> None:
    names = sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert names
    assert [name for name in names if f"test_{name}" not in globals()] == []


def test_create(namespace: Namespace) -> None:
    run(namespace, "create")
    (entry,) = shown(namespace).values()
    assert (entry["original"]["source"], entry["original"]["destination_port"]) == ("192.0.2.1", 21)
    assert (entry["mark"], entry["helper"], entry["tcp"]["state"]) == (0x10, "ftp", "established")
    assert entry["timeout"] == clock.left_of(100)


def test_create_nat(namespace: Namespace) -> None:
    printed = run(namespace, "create_nat")
    (entry,) = shown(namespace).values()
    assert "src_nat" in entry["status"]
    assert entry["reply"]["destination"] == "203.0.113.1"
    assert entry["reply"]["destination_port"] in range(5000, 6000)
    assert str(entry["reply"]["destination_port"]) in printed


def test_get(namespace: Namespace) -> None:
    printed = json.loads(run(namespace, "create", "get"))
    printed["use"] -= 1  # the process that reads it
    assert views.as_pyroute2_shows(printed) == shown(namespace)[1025]


def test_update(namespace: Namespace) -> None:
    run(namespace, "create")
    before = shown(namespace)[1025]
    run(namespace, "update")
    assert shown(namespace)[1025] == views.near({**before, "mark": 0x20, "timeout": 600})


def test_set_label(namespace: Namespace) -> None:
    namespace.firewall.use_labels()
    fill(namespace, samples.flow("ipv4", "tcp", 1025, 21, labels=[7]))
    run(namespace, "set_label")
    assert shown(namespace)[1025]["labels"] == [3, 7]


def test_delete(namespace: Namespace) -> None:
    run(namespace, "create", "create_nat", "delete")
    assert list(shown(namespace)) == [1026]


def test_dump(namespace: Namespace) -> None:
    printed = run(namespace, "create", "create_nat", "dump")
    expected_entries = {entry["id"]: views.near(entry) for entry in namespace.table()}
    assert {entry["id"]: entry for entry in lab_table.from_program(printed)} == expected_entries
    assert len(expected_entries) == 2


def test_dump_filter(namespace: Namespace) -> None:
    other = samples.flow("ipv4", "tcp", 1, 80, mark=0x10)
    fill(namespace, other, samples.flow("ipv6", "tcp", 2, 21, mark=0x10), samples.flow("ipv4", "tcp", 3, 21))
    assert run(namespace, "create", "dump_filter") == "tcp 192.0.2.1:1025 -> 198.51.100.2:21\n"


def test_dump_filter_tuple(namespace: Namespace) -> None:
    ping = {"icmp_type": 8, "icmp_code": 0, "icmp_id": 9}
    other = {"source": "192.0.2.1", "destination": "198.51.100.3"}
    matching = {"source": "192.0.2.1", "destination": "198.51.100.2"}
    fill(
        namespace,
        *({"protocol": "icmp", "timeout": 600, "original": {**ends, **ping}} for ends in (other, matching)),
        samples.flow("ipv4", "udp", 1, 53),
    )
    assert run(namespace, "dump_filter_tuple").splitlines() == ["icmp 192.0.2.1 -> 198.51.100.2 type 8 code 0 id 9"]


def test_dump_labels(namespace: Namespace) -> None:
    namespace.firewall.use_labels()
    fill(namespace, samples.flow("ipv4", "tcp", 1, 80, labels=[126, 127]), samples.flow("ipv4", "tcp", 2, 80))
    assert run(namespace, "dump_labels") == "tcp 192.0.2.1:1 -> 198.51.100.2:80 [126, 127]\n"


def test_label_map(namespace: Namespace) -> None:
    assert run(namespace, "label_map") == "[0, 7, 9]\n['voice', 'video', 9]\n"


def test_flush(namespace: Namespace) -> None:
    fill(namespace, samples.flow("ipv4", "udp", 1, 53, zone=5), samples.flow("ipv6", "udp", 2, 53))
    assert run(namespace, "create", "flush") == ""
    assert list(shown(namespace)) == [2]


def test_flush_filter(namespace: Namespace) -> None:
    matching, *others = (
        samples.flow("ipv4", "udp", 1, 53, zone=123, mark=1),
        samples.flow("ipv4", "udp", 2, 53, zone=123, mark=2),
        samples.flow("ipv4", "udp", 3, 53, zone=5, mark=1),
        samples.flow("ipv4", "udp", 4, 53, mark=1),
        samples.flow("ipv6", "udp", 5, 53, zone=123, mark=1),
    )
    fill(namespace, matching, *others)
    assert run(namespace, "flush_filter") == ""
    assert sorted(shown(namespace)) == [2, 3, 4, 5]


def test_groups(namespace: Namespace) -> None:
    run(namespace, "groups")
    entries = shown(namespace)
    assert sorted(entries) == [5000, 5001]
    assert [entries[port]["reply"]["destination_port"] for port in (5000, 5001)] == [5000, 5001]


def test_master(namespace: Namespace) -> None:
    run(namespace, "master")
    entries = shown(namespace)
    assert entries[20]["master"]["source_port"] == 1027
    assert "expected" in entries[20]["status"]
    assert "master" not in entries[1027]


def test_events(namespace: Namespace) -> None:
    with running(namespace, "events") as process:
        run(namespace, "create", "update", "delete")
        assert lines(process, 3) == [
            f"{kind} tcp 192.0.2.1:1025 -> 198.51.100.2:21" for kind in ("new", "update", "destroy")
        ]


def test_events_filter(namespace: Namespace) -> None:
    with running(namespace, "events_filter") as process:
        fill(namespace, samples.flow("ipv4", "udp", 1, 53), samples.flow("ipv4", "tcp", 2, 22))
        run(namespace, "create")
        assert lines(process, 1) == ["new tcp 192.0.2.1:1025 -> 198.51.100.2:21"]


def test_follow(namespace: Namespace) -> None:
    run(namespace, "create_nat")
    with running(namespace, "follow") as process:
        run(namespace, "create", "delete")
        assert lines(process, 2) == [f"{kind} tcp 192.0.2.1:1025 -> 198.51.100.2:21" for kind in ("new", "destroy")]


def test_table_statistics(namespace: Namespace) -> None:
    printed = run(namespace, "create", "create_nat", "table_statistics").splitlines()
    assert printed[0].startswith("{'entries': 2, ")
    cpus = len(namespace.conntrack("-S").splitlines())
    assert len(printed) == 1 + 2 * cpus
    assert sum(line.count("'insert': ") for line in printed) == cpus


# Expectations, read by conntrack(8)

EXPECTED = "expectation of tcp 198.51.100.2 -> 192.0.2.1:2000"
# linux/netlink.h, linux/netfilter/nfnetlink_conntrack.h
NETLINK_NETFILTER, REQUEST_DUMP, EXPECTATIONS_GET, SOURCE_PORT = 12, 0x301, 2 << 8 | 1, 2


def expectations(namespace: Namespace) -> list[str]:
    return namespace.conntrack("-L", "expect").splitlines()


def test_expectation_create(namespace: Namespace) -> None:
    run(namespace, "create", "expectation_create")
    (line,) = expectations(namespace)
    assert "proto=6 src=198.51.100.2 dst=192.0.2.1 sport=0 dport=2000 " in line
    assert "mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 " in line
    assert "master-src=192.0.2.1 master-dst=198.51.100.2 sport=1025 dport=21 " in line


def test_expectation_create_nat(namespace: Namespace) -> None:
    run(namespace, "create", "expectation_create_nat")
    (line,) = expectations(namespace)
    assert "dst=203.0.113.1 sport=0 dport=5000 " in line
    # conntrack(8) does not show NAT, so compare the kernel's message: the function, and the source port 2000
    with namespace.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink:
        netlink.send(struct.pack("=IHHIII", 20, EXPECTATIONS_GET, REQUEST_DUMP, 1, 0, 0))
        answer = netlink.recv(65536)
    assert b"nat-follow-master\0" in answer
    assert struct.pack("=HH", 6, SOURCE_PORT) + (2000).to_bytes(2, "big") in answer


def test_expectation_get(namespace: Namespace) -> None:
    printed = json.loads(run(namespace, "create", "expectation_create", "expectation_get"))
    assert printed["master"]["source_port"] == 1025
    assert printed["helper"] == "ftp"


def test_expectation_delete(namespace: Namespace) -> None:
    run(namespace, "create", "expectation_create")
    assert len(expectations(namespace)) == 1
    run(namespace, "expectation_delete")
    assert expectations(namespace) == []


def test_expectation_dump(namespace: Namespace) -> None:
    printed = run(namespace, "create", "expectation_create", "expectation_dump")
    assert printed == f"{EXPECTED} of tcp 192.0.2.1:1025 -> 198.51.100.2:21\n"


def test_expectation_flush(namespace: Namespace) -> None:
    run(namespace, "create", "expectation_create")
    assert len(expectations(namespace)) == 1
    run(namespace, "expectation_flush")
    assert expectations(namespace) == []
    assert namespace.count() == 1


def test_expectation_events(namespace: Namespace) -> None:
    with running(namespace, "expectation_events") as process:
        run(namespace, "create", "expectation_create", "expectation_delete")
        assert lines(process, 2) == [f"expectation_new {EXPECTED}", f"expectation_destroy {EXPECTED}"]


def test_all_events(namespace: Namespace) -> None:
    with running(namespace, "all_events") as process:
        run(namespace, "create", "expectation_create")
        assert lines(process, 2) == ["new tcp 192.0.2.1:1025 -> 198.51.100.2:21", f"expectation_new {EXPECTED}"]
