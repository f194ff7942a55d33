# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run every block of Python and YAML in the README and the guides.

Tasks run in a play on a namespace with matching entries. Each task that changes something must report a change.
A block that requires more than that is preceded by a comment with the reason, and only its syntax is checked:
``.. not run: two gateways`` in a guide, ``<!-- not run: two gateways -->`` in the README.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.config import CONFIG
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document, to_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.match.match import parse_match
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.plugin_utils import _playbooks
from ansible_collections.netops.conntrack.plugins.plugin_utils._config_validation import faults_of
from tests.lab import Namespace
from tests.plays import PIPELINING

CHECKOUT = Path(__file__).parents[2]
#: All pages except those that tests/fleet/test_howto.py follows from beginning to end.
DOCUMENTS = [
    CHECKOUT / "README.md",
    *sorted(path for path in (CHECKOUT / "docs/docsite/rst").glob("*.rst") if not path.name.startswith("howto_")),
]

RST = re.compile(
    r"(?:^\.\. not run: (?P<needs>.+)\n\n)?"
    r"^\.\. code-block:: (?P<language>\S+)\n\n(?P<text>(?:(?: {4}.*)?\n)+)",
    re.MULTILINE,
)
MARKDOWN = re.compile(
    r"(?:^<!-- not run: (?P<needs>.+) -->\n\n?)?^```(?P<language>\S+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A block of code, its location, and the requirement that the test cannot provide."""

    place: str
    language: str
    text: str
    needs: str | None

    @property
    def host(self) -> str:
        """The name of the host on which the tasks of the block run."""
        return re.sub(r"\W", "_", self.place)


def blocks(*languages: str) -> Iterator[Block]:
    for document in DOCUMENTS:
        content = document.read_text()
        for found in (RST if document.suffix == ".rst" else MARKDOWN).finditer(content):
            if found["language"] in languages:
                place = f"{document.name}:{content.count(chr(10), 0, found.start('text')) + 1}"
                yield Block(place, found["language"], textwrap.dedent(found["text"]), found["needs"])


def kind_of(block: Block) -> str:
    """Return the kind of a YAML block. Each new kind requires a test of its own."""
    content = yaml.safe_load(block.text)
    if block.place.startswith(("guide_events.rst", "event_source.rst")):
        return "of a rulebook"  # tests/fleet/test_rulebooks.py and tests/unit/extensions check these
    if isinstance(content, list) and all({"hosts", "ansible.builtin.import_playbook"} & set(item) for item in content):
        return "plays"
    if isinstance(content, list) and all(module_of(item) for item in content):
        return "tasks"
    if isinstance(content, dict) and set(content) <= {"match", "except"}:
        return "match"
    if isinstance(content, dict) and set(content) == {"all"}:
        return "inventory"
    if isinstance(content, dict) and "plugin" in content:
        return "inventory plugin"
    if isinstance(content, dict) and set(content) <= set(CONFIG):
        return "declaration"
    raise ValueError(f"{block.place}: neither plays, nor tasks, nor a match, nor an inventory, nor a declaration")


def module_of(task: dict[str, Any]) -> str:
    return next((key for key in task if "." in key), "")


YAML = [(kind_of(block), block) for block in blocks("yaml", "yaml+jinja")]
PYTHON = list(blocks("python"))


def params(found: list[Block]) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in found]


def of_kind(wanted: str) -> list[Any]:
    return params([block for kind, block in YAML if kind == wanted and block.needs is None])


# The entries that the documents mention

ENTRIES: list[dict[str, Any]] = [
    {  # left over from a change of the NAT rules
        "protocol": "udp",
        "original": {"source": "10.1.0.3", "destination": "192.0.2.53", "source_port": 5000, "destination_port": 53},
        "nat": {"source": {"address": "198.51.100.1"}},
    },
    {
        "protocol": "tcp",
        "original": {"source": "10.1.0.4", "destination": "10.20.0.5", "source_port": 5001, "destination_port": 5432},
        "tcp": {"state": "established"},
        "mark": 0x10,
    },
    {
        "protocol": "tcp",
        "original": {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 40000, "destination_port": 21},
        "helper": "ftp",
    },
]


def fill(namespace: Namespace) -> None:
    """Create the entries above in a namespace, and one flow with counters."""
    for name in ("nf_conntrack_acct", "nf_conntrack_timestamp"):
        namespace.sysctl(name, 1)
    namespace.firewall.use_labels()
    with namespace.rtnetlink() as rtnetlink:
        rtnetlink.addr("add", index=1, address="10.1.0.2/32")
    namespace.run([sys.executable, "-c", f"import socket; {SEND}"])
    with namespace.entered(), Table() as table:
        for document in ENTRIES:
            table.create(from_document(document))


