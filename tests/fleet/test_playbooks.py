# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The playbooks by their names, on namespaces as hosts."""

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
    """Three gateways with two flows by an old address and one by a new one; the third has one more."""
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
    """Run a playbook on them: its exit status and what it printed."""
    controller = Controller(tmp_path)

    def run(playbook: str, *options: str, of_hosts: Document | None = None, **variables: Any) -> tuple[int, str]:
        inventory = {
            name: {"ansible_netns_name": namespace.path, **(of_hosts or {}).get(name, {})}
            for name, namespace in hosts.items()
        }
        return controller.play(playbook, inventory, *options, **{"target_hosts": "all", **variables})

    return run


STALE = {"nat": "source", "reply_destination": "198.51.100.1"}


def summary(printed: str) -> dict[str, str]:
    """What is said of each host at the end."""
    last = printed.rpartition("[Show what was done]")[2]
    return dict(re.findall(r'"(gateway-.)": "(.*?)"', last))


def test_flush_says_how_much_would_go_and_then_removes_it(hosts: dict[str, Namespace], play: Play) -> None:
    status, printed = play("flush", "--check", conntrack_match=STALE)
    assert status == 0
    assert {name: ports(namespace) for name, namespace in hosts.items()} == {
        "gateway-a": [1, 2, 3],
        "gateway-b": [1, 2, 3],
        "gateway-c": [1, 2, 3, 4],
    }
    assert printed.count("2 of 3 entries would be removed, 66.7 %, 0 kept") == 2
    foreseen = summary(printed)
    assert foreseen["gateway-c"] == "3 would be removed, 0 kept, 0 already gone"

    status, printed = play("flush", conntrack_match=STALE, conntrack_limit=3)
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[3], [3], [3]]
    assert summary(printed) == {name: line.replace("would be removed", "removed") for name, line in foreseen.items()}
    assert printed.count("PLAY [Remove matching entries]") == 3, "one host, and a quarter, before the rest"


def test_flush_of_too_much_on_one_host_removes_nothing_on_any(hosts: dict[str, Namespace], play: Play) -> None:
    status, printed = play("flush", conntrack_match=STALE, conntrack_limit=2)
    assert status != 0
    assert "3 entries match, more than the limit of 2" in printed
    assert "PLAY [Remove matching entries]" not in printed
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


@pytest.fixture
def busy(hosts: dict[str, Namespace]) -> None:
    """So many flows on the third gateway that its table is not tiny any more."""
    flows = "".join(" ".join(["-A", *flow(port)]) + "\n" for port in range(1000, 1120))
    hosts["gateway-c"].conntrack("-R", "-", input=flows)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize(
    ("variables", "says", "enough"),
    [
        ({"conntrack_match": {"source_port": "3-1119"}}, "122 of 124 entries would be removed, 98.4 %", 99),
        (
            {"conntrack_match": STALE, "conntrack_max_share": 66.6, "conntrack_max_share_floor": 0},
            "2 of 3 entries would be removed, 66.7 %",
            67,
        ),
    ],
)
def test_flush_of_too_large_a_share_on_one_host_removes_nothing_on_any(
    hosts: dict[str, Namespace], play: Play, tmp_path: Path, variables: Document, says: str, enough: int
) -> None:
    """Whatever hosts are picked, and in the strategy too that lets each host go on by itself."""
    (tmp_path / "ansible.cfg").write_text("[defaults]\nstrategy = free\n")
    status, printed = play("flush", "--limit", "gateway-a,gateway-c", **variables)
    assert status != 0
    assert says in printed
    assert f"or allow it with -e conntrack_max_share={enough}" in printed
    assert "PLAY [Remove matching entries]" not in printed
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 124]


@pytest.mark.usefixtures("busy")
def test_flush_of_all_is_held_to_the_share_that_each_host_allows(hosts: dict[str, Namespace], play: Play) -> None:
    """The inventory can allow it for one host. Tables as tiny as those of the others are of no account."""
    status, printed = play("flush", conntrack_all=True, of_hosts={"gateway-c": {"conntrack_max_share": 100}})
    assert status == 0
    assert "124 of 124 entries would be removed, 100 %" in printed
    assert [ports(namespace) for namespace in hosts.values()] == [[], [], []]


def test_flush_that_begins_in_the_middle_removes_nothing(hosts: dict[str, Namespace], play: Play) -> None:
    """As when one goes on where a run was interrupted: nobody has looked at the share."""
    status, printed = play("flush", "--start-at-task", "Remove the entries", conntrack_match=STALE)
    assert status != 0
    assert summary(printed) == dict.fromkeys(HOSTS, "not begun, because nothing was counted")
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"conntrack_match": {}},
        {"conntrack_match": STALE, "conntrack_all": True},
        {"conntrack_match": {"colour": 1}},
    ],
)
def test_flush_of_what_was_not_said_removes_nothing(
    hosts: dict[str, Namespace], play: Play, variables: Document
) -> None:
    assert play("flush", **variables)[0] != 0
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


