# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the playbook refresh on gateways whose rules have changed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import Host, Lab
from tests.plays import Controller

HOSTS = ("gateway-a", "gateway-b", "gateway-c")
RULES = """
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" snat to 203.0.113.2
    }
}
table inet filter {
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        tcp dport 23 drop comment "no telnet"
        udp dport 5353 limit rate 10/second accept
        udp dport 5353 drop
    }
}
"""
OLD, NEW = "203.0.113.1", "203.0.113.2"
#: On each gateway: two flows with a different NAT result, one that the rules refuse, one for which a rate limit
#: decides, and one that stays.
FLOWS = (
    ("-p udp --sport 1 --dport 53", OLD),
    ("-p udp --sport 2 --dport 53", OLD),
    ("-p tcp --sport 3 --dport 23 --state ESTABLISHED", NEW),
    ("-p udp --sport 4 --dport 5353", NEW),
    ("-p udp --sport 5 --dport 53", NEW),
)
#: Enters a namespace in which another file replaces the TUN device.
WITHOUT_TUN = "unshare --mount sh -c 'mount --bind {} /dev/net/tun && exec nsenter \"$@\"' sh"

Refresh = Callable[..., tuple[int, str]]


@pytest.fixture
def gateways(tun: None) -> Iterator[dict[str, Host]]:
    with Lab() as lab:
        wan, lan = lab.host("wan"), lab.host("lan")
        for number, name in enumerate(HOSTS, start=1):
            gateway = lab.host(name, forwarding=True)
            lab.link(gateway, lan, [f"10.{number}.0.1/24"])
            lab.link(gateway, wan, [f"{OLD}/24", f"{NEW}/24"])
            gateway.nft(RULES)
            for flow, address in FLOWS:
                ends = f"-s 10.{number}.0.2 -d 203.0.113.80 -t 600 -u SEEN_REPLY"
                gateway.conntrack("-I", *flow.split(), *ends.split(), "--src-nat", address)
        yield {name: lab.hosts[name] for name in HOSTS}


@pytest.fixture
def refresh(gateways: dict[str, Host], tmp_path: Path) -> Refresh:
    """Run the playbook on the hosts, and return its exit status and output."""
    controller = Controller(tmp_path)

    def run(*options: str, of_hosts: dict[str, Any] | None = None, **variables: Any) -> tuple[int, str]:
        inventory = {
            name: {"ansible_netns_name": gateway.path, **(of_hosts or {}).get(name, {})}
            for name, gateway in gateways.items()
        }
        return controller.play("refresh", inventory, *options, **{"target_hosts": "all", **variables})

    return run


def ports(gateway: Host) -> list[int]:
    return sorted(entry["original"]["source_port"] for entry in gateway.table())


def summary(printed: str) -> dict[str, str]:
    """Return the summary of each host at the end of the output."""
    last = printed.rpartition("[Show what was done]")[2]
    return dict(re.findall(r'"(gateway-.)": "(.*?)"', last))


def test_refresh_removes_stale_flows_only_on_request(gateways: dict[str, Host], refresh: Refresh) -> None:
    status, printed = refresh()
    assert status == 0
    found = "3 stale (2 nat_changed, 1 refused), 1 uncertain"
    shown = f"{found}, none removed. To remove them, add -e conntrack_remove_stale=true"
    assert summary(printed) == dict.fromkeys(HOSTS, shown)
    assert printed.count("3 of 5 flows are stale, 60 %, 1 uncertain") == 3
    assert len(re.findall(r'"2 nat_changed, ip nat postrouting, handle \d+"', printed)) == 3
    assert len(re.findall(r'"1 refused, inet filter forward, handle \d+, no telnet"', printed)) == 3
    assert len(re.findall(r'"1 uncertain \(limit\), inet filter forward, handle \d+"', printed)) == 3

    status, printed = refresh("--check", "--diff", conntrack_remove_stale=True)
    assert status == 0
    predicted = summary(printed)
    assert predicted == dict.fromkeys(HOSTS, f"{found}, 3 would be removed, 0 kept, 0 already gone")
    assert "-tcp 10.3.0.2:3 -> 203.0.113.80:23" in printed
    assert [ports(gateway) for gateway in gateways.values()] == [[1, 2, 3, 4, 5]] * 3

    status, printed = refresh("--skip-tags", "conntrack_remove", conntrack_remove_stale=True)
    assert (status, summary(printed)) == (0, dict.fromkeys(HOSTS, f"{found}, none removed"))
    assert [ports(gateway) for gateway in gateways.values()] == [[1, 2, 3, 4, 5]] * 3

    status, printed = refresh(conntrack_remove_stale=True)
    assert status == 0
    assert summary(printed) == {name: line.replace("would be removed", "removed") for name, line in predicted.items()}
    assert printed.count("PLAY [Remove stale flows]") == 3, "one host, then a quarter, then the rest"
    assert [ports(gateway) for gateway in gateways.values()] == [[4, 5]] * 3

    status, printed = refresh(conntrack_remove_stale=True)
    assert (status, summary(printed)["gateway-a"]) == (
        0,
        "0 stale, 1 uncertain, 0 removed, 0 kept, 0 already gone",
    )