@pytest.fixture
def documented(namespace: Namespace) -> Namespace:
    """A namespace with the entries above, and one flow with counters."""
    fill(namespace)
    return namespace


SEND = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', ('10.1.0.2', 9))"


# Python


@pytest.mark.parametrize("block", params([block for block in PYTHON if block.needs is None]))
def test_python_runs(block: Block, documented: Namespace) -> None:
    documented.run([sys.executable, "-W", "error", "-c", block.text])


def test_first_program_of_the_guide_deletes_matching_entries(documented: Namespace) -> None:
    """The first program of the guide to the client creates a DNS entry and deletes all DNS entries."""
    block = next(block for block in PYTHON if block.place.startswith("guide_client.rst"))
    before = documented.table()
    printed = documented.run([sys.executable, "-c", block.text]).stdout
    dns = [entry for entry in before if (entry["protocol"], entry["original"]["destination_port"]) == ("udp", 53)]
    assert f"{len(dns) + 1} entries deleted" in printed
    assert len(documented.table()) == len(before) - len(dns)
    assert ("10.1.0.4", "10.20.0.5") in {
        (entry["original"]["source"], entry["original"]["destination"]) for entry in documented.table()
    }


# YAML

#: Modules that change nothing on the host.
READERS = re.compile(r"netops\.conntrack\.conntrack_(info|facts|wait)|ansible\.builtin\.(debug|assert|set_fact)")

