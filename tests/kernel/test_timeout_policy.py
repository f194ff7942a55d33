# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Timeout policies on the running kernel, as nfct(8) shows them, and with their effect on connections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._reconcile.timeout_policy import (
    declared_policy,
    reconcile,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client import timeout_policy
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError, Unsupported
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from ansible_collections.netops.conntrack.plugins.module_utils.client.timeout_policy import PROTOCOL, STATES
from tests import clock
from tests.lab import Gateway, Namespace

pytestmark = pytest.mark.every_kernel

ALL = [PROTOCOL.present(protocol) for protocol in STATES]
#: States that nfct(8) does not name, or names differently.
UNNAMED_BY_NFCT = {"heartbeat_sent", "heartbeat_acked"}


@pytest.fixture
def table(namespace: Namespace) -> Iterator[Table]:
    with namespace.entered(), Table() as table:
        yield table


def by_nfct(namespace: Namespace, *arguments: str) -> dict[str, Any]:
    """Return the numbers of nfct(8) by their names in lower case, empty if it finds nothing."""
    shown = namespace.run(["nfct", *arguments], check=False).stdout
    return {name.lower(): int(value) for name, value in re.findall(r"\.(\w+) = (\d+),", shown)}


def policy_by_nfct(namespace: Namespace, name: str) -> dict[str, Any]:
    return by_nfct(namespace, "get", "timeout", name)


def defaults_by_nfct(namespace: Namespace, protocol: str) -> dict[str, Any]:
    return by_nfct(namespace, "default-get", "timeout", "inet", protocol)


def declare(table: Table, check_mode: bool = False, **given: Any) -> dict[str, Any]:
    options: dict[str, Any] = dict.fromkeys(("name", "family", "protocol", "timeouts", "use"))
    options.update({"default": False, "state": "present", "replace": False, **given})
    return reconcile(table, declared_policy(options), options["state"], options["replace"], check_mode)


def tracks(table: Table, protocol: str) -> bool:
    """Return whether this kernel tracks a protocol. If it does not, a declaration must fail with one sentence."""
    try:
        timeout_policy.defaults(table, PROTOCOL.parse(protocol, "protocol"))
    except Unsupported:
        state = next(iter(STATES[PROTOCOL.parse(protocol, "protocol")]))
        with pytest.raises(ConntrackError, match=f"timeouts of {protocol}: .* does not track that protocol"):
            declare(table, name="none", family="ipv4", protocol=protocol, timeouts={state: 1})
        return False
    return True


@pytest.mark.parametrize("protocol", ALL)
def test_every_state_is_set_under_its_name(table: Table, namespace: Namespace, protocol: str) -> None:
    if not tracks(table, protocol):
        return
    states = list(STATES[PROTOCOL.parse(protocol, "protocol")])
    timeouts = {state: 100 + number for number, state in enumerate(states)}
    family = "ipv6" if protocol == "icmpv6" else "ipv4"
    given = {"name": "all", "family": family, "protocol": protocol, "timeouts": timeouts}
    predicted = declare(table, check_mode=True, **given)
    assert policy_by_nfct(namespace, "all") == {}
    done = declare(table, **given)
    assert done == predicted
    assert done["policy"]["timeouts"] == timeouts
    shown = policy_by_nfct(namespace, "all")
    assert shown.pop("l3proto") == (10 if family == "ipv6" else 2)
    assert shown.pop("l4proto") == PROTOCOL.parse(protocol, "protocol")
    assert shown == {state: value for state, value in timeouts.items() if state not in UNNAMED_BY_NFCT}
    assert not declare(table, **given)["changed"]
    assert list(timeout_policy.read_all(table)) == [done["policy"]]


