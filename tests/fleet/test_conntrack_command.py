# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each command of the guide guide_conntrack_command does the same as the task beside it.

The tests read the pairs from the page. A command that changes something runs on one table, and the task on an equal
table; conntrack(8), pyroute2, nfct(8) and /proc then show the same. A command that shows something runs on the same
table as the task. Its output is compared with the value of the expression after "Result:".
"""

from __future__ import annotations

import asyncio
import re
import socket
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jinja2.nativetypes
import pytest
import yaml

from ansible_collections.netops.conntrack.plugins.filter import from_conntrack, to_conntrack
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.expectation import expectation
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests import clock, programs, views
from tests.fleet.pages import FOLDER
from tests.fleet.test_event_source import watching
from tests.lab import Namespace, table
from tests.modules import run

Document = dict[str, Any]

PAGE = FOLDER / "guide_conntrack_command.rst"
ROW = re.compile(
    r"^    \* - \.\. code-block:: bash\n\n(?P<command>(?: {12}.*\n)+)\n"
    r"      - \.\. code-block:: yaml(?:\+jinja)?\n\n(?P<task>(?: {12}.*\n)+)\n"
    r"(?: {8}Result: ``(?P<result>[^`]+)``\n)?",
    re.MULTILINE,
)
COLLECTION = "netops.conntrack."
EVENT_SOURCE = f"{COLLECTION}conntrack"


class Pair(NamedTuple):
    """A command, the task that replaces it, and the expression that has the output of the command."""

    command: str
    task: Document
    result: str | None

    @property
    def name(self) -> str:
        """Return the full name of the module or event source."""
        return next(key for key in self.task if "." in key)

    @property
    def arguments(self) -> Document:
        return self.task[self.name] or {}

    @property
    def module(self) -> str:
        return self.name.removeprefix(COLLECTION)

    @property
    def waits(self) -> bool:
        return self.name in (EVENT_SOURCE, f"{COLLECTION}conntrack_wait")


def pairs() -> Iterator[Pair]:
    for row in ROW.finditer(PAGE.read_text()):
        (task,) = yaml.safe_load(textwrap.dedent(row["task"]))
        yield Pair(textwrap.dedent(row["command"]).strip(), task, row["result"])


PAIRS = list(pairs())


def params(found: Iterator[Pair]) -> list[Any]:
    return [pytest.param(pair, id=pair.command.splitlines()[0][:60]) for pair in found]


def test_every_block_of_the_tables_is_tested() -> None:
    text = PAGE.read_text()
    assert len(re.findall(r"^ +\* - \.\. code-block:: ", text, re.MULTILINE)) == len(PAIRS) >= 30
    assert len(re.findall(r"^ +Result: ", text, re.MULTILINE)) == sum(bool(pair.result) for pair in PAIRS)
    for pair in PAIRS:
        assert set(pair.task) <= {"name", "register", "vars", pair.name}
        assert re.match("(?:conntrack|nfct|sysctl|for|while) ", pair.command), pair.command


# The tables

ENTRIES = """\
-p udp -s 10.1.0.2 -d 192.0.2.53 --sport 40000 --dport 53 -u SEEN_REPLY -n 203.0.113.1
-p udp -s 10.1.0.3 -d 192.0.2.53 --sport 40001 --dport 53 -n 203.0.113.2
-p udp -s 10.1.0.2 -d 10.96.0.10 --sport 40002 --dport 53 -u SEEN_REPLY -g 10.244.1.5
-p udp -s 10.1.0.3 -d 10.96.0.10 --sport 40003 --dport 53 -g 10.244.1.6
-p udp -s 10.2.0.2 -d 192.0.2.99 --sport 40004 --dport 2055
-p udp -s 10.2.0.2 -d 192.0.2.99 --sport 40005 --dport 4739
-p udp -s 10.2.0.2 -d 192.0.2.99 --sport 40006 --dport 6343
-p udp -s 10.1.0.66 -d 192.0.2.60 --sport 5060 --dport 5060
-p udp -s 192.0.2.60 -d 10.1.0.66 --sport 5061 --dport 5060
-p udp -s 10.3.0.2 -d 172.19.3.99 --sport 40010 --dport 4000 -w 1
-p udp -s 10.3.0.2 -d 172.19.3.98 --sport 40010 --dport 4000 -w 1
-p udp -s 10.3.0.2 -d 172.19.3.99 --sport 40010 --dport 4000 -w 2
-p udp -s 10.3.0.2 -d 172.19.3.99 --sport 40011 --dport 4000 --orig-zone 7
-p udp -s 10.3.0.2 -d 172.19.3.99 --sport 40012 --dport 4000 -w 7
-p tcp -s 10.1.0.3 -d 10.20.0.5 --sport 50001 --dport 5432 --state ESTABLISHED -u SEEN_REPLY,ASSURED -m 0
-p tcp -s 10.1.0.3 -d 10.20.0.5 --sport 50002 --dport 5432 --state TIME_WAIT -u SEEN_REPLY,ASSURED -m 0
-p tcp -s 10.1.0.3 -d 10.20.0.6 --sport 50003 --dport 6379 --state ESTABLISHED -u SEEN_REPLY,ASSURED -m 0x21
-p tcp -s 10.1.0.2 -d 192.0.2.80 --sport 50004 --dport 443 --state ESTABLISHED -n 203.0.113.1 -u SEEN_REPLY -m 0x11
-p tcp -s 10.1.0.2 -d 192.0.2.80 --sport 50005 --dport 443 --state SYN_SENT -m 0x1210
-p icmp -s 10.1.0.2 -d 192.0.2.1 --icmp-type 8 --icmp-code 0 --icmp-id 1234
-p icmp -s 10.1.0.2 -d 192.0.2.1 --icmp-type 8 --icmp-code 0 --icmp-id 1235
-p udp -s 2001:db8:1::2 -d 2001:db8:ffff::53 --sport 40000 --dport 53
-p udp -s 2001:db8:1::3 -d 2001:db8:ffff::53 --sport 40000 --dport 53
-p tcp -s 2001:db8:1::2 -d 2001:db8:ffff::80 --sport 50000 --dport 443 --state ESTABLISHED -u SEEN_REPLY,ASSURED -m 0
"""
COMMANDS = "".join(f"-A -t 600 {line}\n" for line in ENTRIES.splitlines())
#: Commands for -R, of entries that the tables do not have.
FILE = "".join(f"-A -t 600 -p udp -s 10.9.0.2 -d 192.0.2.53 --sport {port} --dport 53\n" for port in (1, 2, 3))

FTP = {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21}
EXPECTED = {"protocol": "tcp", "source": "192.0.2.21", "destination": "10.1.0.2", "destination_port": 4000}
#: linux/netlink.h
SOL_NETLINK, NETLINK_BROADCAST_ERROR, NETLINK_NETFILTER = 270, 4, 12


def count_packets(namespace: Namespace) -> None:
    namespace.sysctl("nf_conntrack_acct", 1)
    namespace.firewall.track()


def seed(namespace: Namespace) -> None:
    """Create entries of many kinds, one with counters, an expectation if the kernel has the helper, and a policy."""
    namespace.conntrack("-R", "-", input=COMMANDS)
    with namespace.entered():
        with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
            receiver.bind(("127.0.0.1", 9))
            sender.bind(("127.0.0.1", 4000))
            sender.sendto(b"counted", receiver.getsockname())
        with Table() as entries:
            try:
                entries.create(from_document({"protocol": "tcp", "original": FTP, "helper": "ftp", "timeout": 600}))
            except Unsupported:
                pass
            else:
                expectation.create(
                    entries, expectation.from_document({"master": FTP, "tuple": EXPECTED, "timeout": 600})
                )
    namespace.run("nfct add timeout test-tcp inet tcp established 100 close 10".split())


def settings(namespace: Namespace) -> dict[str, str]:
    with namespace.entered():
        return {
            path.name: path.read_text().strip()
            for path in Path("/proc/sys/net/netfilter").glob("nf_conntrack_*")
            if path.name != "nf_conntrack_count"
        }


def state(namespace: Namespace) -> Document:
    """Return everything that a command or task may change, as other programs show it."""
    expectations = [{**views.near(one), "id": None} for one in namespace.expectations("ipv4")]
    return {
        "entries by conntrack": in_order(views.by_text(namespace)),
        "entries by pyroute2": in_order(views.by_pyroute2(namespace)),
        "expectations": sorted(expectations, key=lambda one: repr(one["tuple"])),
        "policies": namespace.run(["nfct", "list", "timeout"]).stdout,
        "settings": settings(namespace),
    }


def as_listed(document: Document) -> Document:
    """Return the part of an entry that conntrack(8) lists."""
    return {**views.as_program_shows(document), "timeout": document["timeout"]}


def in_order(documents: list[Document]) -> list[Document]:
    """Return the lasting values of entries, in an order that depends only on their tuples and zones."""
    lasting = [views.lasting(document) for document in documents]
    return sorted(lasting, key=lambda one: repr([one.get(key) for key in ("protocol", "original", "reply", "zone")]))


@pytest.fixture
def shell(tmp_path: Path) -> Path:
    """Return the working directory of the commands, with a file for -R."""
    (tmp_path / "gateway.conntrack").write_text(FILE)
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    programs.require("conntrack", "nfct")


@pytest.fixture(scope="module")
def reused(root: None) -> Iterator[tuple[Namespace, Namespace]]:
    """Return two namespaces for all tests of this file, because it takes long to create one."""
    with Namespace() as one, Namespace() as other:
        for namespace in (one, other):
            count_packets(namespace)
        yield one, other


@pytest.fixture
def twins(reused: tuple[Namespace, Namespace]) -> Iterator[tuple[Namespace, Namespace]]:
    """Return two namespaces with equal tables. Their settings are those before the test again afterwards."""
    for namespace in reused:
        seed(namespace)
    before = [settings(namespace) for namespace in reused]
    yield reused
    for namespace, values in zip(reused, before, strict=True):
        for name, value in settings(namespace).items():
            if value != values[name]:
                namespace.sysctl(name, values[name])
        namespace.empty()
        namespace.run(["nfct", "flush", "timeout"])


@pytest.fixture(scope="module")
def filled(root: None) -> Iterator[Namespace]:
    """Return a namespace with a table that the tests do not change."""
    with Namespace() as namespace:
        count_packets(namespace)
        seed(namespace)
        yield namespace


@pytest.fixture(scope="module")
def dying(root: None) -> Iterator[Namespace]:
    """Return a namespace with entries whose end was not reported, because a listener has no room for the events."""
    with Namespace() as namespace, ExitStack() as stack:
        with namespace.entered():
            listener = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER))
        listener.setsockopt(SOL_NETLINK, NETLINK_BROADCAST_ERROR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        listener.bind((0, 1 << 2))  # the group of destroy events
        namespace.conntrack("-R", "-", input=COMMANDS)
        namespace.conntrack("-D", "-p", "udp")
        yield namespace


def check_needs(pair: Pair, namespace: Namespace) -> None:
    """Skip the test if the machine lacks a program of the command, or the helper of the expectations."""
    program = pair.command.split()[0]
    if program == "sysctl":
        programs.require(program)
    if "expect" in pair.command and not namespace.expectations():
        pytest.skip("this kernel has no FTP helper (modprobe nf_conntrack_ftp)")


# Expressions

JINJA = jinja2.nativetypes.NativeEnvironment(undefined=jinja2.StrictUndefined)
for plugin in (from_conntrack, to_conntrack):
    JINJA.filters.update({COLLECTION + name: function for name, function in plugin.FilterModule().filters().items()})


def evaluate(value: Any, variables: Document) -> Any:
    """Return a value of a task with its expressions replaced, as Ansible does it."""
    if isinstance(value, dict):
        return {key: evaluate(one, variables) for key, one in value.items()}
    if isinstance(value, str) and "{{" in value:
        return JINJA.from_string(value).render(variables)
    return value


def perform(pair: Pair, namespace: Namespace, folder: Path) -> Document:
    """Return the variables after the task."""
    lookups = {"lookup": lambda _plugin, name: (folder / name).read_text()}
    variables = {name: evaluate(value, lookups) for name, value in pair.task.get("vars", {}).items()}
    result = run(namespace, pair.module, **evaluate(pair.arguments, variables))
    assert not result.get("failed"), result
    return {**result, pair.task.get("register", "_"): result}


# Commands that change something


def test_the_tables_are_equal(twins: tuple[Namespace, Namespace]) -> None:
    one, other = map(state, twins)
    assert one == other
    assert all(value for name, value in one.items() if name != "expectations")


@pytest.mark.parametrize("pair", params(pair for pair in PAIRS if not pair.result and not pair.waits))
def test_changes(pair: Pair, twins: tuple[Namespace, Namespace], shell: Path) -> None:
    by_command, by_task = twins
    check_needs(pair, by_command)
    before = state(by_task)
    by_command.run(["sh", "-ec", pair.command], cwd=shell)
    result = perform(pair, by_task, shell)
    after = state(by_command)
    assert after != before, "the command changed nothing"
    assert state(by_task) == after
    assert result["changed"]


# Commands that show something


@pytest.mark.parametrize("pair", params(pair for pair in PAIRS if pair.result))
def test_shows(pair: Pair, filled: Namespace, dying: Namespace, shell: Path) -> None:
    namespace = dying if pair.arguments.get("table") == "dying" else filled
    check_needs(pair, namespace)
    printed = namespace.run(["sh", "-ec", pair.command], cwd=shell).stdout
    variables = perform(pair, namespace, shell)
    assert not variables.get("changed")
    value = JINJA.compile_expression(str(pair.result), undefined_to_none=False)(variables)
    shown, expected = comparable(printed, value)
    assert shown, "the command shows nothing"
    assert shown == expected


def comparable(printed: str, value: Any) -> tuple[Any, Any]:
    """Return the output of a command and the value of an expression in the same form."""
    if isinstance(value, int):
        return int(printed), value
    if isinstance(value, str):
        return in_lines(printed), in_lines(value)
    if isinstance(value, dict):
        return per_processor(printed), {str(cpu): {"chain_toolong": 0, **numbers} for cpu, numbers in value.items()}
    if "flows" in value[0]:
        return counted(printed), {str(first(group)).lower(): group["flows"] for group in value}
    if "timeouts" in value[0]:
        return policies(printed), {one["name"]: one["timeouts"] for one in value}
    if "tuple" in value[0]:
        shown = table.expectations_from_program(printed)
        return [one["tuple"] for one in shown], [without_protocol(one["tuple"]) for one in value]
    return listed(printed), in_order([as_listed(one) for one in value])


def in_lines(text: str) -> list[str]:
    """Return the lines of entries, without their remaining timeout and use count."""
    return sorted(re.sub(r"(?:-t |<timeout>)\d+|<use>\d+|(?<=<id>)\d+", "", line) for line in text.splitlines())


def listed(printed: str) -> list[Document]:
    """Return the entries of a list in any of the formats of conntrack(8)."""
    families = ("ipv6 10 " if re.search("src=[0-9a-f]*:", line) else "ipv4 2 " for line in printed.splitlines())
    lines = (
        line if line.startswith("ipv") else f + line for f, line in zip(families, printed.splitlines(), strict=True)
    )
    return in_order([views._by_line(line) for line in lines])


def per_processor(printed: str) -> dict[str, dict[str, int]]:
    shown = {}
    for line in printed.splitlines():
        numbers = {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", line)}
        numbers["chain_toolong"] = numbers.pop("chaintoolong", 0)
        shown[str(numbers.pop("cpu"))] = numbers
    return shown


def counted(printed: str) -> dict[str, int]:
    """Return the output of uniq -c."""
    rows = (line.split() for line in printed.splitlines())
    return {value.lower(): int(number) for number, value in rows}


def first(group: Document) -> Any:
    return next(value for key, value in group.items() if key not in ("flows", "bytes", "packets"))


def policies(printed: str) -> dict[str, dict[str, int]]:
    """Return the output of nfct list timeout."""
    found = re.findall(r"^\.(\S+) = \{(.*?)^\};", printed, re.MULTILINE | re.DOTALL)
    return {
        name: {state.lower(): int(seconds) for state, seconds in re.findall(r"\.([A-Z_0-9]+) = (\d+)", text)}
        for name, text in found
    }


def without_protocol(document: Document) -> Document:
    return {key: value for key, value in document.items() if key != "protocol"}


# Commands that wait


@pytest.mark.parametrize("pair", params(pair for pair in PAIRS if pair.module == "conntrack_wait"))
def test_waits(pair: Pair, twins: tuple[Namespace, Namespace], shell: Path) -> None:
    """Both wait while there are matching entries, and end after the last one was deleted."""
    by_command, by_task = twins
    command = by_command.start(["sh", "-ec", pair.command])
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(perform, pair, by_task, shell)
        by_task.wait_for_reader()
        assert command.poll() is None
        assert not task.done()
        for namespace in twins:
            namespace.conntrack("-D", "-p", "tcp", "-d", pair.arguments["match"]["destination"])
        assert task.result(clock.HUNG)["reached"]
    assert command.wait(clock.HUNG) == 0


@pytest.mark.parametrize("pair", params(pair for pair in PAIRS if pair.name == EVENT_SOURCE))
def test_watches(pair: Pair, namespace: Namespace, shell: Path) -> None:
    """Both report the events of the same entries."""
    report = shell / "events"
    wanted = [line for line in ENTRIES.splitlines() if "-p udp" in line]
    if "match" in pair.arguments:
        wanted = [line for line in wanted if "--dport 53" in line]

    async def scenario() -> list[Document]:
        async with watching(namespace, **pair.arguments) as rules:
            namespace.conntrack("-R", "-", input=COMMANDS)
            namespace.conntrack("-D", "-p", "udp")
            return await rules.take(lambda taken: len(taken) >= len(wanted))

    with report.open("w") as stream:
        namespace.start(["sh", "-ec", f"exec {pair.command}"], stdout=stream)
        namespace.wait_for_subscriber()
        events = asyncio.run(scenario())
        clock.wait_until(lambda: report.read_text().count("\n") >= len(wanted))
    lines = re.sub(r"^ *\[[A-Z]+\] | \[USERSPACE\].*$", "", report.read_text(), flags=re.MULTILINE)
    assert identities(listed(lines)) == identities(in_order([event["entry"] for event in events]))


def identities(documents: list[Document]) -> list[list[Any]]:
    """Return the values of entries that conntrack(8) shows of every event."""
    return [[one.get(key) for key in ("family", "protocol", "original", "reply", "zone")] for one in documents]
