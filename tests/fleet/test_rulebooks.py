# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the event source and the rulebooks with the real ansible-rulebook, as a user does."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.creation import creation
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import Entry
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock, programs, samples
from tests.lab import Gateway, Namespace
from tests.lab.lab import Lab
from tests.plays import CHECKOUT, Controller

GUIDE = CHECKOUT / "docs/docsite/rst/guide_events.rst"
FLOOD = 50_000
#: Timeout in seconds for the start of ansible-rulebook, which includes Java, and for its actions.
SOON = 300.0
#: Maximum number of attempts of a test whose windows may end while the machine stands still.
TURNS = 5

if importlib.util.find_spec("ansible_rulebook") is None:
    pytest.skip("ansible-rulebook is absent (pip install ansible-rulebook)", allow_module_level=True)
programs.require("java")


class Rulebook:
    """A running ansible-rulebook in a namespace, and its output so far."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process = process
        self._output = output

    @property
    def printed(self) -> str:
        return self._output.read_text()

    def until(self, reached: Callable[[], Any], seconds: float = SOON) -> None:
        """Wait until a condition is true."""
        end = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < end, self.printed
            time.sleep(0.05)

    def end(self) -> None:
        """End it like Ctrl+C; no process may remain."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=SOON) is not None
        assert not _session(self.process.pid), "a process still runs"


def _session(leader: int) -> list[str]:
    """Return the processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _parenthesis, fields = stat.read_text().rpartition(")")
            if int(fields.split()[3]) == leader:
                found.append(name)
    return found


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path / "controller")


@contextlib.contextmanager
def running(controller: Controller, namespace: Namespace, command: str, files: Mapping[str, str]) -> Iterator[Rulebook]:
    """Run a command of ansible-rulebook in a folder with these files."""
    for name, content in files.items():
        (controller.folder / name).write_text(content)
    output = controller.folder / "printed"
    program, *arguments = shlex.split(command)
    assert program == "ansible-rulebook"
    with output.open("w") as file:
        process = namespace.start(
            [sys.executable, "-m", "ansible_rulebook", *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=controller.folder,
            env={
                **controller.environment,
                "HOME": str(controller.folder),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONUNBUFFERED": "1",
                "TMPDIR": str(controller.folder),
            },
        )
    book = Rulebook(process, output)
    yield book
    book.end()


# What the guide shows

BLOCK = re.compile(r"^\.\. code-block:: (yaml|console)\n\n((?:(?: {4}.*)?\n)+)", re.MULTILINE)
BLOCKS = [(language, textwrap.dedent(text)) for language, text in BLOCK.findall(GUIDE.read_text())]
FORBIDDEN, INVENTORY, STALE, FILL, SCANS = (text for language, text in BLOCKS if language == "yaml")
INSTALL, FLUSH_FORBIDDEN, FLUSH_STALE, WARN_BEFORE_FULL, OWN = (
    text for language, text in BLOCKS if language == "console"
)


def udp(port: int, destination: int = 53, **more: Any) -> Entry:
    return creation(from_document(samples.flow("ipv4", "udp", port, destination, **{"timeout": 600, **more})))


def create(namespace: Namespace, *entries: Entry) -> None:
    with namespace.entered(), Table() as table:
        assert not any(table.create_all(entries))


def counted(book: Rulebook) -> int:
    """Return the number of new entries in the aggregates that --print-events has shown."""
    return sum(map(int, re.findall(r"'new': (\d+)", book.printed)))


def received(book: Rulebook, kind: str) -> int:
    """Return the number of events of a type that --print-events has shown."""
    return len(re.findall(rf"'type': '{kind}'", book.printed))


def test_flush_forbidden(controller: Controller, lab: Lab) -> None:
    """The entry of a forbidden flow is removed long before its timeout; allowed flows stay."""
    client, gateway = lab.host("client"), lab.host("gateway")
    lab.link(client, gateway, ["10.1.0.2/24"], ["10.1.0.1/24"])
    gateway.firewall.track()
    for port in (53, 161, 1900):
        gateway.mirror(port)
    with client.udp("10.1.0.1", 161) as flow:
        flow.send()  # before the source watches

    def ports() -> set[int]:
        flows = [flow for flow in gateway.table() if flow["original"]["source"] == "10.1.0.2"]
        return {flow["original"]["destination_port"] for flow in flows}

    assert ports() == {161}
    files = {"forbidden.yml": FORBIDDEN, "inventory.yml": INVENTORY}
    with running(controller, gateway, FLUSH_FORBIDDEN, files) as book:
        book.until(lambda: not ports())
        with client.udp("10.1.0.1", 53) as allowed, client.udp("10.1.0.1", 1900) as flow:
            allowed.send()
            flow.send()
            assert ports() == {53, 1900}
            book.until(lambda: ports() == {53})
    assert "failed=1" not in book.printed


#: Rules of a gateway, with a choice of the outside address.
NAT = """
    table ip nat
    delete table ip nat
    table ip nat {{
        chain postrouting {{
            type nat hook postrouting priority srcnat; policy accept;
            udp dport 5061 oifname "server" snat to 203.0.113.1
            oifname "server" snat to {address}
        }}
    }}
