# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks of every module that writes, and the namespaces in which they run.

Programs other than the collection read the state: conntrack(8), nfct(8), and the files under /proc/sys.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
import json
import os
import re
import socket
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils import basic

from ansible_collections.netops.conntrack.plugins import module_utils
from tests.lab import Namespace

from .injection import Call, Injector

Document = dict[str, Any]
#: The values of a thing by its name; those of an entry are its reply tuple, mark and so on.
State = dict[str, dict[str, Any]]
Task = tuple[str, Document]
#: The programs that show the state.
REQUIRED = ("conntrack", "nfct")

MODULES = "ansible_collections.netops.conntrack.plugins.modules"
SERVER = "192.0.2.80"
#: More entries than fit into two windows of requests, and into a wide window, which requires root.
MANY, MANY_WIDE = 130, 270
SETTINGS = ("nf_conntrack_acct", "nf_conntrack_timestamp", "nf_conntrack_tcp_loose", "nf_conntrack_udp_timeout")
POLICY = "web"
UDP_PORT = 5300


def line(port: int, timeout: int = 6500, mark: int = 1, source: str = "10.1.0.2") -> str:
    """Return a line for `conntrack -R`. Remaining timeouts are compared in thousands of seconds."""
    return f"-I -p udp -s {source} -d {SERVER} --sport {port} --dport 53 -t {timeout} -m {mark}\n"


def entry(port: int, **more: Any) -> Document:
    """Return the declaration of the same entry."""
    ends = {"source": "10.1.0.2", "destination": SERVER, "source_port": port, "destination_port": 53}
    return {"protocol": "udp", "original": ends, **more}


#: Entries that no task matches.
BYSTANDERS = "".join(line(port, mark=9, source="10.9.0.9") for port in (1, 2, 3))
NAT = {"nat": {"source": {"address": "203.0.113.7", "port": 4000}}}
_CONTROL = {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21}
_SESSION: Task = (
    "conntrack_entry",
    {"protocol": "tcp", "original": _CONTROL, "helper": "ftp", "timeout": 6500, "tcp": {"state": "established"}},
)


def expectation(port: int = 4000, **more: Any) -> Document:
    """Return the declaration of an expectation of that session."""
    ends = {"source": "192.0.2.21", "destination": "10.1.0.2", "destination_port": port}
    return {"tuple": {"protocol": "tcp", **ends}, "master": _CONTROL, **more}


def _policy(established: int = 650, **more: Any) -> Document:
    timeouts = {"established": established, "close": 50}
    return {"name": POLICY, "family": "ipv4", "protocol": "tcp", "timeouts": timeouts, **more}


class Done(NamedTuple):
    """The result of a task, its system calls, and whether the fault was injected."""

    result: Document
    calls: list[Call]
    struck: bool


class Scenario(NamedTuple):
    """A task and the state before it: entries as lines for conntrack(8), and the results of earlier tasks.

    `{folder}` in arguments is a folder of the scenario's own. `packets` are sent before the task, so that they are
    counted.
    """

    module: str
    arguments: Document
    lines: str = BYSTANDERS
    earlier: tuple[Task, ...] = ()
    packets: bool = False
    #: Lines that replace the entries after the earlier tasks.
    then: str | None = None


_SAVED: tuple[Task, ...] = (("conntrack_snapshot", {"state": "saved", "path": "{folder}/snapshot"}),)
_RESTORED = {"state": "restored", "path": "{folder}/snapshot", "report_limit": 1000}
_TABLE = "".join(line(port) for port in range(1, MANY + 1))
_WIDE_TABLE = "".join(line(port) for port in range(1, MANY_WIDE + 1))
_SCOPE = {"source": "10.1.0.0/16"}
_MIXED = [
    *(entry(port, timeout=6500, mark=1) for port in range(1, MANY + 1)),
    *(entry(port, timeout=6500, mark=2) for port in range(201, 211)),
    *(entry(port, timeout=6500, mark=1, nat={"source": {"address": "203.0.113.7", "port": 4000 + port}})
      for port in range(301, 304)),
]  # fmt: skip
_THERE = BYSTANDERS + "".join(line(port) for port in (1, 2, *range(201, 211), *range(301, 304), *range(401, 411)))

