# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare the verdicts about the flows of one case with the kernel's treatment of them after the change."""

from __future__ import annotations

import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import NotFound
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.evaluator import Reevaluation
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.judgement import (
    NAT_CHANGED,
    REFUSED,
    STALE,
    UNCERTAIN,
    UNCHANGED,
    UNTRACKED,
    VERDICTS,
    Judgement,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests.lab import table as other_eyes

from .flows import Flow, Mix
from .gateway import Gateway, Passed
from .packets import ECHO_REQUEST, GRE, OTHER, Tuple

__all__ = ["STALE", "UNCERTAIN", "VERDICTS", "Case", "Result", "Step", "compare_all"]

Entry = dict[str, Any]
#: Programs that change only rules.
RULES_ONLY = ("nft", "iptables-nft-restore", "ip6tables-nft-restore")
#: The maximum number of reads until both readers of the table agree.
ATTEMPTS = 200
NUMBERS = {name: number for number, name in other_eyes.PROTOCOLS.items()}


class Step(NamedTuple):
    """A program with its input, which configures a ruleset or the network."""

    program: tuple[str, ...]
    input: str


@dataclass(frozen=True)
class Case:
    """A change.

    :ivar before: The configuration of the gateway when the flows start.
    :ivar change: The change after the flows have started.
    :ivar undecidable: The result depends on the time, on chance, or on data that the table does not contain.
    :ivar ports: The source ports from which the kernel chooses one at random.
    :ivar gone: Addresses that no rule uses for NAT any more: a flow to one of these addresses cannot be unchanged.
    :ivar flows: The first flows, before the usual mix.
    :ivar versions: The versions of IP of the flows. Repeat a version to make it more frequent.
    :ivar published: The weight of flows to published services.
    """

    name: str
    before: Sequence[Step]
    change: Sequence[Step]
    undecidable: bool = False
    ports: range = range(0)
    versions: tuple[int, ...] = (4, 4, 6)
    published: int = 20
    gone: frozenset[str] = frozenset()
    flows: Sequence[Flow] = ()


class Real(NamedTuple):
    """The kernel's treatment of a flow: the verdict, and the reply tuple if there is an entry."""

    verdict: str
    reply: Tuple | None = None


@dataclass
class Result:
    """The result of a case: the number of flows by verdict, and the differences."""

    case: Case
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)


def compare_all(cases: Iterable[Case], number: int, seed: str = "") -> Iterator[Result]:
    """Run cases with this number of flows each. Another seed gives other flows.

    A case that changes more than rules has its own gateway.
    """
    with Gateway() as shared:
        for case in cases:
            if all(step.program[0] in RULES_ONLY for step in (*case.before, *case.change)):
                yield compare(case, shared, number, seed)
            else:
                with Gateway() as own:
                    yield compare(case, own, number, seed)


def compare(case: Case, gateway: Gateway, number: int, seed: str = "") -> Result:
    """Run a case with this number of flows."""
    flows = list(case.flows) + Mix(case.name + seed, case.versions, case.published).flows(number)
    known = {flow for _link, flow in flows}
    gateway.forget()
    configure(gateway, case.before)
    gateway.answer(flows, gateway.send(flows))
    configure(gateway, case.change)
    with gateway.entered(), Table() as table:
        entries = _read(gateway, table, known)

        def master(entry: Mapping[str, Any]) -> Entry | None:
            try:
                found: Entry = table.find_by_tuple(entry, "master")
                return found
            except NotFound:
                return None

        with Reevaluation(master) as reevaluation:
            judgements = reevaluation.judge(entries)
    real = _reality(gateway, flows, entries)
    taken = {one.reply for one in real.values() if one.reply is not None and one.reply.protocol in (GRE, OTHER)}
    result = Result(case)
    for entry, judgement in zip(entries, judgements, strict=True):
        key = tuple_of(entry, "original")
        if key not in real:
            continue
        result.verdicts[judgement.verdict] += 1
        if judgement.verdict == UNCERTAIN:
            result.reasons[judgement.reason] += 1
        if real[key].verdict == REFUSED and _translation(entry, judgement) in taken:
            continue  # without ports, the kernel drops a flow whose tuple after NAT another flow already has
        difference = _difference(case, entry, judgement, real[key])
        if difference:
            result.disagreements.append(f"{case.name}: {_text(key)}: {difference}")
    return result


def configure(gateway: Gateway, steps: Sequence[Step]) -> None:
    """Run the programs of a change in the gateway."""
    for step in steps:
        try:
            gateway.run(list(step.program), input=step.input)
        except subprocess.CalledProcessError as error:
            error.add_note(step.input)
            raise


def _reality(gateway: Gateway, flows: Sequence[Flow], entries: Sequence[Entry]) -> dict[Tuple, Real]:
    """Delete all entries, send the first packet of each flow again, and return the results of flows with an entry."""
    gateway.send([])
    gateway.conntrack("-F")
    passed = gateway.send(list(flows))
    now = {_seen(flow, "original"): flow for flow in gateway.table()}
    before = {tuple_of(entry, "original"): entry for entry in entries}
    real = {flow: _real(flow, entry, now.get(flow), passed) for flow, entry in before.items()}
    return {flow: one for flow, one in real.items() if flow not in passed.lost}


