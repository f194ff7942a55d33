# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare the verdicts about the flows of one case with what the kernel makes of them after the change."""

from __future__ import annotations

import socket
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
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
    Judgement,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.table import Table
from tests.lab import table as other_eyes

from .flows import Flow, Mix
from .gateway import Gateway, Passed
from .packets import Tuple

Entry = Mapping[str, Any]
NUMBERS = {name: number for number, name in other_eyes.PROTOCOLS.items()}


class Step(NamedTuple):
    """A program with its input, by which a ruleset or the network is configured."""

    program: tuple[str, ...]
    input: str


@dataclass(frozen=True)
class Case:
    """A change.

    :ivar before: How the gateway is configured when the flows begin.
    :ivar change: What is changed then.
    :ivar undecidable: The outcome depends on the moment, on chance, or on what the table does not have.
    :ivar any_port: The kernel chooses the port, so that it differs from packet to packet.
    :ivar flows: The flows besides the usual mix.
    """

    name: str
    before: Sequence[Step]
    change: Sequence[Step]
    undecidable: bool = False
    any_port: bool = False
    flows: Sequence[Flow] = ()


class Real(NamedTuple):
    """What the kernel made of a flow: the verdict, and the reply tuple if there is an entry."""

    verdict: str
    reply: Tuple | None = None


@dataclass
class Result:
    """The result of a case: how many flows there were by verdict, and what differs."""

    case: Case
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)


def compare(case: Case, number: int) -> Result:
    """Carry out a case with so many flows on a gateway of its own."""
    with Gateway() as gateway:
        flows = [*case.flows, *Mix(case.name).flows(number)]
        configure(gateway, case.before)
        gateway.answer(flows, gateway.send(flows))
        configure(gateway, case.change)
        with gateway.entered(), Table() as table:
            entries = list(table.dump())
            _check_reader(entries, gateway.table())

            def master(entry: Entry) -> Any:
                try:
                    return table.find_by_tuple(entry, "master")
                except NotFound:
                    return None

            with Reevaluation(master) as reevaluation:
                judgements = reevaluation.judge(entries)
        real = _reality(gateway, flows, entries)
    result = Result(case)
    for entry, judgement in zip(entries, judgements, strict=True):
        key = tuple_of(entry, "original")
        if key not in real:
            continue
        result.verdicts[judgement.verdict] += 1
        if judgement.verdict == UNCERTAIN:
            result.reasons[judgement.reason] += 1
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
    """Delete all entries, send the first packet of each flow again, and return what became of those with an entry."""
    gateway.send([])
    gateway.conntrack("-F")
    passed = gateway.send(list(flows))
    now = {_seen(flow, "original"): flow for flow in gateway.table()}
    before = {tuple_of(entry, "original"): entry for entry in entries}
    own = gateway.own_addresses()
    return {flow: _real(flow, before[flow], now.get(flow), passed, own) for _link, flow in flows if flow in before}


def _real(flow: Tuple, before: Entry, now: Mapping[str, Any] | None, passed: Passed, own: frozenset[str]) -> Real:
    arrived = passed.delivered | passed.forwarded
    if now is None:
        return Real(UNTRACKED if flow in arrived else REFUSED)
    reply = _seen(now, "reply")
    if flow.source in own and reply.reversed() not in arrived:
        # The entry of a flow to itself is confirmed before the packet reaches INPUT
        return Real(REFUSED)
    same = reply == tuple_of(before, "reply") and now.get("zone", 0) == before.get("zone", 0)
    return Real(UNCHANGED if same else NAT_CHANGED, reply)


def _difference(case: Case, entry: Entry, judgement: Judgement, real: Real) -> str:
    """Return how a verdict differs from the reality, "" if it does not."""
    if judgement.verdict == UNCERTAIN:
        return ""
    before = tuple_of(entry, "reply")
    verdict = real.verdict
    if verdict == NAT_CHANGED and case.any_port and real.reply is not None and _addresses(real.reply) == _addresses(before):
        verdict = UNCHANGED
    if case.undecidable:
        return f"{judgement.verdict}, but it may stay" if judgement.verdict in STALE and verdict == UNCHANGED else ""
    if judgement.verdict != verdict:
        return f"{judgement.verdict} (rule {judgement.rule}), but really {verdict}: was {_text(before)}, is {_text(real.reply)}"
    if verdict == NAT_CHANGED and real.reply is not None:
        if judgement.expected is None:
            return f"no translation is expected, but really {_text(real.reply)}"
        expected = tuple_of(judgement.expected, "reply")
        same = _addresses(expected) == _addresses(real.reply) if case.any_port else expected == real.reply
        return "" if same else f"expected {_text(expected)}, but really {_text(real.reply)}"
    return ""


def _check_reader(entries: Sequence[Entry], flows: Sequence[Mapping[str, Any]]) -> None:
    ours = {(tuple_of(entry, "original"), tuple_of(entry, "reply")) for entry in entries}
    assert ours == {(_seen(flow, "original"), _seen(flow, "reply")) for flow in flows}


def tuple_of(entry: Entry, direction: str) -> Tuple:
    """Return one direction of an entry of the collection."""
    ends = (_address(entry[f"{direction}.{end}"]) for end in ("source", "destination"))
    ports = (entry.get(f"{direction}.{end}_port", 0) for end in ("source", "destination"))
    if f"{direction}.icmp_id" in entry:
        ports = iter((entry[f"{direction}.icmp_id"], 0))
    return Tuple(entry["original.protocol"], *ends, *ports)


def _address(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _seen(flow: Mapping[str, Any], direction: str) -> Tuple:
    """Return one direction of an entry of the other reader."""
    one = flow[direction]
    protocol = flow["protocol"] if isinstance(flow["protocol"], int) else NUMBERS[flow["protocol"]]
    first = one.get("icmp_id", one.get("source_port", 0))
    return Tuple(protocol, one["source"], one["destination"], first, one.get("destination_port", 0))


def _addresses(one: Tuple) -> tuple[str, str]:
    return one.source, one.destination


def _text(one: Tuple | None) -> str:
    if one is None:
        return "none"
    return f"{one.protocol} {one.source}.{one.source_port} > {one.destination}.{one.destination_port}"
