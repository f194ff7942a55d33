# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the playbooks by their names, on namespaces as hosts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.lab import Namespace
from tests.plays import Controller

Document = dict[str, Any]
Play = Callable[..., tuple[int, str]]

HOSTS = ("gateway-a", "gateway-b", "gateway-c")


@pytest.fixture
def hosts(root: None) -> Iterator[dict[str, Namespace]]:
    """Create three gateways with two flows by an old address and one by a new one; the third has one more."""
    namespaces = {name: Namespace(name) for name in HOSTS}
    try:
        for name, namespace in namespaces.items():
            for port, address in ((1, "198.51.100.1"), (2, "198.51.100.1"), (3, "198.51.100.2")):
                namespace.conntrack("-I", *flow(port), "--src-nat", address)
            if name == "gateway-c":
                namespace.conntrack("-I", *flow(4), "--src-nat", "198.51.100.1")
        yield namespaces
    finally:
        for namespace in namespaces.values():
            namespace.close()


def flow(port: int) -> list[str]:
    return f"-p udp -s 10.1.0.2 -d 192.0.2.53 --sport {port} --dport 53 -t 600".split()


def ports(namespace: Namespace) -> list[int]:
    return sorted(entry["original"]["source_port"] for entry in namespace.table())


@pytest.fixture
def play(hosts: dict[str, Namespace], tmp_path: Path) -> Play:
    """Run a playbook on the hosts, and return its exit status and output."""
    controller = Controller(tmp_path)

    def run(playbook: str | Path, *options: str, of_hosts: Document | None = None, **variables: Any) -> tuple[int, str]:
        inventory = {
            name: {"ansible_netns_name": namespace.path, **(of_hosts or {}).get(name, {})}
            for name, namespace in hosts.items()
        }
        return controller.play(playbook, inventory, *options, **{"target_hosts": "all", **variables})

    return run


STALE = {"nat": "source", "reply_destination": "198.51.100.1"}


def summary(printed: str) -> dict[str, str]:
    """Return the summary of each host at the end of the output."""
    last = printed.rpartition("[Show what was done]")[2]
    return dict(re.findall(r'"(gateway-.)": "(.*?)"', last))


def test_flush_removes_the_predicted_entries(hosts: dict[str, Namespace], play: Play) -> None:
    status, printed = play("flush", "--check", conntrack_match=STALE)
    assert status == 0
    assert {name: ports(namespace) for name, namespace in hosts.items()} == {
        "gateway-a": [1, 2, 3],
        "gateway-b": [1, 2, 3],
        "gateway-c": [1, 2, 3, 4],
    }
    assert printed.count("2 of 3 entries would be removed, 66.7 %, 0 kept") == 2
    predicted = summary(printed)
    assert predicted["gateway-c"] == "3 would be removed, 0 kept, 0 already gone"

    status, printed = play("flush", conntrack_match=STALE, conntrack_limit=3)
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[3], [3], [3]]
    assert summary(printed) == {name: line.replace("would be removed", "removed") for name, line in predicted.items()}
    assert printed.count("PLAY [Remove matching entries]") == 3, "one host, then a quarter, then the rest"


def test_flush_above_the_limit_on_one_host_removes_nothing(hosts: dict[str, Namespace], play: Play) -> None:
    """The tag that selects only the removal does not skip the check."""
    status, printed = play("flush", "--tags", "conntrack_remove", conntrack_match=STALE, conntrack_limit=2)
    assert status != 0
    assert "3 entries match, more than the limit of 2" in printed
    assert "PLAY [Remove matching entries]" not in printed
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


@pytest.fixture
def busy(hosts: dict[str, Namespace]) -> None:
    """Create enough flows on the third gateway that the floor for small tables does not apply."""
    flows = "".join(" ".join(["-A", *flow(port)]) + "\n" for port in range(1000, 1120))
    hosts["gateway-c"].conntrack("-R", "-", input=flows)


@pytest.mark.thorough
@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize(
    ("variables", "expected_text", "enough"),
    [
        ({"conntrack_match": {"source_port": "3-1119"}}, "122 of 124 entries would be removed, 98.4 %", 99),
        (
            {"conntrack_match": STALE, "conntrack_max_share": 66.6, "conntrack_max_share_floor": 0},
            "2 of 3 entries would be removed, 66.7 %",
            67,
        ),
    ],
)
def test_flush_above_the_share_on_one_host_removes_nothing(
    hosts: dict[str, Namespace], play: Play, tmp_path: Path, variables: Document, expected_text: str, enough: int
) -> None:
    """This holds for any selection of hosts, and also in the strategy in which hosts do not wait for each other."""
    (tmp_path / "ansible.cfg").write_text("[defaults]\nstrategy = free\n")
    status, printed = play("flush", "--limit", "gateway-a,gateway-c", **variables)
    assert status != 0
    assert expected_text in printed
    assert f"or allow it with -e conntrack_max_share={enough}" in printed
    assert "PLAY [Remove matching entries]" not in printed
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 124]