def _real(flow: Tuple, before: Entry, now: Mapping[str, Any] | None, passed: Passed) -> Real:
    arrived = passed.delivered | passed.forwarded
    if now is None:
        return Real(UNTRACKED if flow in arrived else REFUSED)
    reply = _seen(now, "reply")
    if reply.reversed() not in arrived:
        # The entry of a flow from the gateway to itself is confirmed before the packet reaches INPUT. An ICMP error
        # about a reset that a rule sends confirms the entry of the packet that was rejected
        return Real(REFUSED)
    same = reply == tuple_of(before, "reply") and now.get("zone", 0) == before.get("zone", 0)
    return Real(UNCHANGED if same else NAT_CHANGED, reply)


def _difference(case: Case, entry: Entry, judgement: Judgement, real: Real) -> str:
    """Return how a verdict differs from the kernel's treatment, "" if it does not."""
    if judgement.verdict == UNCERTAIN:
        return ""
    before = tuple_of(entry, "reply")
    verdict = real.verdict
    if real.reply is not None and _port(before) in case.ports and _equal_but_for_port(real.reply, before):
        verdict = UNCHANGED
    if judgement.verdict == UNCHANGED and before.source in case.gone and real.verdict != UNCHANGED:
        return f"unchanged, but really {verdict}: {before.source} is gone"
    if case.undecidable:
        return f"{judgement.verdict}, but it may stay" if judgement.verdict in STALE and verdict == UNCHANGED else ""
    if "master.source" in entry:
        # The verdict is that of the master. If the master is stale, the flow is not announced any more
        return (
            "" if (judgement.verdict in STALE) == (verdict in STALE) else f"{judgement.verdict}, but really {verdict}"
        )
    if judgement.verdict != verdict:
        translation = f"was {_text(before)}, is {_text(real.reply)}"
        return f"{judgement.verdict} (rule {judgement.rule}), but really {verdict}: {translation}"
    if verdict == NAT_CHANGED and real.reply is not None:
        if judgement.expected is None:
            return f"no translation is expected, but really {_text(real.reply)}"
        expected = tuple_of(judgement.expected, "reply")
        same = expected == real.reply or (case.ports and _equal_but_for_port(expected, real.reply))
        return "" if same else f"expected {_text(expected)}, but really {_text(real.reply)}"
    return ""


def _read(gateway: Gateway, table: Table, flows: set[Tuple]) -> list[Entry]:
    """Return the entries of flows. Another reader must return the same entries.

    The kernel may still delete some in the background: entries of masquerading whose address or link is gone.
    """
    for _attempt in range(ATTEMPTS):
        entries = [entry for entry in table.dump() if tuple_of(entry, "original") in flows]
        ours = {(tuple_of(entry, "original"), tuple_of(entry, "reply")) for entry in entries}
        others = {(_seen(flow, "original"), _seen(flow, "reply")) for flow in gateway.table()}
        others = {(original, reply) for original, reply in others if original in flows}
        if ours == others:
            return entries
        time.sleep(0.05)
    raise AssertionError(f"the readers of the table differ: {ours ^ others}")


def _translation(entry: Entry, judgement: Judgement) -> Tuple:
    """Return the reply tuple that a judgement expects."""
    return tuple_of(judgement.expected or entry, "reply")


def tuple_of(entry: Entry, direction: str) -> Tuple:
    """Return one direction of an entry of the collection."""
    source, destination = (_address(entry[f"{direction}.{end}"]) for end in ("source", "destination"))
    source_port = entry.get(f"{direction}.source_port") or entry.get(f"{direction}.icmp_id") or 0
    destination_port = entry.get(f"{direction}.destination_port", 0)
    return Tuple(entry["original.protocol"], source, destination, source_port, destination_port)


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _seen(flow: Mapping[str, Any], direction: str) -> Tuple:
    """Return one direction of an entry of the other reader."""
    one = flow[direction]
    protocol = flow["protocol"] if isinstance(flow["protocol"], int) else NUMBERS[flow["protocol"]]
    first = one.get("icmp_id", one.get("source_port", 0))
    return Tuple(protocol, one["source"], one["destination"], first, one.get("destination_port", 0))


def _equal_but_for_port(one: Tuple, other: Tuple) -> bool:
    """Return whether two reply tuples differ at most in the port (or the identifier) that source NAT changes."""
    if one.protocol in ECHO_REQUEST:
        return one._replace(source_port=0) == other._replace(source_port=0)
    return one._replace(destination_port=0) == other._replace(destination_port=0)


def _port(reply: Tuple) -> int:
    return reply.source_port if reply.protocol in ECHO_REQUEST else reply.destination_port


def _text(one: Tuple | None) -> str:
    if one is None:
        return "none"
    return f"{one.protocol} {one.source}.{one.source_port} > {one.destination}.{one.destination_port}"