"""
FILTER = """
    table inet filter
    delete table inet filter
    table inet filter {{
        chain forward {{
            type filter hook forward priority filter; policy accept;
            ct state established,related accept
            ip saddr 10.2.0.2 udp dport {ports} drop
        }}
    }}
"""


def test_flush_stale(tun: None, controller: Controller, gateway_lab: Gateway) -> None:
    """One flush removes stale flows shortly after a change, once the changes have settled.

    If there are more flows than the limit, they stay until a change of the rules leaves fewer.
    """
    gateway, client1, client2 = gateway_lab.gateway, gateway_lab.client1, gateway_lab.client2
    gateway.wait_for_links()
    gateway.firewall.clear("snat")
    gateway.nft(NAT.format(address=gateway_lab.OUTSIDE[0]))
    gateway.mirror(53)
    for port in (5060, 5061):
        gateway_lab.server.mirror(port)
    window = 1
    variables = {**yaml.safe_load(STALE), "limit": 2, "window": window}
    assert set(variables) == set(yaml.safe_load(STALE))
    assert variables["except"] == {"protocol": "tcp"}
    files = {"stale.yml": json.dumps(variables), "inventory.yml": INVENTORY}
    with (
        client1.udp(gateway_lab.SERVER, 5060, source_port=40001) as translated,
        client2.udp(gateway_lab.SERVER, 5060, source_port=40002) as refused,
        client2.udp(gateway_lab.SERVER, 5061, source_port=40003) as kept,
        client1.udp("10.1.0.1", 53, source_port=40004) as local,
        client1.tcp(gateway_lab.SERVER, gateway_lab.PORT, source_port=40005) as connection,
        running(controller, gateway, f"{FLUSH_STALE.strip()} --print-events", files) as book,
    ):
        for flow in (translated, refused, kept, local, connection):
            flow.seen_as()

        def ports() -> set[int]:
            return {flow["original"].get("source_port", 0) for flow in gateway.table()} & everything

        everything = {40001, 40002, 40003, 40004, 40005}
        assert ports() == everything
        book.until(lambda: any(gateway.subscriptions()))
        gateway.nft(NAT.format(address=gateway_lab.OUTSIDE[1]) + FILTER.format(ports="{ 5060, 5061 }"))
        book.until(lambda: "failed=1" in book.printed)
        assert "3 entries match, more than the limit of 2" in book.printed
        assert ports() == everything
        began = time.monotonic()
        gateway.nft(FILTER.format(ports="5060"))
        gateway.address("server", "203.0.113.3/24")
        gateway.route("192.0.2.0/24", via="203.0.113.254")
        at_once = time.monotonic() - began < window
        book.until(lambda: "changed=1" in book.printed)
        assert ports() == everything - {40001, 40002}
        assert translated.seen_as().address == gateway_lab.OUTSIDE[1]
        assert kept.seen_as().address == connection.seen_as().address == gateway_lab.OUTSIDE[0]
    if at_once:
        assert received(book, "change") == 2
        assert book.printed.count("failed=0") == 1, "one flush for three changes"
    assert "'name': 'nft'" in book.printed


def test_warn_before_full(controller: Controller, namespace: Namespace) -> None:
    """The rulebook warns once when the table fills up, and reports once when usage has dropped."""
    most = int(namespace.sysctl("nf_conntrack_max"))
    variables = {"percent": 100 * 500 / most, "below": 100 * 100 / most, "interval": 0.2}
    assert set(yaml.safe_load(FILL)) == set(variables)
    with running(controller, namespace, WARN_BEFORE_FULL, {"fill.yml": json.dumps(variables)}) as book:
        create(namespace, *(udp(port) for port in range(1, 602)))
        book.until(lambda: "WARNING: the connection tracking table is" in book.printed)
        time.sleep(0.5)
        namespace.conntrack("-F")
        book.until(lambda: "OK: the connection tracking table is" in book.printed)
    assert book.printed.count("WARNING: ") == book.printed.count("OK: ") == 1
    (count,) = set(re.findall(rf"(\d+) of {most} entries", re.sub(r"\s+", " ", book.printed.partition("OK: ")[0])))
    assert 500 <= int(count) <= 601, "the source may count while entries are created"


@pytest.mark.thorough
def test_rulebook_of_the_guide(controller: Controller, namespace: Namespace) -> None:
    """The rulebook of the guide names only the host that scans."""
    with running(controller, namespace, OWN, {"scans.yml": SCANS}) as book:
        book.until(lambda: any(namespace.subscriptions()))
        clock.wait_until_asleep(book.process.pid)  # the source has read the table
        other = {"source": "192.0.2.7", "destination": "198.51.100.2", "source_port": 1, "destination_port": 53}
        for turn in range(1, TURNS + 1):
            before = received(book, "aggregate")
            create(namespace, *(udp(port) for port in range(1, 152)), udp(1, original=other, reply=None))
            book.until(lambda turn=turn: counted(book) == turn * 152)  # type: ignore[misc]
            if received(book, "aggregate") == before + 2:
                book.until(lambda: "192.0.2.1 has begun 151 connections" in book.printed)
                break
            namespace.conntrack("-F")  # the machine stood still, and a window ended in between
    assert received(book, "aggregate") == before + 2
    assert set(re.findall(r"(\S+) has begun ", book.printed)) == {"192.0.2.1"}
    assert turn > 1 or book.printed.count(" has begun ") == 1


@pytest.mark.thorough
def test_flood(controller: Controller, namespace: Namespace, tmp_path: Path) -> None:
    """Of 50,000 new entries, exactly the 100 requested ones arrive at the rules.

    A name that contains a template is shown and never evaluated, neither by ansible-rulebook nor by the task that
    receives it.
    """
    trap = tmp_path / "evaluated"
    labels = tmp_path / "connlabel.conf"
    labels.write_text(f"5 {{{{lookup('ansible.builtin.pipe','touch${{IFS}}{trap}')}}}}\n")
    namespace.firewall.use_labels()
    rulesets = [
        {
            "name": "Flood",
            "hosts": "all",
            "sources": [{"netops.conntrack.conntrack": {"match": {"protocol": "udp", "destination_port": 53}}}],
            "rules": [{"name": "Each", "condition": 'event.type == "new"', "action": {"none": None}}],
        },
        {
            "name": "Names",
            "hosts": "all",
            "sources": [
                {"netops.conntrack.conntrack": {"match": {"labels": [5], "port": 99}, "label_map": str(labels)}}
            ],
            "rules": [
                {
                    "name": "Say it",
                    "condition": 'event.type == "new"',
                    "action": {
                        "run_module": {
                            "name": "ansible.builtin.debug",
                            "module_args": {"msg": "it is {{ event.entry.labels[0] }}"},
                        }
                    },
                }
            ],
        },
    ]
    files = {"rulebook.yml": json.dumps(rulesets), "inventory.yml": INVENTORY}
    command = "ansible-rulebook --rulebook rulebook.yml --inventory inventory.yml --print-events"
    with running(controller, namespace, command, files) as book:
        book.until(lambda: any(namespace.subscriptions()))
        book.until(lambda: len([mask for mask in namespace.subscriptions() if mask]) == len(rulesets))
        clock.wait_until_asleep(book.process.pid)  # both have read the table
        create(
            namespace,
            *(udp(number, 54 if number % 500 else 53) for number in range(FLOOD)),
        )
        book.until(lambda: received(book, "new") >= FLOOD // 500)
        create(namespace, udp(1, 99, labels=[5]))
        book.until(lambda: "it is " in book.printed)
        time.sleep(0.5)
    assert namespace.count() > FLOOD
    assert received(book, "new") == FLOOD // 500 + 1
    assert book.printed.count("'destination_port': 53") == FLOOD // 500
    assert received(book, "overrun") == 0
    assert not trap.exists()
    assert "it is { {lookup(" in book.printed