def test_flush_stops_at_the_host_that_fails_and_says_so(hosts: dict[str, Namespace], play: Play) -> None:
    """One that is refused what it was allowed a moment ago, and one that is not reached any more."""
    refused = "{{ 'setpriv --bounding-set=-net_admin nsenter' if _conntrack_found is defined else 'nsenter' }}"
    gone = "{{ 'false' if _conntrack_found is defined else 'nsenter' }}"
    for nsenter, says in ((refused, "This needs CAP_NET_ADMIN"), (gone, "")):
        status, printed = play(
            "flush", conntrack_match=STALE, of_hosts={"gateway-b": {"ansible_netns_nsenter": nsenter}}
        )
        assert status != 0
        said = summary(printed)
        assert said["gateway-c"] == "not begun, because another host had failed"
        assert says in said["gateway-b"]
        assert said["gateway-a"].endswith("already gone")
    assert [ports(namespace) for namespace in hosts.values()] == [[3], [1, 2, 3], [1, 2, 3, 4]]


def test_flush_of_everything_but_some_on_some_hosts(hosts: dict[str, Namespace], play: Play) -> None:
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


def test_apply_plans_everywhere_and_then_does_it(
    hosts: dict[str, Namespace], play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path starts at the working directory of the process."""
    (tmp_path / "gateway.json").write_text(json.dumps(DECLARED))
    status, printed = play("apply", "--check", "--diff", conntrack_src=str(tmp_path / "gateway.json"))
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[1, 2, 3], [1, 2, 3], [1, 2, 3, 4]]
    assert printed.count("1 would be created, 1 updated, 0 replaced, 2 deleted") == 2
    assert printed.count("-udp 10.1.0.2:4 -> 192.0.2.53:53") == 1
    foreseen = summary(printed)
    assert foreseen["gateway-a"] == "would be: 1 created, 1 updated, 0 replaced, 2 deleted, 0 as declared before"

    (tmp_path / "other").mkdir()
    (tmp_path / "other/gateway.json").write_text(json.dumps({"settings": {"timestamps": True}}))
    monkeypatch.chdir(tmp_path)
    # Only shells set PWD. A process that another program starts in this folder inherits an old value.
    monkeypatch.setenv("PWD", str(tmp_path / "other"))
    status, printed = play("apply", conntrack_src="gateway.json")
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[3, 9], [3, 9], [3, 9]]
    assert summary(printed) == {name: line.replace("would be: ", "") for name, line in foreseen.items()}
    assert printed.count("PLAY [Apply]") == 3, "one host, and a quarter, before the rest"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({**DECLARED, "settings": {"nonesuch": 1}}, "settings.nonesuch: no such key"),
        ({**DECLARED, "absent": [{"source_port": 9}]}, "entries.declared[0]: is to be there, and when it is created"),
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
def test_apply_of_what_cannot_be_on_one_host_changes_none(
    hosts: dict[str, Namespace], play: Play, config: Any, says: str
) -> None:
    status, printed = play("apply", **({} if config is None else {"conntrack_config": config}))
    assert status != 0
    assert says in printed
    assert "PLAY [Apply]" not in printed
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


def test_apply_stops_at_the_host_that_fails_and_says_so(hosts: dict[str, Namespace], play: Play) -> None:
    refused = "{{ 'setpriv --bounding-set=-net_admin nsenter' if _conntrack_plan is defined else 'nsenter' }}"
    status, printed = play(
        "apply", conntrack_config=DECLARED, of_hosts={"gateway-b": {"ansible_netns_nsenter": refused}}
    )
    assert status != 0
    said = summary(printed)
    assert said["gateway-a"].startswith("1 created, 1 updated, 0 replaced, 2 deleted")
    assert "cannot be set here" in said["gateway-b"] or "This needs CAP_NET_ADMIN" in said["gateway-b"]
    assert said["gateway-c"] == "not begun, because another host had failed"
    assert [ports(namespace) for namespace in hosts.values()] == [[3, 9], [1, 2, 3], [1, 2, 3, 4]]


# drain


def test_drain_waits_until_the_flows_have_left_every_gateway(
    hosts: dict[str, Namespace], play: Play, capsys: pytest.CaptureFixture[str]
) -> None:
    """On two of three gateways they are gone by themselves, on the third one stays."""
    of_hosts: Document = {name: {"conntrack_match": STALE} for name in HOSTS}
    of_hosts["gateway-c"] = {"conntrack_match": {"source_port": 4}, "conntrack_drain_timeout": 1}

    def expire_once_awaited() -> None:
        for name in ("gateway-a", "gateway-b"):
            hosts[name].wait_for_reader()
            hosts[name].conntrack("-U", "-s", "10.1.0.2", "--reply-dst", "198.51.100.1", "-t", "5")

    expiring = Thread(target=expire_once_awaited)
    expiring.start()
    status, printed = play("drain", of_hosts=of_hosts)
    expiring.join()
    assert status != 0
    assert {name: ports(namespace) for name, namespace in hosts.items()} == {
        "gateway-a": [3],
        "gateway-b": [3],
        "gateway-c": [1, 2, 3, 4],
    }
    said = summary(printed)
    for gone in ("gateway-a", "gateway-b"):
        assert re.fullmatch(r"2 at the start, 0 after \d+\.\d seconds", said[gone])
    assert re.match(
        r"1 at the start, 1 after \d+\.\d seconds\. The time is up and 1 entry matches, .*: udp 10\.1\.0\.2:4 ",
        said["gateway-c"],
    )
    assert re.findall(r"(gateway-.)\s*: ok=\d+ .*failed=1", printed) == ["gateway-c"]
    assert "reserved name" not in capsys.readouterr().out, "a warning on what is documented"

    status, printed = play("drain", "--check", conntrack_match=STALE, conntrack_remove_rest=True)
    assert status == 0
    foreseen = summary(printed)["gateway-c"]
    assert re.fullmatch(r"3 at the start, 3 after \d+\.\d seconds, 3 would be removed", foreseen)
    assert ports(hosts["gateway-c"]) == [1, 2, 3, 4]

    status, printed = play("drain", conntrack_match=STALE, conntrack_drain_timeout=1, conntrack_remove_rest=True)
    assert status == 0
    said = summary(printed)
    assert re.fullmatch(r"3 at the start, 3 after \d+\.\d seconds, 3 removed", said["gateway-c"])
    assert re.fullmatch(r"0 at the start, 0 after \d+\.\d seconds", said["gateway-a"])
    assert [ports(namespace) for namespace in hosts.values()] == [[3], [3], [3]]


def test_drain_says_of_every_gateway_what_became_of_it(hosts: dict[str, Namespace], play: Play) -> None:
    """Of one that is not reached, and of one that is not reached any more when the rest is to be removed."""
    of_hosts = {
        "gateway-a": {"ansible_netns_nsenter": "false"},
        "gateway-b": {"ansible_netns_nsenter": "{{ 'false' if _conntrack_waited is defined else 'nsenter' }}"},
    }
    status, printed = play(
        "drain", conntrack_match=STALE, conntrack_drain_timeout=0, conntrack_remove_rest=True, of_hosts=of_hosts
    )
    assert status != 0
    said = summary(printed)
    assert said.keys() == set(HOSTS)
    assert said["gateway-a"]
    assert "at the start" not in said["gateway-a"]
    assert re.match(r"2 at the start, 2 after \d+\.\d seconds\. .", said["gateway-b"])
    assert said["gateway-c"].endswith("3 removed")
    assert re.findall(r"(gateway-.)\s*: ok=\d+ .*failed=1", printed) == ["gateway-a", "gateway-b"]
    assert [ports(namespace) for namespace in hosts.values()] == [[1, 2, 3], [1, 2, 3], [3]]


def test_drain_removes_none_where_more_are_left_than_may_be_removed(hosts: dict[str, Namespace], play: Play) -> None:
    status, printed = play(
        "drain", conntrack_match=STALE, conntrack_drain_timeout=0, conntrack_remove_rest=True, conntrack_remove_limit=2
    )
    assert status != 0
    said = summary(printed)
    assert re.match(r"3 at the start, 3 after \d+\.\d seconds\. .*limit", said["gateway-c"])
    assert said["gateway-a"].endswith("2 removed")
    assert re.findall(r"(gateway-.)\s*: ok=\d+ .*failed=1", printed) == ["gateway-c"]
    assert [ports(namespace) for namespace in hosts.values()] == [[3], [3], [1, 2, 3, 4]]


def test_drain_fails_with_the_reason_first(hosts: dict[str, Namespace], play: Play) -> None:
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


def test_variables_of_the_inventory_without_prefix_have_no_effect(hosts: dict[str, Namespace], play: Play) -> None:
    """A flush by accident, because a role of other software names a variable `match`."""
    of_hosts: Document = {name: {"match": STALE, "limit": 10, "all": True} for name in HOSTS}
    status, printed = play("flush", of_hosts=of_hosts)
    assert status != 0
    assert "conntrack_match or conntrack_all: is required" in printed
    assert [len(ports(namespace)) for namespace in hosts.values()] == [3, 3, 4]


def test_old_names_work_as_extra_variables(hosts: dict[str, Namespace], play: Play) -> None:
    status, _printed = play("flush", match=STALE, limit=3, **{"except": {"source_port": 1}})
    assert status == 0
    assert [ports(namespace) for namespace in hosts.values()] == [[1, 3], [1, 3], [1, 3]]