@pytest.mark.thorough
@pytest.mark.usefixtures("busy")
def test_flush_of_all_respects_the_share_of_each_host(hosts: dict[str, Namespace], play: Play) -> None:
    """The inventory can allow it for one host. The limit does not apply to tables as small as those of the others."""
    status, printed = play("flush", conntrack_all=True, of_hosts={"gateway-c": {"conntrack_max_share": 100}})
    assert status == 0
    assert "124 of 124 entries would be removed, 100 %" in printed
    assert [ports(namespace) for namespace in hosts.values()] == [[], [], []]


def test_flush_started_at_a_later_task_removes_nothing(hosts: dict[str, Namespace], play: Play) -> None:
    """A user who continues an interrupted run starts at this task, so the playbook has not checked the share."""
    status, printed = play("flush", "--start-at-task", "Remove the entries", conntrack_match=STALE)
    assert status != 0
    assert summary(printed) == dict.fromkeys(HOSTS, "not begun, because nothing was counted")
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


def test_flush_without_its_tag_only_counts(hosts: dict[str, Namespace], play: Play, tmp_path: Path) -> None:
    """A second flush that the selected tag skips does not report the result of the first one."""
    imported = {"ansible.builtin.import_playbook": "netops.conntrack.flush"}
    flushes = [
        {**imported, "tags": tag, "vars": {"conntrack_match": {"source_port": port}}}
        for tag, port in (("first", 1), ("second", [2, 3]))
    ]
    (tmp_path / "site.json").write_text(json.dumps(flushes))
    status, printed = play(tmp_path / "site.json", "--tags", "first")
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[2, 3], [2, 3], [2, 3, 4]]
    assert summary(printed) == dict.fromkeys(HOSTS, "2 would be removed, 0 kept, 0 already gone")

    _status, printed = play("flush", "--skip-tags", "always", conntrack_match=STALE)
    assert "FAILED" not in printed
    assert [ports(namespace) for namespace in hosts.values()] == [[2, 3], [2, 3], [2, 3, 4]]


@pytest.mark.thorough
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"conntrack_match": {}},
        {"conntrack_match": STALE, "conntrack_all": True},
        {"conntrack_match": {"colour": 1}},
    ],
)
def test_flush_without_a_valid_match_removes_nothing(
    hosts: dict[str, Namespace], play: Play, variables: Document
) -> None:
    assert play("flush", **variables)[0] != 0
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


def test_flush_stops_at_a_failed_host_and_reports_it(hosts: dict[str, Namespace], play: Play) -> None:
    """One host refuses a request that it accepted before, and one is no longer reachable."""
    refused = "{{ 'setpriv --bounding-set=-net_admin nsenter' if _conntrack_found is defined else 'nsenter' }}"
    gone = "{{ 'false' if _conntrack_found is defined else 'nsenter' }}"
    for nsenter, expected_text in ((refused, "This needs CAP_NET_ADMIN"), (gone, "")):
        status, printed = play(
            "flush", conntrack_match=STALE, of_hosts={"gateway-b": {"ansible_netns_nsenter": nsenter}}
        )
        assert status != 0
        results = summary(printed)
        assert results["gateway-c"] == "not begun, because another host had failed"
        assert expected_text in results["gateway-b"]
        assert results["gateway-a"].endswith("already gone")
    assert [ports(namespace) for namespace in hosts.values()] == [[3], [1, 2, 3], [1, 2, 3, 4]]


@pytest.mark.thorough
def test_flush_of_all_except_some_entries_on_some_hosts(hosts: dict[str, Namespace], play: Play) -> None:
    status, _printed = play(
        "flush", target_hosts="gateway-a:gateway-b", conntrack_all=True, conntrack_except={"source_port": 1}
    )
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[1], [1], [1, 2, 3, 4]]


# apply

DECLARED: Document = {
    "settings": {"accounting": True},
    "absent": [STALE],
    "entries": {
        "declared": [
            {
                "protocol": "udp",
                "original": {
                    "source": "10.1.0.2",
                    "destination": "192.0.2.53",
                    "source_port": 9,
                    "destination_port": 53,
                },
            }
        ]
    },
}


