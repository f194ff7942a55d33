# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of the demo, and the checks of the table and the traffic."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab import Endpoint, Flow, Gateway, has_ipv6

from .play import run_playbook
from .steady import Steady

VPN_PORT = 51820
VPN_TRANSLATED_PORT = 40000
VPN_MARK = 0x51
#: Comments of the rules that change.
NAT_RULE, FILTER_RULE = "second address", "no TCP from client2"

SCENE = """
  client1 ──┐
         gateway ── server      The gateway translates both clients' addresses to {0}.
  client2 ──┘
"""
CHANGE = """\
The rules change while all connections continue: source NAT of IPv4 now uses {0},
and client2 may no longer open TCP connections to the server.
"""

Key = tuple[Any, ...]
Table = dict[Key, dict[str, Any]]


class Story:
    """Traffic through a gateway, a change of its rules, the playbook, and the checks of the results."""

    def __init__(self, scene: Gateway, installed: Path | None = None) -> None:
        """Prepare the gateway.

        :param installed: The folder in which the collection is installed; None uses the checkout.
        """
        self.scene = scene
        self.installed = installed
        self.old, self.new = scene.OUTSIDE
        self._flows = contextlib.ExitStack()
        for protocol in ("udp", "icmp", "icmpv6") if has_ipv6() else ("udp", "icmp"):
            # No entry expires during the demo
            scene.gateway.sysctl(f"nf_conntrack_{protocol}_timeout", 120)
        scene.gateway.firewall.accept("forward", "established")  # the usual policy of a firewall
        scene.server.mirror(VPN_PORT)

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *_: object) -> None:
        self._flows.close()

    def tell(self) -> None:
        """Start the traffic, change the rules, and run the playbook."""
        print(SCENE.format(self.old))
        self.flows = self._open_all_kinds()
        self.steady = Steady(self.scene.client1.udp(self.scene.SERVER, self.scene.PORT))
        self._flows.callback(self.steady.stop)
        self.steady.wait_for_messages()

        print(CHANGE.format(self.new), flush=True)
        self._change_rules()
        self.newcomer = self._keep(self.scene.client2.udp(self.scene.SERVER, self.scene.PORT)).seen_as()
        self.steady.wait_for_messages()
        self.under_way = self.steady.addresses()

        self.before = self._read_table()
        self.status, self.report, self.modules = run_playbook(self.scene.lab.paths(), self._variables(), self.installed)
        self.after = self._read_table()
        self.steady.wait_for_messages()
        vpn = self.scene.client1.udp(self.scene.SERVER, VPN_PORT, source_port=VPN_PORT)
        self.vpn, self.vpn_seen_as = _key_of(vpn), self._keep(vpn).seen_as()

    def is_true(self) -> bool:
        """Print each check with its result, and return whether all checks passed."""
        print("\nChecks of the table and of the traffic:\n")
        true = True
        for sentence, so in self._claims():
            print(f"  {'  ok  ' if so else 'FAILED'}  {sentence}")
            true = true and so
        print("\nAll checks passed." if true else "\nSome checks failed.")
        return true

    def _claims(self) -> Iterator[tuple[str, bool]]:
        if self.status != 0 or not self.report:
            yield f"The playbook ended with status {self.status}.", False
            return
        yield from self._facts()
        yield from self._declaration()
        yield from self._staleness()
        yield from self._flush()
        yield from self._refresh()
        yield from self._rest()
        if self.installed is not None:
            yield (
                f"The play used {len(self.modules)} modules, all of them in {self.installed}.",
                bool(self.modules) and all(file.is_relative_to(self.installed.absolute()) for file in self.modules),
            )

    def _facts(self) -> Iterator[tuple[str, bool]]:
        facts = self.report["facts"]
        protocols = Counter(protocol for protocol, *_original in self.before)
        by_protocol = ", ".join(f"{number} {protocol}" for protocol, number in facts["by_protocol"].items())
        yield (
            f"The facts report {facts['count']} connections ({by_protocol}). The table has {len(self.before)}.",
            facts["count"] == len(self.before) and facts["by_protocol"] == protocols,
        )

    def _declaration(self) -> Iterator[tuple[str, bool]]:
        first, second = self.report["declared"], self.report["declared_again"]
        appeared = self.after.keys() - self.before.keys()
        yield (
            f"The first declaration reports {first['operation']}, the second {second['operation']}. There is 1 entry.",
            (first["changed"], second["changed"]) == (True, False)
            and appeared == {self.vpn}
            and self.after[self.vpn]["mark"] == VPN_MARK,
        )
        yield (
            f"Its first packet leaves from {self.vpn_seen_as}, as declared. The rule would use {self.new}.",
            self.vpn_seen_as == Endpoint(self.old, VPN_TRANSLATED_PORT),
        )

    def _staleness(self) -> Iterator[tuple[str, bool]]:
        under_way = ", ".join(self.under_way)
        yield (
            f"After the change of rules, a new flow uses {self.newcomer.address}, and an existing flow {under_way}.",
            self.newcomer.address == self.new and self.under_way == [self.old],
        )

    def _flush(self) -> Iterator[tuple[str, bool]]:
        flushed, addresses = self.report["flushed"]["flushed"], self.steady.addresses()
        stale = _key_of(self.steady.flow)
        translations = [table[stale]["reply"]["destination"] for table in (self.before, self.after) if stale in table]
        yield (
            f"The flush with a match removes {flushed} entry. The existing flow uses {', then '.join(addresses)}.",
            flushed == 1 and addresses == translations == [self.old, self.new],
        )
        # A reply that arrives after the flush of its entry is lost
        yield (
            f"Of its {len(self.steady.seen)} packets, {self.steady.lost} are lost.",
            self.steady.lost <= 1,
        )

    def _refresh(self) -> Iterator[tuple[str, bool]]:
        refreshed = self.report["refreshed"]
        if "msg" in refreshed:  # for example without /dev/net/tun
            yield f"The flush of stale flows removes nothing: {refreshed['msg']}.", True
            return
        found = {_end_of(entry): (entry["verdict"], entry["rule"]["comment"]) for entry in refreshed["entries"]}
        decided = Counter(found.values())
        named = ", ".join(f"{number} {verdict} by {rule!r}" for (verdict, rule), number in sorted(decided.items()))
        yield (
            f"The flush of stale flows removes {len(found)} flows: {named}.",
            found == self._stale() and refreshed["flushed"] == len(found),
        )
        changed, refused = self.flows["udp2"][0], self.flows["tcp2"][0]
        yield (
            f"UDP from client2 now uses {self.new}, and TCP from client2 has no answer.",
            changed.seen_as().address == self.new and not _is_answered(refused),
        )

    def _stale(self) -> dict[Key, tuple[str, str]]:
        """Return the flows that the new rules affect, except the steady one, with verdict and comment of the rule."""
        stale = {
            _end_of(entry): ("nat_changed", NAT_RULE)
            for key, entry in self.before.items()
            if entry["reply"]["destination"] == self.old and key != _key_of(self.steady.flow)
        }
        blocked = self.flows["tcp2"][0].local
        stale["tcp", blocked.address, blocked.port] = ("refused", FILTER_RULE)
        return stale

    def _rest(self) -> Iterator[tuple[str, bool]]:
        removed = self.report["refreshed"].get("entries", [])
        gone = {_end_of(entry) for entry in removed} | {_end_of(self.before[_key_of(self.steady.flow)])}
        rest = {key: entry for key, entry in self.before.items() if _end_of(entry) not in gone}
        yield (
            f"The {len(rest)} other entries are unchanged, and their connections continue.",
            all(self.after.get(key) == entry for key, entry in rest.items())
            and all(
                flow.seen_as() == seen_as
                for flow, seen_as in self.flows.values()
                if not any(flow.local == end[1:] for end in gone)
            ),
        )

    def _change_rules(self) -> None:
        firewall = self.scene.gateway.firewall
        firewall.clear("snat")
        firewall.snat(self.new, out_interface="server", comment=NAT_RULE)
        if has_ipv6():
            firewall.snat(self.scene.OUTSIDE_IPV6[0], out_interface="server")
        firewall.drop(
            "forward", comment=FILTER_RULE, source=self.scene.CLIENTS[1], protocol="tcp", port=self.scene.PORT
        )

    def _open_all_kinds(self) -> dict[str, tuple[Flow, Endpoint]]:
        """Open connections of all kinds from both clients.

        Return each with the source address that the server received.
        """
        scene = self.scene
        flows = {
            "tcp1": scene.client1.tcp(scene.SERVER, scene.PORT),
            "tcp2": scene.client2.tcp(scene.SERVER, scene.PORT),
            "udp2": scene.client2.udp(scene.SERVER, scene.PORT),
        }
        scene.client1.ping(scene.SERVER)
        if has_ipv6():
            flows["tcp1 of IPv6"] = scene.client1.tcp(scene.SERVER_IPV6, scene.PORT)
            scene.client2.ping(scene.SERVER_IPV6)
        return {name: (self._keep(flow), flow.seen_as()) for name, flow in flows.items()}

    def _keep(self, flow: Flow) -> Flow:
        return self._flows.enter_context(flow)

    def _read_table(self) -> Table:
        """Read the table of the gateway without this collection. Timeouts and ids are left out."""
        entries = self.scene.gateway.table()
        return {
            _key(entry["protocol"], **entry["original"]): {
                name: value for name, value in entry.items() if name not in ("timeout", "id")
            }
            for entry in entries
        }

    def _variables(self) -> dict[str, Any]:
        flow = self.steady.flow
        return {
            "conntrack_vpn_inside": self.scene.CLIENTS[0],
            "conntrack_vpn_outside": self.scene.SERVER,
            "conntrack_vpn_translated": self.old,
            "conntrack_stale_flow": {
                "protocol": "udp",
                "source": flow.local.address,
                "source_port": flow.local.port,
                "destination": flow.remote.address,
                "destination_port": flow.remote.port,
            },
            "conntrack_stale_flow_successor": self.new,
            "conntrack_remove_stale": True,
        }


def _key(protocol: str, **original: Any) -> Key:
    return (protocol, *sorted(original.items()))


def _key_of(flow: Flow) -> Key:
    """Return the key of a UDP flow in a `Table`."""
    return _key(
        "udp",
        source=flow.local.address,
        source_port=flow.local.port,
        destination=flow.remote.address,
        destination_port=flow.remote.port,
    )


def _end_of(entry: dict[str, Any]) -> Key:
    """Return protocol, source and source port of an entry, which identify it in this demo."""
    original = entry["original"]
    return (entry["protocol"], original["source"], original.get("source_port", 0))


def _is_answered(flow: Flow) -> bool:
    try:
        flow.seen_as(timeout=0.5)
    except OSError:
        return False
    return True
