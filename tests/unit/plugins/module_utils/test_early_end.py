# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a process ends if it fails during a read or change of the table; a thread must not keep it alive."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest

from ansible_collections.netops.conntrack.tests.unit.support.prepared import Prepared

pytestmark = [pytest.mark.portability, pytest.mark.slow]

UTILS = "ansible_collections.netops.conntrack.plugins.module_utils"
FAKES = "ansible_collections.netops.conntrack.tests.unit.support"
Run = Callable[..., Dict[str, Any]]
NO_SPACE = "/snapshot cannot be written: File too large"

#: A table of 3,000 entries, and a task that fails in the middle, as a module does.
PREPARED = f"""
import json, sys, threading
from {FAKES}.fake_kernel import UDP, Connection, Ends, Kernel, Zone
from {UTILS}.client.ctnetlink import messages
from {UTILS}.client.errors import ConntrackError
from {UTILS}.client.entry.labels import LabelMap
from {UTILS}.client.match.match import EVERYTHING, parse_match
from {UTILS}.client.netlink.socket import NetlinkSocket
from {UTILS}.client.dump.scan import Entries
from {UTILS}.client.entry.document import from_document, to_document
from {UTILS}._reconcile.reconciler import Policy

kernel = Kernel()
for port in range(1, 3001):
    ends = Ends(b"\\n\\0\\0\\1", b"\\n\\0\\0\\2", UDP, (port, 53))
    kernel.connections.append(Connection(2, ends, ends.inverted(), Zone(), 600))
    kernel.connections[-1].packets = kernel.connections[-1].bytes = (1, 1)
flow = {{"source": "10.0.0.3", "destination": "10.0.0.2", "destination_port": 53}}
documents = [
    {{"protocol": "udp", "original": {{**flow, "source_port": port}}, "timeout": 600}} for port in range(1, 3001)
]
labels = LabelMap()

def stopping(original):
    def stopped(self, *arguments):
        running = original(self, *arguments)
        for number, thing in enumerate(running):  # which the traceback holds
            if number == 12:
                raise ConntrackError("stopped")
            yield thing
    return stopped

def count(things):
    return sum(1 for _thing in things)
"""

ARGUMENTS = "work, path, *others = sys.argv[1:]\n"