def test_apply_makes_the_predicted_changes(
    hosts: dict[str, Namespace], play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path starts at the working directory of the process."""
    (tmp_path / "gateway.json").write_text(json.dumps(DECLARED))
    status, printed = play("apply", "--check", "--diff", conntrack_src=str(tmp_path / "gateway.json"))
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[1, 2, 3], [1, 2, 3], [1, 2, 3, 4]]
    assert printed.count("1 would be created, 1 updated, 0 replaced, 2 deleted") == 2
    assert printed.count("-udp 10.1.0.2:4 -> 192.0.2.53:53") == 1
    predicted = summary(printed)
    assert predicted["gateway-a"] == "would be: 1 created, 1 updated, 0 replaced, 2 deleted, 0 as declared before"

    status, printed = play("apply", "--skip-tags", "conntrack_apply", conntrack_config=DECLARED)
    assert (status, summary(printed)) == (0, predicted)
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]

    (tmp_path / "other").mkdir()
    (tmp_path / "other/gateway.json").write_text(json.dumps({"settings": {"timestamps": True}}))
    monkeypatch.chdir(tmp_path)
    # Only shells set PWD. A process that another program starts in this folder inherits an old value.
    monkeypatch.setenv("PWD", str(tmp_path / "other"))
    status, printed = play("apply", conntrack_src="gateway.json")
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[3, 9], [3, 9], [3, 9]]
    assert summary(printed) == {name: line.replace("would be: ", "") for name, line in predicted.items()}
    assert printed.count("PLAY [Apply]") == 3, "one host, then a quarter, then the rest"


@pytest.mark.parametrize(
    ("config", "expected_text"),
    [
        ({**DECLARED, "settings": {"nonesuch": 1}}, "settings.nonesuch: no such key"),
        ({**DECLARED, "absent": [{"source_port": 9}]}, "entries.declared[0]: must exist, but when it is created"),
        (
            {
                "entries": {
                    "declared": [
                        {
                            **DECLARED["entries"]["declared"][0],
                            "original": {**DECLARED["entries"]["declared"][0]["original"], "source_port": 4},
                            "nat": {"source": {"address": "198.51.100.9"}},
                        }
                    ]
                },
            },
            "cannot be changed in place (nat.source: ",
        ),
        (None, "conntrack_config or conntrack_src: is required"),
    ],
)
def test_apply_of_an_invalid_declaration_changes_no_host(
    hosts: dict[str, Namespace], play: Play, config: Any, expected_text: str
) -> None:
    status, printed = play("apply", **({} if config is None else {"conntrack_config": config}))
    assert status != 0
    assert expected_text in printed
    assert "PLAY [Apply]" not in printed
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


@pytest.mark.thorough
def test_apply_stops_at_a_failed_host_and_reports_it(hosts: dict[str, Namespace], play: Play) -> None:
    refused = "{{ 'setpriv --bounding-set=-net_admin nsenter' if _conntrack_plan is defined else 'nsenter' }}"
    status, printed = play(
        "apply", conntrack_config=DECLARED, of_hosts={"gateway-b": {"ansible_netns_nsenter": refused}}
    )
    assert status != 0
    results = summary(printed)
    assert results["gateway-a"].startswith("1 created, 1 updated, 0 replaced, 2 deleted")
    assert "cannot be set here" in results["gateway-b"] or "This needs CAP_NET_ADMIN" in results["gateway-b"]
    assert results["gateway-c"] == "not begun, because another host had failed"
    assert [ports(namespace) for namespace in hosts.values()] == [[3, 9], [1, 2, 3], [1, 2, 3, 4]]


# drain


def test_drain_waits_for_the_flows_of_every_gateway(
    hosts: dict[str, Namespace], play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    """On two of three gateways the flows end on their own; on the third, one flow stays."""
    of_hosts: Document = {name: {"conntrack_match": STALE} for name in HOSTS}
    of_hosts["gateway-c"] = {"conntrack_match": {"source_port": 4}, "conntrack_drain_timeout": 1}

    def expire_during_the_wait() -> None:
        for name in ("gateway-a", "gateway-b"):
            hosts[name].wait_for_reader()
            hosts[name].conntrack("-U", "-s", "10.1.0.2", "--reply-dst", "198.51.100.1", "-t", "5")

    expiring = Thread(target=expire_during_the_wait)
    expiring.start()
    status, printed = play("drain", of_hosts=of_hosts)
    expiring.join()
    assert status != 0
    assert {name: ports(namespace) for name, namespace in hosts.items()} == {
        "gateway-a": [3],
        "gateway-b": [3],
        "gateway-c": [1, 2, 3, 4],
    }
    results = summary(printed)
    for gone in ("gateway-a", "gateway-b"):
        assert re.fullmatch(r"2 at the start, 0 after \d+\.\d seconds", results[gone])
    assert re.match(
        r"1 at the start, 1 after \d+\.\d seconds\. The time is up and 1 entry matches, .*: udp 10\.1\.0\.2:4 ",
        results["gateway-c"],
    )
    assert re.findall(r"(gateway-.)\s*: ok=\d+ .*failed=1", printed) == ["gateway-c"]
    assert "reserved name" not in capsys.readouterr().out, "Ansible must not warn about a documented variable"

    status, printed = play("drain", "--check", conntrack_match=STALE, conntrack_remove_rest=True)
    assert status == 0
    predicted = summary(printed)["gateway-c"]
    assert re.fullmatch(r"3 at the start, 3 after \d+\.\d seconds, 3 would be removed", predicted)
    assert ports(hosts["gateway-c"]) == [1, 2, 3, 4]

    status, printed = play("drain", conntrack_match=STALE, conntrack_drain_timeout=1, conntrack_remove_rest=True)
    assert status == 0
    results = summary(printed)
    assert re.fullmatch(r"3 at the start, 3 after \d+\.\d seconds, 3 removed", results["gateway-c"])
    assert re.fullmatch(r"0 at the start, 0 after \d+\.\d seconds", results["gateway-a"])
    assert [ports(namespace) for namespace in hosts.values()] == [[3], [3], [3]]


def test_drain_reports_the_result_of_every_gateway(hosts: dict[str, Namespace], play: Play) -> None:
    """One host is unreachable from the start, and one when the remaining flows must be removed."""
    of_hosts = {
        "gateway-a": {"ansible_netns_nsenter": "false"},
        "gateway-b": {"ansible_netns_nsenter": "{{ 'false' if _conntrack_waited is defined else 'nsenter' }}"},
    }
    status, printed = play(
        "drain", conntrack_match=STALE, conntrack_drain_timeout=0, conntrack_remove_rest=True, of_hosts=of_hosts
    )
    assert status != 0
    results = summary(printed)
    assert results.keys() == set(HOSTS)
    assert results["gateway-a"]
    assert "at the start" not in results["gateway-a"]
    assert re.match(r"2 at the start, 2 after \d+\.\d seconds\. .", results["gateway-b"])
    assert results["gateway-c"].endswith("3 removed")
    assert re.findall(r"(gateway-.)\s*: ok=\d+ .*failed=1", printed) == ["gateway-a", "gateway-b"]
    assert [ports(namespace) for namespace in hosts.values()] == [[1, 2, 3], [1, 2, 3], [3]]


@pytest.mark.thorough
def test_drain_above_the_limit_removes_nothing(hosts: dict[str, Namespace], play: Play) -> None:
    status, printed = play(
        "drain", conntrack_match=STALE, conntrack_drain_timeout=0, conntrack_remove_rest=True, conntrack_remove_limit=2
    )
    assert status != 0
    results = summary(printed)
    assert re.match(r"3 at the start, 3 after \d+\.\d seconds\. .*limit", results["gateway-c"])
    assert results["gateway-a"].endswith("2 removed")
    assert re.findall(r"(gateway-.)\s*: ok=\d+ .*failed=1", printed) == ["gateway-c"]
    assert [ports(namespace) for namespace in hosts.values()] == [[3], [3], [1, 2, 3, 4]]


def test_drain_reports_the_reason_first(hosts: dict[str, Namespace], play: Play) -> None:
    """Without a match on one host, no host waits. A match that one host refuses does not stop the others."""
    of_hosts: Document = {name: {"conntrack_match": {"source_port": 3}} for name in HOSTS[:2]}
    status, printed = play("drain", conntrack_remove_rest=True, of_hosts=of_hosts)
    assert status != 0
    assert "conntrack_match: is required." in first_error(printed)
    assert "[Wait until" not in printed

    of_hosts["gateway-c"] = {"conntrack_match": {"colour": 1}}
    limits = {"conntrack_remove_rest": True, "conntrack_drain_timeout": 0}
    status, printed = play("drain", of_hosts=of_hosts, **limits)
    assert status != 0
    assert "Action failed: match.colour: " in first_error(printed)
    assert "colour" in summary(printed)["gateway-c"]
    assert [ports(namespace) for namespace in hosts.values()] == [[1, 2], [1, 2], [1, 2, 3, 4]]


def first_error(printed: str) -> str:
    return printed.partition("[ERROR]: ")[2].partition("\n")[0]


# Variables


@pytest.mark.thorough
def test_variables_of_the_inventory_without_prefix_have_no_effect(hosts: dict[str, Namespace], play: Play) -> None:
    """The variable `match` of another role must not cause a flush."""
    of_hosts: Document = {name: {"match": STALE, "limit": 10, "all": True} for name in HOSTS}
    status, printed = play("flush", of_hosts=of_hosts)
    assert status != 0
    assert "conntrack_match or conntrack_all: is required" in printed
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


@pytest.mark.thorough
def test_old_names_work_as_extra_variables(hosts: dict[str, Namespace], play: Play) -> None:
    status, _printed = play("flush", match=STALE, limit=3, **{"except": {"source_port": 1}})
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[1, 3], [1, 3], [1, 3]]