@pytest.mark.thorough
def test_refresh_is_limited_to_verdicts_and_match(gateways: dict[str, Host], refresh: Refresh) -> None:
    of_hosts = {"gateway-b": {"conntrack_except": {"source_port": 2}}}
    status, printed = refresh(
        of_hosts=of_hosts,
        conntrack_remove_stale=True,
        conntrack_verdicts="nat_changed",
        conntrack_match={"protocol": "udp"},
    )
    assert status == 0
    assert summary(printed)["gateway-b"].startswith("1 stale (1 nat_changed), 1 uncertain, 1 removed, ")
    assert [ports(gateway) for gateway in gateways.values()] == [[3, 4, 5], [2, 3, 4, 5], [3, 4, 5]]


@pytest.mark.thorough
def test_refresh_without_stale_flows(gateways: dict[str, Host], refresh: Refresh) -> None:
    """One host tracks a flow that the rules do not change, the others none."""
    for gateway in gateways.values():
        gateway.empty()
    gateways["gateway-a"].conntrack("-I", *"-p udp -s 10.1.0.2 -d 10.1.0.9 --sport 1 --dport 53 -t 600".split())
    status, printed = refresh(conntrack_limit=0, conntrack_max_share_floor=0)
    assert status == 0
    assert '"rules": []' in printed
    assert summary(printed) == dict.fromkeys(HOSTS, "0 stale, 0 uncertain, none removed")
    assert "0 of 1 flows are stale, 0 %, 0 uncertain" in printed


@pytest.mark.parametrize(
    ("limits", "expected_text"),
    [
        ({"conntrack_limit": 2}, "This exceeds conntrack_limit (2). .* -e conntrack_limit=3"),
        (
            {"conntrack_max_share": 59.5, "conntrack_max_share_floor": 0},
            "This exceeds conntrack_max_share (59.5 %). .* -e conntrack_max_share=60",
        ),
    ],
)
def test_refresh_above_a_limit_on_one_host_removes_nothing(
    gateways: dict[str, Host], refresh: Refresh, tmp_path: Path, limits: dict[str, Any], expected_text: str
) -> None:
    """This also holds in the strategy in which hosts do not wait for each other."""
    (tmp_path / "ansible.cfg").write_text("[defaults]\nstrategy = free\n")
    status, printed = refresh(conntrack_remove_stale=True, of_hosts={"gateway-c": limits})
    assert status != 0
    assert "3 of 5 flows are stale, 60 %" in printed
    assert re.search(expected_text.replace("(", r"\(").replace(")", r"\)"), printed)
    assert "PLAY [Remove stale flows]" not in printed
    assert [ports(gateway) for gateway in gateways.values()] == [[1, 2, 3, 4, 5]] * 3


def test_refresh_reports_a_host_that_cannot_evaluate_its_flows(
    gateways: dict[str, Host], refresh: Refresh, tmp_path: Path
) -> None:
    """One host has no TUN device, and one does not answer. The third host is not affected."""
    (tmp_path / "no-tun").touch()
    of_hosts = {
        "gateway-a": {"ansible_netns_nsenter": WITHOUT_TUN.format(tmp_path / "no-tun")},
        "gateway-b": {"ansible_netns_nsenter": "false"},
    }
    status, printed = refresh(conntrack_remove_stale=True, of_hosts=of_hosts)
    assert status != 0
    results = summary(printed)
    assert re.fullmatch(
        r"stale flows cannot be found here: no TUN device .*\)\. Nothing was removed\.", results["gateway-a"]
    )
    assert results["gateway-b"].endswith(". Nothing was removed.")
    assert "3 removed" in results["gateway-c"]
    assert [ports(gateway) for gateway in gateways.values()] == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [4, 5]]
    assert re.findall(r"(gateway-.)\s*: ok=\d+ .*failed=1", printed) == ["gateway-a", "gateway-b"]


@pytest.mark.thorough
def test_refresh_stops_at_a_failed_host(gateways: dict[str, Host], refresh: Refresh) -> None:
    """A host is no longer reachable when its flows must be removed."""
    gone = "{{ 'false' if _conntrack_allowed is defined else 'nsenter' }}"
    status, printed = refresh(conntrack_remove_stale=True, of_hosts={"gateway-b": {"ansible_netns_nsenter": gone}})
    assert status != 0
    results = summary(printed)
    assert "3 removed" in results["gateway-a"]
    assert results["gateway-c"] == "not begun, because another host had failed"
    assert [ports(gateway) for gateway in gateways.values()] == [[4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]


@pytest.mark.thorough
def test_refresh_started_at_a_later_task_removes_nothing(gateways: dict[str, Host], refresh: Refresh) -> None:
    status, printed = refresh("--start-at-task", "Remove the stale flows", conntrack_remove_stale=True)
    assert status != 0
    assert summary(printed) == dict.fromkeys(HOSTS, "not begun, because nothing was judged")
    assert [ports(gateway) for gateway in gateways.values()] == [[1, 2, 3, 4, 5]] * 3
