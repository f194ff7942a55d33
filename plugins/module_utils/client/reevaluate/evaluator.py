# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Determine what the kernel would do with existing flows under the current rules, addresses and routes.

The kernel evaluates the rules of NAT once per connection, and most rulesets accept established connections first. After
a change of rules, addresses or routes, live flows therefore continue as before. Here, the first packet of each flow is
replayed in a copy of the network namespace, and the entry that the kernel makes there is compared with the one in the
table. The client interprets no rules. A flow is uncertain if the decision of the kernel cannot be reproduced.

Rules that concern only packets of the reply direction (`ct direction reply`) are not evaluated.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Iterator, Mapping, Sequence

from .. import uapi
from ..entry.entry import Entry
from ..entry.tuple import tuple_key, tuple_of, with_tuple
from ..errors import KernelError, NotPermitted
from ..netlink.socket import Closing, NetlinkSocket
from . import numbers as n
from .environment import read_environment
from .flow import Flow, flow_of
from .judgement import NAT_CHANGED, REFUSED, SAME, STALE, UNCHANGED, UNTRACKED, Judgement, uncertain
from .network import Network, read_network, route_socket
from .preview import changed_ruleset
from .replay import FROM_HOST, Outcome, Replay, receiver_of
from .ruleset import FAMILY_NAMES, Marker, RuleId, load_ruleset, read_ruleset
from .scratch import CannotReevaluate, Scratch, Settings

#: Flows that are replayed before their events are read.
BATCH = 128
#: How often a packet is replayed to find out whether its port is chosen at random.
_PORT_ATTEMPTS = 3
#: The reasons of rules that match at random.
_CHANCE = frozenset({"statistic", "numgen", "hash with a random seed"})
#: The kernel sets it if a connection was picked up in the middle.
_PICKED_UP = uapi.IP_CT_TCP_FLAG_BE_LIBERAL
#: The ends of the reply tuple that the kernel changes if they are taken, and those of the original tuple.
_MOVABLE = {
    "reply.destination_port": "original.source_port",
    "reply.icmp_id": "original.icmp_id",
    "reply.destination_key": "original.source_key",
}
_BROADCAST = b"\xff" * 4
#: Lists of the tables of legacy iptables.
_LEGACY_TABLES = ("/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names")


