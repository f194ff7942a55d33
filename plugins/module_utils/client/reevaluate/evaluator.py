# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find out what the kernel would do today with the flows of the table.

The kernel evaluates the rules of NAT once per connection, and most rulesets accept established connections first. After
a change of rules, addresses or routes, live flows therefore go on as before. Here, the first packet of each flow is
replayed in a copy of the network namespace, and the entry that the kernel makes there is compared with the one in the
table. No rule is interpreted; what the kernel cannot be asked is uncertain.

Not looked at: rules that concern packets of the reply direction alone (`ct direction reply`).
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from .. import uapi
from ..dump.scan import DumpDecoder, Entries
from ..entry.entry import Entry
from ..entry.tuple import protocol_keys, tuple_of, with_tuple
from ..errors import kernel_error
from ..netlink.message import parse
from ..netlink.socket import NetlinkSocket
from . import numbers as n
from .expressions import ALWAYS, TRACED
from .network import Network, path_to, read_network, route_socket
from .packets import first_packet
from .ruleset import Marker, RuleId, load_ruleset, read_ruleset
from .scratch import CannotReevaluate, Scratch, Settings
from .trace import Step, parse_step

UNCHANGED = "unchanged"
NAT_CHANGED = "nat_changed"
REFUSED = "refused"
UNTRACKED = "untracked"
UNCERTAIN = "uncertain"
#: All verdicts, and those of flows that are stale.
VERDICTS = (UNCHANGED, NAT_CHANGED, REFUSED, UNTRACKED, UNCERTAIN)
STALE = (NAT_CHANGED, REFUSED, UNTRACKED)

#: Flows that are replayed before their events are read.
BATCH = 128
#: Flows after which the scratch table is emptied.
_FLUSH_AFTER = 32768
_MOST_CACHED = 65536
#: How often a packet is replayed to find out whether its port is chosen at random.
_PORT_ATTEMPTS = 3
_CHANCE = frozenset({"statistic", "numgen", "hash with a random seed"})
_BE_LIBERAL = 0x08

_ADDRESSES = ("reply.source", "reply.destination")


@lru_cache(maxsize=None)
def _key_of(protocol: int, direction: str) -> Callable[[Mapping[str, Any]], Any]:
    """Return the function that makes a key of a tuple."""
    names = ("source", "destination", *protocol_keys(protocol))
    return itemgetter("family", *(f"{direction}.{name}" for name in names))


def _original(entry: Mapping[str, Any]) -> Any:
    protocol = entry["original.protocol"]
    return protocol, _key_of(protocol, "original")(entry)


def _reply(entry: Mapping[str, Any] | None) -> Any:
    return None if entry is None else _key_of(entry["original.protocol"], "reply")(entry)


class Judgement(NamedTuple):
    """What the kernel would do today with a flow.

    `verdict` is one of `VERDICTS`. `expected` is the entry that the kernel would make, None if it would make none.
    `rule` is the rule that decides, None if none does. `reason` says why a flow is uncertain, "" if it is not.
    """

    verdict: str
    expected: Entry | None = None
    rule: RuleId | None = None
    reason: str = ""


_UNCHANGED = Judgement(UNCHANGED)


def _uncertain(reason: str, rule: RuleId | None = None) -> Judgement:
    return Judgement(UNCERTAIN, None, rule, reason)


class _Way(NamedTuple):
    """How a packet enters: by a link, or from a socket of the host (0)."""

    link: int


class _Outcome(NamedTuple):
    """What became of one traced packet."""

    event: Entry | None
    steps: tuple[Step, ...]


