# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Use declarations and rulesets in files of the controller: encrypted, large, for another user, in the background.

Ansible copies them to the target as a file, and no copy remains, however a task ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from tests import clock, programs
from tests.lab import Namespace
from tests.plays import TIMEOUT

Document = dict[str, Any]
Play = Callable[..., Document]

CHECKOUT = Path(__file__).parents[2]
PASSWORD = "secret"
MODULES = {"entries": "netops.conntrack.conntrack_entries", "config": "netops.conntrack.conntrack_config"}


def flows(number: int) -> list[Document]:
    ends = {"source": "10.1.0.2", "destination": "192.0.2.53", "destination_port": 53}
    return [
        {"protocol": "udp", "original": {**ends, "source_port": port + 1}, "timeout": 600} for port in range(number)
    ]


def declared(kind: str, number: int = 3) -> Any:
    return flows(number) if kind == "entries" else {"entries": {"declared": flows(number)}}


@pytest.fixture
def remote() -> Iterator[Path]:
    """Return a folder for temporary files on the target, which every user can reach."""
    with tempfile.TemporaryDirectory(prefix="conntrack-") as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


@pytest.fixture
def play(namespace: Namespace, tmp_path: Path, remote: Path) -> Play:
    """Run tasks on the namespace as a host, check that no temporary files remain, and return the results by name."""
    tree = tmp_path / "ansible_collections/netops"
    tree.mkdir(parents=True)
    (tree / "conntrack").symlink_to(CHECKOUT)
    (tmp_path / "ansible.cfg").touch()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_ASYNC_DIR": str(tmp_path / "async"),
        "ANSIBLE_REMOTE_TMP": str(remote),
        "ANSIBLE_NOCOLOR": "1",
    }

    def run(*tasks: Document, more: Document | None = None, umask: int = -1, **variables: Any) -> Document:
        """Run all tasks, with `more` in the environment, and return the results by task name."""
        whole: list[Document] = [{**task, "register": task["name"], "ignore_errors": True} for task in tasks]
        results = tmp_path / "results.json"
        whole.append(
            {
                "ansible.builtin.copy": {
                    "content": "{{ {"
                    + ", ".join(f"'{task['name']}': {task['name']}" for task in tasks)
                    + "} | to_json }}",
                    "dest": str(results),
                    "mode": "0600",
                },
                "vars": {"ansible_connection": "local", "ansible_become": False},
            }
        )
        playbook = tmp_path / "playbook.yml"
        playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": whole}]))
        inventory = tmp_path / "inventory.json"
        known = {
            "ansible_connection": "netops.conntrack.netns",
            "ansible_netns_name": namespace.path,
            "ansible_python_interpreter": sys.executable,
            **variables,
        }
        inventory.write_text(json.dumps({"all": {"hosts": {"host": known}}}))
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), str(playbook)],
            check=False,
            env={**environment, **(more or {})},
            cwd=tmp_path,
            umask=umask,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        print(done.stdout, done.stderr)
        assert results.exists(), done.stderr
        # Ansible cleans up after asynchronous tasks every five seconds
        clock.wait_until(lambda: not any(path.is_file() for path in remote.rglob("*")), pause=0.1)
        found: Document = json.loads(results.read_text())
        return found

    return run


def task(name: str, kind: str, src: Path | str, **more: Any) -> Document:
    return {"name": name, MODULES[kind]: {"src": str(src)}, **more}