SCENARIOS: dict[str, Scenario] = {
    "entry-created": Scenario("conntrack_entry", entry(50, timeout=6500, mark=5)),
    "entry-updated": Scenario(
        "conntrack_entry", entry(50, timeout=9500, timeout_min=9000, mark=5), BYSTANDERS + line(50)
    ),
    "entry-replaced": Scenario(
        "conntrack_entry", entry(50, timeout=6500, replace=True, **NAT), BYSTANDERS + line(50, mark=5)
    ),
    "entry-deleted": Scenario("conntrack_entry", entry(50, state="absent"), BYSTANDERS + line(50)),
    "entries": Scenario("conntrack_entries", {"entries": _MIXED, "replace": True}, _THERE),
    "entries-purged": Scenario(
        "conntrack_entries",
        {"entries": _MIXED[:5], "purge": True, "scope": _SCOPE, "keep_ssh": False},
        BYSTANDERS + _TABLE,
    ),
    "entries-deleted": Scenario(
        "conntrack_entries", {"entries": [entry(port) for port in range(1, MANY)], "state": "absent"},
        BYSTANDERS + _TABLE,
    ),
    "update": Scenario(
        "conntrack_update", {"match": _SCOPE, "set": {"mark": 7, "timeout": 2500}}, BYSTANDERS + _WIDE_TABLE
    ),
    "update-limited": Scenario(
        "conntrack_update", {"match": _SCOPE, "set": {"mark": 7}, "limit": 500}, BYSTANDERS + _TABLE
    ),
    "flush": Scenario("conntrack_flush", {"match": _SCOPE, "keep_ssh": False}, BYSTANDERS + _WIDE_TABLE),
    "flush-limited": Scenario(
        "conntrack_flush", {"match": _SCOPE, "keep_ssh": False, "limit": 500}, BYSTANDERS + _TABLE
    ),
    "flush-expectations": Scenario(
        "conntrack_flush", {"table": "expect", "all": True},
        earlier=(_SESSION, *(("conntrack_expectation", expectation(port)) for port in (4000, 4001, 5000))),
    ),
    "expectation-created": Scenario("conntrack_expectation", expectation(timeout=1500), earlier=(_SESSION,)),
    "expectation-updated": Scenario(
        "conntrack_expectation", expectation(timeout=1500, timeout_min=1000),
        earlier=(_SESSION, ("conntrack_expectation", expectation(timeout=500))),
    ),
    "expectation-replaced": Scenario(
        "conntrack_expectation", expectation(timeout=1500, flags=["permanent"], replace=True),
        earlier=(_SESSION, ("conntrack_expectation", expectation(timeout=1500))),
    ),
    "expectation-deleted": Scenario(
        "conntrack_expectation", expectation(state="absent"),
        earlier=(_SESSION, ("conntrack_expectation", expectation())),
    ),
    "restore": Scenario("conntrack_snapshot", _RESTORED, BYSTANDERS + _TABLE, _SAVED, then=_THERE),
    "restore-with-expectations": Scenario(
        "conntrack_snapshot", _RESTORED, BYSTANDERS,
        (_SESSION, ("conntrack_expectation", expectation(timeout=1500)), *_SAVED), then="",
    ),
    "restore-over": Scenario(
        "conntrack_snapshot", {**_RESTORED, "on_existing": "update", "purge": True, "scope": _SCOPE,
                               "keep_ssh": False, "report_limit": 1000},
        BYSTANDERS + _TABLE, _SAVED,
        then=BYSTANDERS + "".join(line(port, mark=3) for port in (*range(1, 20), *range(500, 570))),
    ),
    "counters": Scenario("conntrack_counters", {}, "", packets=True),
    "counters-matched": Scenario("conntrack_counters", {"match": {"source_port": "6001-6003"}}, "", packets=True),
    "policy-created": Scenario("conntrack_timeout_policy", _policy()),
    "policy-updated": Scenario(
        "conntrack_timeout_policy", _policy(950), earlier=(("conntrack_timeout_policy", _policy()),)
    ),
    "policy-replaced": Scenario(
        "conntrack_timeout_policy",
        {"name": POLICY, "family": "ipv4", "protocol": "udp", "timeouts": {"replied": 950}, "replace": True},
        earlier=(("conntrack_timeout_policy", _policy()),),
    ),
    "policy-deleted": Scenario(
        "conntrack_timeout_policy", {"name": POLICY, "state": "absent"},
        earlier=(("conntrack_timeout_policy", _policy()),),
    ),
    "policy-defaults": Scenario(
        "conntrack_timeout_policy", {"default": True, "protocol": "udp", "timeouts": {"unreplied": 950}}
    ),
    "settings": Scenario(
        "conntrack_settings",
        {"accounting": True, "timestamps": True, "tcp_loose": False, "timeouts": {"udp": 950}},
    ),
    "config": Scenario(
        "conntrack_config",
        {"config": {
            "settings": {"accounting": True, "tcp_loose": False},
            "timeout_policies": [_policy()],
            "absent": [{"source": "10.1.0.2", "source_port": "401-410"}],
            "entries": {"declared": _MIXED[:20], "purge": True, "scope": _SCOPE, "on_existing": "update"},
        }},
        _THERE,
    ),
}  # fmt: skip