class Reevaluation(Closing):
    """A copy of the network namespace of this thread, in which flows are judged. Close it after use.

    Raises `NotPermitted` without CAP_NET_ADMIN or CAP_SYS_ADMIN, and `CannotReevaluate` if the namespace cannot be
    copied as a whole.

    :param find_master: returns the entry in the table that has the tuple of the `master` of an entry, None if there is
        none.
    :param ruleset_file: a file for `nft -f`, which is loaded in the copy, and whose ruleset decides. The program nft
        runs for this, and only for this. Raises `InvalidValue` if it refuses the file.
    """

    def __init__(
        self,
        find_master: Callable[[Mapping[str, Any]], Entry | None] | None = None,
        ruleset_file: str | None = None,
    ) -> None:
        self._find_master = find_master or (lambda _entry: None)
        with _copying(), contextlib.ExitStack() as closing:
            with route_socket() as routes, NetlinkSocket() as netlink:
                network = read_network(routes)
                self._environment = read_environment(routes, network)
                ruleset = read_ruleset(netlink)
            _check_copyable(network)
            settings = Settings().read([link.name for link in network.ingress_links()])
            scratch = closing.enter_context(Scratch(network, settings))
            if ruleset_file is not None:
                ruleset = changed_ruleset(scratch, ruleset, ruleset_file)
            self._rules = load_ruleset(scratch.ruleset, ruleset)
            self._replay = Replay(scratch, network, self._rules.own_table)
            self._is_multipath = network.has_multipath()
            self._closing = closing.pop_all()

    def close(self) -> None:
        """Close the copy."""
        self._closing.close()

    def judge(self, entries: Sequence[Entry]) -> list[Judgement]:
        """Judge entries as the kernel returns them. Returns a judgement for each, in the same order."""
        judgements = [SAME] * len(entries)
        for position, _entry, judgement in self.judge_flows(list(map(flow_of, entries))):
            judgements[position] = judgement
        return judgements

    def judge_flows(self, flows: Sequence[Flow]) -> Iterator[tuple[int, Entry, Judgement]]:
        """Judge flows. Yields the position, the entry and the judgement of those that are not clearly unchanged."""
        for start in range(0, len(flows), BATCH):
            batch = flows[start : start + BATCH]
            for position in self._doubtful(batch):
                entry = batch[position].entry()
                yield start + position, entry, self._judge_one(entry)

    def _doubtful(self, flows: Sequence[Flow], traced: bool = False) -> list[int]:
        """Replay flows together. Return the positions of the flows to judge one by one.

        With `traced`, the trace is read after each packet. This is needed if a packet of the batch was traced.
        """
        decided = [self._send(flow, traced) for flow in flows]
        if self._rules.markers and not traced and self._replay.is_traced():
            self._replay.new_flows()
            return self._doubtful(flows, traced=True)
        made = self._replay.new_flows()
        return [
            position
            for position, (flow, is_decided) in enumerate(zip(flows, decided))
            if not is_decided or flow[:2] not in made
        ]

    def _send(self, flow: Flow, traced: bool) -> bool:
        """Send the first packet of a flow. Return whether the new entry alone decides about the flow."""
        ways = self._replay.ways_of(flow)
        if len(ways) != 1 or flow.has_master:
            return False
        if ways[0] == FROM_HOST:
            _source, answering, destination = flow.layout.addresses(flow.values)
            if self._replay.is_by_loopback(FROM_HOST, answering, destination):
                return False
        return self._replay.send(flow, ways[0]) and not (traced and self._replay.is_traced())

    def _judge_one(self, entry: Entry) -> Judgement:
        if "master.source" in entry:
            return self._judge_by_master(entry)
        if _has_ambiguous_address(entry):
            return uncertain("its addresses do not identify a link or a host")
        ways = self._replay.ways_of(flow_of(entry))
        judgements = [self._judge_way(entry, way) for way in ways]
        if not judgements:
            return uncertain("there is no route back to its source")
        judgement = judgements[0]
        if len({(one.verdict, one.expected and tuple_key(one.expected, "reply")) for one in judgements}) > 1:
            return uncertain("it depends on the link by which it comes in", judgement.rule)
        if judgement.verdict in STALE:
            for way in ways:
                reason = self._environment.reason(way, self._replay.way_out(entry))
                if reason:
                    return uncertain(reason, judgement.rule)
        if judgement.verdict == REFUSED and _may_be_reversed(entry):
            other_way = _reversed(entry)
            if any(
                self._judge_way(other_way, way).verdict != REFUSED for way in self._replay.ways_of(flow_of(other_way))
            ):
                return uncertain("it would be refused in this direction and accepted in the other one", judgement.rule)
        if judgement.verdict == NAT_CHANGED and self._is_multipath:
            return uncertain("a route with several next hops decides", judgement.rule)
        return judgement

    def _judge_by_master(self, entry: Entry) -> Judgement:
        """Judge a flow that its master announced. It has no rule of its own."""
        master = self._find_master(entry)
        if master is None or "master.source" in master:
            return uncertain("its master no longer exists" if master is None else "its master has a master itself")
        return self._judge_one(master)._replace(expected=None)

    def _judge_way(self, entry: Entry, way: int) -> Judgement:
        """Judge a flow whose first packet comes in this way, with every outcome of the undecidable rules it reaches."""
        outcome = self._replay.trace(entry, way)
        judgement = self._compare(entry, way, outcome)
        markers = self._markers(outcome)
        if not markers:
            return judgement
        verdicts, is_complete = {judgement.verdict}, True
        for marker in markers:
            if not marker.numbers:
                return uncertain(marker.reason, marker.rule)
            for number in marker.numbers:
                forced = self._replay.trace(entry, way, number)
                verdicts.add(self._compare(entry, way, forced).verdict)
                is_complete = is_complete and set(self._markers(forced)) <= set(markers)
        if len(verdicts) == 1 and is_complete:
            return judgement
        if verdicts == {UNCHANGED, NAT_CHANGED} and all(each.reason in _CHANCE for each in markers):
            return SAME  # one of several translations by chance, and the flow has one of them
        return uncertain(markers[0].reason, markers[0].rule)

    def _markers(self, outcome: Outcome) -> list[Marker]:
        found = (self._rules.markers.get(step.rule) for step in outcome.steps)
        return list(dict.fromkeys(marker for marker in found if marker is not None))

    def _compare(self, entry: Entry, way: int, outcome: Outcome) -> Judgement:
        """Return the judgement of a flow by the outcome of its replay."""
        if not outcome.is_sent:
            return uncertain("its first packet cannot be sent")
        made, is_delivered = outcome.entry, self._replay.is_delivered(outcome.steps)
        refused = Judgement(REFUSED, None, self._last_rule(outcome, n.NF_DROP))
        if not is_delivered and self._replay.is_by_loopback(way, receiver_of(entry, made)):
            return refused if refused.rule else uncertain("its first packet did not come in by the loopback")
        if made is None:
            if is_delivered or self._replay.has_left(outcome.steps):
                if entry["family"] in self._rules.tracked and not self._replay.is_untracked(outcome.steps):
                    return uncertain("the kernel made no entry for its first packet")
                return Judgement(UNTRACKED, None, self._last_rule(outcome, n.NFT_CONTINUE, n.NF_ACCEPT))
            if way != FROM_HOST and not self._replay.is_received(outcome.steps):
                return uncertain("its first packet did not come to the rules")
            return refused
        if made.get("zone", 0) != entry.get("zone", 0):
            return uncertain("it would be tracked in another zone")
        if all(tuple_key(made, direction) == tuple_key(entry, direction) for direction in ("original", "reply")):
            return SAME
        rule = self._translating_rule(outcome)
        if any(made[key] != entry[key] for key in ("reply.source", "reply.destination")):
            return Judgement(NAT_CHANGED, made, rule)
        return self._compare_ports(entry, way, outcome, made)

    def _compare_ports(self, entry: Entry, way: int, outcome: Outcome, made: Entry) -> Judgement:
        """Compare a flow whose ports alone are translated differently.

        The kernel changes a source port that is taken. So source ports count only if the current rule sets them.
        """
        rule = self._translating_rule(outcome)
        again = [self._replay.trace(entry, way).entry for _attempt in range(1, _PORT_ATTEMPTS)]
        differing = {key for key in made if key.startswith("reply.") and made[key] != entry.get(key)}
        if any(one is None or tuple_key(one, "reply") != tuple_key(made, "reply") for one in again):
            if differing <= set(_MOVABLE) and not any(step.rule in self._rules.setting_ports for step in outcome.steps):
                return SAME  # any port at random
            return uncertain("the rule chooses one of several ports", rule)
        if all(key in _MOVABLE and made[key] == entry.get(_MOVABLE[key]) for key in differing):
            return SAME
        return Judgement(NAT_CHANGED, made, rule)

    def _last_rule(self, outcome: Outcome, *verdicts: int) -> RuleId | None:
        """Return the last rule with one of these verdicts, or the chain whose policy is the verdict."""
        for step in reversed(outcome.steps):
            if step.verdict not in verdicts:
                continue
            if step.rule in self._rules.rules:
                return self._rules.rules[step.rule]
            if step.is_policy and step.verdict == n.NF_DROP:
                return RuleId(FAMILY_NAMES[step.rule[0]], step.rule[1], step.chain, 0)
        return None

    def _translating_rule(self, outcome: Outcome) -> RuleId | None:
        """Return the last rule that translates addresses."""
        found = [step.rule for step in outcome.steps if step.rule in self._rules.translating]
        return self._rules.rules[found[-1]] if found else None