WORKS = {
    "dump": "count(table.dump())",
    "rows": "count(table.rows())",
    "scan": "table.scan(Entries())",
    "narrowed scan": "table.scan(Entries(), parse_match({'mark': 0}).where)",
    "read": "count(table.read(messages.dump(), messages.parse_entry))",
    "create": "count(table.create_declared(documents, labels))",
    "delete": "count(table.delete_all(table.dump()))",
    "facts": "from {UTILS}._operations.facts import gather; gather(table, {'summary', 'top'})",
    "info": "from {UTILS}._operations.info import TABLES, collect\n"
    "    collect(TABLES['conntrack'](table, EVERYTHING), 'timeout', False, 10, labels)",
    "flush": "from {UTILS}._operations.flush import DeletionPlan, flush\n    flush(DeletionPlan(table, EVERYTHING))",
    "limited flush": "from {UTILS}._operations.flush import DeletionPlan, flush\n"
    "    flush(DeletionPlan(table, EVERYTHING, limit=5000))",
    "update": "from {UTILS}._operations.update import parse_wanted, update\n"
    "    update(table, EVERYTHING, parse_wanted({'mark': 7}))",
    "counters": "from {UTILS}._operations.counters import zero; zero(table, EVERYTHING, 10, labels, False)",
    "some counters": "from {UTILS}._operations.counters import zero\n"
    "    zero(table, parse_match({'mark': 0}), 10, labels, False)",
    "wait": "from {UTILS}.client.events.subscription import EventsOff\n"
    "    from {UTILS}._operations.wait import Goal, wait\n"
    "    def subscribe(**_options): raise EventsOff('')\n"
    "    wait(table, EVERYTHING, Goal(0), 5, 10, labels, subscribe=subscribe)",
    "follower": "from {UTILS}.client.events.follower import Follower\n"
    "    from {UTILS}.client.host import sysctl\n"
    "    sysctl.read = lambda name: 1\n"
    "    class Events:\n"
    "        def __init__(self, **options): pass\n"
    "        def close(self): pass\n"
    "    Follower(connect=Events, table=lambda: table)",
    "entries": "from {UTILS}._reconcile.entries import reconcile_all\n"
    "    reconcile_all(table, [from_document(one) for one in documents], Policy())",
    "purge": "from {UTILS}._reconcile.entries import reconcile_all\n"
    "    from {UTILS}._reconcile.purge import purge_of\n"
    "    purge = purge_of(table, EVERYTHING, ())\n"
    "    purge.plan.read(); purge.finish(check_mode=False)",
    "save": "from {UTILS}._snapshot.save import save; save(table, path, EVERYTHING, labels, False)",
    "restore": "from {UTILS}._snapshot.restore import restore\n"
    "    from {UTILS}._snapshot.file import Snapshot\n"
    "    with Snapshot(path) as snapshot:\n"
    "        restore(table, snapshot, EVERYTHING, Policy(), labels)",
}
SAVE = f"""
from {UTILS}._snapshot.save import save
with kernel.table() as table:
    save(table, path, EVERYTHING, labels, False)
kernel.connections.clear()
"""
FAILING = """
NetlinkSocket.scan, NetlinkSocket.send_batches = stopping(NetlinkSocket.scan), stopping(NetlinkSocket.send_batches)
"""
CLOSED = """
try:
    with kernel.table() as table:
        work(table)
except ConntrackError as error:
    print(json.dumps({"msg": str(error), "threads": threading.active_count()}))
    sys.exit(1)
"""
UNCLOSED = """
try:
    work(kernel.table())
except ConntrackError as error:
    print(json.dumps({"msg": str(error)}))
    sys.exit(1)
"""
#: The iterator still exists when the interpreter clears its modules; no thread runs at that time.
HELD = """
table = kernel.table()
running = {"dump": table.dump, "create": lambda: table.create_declared(documents, labels)}[work]()
for _number in range(700):
    next(running)
print(json.dumps({"threads": threading.active_count()}))
sys.exit(1)
"""


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run a process that fails and return what it prints; `room` limits the size of its files."""
    with Prepared(PREPARED, PYTHONDONTWRITEBYTECODE="1") as prepared:

        def run(code: str, *arguments: Any, room: int = resource.RLIM_INFINITY) -> dict[str, Any]:
            ended = prepared.run(ARGUMENTS + code, *arguments, room=room)
            assert (ended.stderr, ended.returncode) == (b"", 1)
            printed: dict[str, Any] = json.loads(ended.stdout)
            return printed

        yield run


def work(name: str) -> str:
    return f"\ndef work(table):\n    {WORKS[name].replace('{UTILS}', UTILS)}\n"


@pytest.mark.parametrize("name", WORKS)
def test_a_failure_ends_the_process(run: Run, name: str, tmp_path: Path) -> None:
    """The traceback of the failure can hold the iterator that has a thread."""
    before = SAVE if name == "restore" else ""
    ended = run(before + FAILING + work(name) + CLOSED, name, tmp_path / "snapshot")
    assert ended["threads"] == 1
    assert ended["msg"].startswith("stopped")


@pytest.mark.parametrize("name", ["dump", "create"])
def test_unclosed_iterator_does_not_keep_the_process_alive(run: Run, name: str, tmp_path: Path) -> None:
    ended = run(FAILING + work(name) + UNCLOSED, name, tmp_path / "snapshot")
    assert ended["msg"] == "stopped"


@pytest.mark.parametrize("name", ["dump", "create"])
def test_iterator_at_interpreter_exit_does_not_keep_the_process_alive(run: Run, name: str, tmp_path: Path) -> None:
    ended = run(HELD, name, tmp_path / "snapshot")
    assert ended["threads"] == 2


@pytest.mark.parametrize("ending", [CLOSED, UNCLOSED], ids=["closed", "not closed"])
def test_full_disk_during_a_save_ends_the_process(run: Run, ending: str, tmp_path: Path) -> None:
    """The writer fails while the reader of the table is waiting for the writer."""
    ended = run(work("save") + ending, "save", tmp_path / "snapshot", room=50000)
    assert ended["msg"].endswith(NO_SPACE)
    assert os.listdir(str(tmp_path)) == []