class Stage:
    """A namespace that can be put into the state before a scenario.

    Modules run in the calling process, so call `reset`, `run` and `checked` by `namespace.call`.
    """

    def __init__(self, scenario: Scenario, namespace: Namespace, folder: Path) -> None:
        self.scenario = scenario
        self.namespace = namespace
        self._folder = folder
        self._has_policies = "polic" in json.dumps(scenario.arguments) or "policy" in scenario.module
        self._has_expectations = "expect" in json.dumps(scenario)
        self._settings = {name: namespace.sysctl(name) for name in SETTINGS}
        #: The snapshot of a scenario with `then`, which its earlier tasks save once
        self._saved = folder / "snapshot"

    def reset(self) -> None:
        """Restore the state before the task."""
        scenario, namespace = self.scenario, self.namespace
        for name, value in self._settings.items():
            namespace.sysctl(name, value)
        namespace.conntrack("-F")
        if self._has_policies:
            _nfct(namespace, "delete", "timeout", POLICY)
        if scenario.packets:
            namespace.sysctl("nf_conntrack_acct", 1)
            namespace.firewall.track()
            with namespace.entered():
                _send_packets()
        if scenario.then is None:
            self._fill(scenario.lines, scenario.earlier)
            return
        if not self._saved.exists():
            self._fill(scenario.lines, scenario.earlier)
            namespace.conntrack("-F")
        self._fill(scenario.then, ())

    def _execute(self, module: str, arguments: Document, injector: Injector | None = None) -> Done:
        """Run a module, never in the machine's own namespace."""
        if not os.path.samefile("/proc/thread-self/ns/net", self.namespace.path):
            raise RuntimeError("call this by namespace.call: modules run in the calling process")
        text = json.dumps({"ANSIBLE_MODULE_ARGS": {"_ansible_diff": True, **arguments}})
        return _execute(module, text.replace("{folder}", str(self._folder)), injector)

    def _fill(self, lines: str, earlier: tuple[Task, ...]) -> None:
        if lines:
            self.namespace.conntrack("-R", "-", input=lines)
        for module, arguments in earlier:
            result = self._execute(module, arguments).result
            assert not result.get("failed"), result

    def run(self, injector: Injector | None = None) -> Done:
        """Run the scenario's task, with the injector."""
        return self._execute(self.scenario.module, self.scenario.arguments, injector)

    def checked(self) -> Document:
        """Verify the saved snapshot: return the result of restoring it in check mode."""
        return self._execute("conntrack_snapshot", {**_RESTORED, "_ansible_check_mode": True}).result

    def state(self) -> State:
        """Return the entries, expectations, policies and settings of the namespace."""
        found = dict(_entries(self.namespace.conntrack("-L", "-o", "extended,id")))
        if self._has_expectations:
            for one in self.namespace.expectations("ipv4"):
                timeout = one.pop("timeout") // 1000
                port = one["tuple"]["destination_port"]
                found[f"expectation {port}"] = {"timeout": timeout, "rest": json.dumps(one, sort_keys=True)}
        if self._has_policies:
            shown = re.findall(r"\.(\w+) = (\d+),", _nfct(self.namespace, "get", "timeout", POLICY))
            found.update({f"policy {POLICY}": dict(shown)} if shown else {})
        found.update((name, {"value": self.namespace.sysctl(name)}) for name in SETTINGS)
        return found