#: The boot configuration is that of the machine itself: in a mount namespace, writes to /etc go to another folder. The
#: settings would be for the network namespace of process 1, which here is the process 1 of a process namespace.
ISOLATED = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c"]
#: Changes to /etc stay in the mount namespace. Root of a user namespace may not write to folders of the real root.
SHADOW = (
    'mount -t tmpfs none "$0" && mkdir "$0/upper" "$0/work" && '
    'mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" none /etc && '
    "mkdir -p /etc/sysctl.d /etc/modules-load.d && "
    "mount -t tmpfs none /etc/sysctl.d && mount -t tmpfs none /etc/modules-load.d"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an Ansible that finds the collection."""
    folder = tmp_path_factory.mktemp("ansible")
    tree = folder / "ansible_collections/netops"
    tree.mkdir(parents=True)
    (tree / "conntrack").symlink_to(CHECKOUT)
    return {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(folder),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_REMOTE_TMP": str(folder / "remote"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_NOCOLOR": "1",
        **PIPELINING,
    }


def program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def write_play(folder: Path, block: Block, hosts: str = "all", **variables: Any) -> Path:
    """Write a playbook that contains only these tasks."""
    play = {"hosts": hosts, "gather_facts": False, "vars": variables, "tasks": yaml.safe_load(block.text)}
    playbook = folder / "playbook.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False))
    return playbook


@pytest.fixture(scope="module")
def printed(
    root: None,
    environment: dict[str, str],
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """The output of one ansible-playbook that runs the blocks of all selected tests, each on a host of its own."""
    folder = tmp_path_factory.mktemp("tasks")
    selected = [item for item in request.session.items if getattr(item, "originalname", "") == "test_tasks_run"]
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(Namespace())
        (folder / "etc").mkdir()
        shadowed = own.run([*ISOLATED, SHADOW, str(folder / "etc")], check=False)
        if shadowed.returncode:
            raise unittest.SkipTest(f"this user may not have a separate /etc: {shadowed.stderr.strip()}")
        hosts: dict[str, dict[str, str]] = {}
        playbooks, descriptors = [], []
        for block in [item.callspec.params["block"] for item in selected]:  # type: ignore[attr-defined]
            # Only one block is about the settings of process 1, and it has the namespace of the whole run
            namespace = own if "persist" in block.text else stack.enter_context(Namespace())
            fill(namespace)
            with namespace.entered(), Table() as table:
                gathered = [to_document(entry) for entry in table.dump()]
            (folder / block.host).mkdir()
            (folder / block.host / "gateway.conntrack").write_text(namespace.conntrack("-L"))
            playbooks.append(write_play(folder / block.host, block, block.host, found={"entries": gathered}))
            descriptor = os.open(namespace.path, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
            path = "/proc/1/ns/net" if namespace is own else f"/proc/1/fd/{descriptor}"
            hosts[block.host] = {"ansible_netns_name": path}
        # The test is already root, and a separate user namespace has no other user to become.
        variables = {"ansible_connection": "netops.conntrack.netns", "ansible_become": False}
        inventory = folder / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": variables}}))
        ansible = [program("ansible-playbook"), "-i", str(inventory), *map(str, playbooks)]
        command = [*ISOLATED, f'{SHADOW} && "$@"', str(folder / "etc"), *ansible]
        yield own.run(command, env=environment, check=False, pass_fds=descriptors).stdout


@pytest.mark.parametrize("block", of_kind("tasks"))
def test_tasks_run(block: Block, printed: str) -> None:
    tasks = yaml.safe_load(block.text)
    changing = [task for task in tasks if not READERS.fullmatch(module_of(task))]
    assert re.search(rf"^{block.host} +: ok={len(tasks)} +changed={len(changing)} ", printed, re.MULTILINE), printed


@pytest.mark.parametrize("block", of_kind("match"))
def test_matches_are_read(block: Block) -> None:
    for match in yaml.safe_load(block.text).values():
        parse_match(match)


@pytest.mark.parametrize("block", of_kind("declaration"))
def test_declarations_are_valid(block: Block) -> None:
    assert str(faults_of(yaml.safe_load(block.text)).found) == "[]"


@pytest.mark.parametrize("block", of_kind("inventory"))
def test_inventories_are_read(block: Block, environment: dict[str, str], tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(block.text)
    listing = [program("ansible-inventory"), "-i", str(inventory), "--list"]
    done = subprocess.run(listing, check=True, env=environment, capture_output=True, text=True)
    for host in yaml.safe_load(block.text)["all"]["hosts"]:
        assert host in done.stdout


@pytest.mark.parametrize("block", of_kind("inventory plugin"))
def test_inventory_plugins_find_hosts(
    block: Block, documented: Namespace, environment: dict[str, str], tmp_path: Path
) -> None:
    """Inventory plugins find hosts in a namespace with one matching flow. Other files here test the hosts' details."""
    with documented.entered(), Table() as table:
        ends = {"source": "10.1.0.7", "destination": "10.0.0.5", "source_port": 5001, "destination_port": 5432}
        more = {"tcp": {"state": "established"}, "status": ["seen_reply", "assured"]}
        table.create(from_document({"protocol": "tcp", "original": ends, **more}))
    inventory = tmp_path / f"{yaml.safe_load(block.text)['plugin'].rpartition('.')[2]}.yml"
    inventory.write_text(block.text)
    strict = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"}
    listing = [program("ansible-inventory"), "-i", str(inventory), "--list"]
    assert "10.1.0.7" in documented.run(listing, env={**environment, **strict}).stdout


def test_blocks_that_are_not_run_have_valid_syntax(environment: dict[str, str], tmp_path: Path) -> None:
    for block in PYTHON:
        compile(block.text, block.place, "exec")
    playbooks = []
    for kind, block in YAML:
        playbook = tmp_path / f"{block.place}.yml"  # a message contains this name
        if kind == "plays":
            playbook.write_text(block.text)
        elif kind == "tasks" and block.needs:
            write_play(tmp_path, block).rename(playbook)
        else:
            continue
        playbooks.append(str(playbook))
    check = [program("ansible-playbook"), "-i", "host,", "--syntax-check", *playbooks]
    done = subprocess.run(check, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("playbook: ") == len(playbooks)


# Commands

PLAYBOOK, RULEBOOK = "netops.conntrack.", "extensions/eda/rulebooks"


def extra_variables(words: list[str]) -> Iterator[str]:
    """Return the names of the variables that a command sets with -e; a file may contain any."""
    for option, value in itertools.pairwise(words):
        if option == "-e" and value.startswith("{"):
            yield from json.loads(value)
        elif option == "-e" and not value.startswith("@"):
            yield value.partition("=")[0]


def test_commands_name_playbooks_with_their_variables_and_rulebooks() -> None:
    """A reader who copies a command gets neither an error nor a warning about an old name."""
    found = []
    for block in blocks("console"):
        for line in re.sub(r"\\\n", "", block.text).splitlines():
            words = shlex.split(line.removeprefix("$ ")) if "netops.conntrack." in line else []
            if words[:1] == ["ansible-playbook"] and words[1].startswith(PLAYBOOK):
                name = words[1].removeprefix(PLAYBOOK)
                given = set(extra_variables(words)) - {"ansible_become"}
                _playbooks.check_names(name, given, [])
                hosts = set(_playbooks.PLAYBOOKS[name].hosts)
                assert {variable for variable in given if not variable.startswith(_playbooks.PREFIX)} <= hosts, line
                found.append(name)
            elif "--rulebook" in words:
                name = words[words.index("--rulebook") + 1].removeprefix(PLAYBOOK)
                assert (CHECKOUT / RULEBOOK / f"{name}.yml").exists(), line
                found.append(name)
    assert {"report", "refresh", "preview", "apply", "flush_stale"} <= set(found)


def test_every_block_is_found() -> None:
    """If the patterns found no block, all tests of this file would pass."""
    text = "".join(document.read_text() for document in DOCUMENTS)
    written = len(re.findall(r"^(?:```|\.\. code-block:: )(?:python|yaml)\b", text, re.MULTILINE))
    assert len(PYTHON) + len(YAML) == written > 9