class Reevaluation:
    """A copy of the network namespace of this thread, in which flows are judged. Close it after use.

    Raises `NotPermitted` without CAP_NET_ADMIN or CAP_SYS_ADMIN, and `CannotReevaluate` if the namespace cannot be
    copied whole.

    :param find: returns the entry in the table that has the tuple of the `master` of an entry, None if there is none.
    """

    def __init__(self, find: Callable[[Mapping[str, Any]], Entry | None] | None = None) -> None:
        self._find = find
        with route_socket() as routes, NetlinkSocket() as netlink:
            self._network = read_network(routes)
            ruleset = read_ruleset(netlink)
        _check_copyable(self._network)
        names = [link.name for link in self._network.ingress_links()]
        self._scratch = Scratch(self._network, Settings().read(names))
        try:
            self._rules = load_ruleset(self._scratch.ruleset, ruleset)
            self._events = self._scratch.listen(uapi.NFNLGRP_CONNTRACK_NEW)
            self._traces = self._scratch.listen(n.NFNLGRP_NFTRACE)
        except BaseException:
            self._scratch.close()
            raise
        self._local = self._network.local_addresses()
        self._multipath = self._network.has_multipath()
        self._ways: dict[Any, tuple[_Way, ...]] = {}
        self._found = Entries()
        self._decoder = DumpDecoder(self._found)
        self._replayed = 0

    def __enter__(self) -> Reevaluation:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the copy."""
        self._scratch.close()

    def judge(self, entries: Sequence[Entry]) -> list[Judgement]:
        """Judge entries, and return a judgement for each in the same order."""
        judgements: list[Judgement] = []
        for start in range(0, len(entries), BATCH):
            judgements += self._judge_batch(entries[start : start + BATCH])
        return judgements

    # many flows

    def _judge_batch(self, entries: Sequence[Entry]) -> list[Judgement]:
        sent: dict[Any, int] = {}
        close: list[int] = []
        for position, entry in enumerate(entries):
            ways = self._ways_of(entry)
            key = _original(entry)
            if (
                len(ways) != 1
                or key in sent
                or self._needs_trace(entry, ways[0])
                or not self._replay(entry, ways[0], ALWAYS)
            ):
                close.append(position)
                continue
            if self._rules.markers and any(True for _step in self._steps()):
                close.append(position)
                continue
            sent[key] = position
        judgements = [_UNCHANGED] * len(entries)
        events = {_original(event): event for event in self._new_entries()}
        for key, position in sent.items():
            event = events.get(key)
            if event is None or not _same(event, entries[position]):
                close.append(position)
        for position in close:
            judgements[position] = self._judge_closely(entries[position])
        return judgements

    def _needs_trace(self, entry: Entry, way: _Way) -> bool:
        """Whether an event does not say all of a flow: a packet to the host itself passes more rules after it."""
        return "master.source" in entry or (way.link == 0 and entry["original.destination"] in self._local)

    def _replay(self, entry: Entry, way: _Way, control: int) -> bool:
        """Send the first packet of a flow. Return False if it cannot be sent."""
        self._replayed += 1
        if self._replayed >= _FLUSH_AFTER:
            self._empty()
        packet = first_packet(entry, control)
        try:
            if way.link:
                return self._scratch.receive_on(way.link, packet)
            self._scratch.send_from_host(entry["original.source"], entry["original.destination"], packet)
        except PermissionError:  # a rule refused it
            return True
        except OSError:
            return False
        return True

    def _empty(self) -> None:
        """Delete all entries of the scratch namespace."""
        from ..ctnetlink.messages import nfgenmsg
        from ..netlink.message import Message

        self._replayed = 0
        self._scratch.ruleset.request(Message(uapi.IPCTNL_MSG_CT_DELETE, 0, nfgenmsg()))

    def _new_entries(self) -> list[Entry]:
        """Return the entries that were made since the last call."""
        try:
            for datagram in self._events.pending():
                self._decoder.feed(datagram)
        except OSError as error:
            raise kernel_error("reading the events of the scratch namespace", error.errno or 0) from error
        found = self._found.found[:]
        self._found.found.clear()
        return found

    def _steps(self) -> Iterator[Step]:
        """Yield the steps that were traced since the last call."""
        try:
            for datagram in self._traces.pending():
                for _sequence, message in parse(datagram):
                    step = parse_step(message)
                    if step is not None:
                        yield step
        except OSError as error:
            raise kernel_error("reading the trace of the scratch namespace", error.errno or 0) from error

    # the way in

    def _ways_of(self, entry: Entry) -> tuple[_Way, ...]:
        """Return the ways by which the first packet of a flow can have come in. Empty if there is none."""
        key = (entry["original.source"], entry.get("reply.source"), entry["original.destination"], entry.get("mark", 0))
        found = self._ways.get(key)
        if found is None:
            if len(self._ways) >= _MOST_CACHED:
                self._ways.clear()
            found = self._ways[key] = tuple(dict.fromkeys(self._find_ways(entry)))
        return found

    def _find_ways(self, entry: Entry) -> Iterator[_Way]:
        source, destination = entry["original.source"], entry["original.destination"]
        routes = self._scratch.routes
        back = path_to(routes, source)
        if back is not None and back.type == n.RTN_LOCAL:
            yield _Way(0)
            return
        answering = entry.get("reply.source", destination)
        if answering in self._local:
            back = path_to(routes, source, answering) or back
        if back is not None and back.type == n.RTN_UNICAST:
            yield _Way(back.link)
        held_by = self._local.get(destination)
        if held_by is not None and held_by in {link.number for link in self._network.ingress_links()}:
            yield _Way(held_by)

    # one flow

    def _judge_closely(self, entry: Entry) -> Judgement:
        """Judge a flow that is not clearly unchanged, packet by packet and with a trace."""
        if "master.source" in entry:
            return self._judge_by_master(entry)
        ways = self._ways_of(entry)
        if not ways:
            return _uncertain("there is no route back to its source")
        judgements = [self._judge_way(entry, way) for way in ways]
        if len({(one.verdict, _reply(one.expected)) for one in judgements}) > 1:
            return _uncertain("it depends on the link by which it comes in", judgements[0].rule)
        judgement = judgements[0]
        if judgement.verdict == REFUSED and self._may_be_reversed(entry):
            turned = {
                **entry,
                **with_tuple("original", tuple_of(entry, "reply")),
                **with_tuple("reply", tuple_of(entry, "original")),
            }
            if any(self._trace(turned, way).event is not None for way in self._ways_of(turned)):
                return _uncertain(
                    "it would be refused in this direction, and accepted in the other one", judgement.rule
                )
        if judgement.verdict == NAT_CHANGED and self._multipath:
            return _uncertain("a route with several next hops decides", judgement.rule)
        return judgement

    def _judge_by_master(self, entry: Entry) -> Judgement:
        master = self._find(entry) if self._find is not None else None
        if master is None:
            return _uncertain("it has no rule of its own, and its master is gone")
        judgement = (
            self._judge_closely(master) if "master.source" not in master else _uncertain("its master has a master")
        )
        return judgement._replace(expected=None)

    def _may_be_reversed(self, entry: Entry) -> bool:
        """Whether the entry may have been made by a packet of the reply direction."""
        if entry.get("status", 0) & (uapi.IPS_SRC_NAT | uapi.IPS_DST_NAT):
            return False
        protocol = entry["original.protocol"]
        if protocol == uapi.IPPROTO_TCP:
            return bool(entry.get("tcp.original.flags", _BE_LIBERAL) & _BE_LIBERAL)
        return protocol not in (uapi.IPPROTO_ICMP, uapi.IPPROTO_ICMPV6)

    def _judge_way(self, entry: Entry, way: _Way) -> Judgement:
        outcome = self._trace(entry, way)
        judgement = self._compare(entry, way, outcome)
        markers = self._markers(outcome)
        if not markers:
            return judgement
        judgements = [judgement]
        complete = True
        for marker in markers:
            if marker.outcome_is_unknown:
                return _uncertain(marker.reason, marker.rule)
            forced = self._trace(entry, way, marker.number)
            judgements.append(self._compare(entry, way, forced))
            complete = complete and set(self._markers(forced)) <= set(markers)
        verdicts = {one.verdict for one in judgements}
        first = markers[0]
        if len(verdicts) == 1 and (complete or verdicts == {UNCHANGED}):
            return judgement
        by_chance = all(marker.reason in _CHANCE for marker in markers)
        if by_chance and UNCHANGED in verdicts and verdicts <= {UNCHANGED, NAT_CHANGED}:
            return _UNCHANGED
        return _uncertain(first.reason, first.rule)

    def _markers(self, outcome: _Outcome) -> list[Marker]:
        found = (self._rules.markers.get(step.rule) for step in outcome.steps)
        return list(dict.fromkeys(marker for marker in found if marker is not None))

    def _trace(self, entry: Entry, way: _Way, number: int = 0) -> _Outcome:
        """Replay one packet with a trace."""
        sent = self._replay(entry, way, ALWAYS | TRACED | number)
        key = _original(entry)
        event = next((one for one in self._new_entries() if _original(one) == key), None)
        steps = tuple(self._steps())
        return _Outcome(event if sent else None, steps)

    def _compare(self, entry: Entry, way: _Way, outcome: _Outcome) -> Judgement:
        event = outcome.event
        by_loopback = way.link == 0 and entry["original.destination"] in self._local
        if by_loopback and not self._reached(outcome, "delivered"):
            return Judgement(REFUSED, None, self._last_rule(outcome, n.NF_DROP))
        if event is None:
            return self._without_event(outcome)
        if event.get("zone", 0) != entry.get("zone", 0):
            return _uncertain("it would be tracked in another zone")
        if _same(event, entry):
            return _UNCHANGED
        rule = self._deciding(outcome)
        if all(event[key] == entry[key] for key in _ADDRESSES):
            return self._compare_ports(entry, way, event, rule)
        return Judgement(NAT_CHANGED, event, rule)

    def _compare_ports(self, entry: Entry, way: _Way, event: Entry, rule: RuleId | None) -> Judgement:
        """Compare a flow whose ports alone are translated otherwise.

        The kernel moves a source port that is taken. So the ports count only if today's rule sets them.
        """
        replies = {_reply(event)}
        for _attempt in range(1, _PORT_ATTEMPTS):
            again = self._trace(entry, way).event
            if again is None:
                return _uncertain("its replay has different results", rule)
            replies.add(_reply(again))
        if len(replies) > 1:
            return _uncertain("the rule chooses one of several ports", rule)
        ends = [("reply.destination_port", "original.source_port"), ("reply.icmp_id", "original.icmp_id")]
        ends += [("reply.destination_key", "original.source_key")]
        differing = {key for key in _reply_keys(event) if event.get(key) != entry.get(key)}
        moved = {reply for reply, original in ends if reply in differing and event[reply] == entry.get(original)}
        if differing <= moved:
            return _UNCHANGED
        return Judgement(NAT_CHANGED, event, rule)

    def _without_event(self, outcome: _Outcome) -> Judgement:
        if self._reached(outcome, "delivered") or self._reached(outcome, "left"):
            return Judgement(UNTRACKED, None, self._last_rule(outcome, n.NFT_CONTINUE, n.NF_ACCEPT))
        return Judgement(REFUSED, None, self._last_rule(outcome, n.NF_DROP))

    def _reached(self, outcome: _Outcome, chain: str) -> bool:
        return any(step.rule[1] == self._rules.own_table and step.chain == chain for step in outcome.steps)

    def _last_rule(self, outcome: _Outcome, *verdicts: int) -> RuleId | None:
        for step in reversed(outcome.steps):
            rule = self._rules.rules.get(step.rule)
            if rule is not None and step.verdict in verdicts:
                return rule
            if step.is_policy and step.verdict == n.NF_DROP and n.NF_DROP in verdicts:
                family = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}[step.rule[0]]
                return RuleId(family, step.rule[1], step.chain, 0)
        return None

    def _deciding(self, outcome: _Outcome) -> RuleId | None:
        """Return the last rule in a chain of NAT that took the packet."""
        for step in reversed(outcome.steps):
            rule = self._rules.rules.get(step.rule)
            if rule is not None and step.rule in self._rules.translating and step.verdict == n.NF_ACCEPT:
                return rule
        return None


def _reply_keys(entry: Entry) -> list[str]:
    return [key for key in entry if key.startswith("reply.") and key != "reply.zone"]


def _same(event: Entry, entry: Entry) -> bool:
    """Whether an event shows the zone and the reply tuple of an entry."""
    alike: bool = _reply(event) == _reply(entry) and event.get("zone", 0) == entry.get("zone", 0)
    return alike


def _check_copyable(network: Network) -> None:
    """Raise `CannotReevaluate` for a host whose rules or routes cannot be copied."""
    for name in ("ip_tables_names", "ip6_tables_names"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as file:
                tables = file.read().split()
        except OSError:
            continue
        if tables:
            raise CannotReevaluate(
                f"stale flows cannot be found here: there are rules of the legacy iptables (tables {', '.join(tables)}), "
                "which the kernel does not show; use iptables-nft or nft"
            )
    for link in network.links:
        if link.kind == "vrf":
            raise CannotReevaluate(f"stale flows cannot be found here: {link.name} is a VRF, which is not copied")