def count(namespace: Namespace) -> int:
    return int(namespace.conntrack("-C"))


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "pipelining"), [("entries", False), ("config", True)])
def test_an_encrypted_file(namespace: Namespace, play: Play, tmp_path: Path, kind: str, pipelining: bool) -> None:
    vault = VaultLib([("default", VaultSecret(PASSWORD.encode()))])
    encrypted, password = tmp_path / "flows.yml", tmp_path / "password"
    password.write_text(PASSWORD)
    encrypted.write_bytes(vault.encrypt(yaml.safe_dump(declared(kind)), vault.secrets[0][1]))
    refused = play(task("locked", kind, encrypted), ansible_pipelining=pipelining)["locked"]
    assert refused["failed"]
    assert "vault" in refused["msg"]
    assert (refused["changed"], refused["counts"]["created"]) == (False, 0)
    assert count(namespace) == 0
    done = play(
        task("predicted", kind, encrypted, check_mode=True),
        task("done", kind, encrypted),
        task("again", kind, encrypted),
        more={"ANSIBLE_VAULT_PASSWORD_FILE": str(password)},
        ansible_pipelining=pipelining,
    )
    assert [done[name]["counts"]["created"] for name in ("predicted", "done", "again")] == [3, 3, 0]
    assert [done[name]["changed"] for name in ("predicted", "done", "again")] == [True, True, False]
    assert count(namespace) == 3


@pytest.mark.thorough
@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("form", ["jsonl", "yml"])
def test_ten_thousand_entries_in_one_task(
    namespace: Namespace, play: Play, tmp_path: Path, kind: str, form: str
) -> None:
    """The result does not contain the entries, because their transfer would take longer than the rest of the task."""
    large = declared(kind, 10_000)
    source = tmp_path / f"flows.{form}"
    if form == "yml":
        source.write_text(yaml.dump(large, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)))
    else:
        source.write_text("".join(json.dumps(one) + "\n" for one in (large if kind == "entries" else [large])))
    done = play(task("done", kind, source))["done"]
    assert done["counts"]["created"] == 10_000
    assert count(namespace) == 10_000
    changes = done["changes"] if kind == "entries" else done["entries"]["changes"]
    assert len(changes) == 100
    assert len(json.dumps(done)) < 200_000


@pytest.mark.thorough
@pytest.mark.parametrize("kind", MODULES)
def test_in_the_background(namespace: Namespace, play: Play, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "flows.json"
    source.write_text(json.dumps(declared(kind)))
    done = play(
        task("waited", kind, source, **{"async": 600, "poll": 1}),
        task("started", kind, source, **{"async": 600, "poll": 0}),
        {
            "name": "ended",
            "ansible.builtin.async_status": {"jid": "{{ started.ansible_job_id }}"},
            "until": "ended is finished",
            "retries": 600,
            "delay": 0.2,
        },
    )
    assert done["waited"]["counts"]["created"] == 3
    assert done["ended"]["counts"]["unchanged"] == 3
    assert count(namespace) == 3


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "pipelining"), [("entries", False), ("config", True)])
def test_another_user_reads_the_file_and_lacks_the_capability(
    namespace: Namespace, play: Play, tmp_path: Path, kind: str, pipelining: bool
) -> None:
    """This also holds on a host where new files are readable only by their owner."""
    if len(Path("/proc/self/uid_map").read_text().splitlines()) == 1 and os.stat("/").st_uid:
        pytest.skip("a separate user namespace has no other user")
    source = tmp_path / "flows.json"
    source.write_text(json.dumps(declared(kind)))
    become = {
        "become": True,
        "become_user": "nobody",
        "become_method": "ansible.builtin.su",
        "become_flags": "-s /bin/sh",
    }
    system = {"ansible_python_interpreter": "/usr/bin/python3", "ansible_pipelining": pipelining}
    done = play(task("done", kind, source, **become), umask=0o077, **system)["done"]
    assert done["failed"]
    assert "(EPERM). This needs CAP_NET_ADMIN" in done["msg"], done
    assert "become: true" in done["msg"]
    assert "\n" not in done["msg"]
    assert "Traceback" not in str(done)
    assert (done["changed"], done["counts"]["created"]) == (False, 0)
    assert count(namespace) == 0