def _may_be_reversed(entry: Entry) -> bool:
    """Whether a packet of the reply direction may have made the entry.

    NAT is set up for the first packet, and an ICMP query has its type. TCP has a flag for connections that were picked
    up in the middle.
    """
    if entry.get("status", 0) & (uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT):
        return False
    protocol = entry["original.protocol"]
    if protocol == uapi.IPPROTO_TCP:
        return bool(entry.get("tcp.original.flags", _PICKED_UP) & _PICKED_UP)
    return protocol not in (uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6)


def _has_ambiguous_address(entry: Entry) -> bool:
    """Whether a flow has a multicast, broadcast or unspecified address, or a link-local one of IPv6."""
    for key in ("original.source", "original.destination", "reply.source"):
        address = entry[key]
        if not any(address):
            return True
        if len(address) == 4:
            if 224 <= address[0] < 240 or address == _BROADCAST:
                return True
        elif address[0] == 0xFF or (address[0] == 0xFE and address[1] & 0xC0 == 0x80):
            return True
    return False


def _reversed(entry: Entry) -> Entry:
    """Return an entry as if a packet of the reply direction had made it."""
    ends = {**with_tuple("original", tuple_of(entry, "reply")), **with_tuple("reply", tuple_of(entry, "original"))}
    return {**entry, **ends}


@contextlib.contextmanager
def _copying() -> Iterator[None]:
    """Raise `CannotReevaluate` if the kernel refuses a part of the copy."""
    try:
        yield
    except NotPermitted:
        raise
    except KernelError as error:
        raise CannotReevaluate(f"stale flows cannot be found here: {error}") from error


def _check_copyable(network: Network) -> None:
    """Raise `CannotReevaluate` for a host whose rules or routes cannot be copied."""
    for path in _LEGACY_TABLES:
        try:
            with open(path, encoding="ascii") as file:
                tables = file.read().split()
        except OSError:  # the kernel does not have it
            continue
        if tables:
            raise CannotReevaluate(
                f"stale flows cannot be found here: legacy iptables has rules ({', '.join(tables)}), which are not in "
                "the nftables ruleset; use iptables-nft or nft"
            )
    for link in network.links:
        if link.kind == "vrf":
            raise CannotReevaluate(f"stale flows cannot be found here: {link.name} is a VRF, which is not copied")