def import_modules(*modules: str) -> None:
    """Import the modules' dependencies, and compile them. Call it once before the forks that run the modules."""
    folder = Path(next(iter(module_utils.__path__)))
    for file in folder.rglob("*.py"):
        importlib.import_module(".".join([module_utils.__name__, *file.relative_to(folder).with_suffix("").parts]))
    for name in ("module_legacy_c2m", "module_legacy_m2c"):
        with contextlib.suppress(ImportError):  # in ansible-core 2.19 and later
            importlib.import_module(f"ansible.module_utils._internal._json._profiles._{name}")
    for name in modules:
        _code(name)


def _send_packets() -> None:
    for port in range(6001, 6007):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", port))
            for _packet in range(port - 6000):
                sender.sendto(b"hello", ("127.0.0.1", UDP_PORT))


def _entries(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in text.splitlines():
        if not each.startswith("ipv4"):
            continue
        words = each.split()
        ends = re.findall(r"(?:src|dst|sport|dport)=\S+", each)
        counters = re.findall(r"(?:packets|bytes)=\d+", each)
        values = dict(word.split("=") for word in words if re.match("(mark|id)=", word))
        yield (
            f"{words[2]} {' '.join(ends[:4])}",
            {
                "reply": " ".join(ends[4:]),
                "mark": values["mark"],
                "id": values["id"],
                # In thousands of seconds, because the value decreases while the test runs
                "timeout": int(words[4]) // 1000,
                "counters": tuple(counters),
            },
        )


def _nfct(namespace: Namespace, *arguments: str) -> str:
    return namespace.run(["nfct", *arguments], check=False).stdout


@functools.cache
def _code(module: str) -> types.CodeType:
    spec = importlib.util.find_spec(f"{MODULES}.{module}")
    assert spec
    code = spec.loader.get_code(spec.name)  # type: ignore[union-attr]
    assert isinstance(code, types.CodeType)
    return code


@contextlib.contextmanager
def _as_main() -> Iterator[dict[str, Any]]:
    """Replace the main program of this process by a new one in the block."""
    before, new = sys.modules["__main__"], types.ModuleType("__main__")
    sys.modules["__main__"] = new
    try:
        yield vars(new)
    finally:
        sys.modules["__main__"] = before


def _execute(module: str, arguments: str, injector: Injector | None = None) -> Done:
    """Run a module as the main program of this process, with the injector."""
    injector = injector or Injector()
    del sys.argv[1:]
    basic._ANSIBLE_ARGS = None
    sys.stdin = io.TextIOWrapper(io.BytesIO(arguments.encode()))
    status = 0
    with contextlib.redirect_stdout(io.StringIO()) as output, injector.installed(), _as_main() as names:
        try:
            exec(_code(module), names)
        except SystemExit as end:
            status = int(end.code or 0)
    result: Document = json.loads(output.getvalue())
    assert status == int(result.get("failed", False))
    return Done(result, injector.calls, injector.struck)