@pytest.mark.parametrize("protocol", ALL)
def test_one_state(table: Table, namespace: Namespace, protocol: str) -> None:
    """The other states get the defaults when the policy is created, and keep their values when it is changed."""
    if not tracks(table, protocol):
        return
    *_others, state = STATES[PROTOCOL.parse(protocol, "protocol")]
    family = "ipv6" if protocol == "icmpv6" else "ipv4"
    given = {"name": "one", "family": family, "protocol": protocol}
    before = timeout_policy.defaults(table, PROTOCOL.parse(protocol, "protocol"))
    declare(table, timeouts={state: 7}, **given)
    declare(table, default=True, protocol=protocol, timeouts=dict.fromkeys(STATES[before["protocol"]], 99))
    predicted = declare(table, check_mode=True, timeouts={state: 8}, **given)
    done = declare(table, timeouts={state: 8}, **given)
    assert done == predicted
    assert done["changes"] == [{"key": f"timeouts.{state}", "before": 7, "after": 8}]
    assert done["policy"]["timeouts"] == {**timeout_policy.timeouts_of(before), state: 8}
    shown = policy_by_nfct(namespace, "one")
    assert {state: shown[state] for state in shown if state not in ("l3proto", "l4proto")} == {
        name: value for name, value in done["policy"]["timeouts"].items() if name not in UNNAMED_BY_NFCT
    }


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp", "gre", "icmp", "generic"])
def test_defaults_agree_with_the_sysctls(table: Table, namespace: Namespace, protocol: str) -> None:
    if not tracks(table, protocol):
        return
    state = next(iter(STATES[PROTOCOL.parse(protocol, "protocol")]))
    file = {
        "tcp": "tcp_timeout_syn_sent",
        "udp": "udp_timeout",
        "sctp": "sctp_timeout_closed",
        "gre": "gre_timeout",
        "icmp": "icmp_timeout",
        "generic": "generic_timeout",
    }[protocol]
    before = int(namespace.sysctl(f"nf_conntrack_{file}"))
    given = {"default": True, "protocol": protocol, "timeouts": {state: before + 5}}
    predicted = declare(table, check_mode=True, **given)
    assert int(namespace.sysctl(f"nf_conntrack_{file}")) == before
    done = declare(table, **given)
    assert done == predicted
    assert done["changes"] == [{"key": f"timeouts.{state}", "before": before, "after": before + 5}]
    assert int(namespace.sysctl(f"nf_conntrack_{file}")) == before + 5
    assert not declare(table, **given)["changed"]
    if protocol != "icmp":  # nfct(8) requests this protocol by the wrong number
        shown = defaults_by_nfct(namespace, protocol)
        assert not shown or shown[state] == before + 5


def test_policy_of_nfct_is_found_and_changed(table: Table, namespace: Namespace) -> None:
    namespace.run(["nfct", "add", "timeout", "theirs", "inet6", "tcp", "established", "77"])
    found = timeout_policy.find(table, "theirs")
    assert found is not None
    assert timeout_policy.to_document(found)["timeouts"]["established"] == 77
    done = declare(table, name="theirs", family="ipv6", protocol="tcp", timeouts={"close": 3})
    assert done["operation"] == "updated"
    assert policy_by_nfct(namespace, "theirs")["established"] == 77
    assert policy_by_nfct(namespace, "theirs")["close"] == 3
    assert declare(table, name="theirs", state="absent")["operation"] == "deleted"
    assert policy_by_nfct(namespace, "theirs") == {}


def timeout_of_udp(gateway: Namespace) -> int:
    """Return the remaining timeout of the flow."""
    (flow,) = (entry for entry in gateway.table() if entry["protocol"] == "udp")
    return int(flow["timeout"])


def test_policy_applies_to_connections_and_cannot_be_removed_in_use(gateway_lab: Gateway) -> None:
    gateway, client = gateway_lab.gateway, gateway_lab.client1
    rule = ["-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "CT", "--timeout", "short"]
    with gateway.entered(), Table() as table:
        given = {"name": "short", "family": "ipv4", "protocol": "udp"}
        declare(table, timeouts={"unreplied": 1000, "replied": 1000}, **given)
        gateway.run(["iptables", *rule])
        flow = client.udp(gateway_lab.SERVER, gateway_lab.PORT)
        flow.seen_as()
        assert timeout_of_udp(gateway) == clock.left_of(1000)
        # For its first two seconds, a flow has the timeout of unreplied flows, with or without an answer
        done = declare(table, timeouts={"unreplied": 3000}, **given)
        assert done["operation"] == "updated"
        assert done["policy"]["use"] >= 2  # since Linux 7.2, each flow counts as well
        assert done["policy"]["timeouts"] == {"unreplied": 3000, "replied": 1000}
        flow.seen_as()
        assert timeout_of_udp(gateway) == clock.left_of(3000)
        for otherwise in ({"state": "absent"}, {"family": "ipv6", "replace": True, "timeouts": {"replied": 1}}):
            with pytest.raises(ConntrackError, match="a rule uses it; remove that rule first"):
                declare(table, **{**given, **otherwise})
        assert policy_by_nfct(gateway, "short")["unreplied"] == 3000
        gateway.run(["iptables", "-t", "raw", "-F"])
        gateway.conntrack("-F")
        assert declare(table, name="short", state="absent")["operation"] == "deleted"
        flow.close()