def test_host_is_not_contacted_without_jsonschema(play: Play, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden/jsonschema"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('hidden')\n")
    source = tmp_path / "gateway.json"
    source.write_text(json.dumps(declared("config")))
    path = os.pathsep.join(filter(None, [str(hidden.parent), os.environ.get("PYTHONPATH", "")]))
    nowhere = {"ansible_netns_name": "/no/such/namespace"}
    done = play(task("done", "config", source), more={"PYTHONPATH": path}, **nowhere)["done"]
    assert done["msg"].startswith("This module requires the Python package jsonschema on the controller")
    assert done["entries"]["outcome"] == "not reached"


# Rulesets

REFUSED = """
table inet filter {
    chain input {
        type filter hook input priority filter; policy accept;
        ct state new icmp type echo-request drop comment "no ping"
    }
}
"""
INFO, FACTS = "netops.conntrack.conntrack_info", "netops.conntrack.conntrack_facts"


def test_a_ruleset_that_is_not_loaded(tun: None, namespace: Namespace, play: Play, tmp_path: Path) -> None:
    """Test both modules, with options and with defaults, in the background, and with each error."""
    programs.require("nft")
    ping = "-p icmp -s 127.0.0.1 -d 127.0.0.1 --icmp-type 8 --icmp-code 0 --icmp-id 1 -t 600"
    namespace.conntrack("-I", *ping.split())
    (tmp_path / "files").mkdir()
    (tmp_path / "files/new.nft").write_text(REFUSED)
    (tmp_path / "wrong.nft").write_text("table inet {\n")
    judging = {"stale": True, "ruleset": "new.nft"}
    defaults = {FACTS: {"gather_subset": ["stale"], "ruleset": "new.nft"}}
    on_target = {FACTS: {"gather_subset": ["stale"], "ruleset": str(tmp_path / "files/new.nft"), "remote_src": True}}
    gather = {"ansible.builtin.gather_facts": {}, "vars": {"ansible_facts_modules": [FACTS]}}
    done = play(
        {"name": "read", INFO: judging, "check_mode": True},
        {"name": "counted", FACTS: {}, "module_defaults": defaults},
        {"name": "waited", INFO: judging, "async": 600, "poll": 1},
        {"name": "unloaded", INFO: {"stale": True}},
        {"name": "missing", INFO: {**judging, "ruleset": "old.nft"}},
        {"name": "missing_facts", FACTS: {"gather_subset": ["stale"], "ruleset": "old.nft"}},
        {"name": "wrong", INFO: {**judging, "ruleset": "wrong.nft"}},
        {"name": "elsewhere", INFO: {**judging, "remote_src": True}},
        {"name": "unused", INFO: {"ruleset": "new.nft"}},
        {"name": "gathered", **gather, "module_defaults": defaults},
        {"name": "gathered_there", **gather, "module_defaults": on_target},
    )
    for name in ("read", "waited"):
        assert [(one["verdict"], one["rule"]["comment"]) for one in done[name]["entries"]] == [("refused", "no ping")]
    assert not done["read"]["changed"]
    for name in ("counted", "gathered_there"):
        assert done[name]["ansible_facts"]["conntrack"]["stale"]["verdicts"]["refused"] == 1
    assert done["unloaded"]["verdicts"]["refused"] == 0

    wrong = tmp_path / "wrong.nft"
    for name, message in (
        ("missing", "ruleset: Could not find or access 'old.nft'"),
        ("missing_facts", "ruleset: Could not find or access 'old.nft'"),
        ("wrong", f"ruleset: nft refuses {wrong}: {wrong}:1:12-12: Error: syntax error"),
        ("elsewhere", "ruleset: new.nft cannot be read: No such file or directory; name a file for nft -f"),
        ("unused", "ruleset: requires stale"),
        ("gathered", "ruleset: a file on the controller is not available to gather_facts"),
    ):
        assert done[name]["failed"]
        error_text = done[name].get("failed_modules", {FACTS: done[name]})[FACTS]["msg"]
        assert message in error_text
        assert "\n" not in error_text
    for name in ("missing", "wrong"):
        result = {"changed": False, "entries": [], "matched": 0, "truncated": False}
        assert {key: done[name][key] for key in result} == result
    assert done["missing_facts"]["ansible_facts"] == {}
