# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Select the entries that the current rules, addresses and routes would treat differently, and say why."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, Mapping, Sequence

from ..client.codec.codec import Values
from ..client.dump.scan import Action
from ..client.entry.entry import Entry
from ..client.entry.labels import LabelMap
from ..client.errors import NotFound
from ..client.match.match import Match
from ..client.netlink.socket import Closing
from ..client.reevaluate.evaluator import BATCH, Reevaluation
from ..client.reevaluate.flow import Flow, Flows
from ..client.reevaluate.judgement import UNCERTAIN, UNCHANGED, VERDICTS, Judgement
from ..client.table_reader import TableReader
from .flush import DeletionPlan
from .resource import ENTRIES, Resource

if TYPE_CHECKING:
    from ..client.codec.layout import MessageLayout
    from ..client.entry.nested import Document


class JudgedEntry(Dict[str, Any]):
    """An entry with its judgement."""

    judgement: Judgement


class StaleFilter(Closing):
    """Judges the entries of a table. `select` returns those whose verdict is one of `wanted`.

    `verdicts` counts all judged entries by verdict, and `rules` those that are not unchanged by verdict, rule and
    reason. With `ruleset`, the ruleset after loading this file decides. Raises the errors of `Reevaluation`.
    """

    def __init__(self, table: TableReader, wanted: Sequence[str], ruleset: str | None = None) -> None:
        self._table = table
        self._wanted = frozenset(wanted)
        self.verdicts: Counter[str] = Counter()
        self.rules: Counter[tuple[str, Any, str]] = Counter()
        self._reevaluation = Reevaluation(self._master, ruleset)

    def close(self) -> None:
        """Close the copy."""
        self._reevaluation.close()

    def _master(self, entry: Mapping[str, Any]) -> Entry | None:
        from ..client.table import Table

        try:
            return Table.sharing(self._table).find_by_tuple(entry, "master")
        except NotFound:
            return None

    def select(self, flows: Sequence[Flow]) -> list[JudgedEntry]:
        """Judge flows, and return the entries that are wanted."""
        selected: list[JudgedEntry] = []
        self.verdicts[UNCHANGED] += len(flows)
        for _position, entry, judgement in self._reevaluation.judge_flows(flows):
            self.verdicts[UNCHANGED] -= 1
            self.verdicts[judgement.verdict] += 1
            if judgement.verdict != UNCHANGED:
                self.rules[judgement.verdict, judgement.rule, judgement.reason] += 1
            if judgement.verdict in self._wanted:
                judged = JudgedEntry(entry)
                judged.judgement = judgement
                selected.append(judged)
        return selected

    def scan(self, match: Match) -> Iterator[JudgedEntry]:
        """Judge the matching entries of the table, and yield those that are wanted."""
        batch: list[Flow] = []
        for flow in self._table.scan_each(Flows(), match.where):
            batch.append(flow)
            if len(batch) >= BATCH:
                yield from self.select(batch)
                batch.clear()
        yield from self.select(batch)

    def counts(self) -> Document:
        """Return the number of judged entries by verdict."""
        return {verdict: self.verdicts[verdict] for verdict in VERDICTS}

    def warnings(self) -> list[str]:
        """Return a sentence if flows were left out because the rules do not show their verdict."""
        uncertain = self.verdicts[UNCERTAIN]
        if not uncertain:
            return []
        reasons = (reason for (verdict, _rule, reason), _count in self.rules.most_common() if verdict == UNCERTAIN)
        left_out = f"{uncertain} of {sum(self.verdicts.values())} flows are uncertain and were left out"
        advice = "conntrack_facts with gather_subset: [stale] lists all"
        return [f"{left_out}. Most frequent reason: {next(reasons)}. {advice}"]

    def counts_by_rule(self, most: int) -> list[Document]:
        """Return the rules that decide, with the number of entries, the highest first."""
        ranked = sorted(self.rules.items(), key=lambda item: (-item[1], str(item[0])))
        return [
            {
                "verdict": verdict,
                "rule": None if rule is None else rule.document(),
                "reason": reason or None,
                "entries": number,
            }
            for (verdict, rule, reason), number in ranked[:most]
        ]


def to_documents(entries: Sequence[Mapping[str, Any]], labels: LabelMap) -> list[Document]:
    """Return the documents of judged entries: those of entries, with `verdict`, `expected` and `rule`."""
    documents = ENTRIES.to_documents(entries, labels)
    for document, entry in zip(documents, entries):
        judgement = entry.judgement  # type: ignore[attr-defined]
        document["verdict"] = judgement.verdict
        document["expected"] = _translation(judgement, labels)
        document["rule"] = None if judgement.rule is None else judgement.rule.document()
    return documents


def _translation(judgement: Judgement, labels: LabelMap) -> Document | None:
    """Return the translation that the current rules would give, None if they would not let the flow begin."""
    if judgement.expected is None:
        return None
    (document,) = ENTRIES.to_documents([judgement.expected], labels)
    translation: Document = document.get("nat", {})
    return translation


#: Entries with their judgements as a resource.
JUDGED_ENTRIES: Resource = ENTRIES._replace(to_documents=to_documents)


class StaleDeletionPlan(DeletionPlan):
    """The entries to delete: those of a `DeletionPlan` whose verdict is wanted. `plan` are its arguments."""

    def __init__(self, stale: StaleFilter, *plan: Any) -> None:
        super().__init__(*plan)
        self._stale = stale
        self._flows = Flows()

    def read(self, check_mode: bool = False, between: Callable[[], object] | None = None) -> None:
        """Find the entries, and call `between` after each batch that was judged."""
        self._most = 0 if check_mode else self.limit
        self._built = None

        def judge() -> None:
            for entry in self._stale.select(self._flows.found):
                super(StaleDeletionPlan, self).select(entry)
            self._flows.found.clear()
            if between is not None:
                between()

        self._table.scan(self, self.match.where, between=judge)
        judge()

    def on(self, layout: MessageLayout) -> Action:
        return self._unless_kept(layout, self._flows.on(layout))

    def select(self, entry: Values) -> None:
        self._flows.add(entry)

    def resource(self) -> Resource:
        return JUDGED_ENTRIES

    def results(self) -> Document:
        return {"verdicts": self._stale.counts()}
