# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connection tracking for Python programs: one class for entries, expectations, timeout policies and events.

All methods accept and return documents. A document is a dictionary in the format of the modules `conntrack_entry`,
`conntrack_expectation` and `conntrack_timeout_policy`, with addresses and names as strings, times in seconds, and
counters in packets and bytes. A `match` is a dictionary or a list, in the format of the option `match` of
`conntrack_info`. For example, an entry, an expectation, a timeout policy, and a match::

    {"protocol": "tcp", "original": {"source": "10.1.0.2", "destination": "192.0.2.80", "source_port": 40000,
     "destination_port": 443}, "timeout": 600, "mark": 5}
    {"tuple": {"protocol": "tcp", "source": "192.0.2.21", "destination": "10.1.0.2", "destination_port": 2000},
     "master": {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 40000, "destination_port": 21}}
    {"name": "short", "family": "ipv4", "protocol": "tcp", "timeouts": {"established": 600}}
    {"protocol": "tcp", "destination_port": [80, 443], "except": {"source": "10.0.0.0/8"}}

Errors are subclasses of `errors.ConntrackError`: `InvalidValue` for an invalid argument, before anything is sent, and
`KernelError` (`NotFound`, `Exists`, `NotPermitted` and others) for an error of the kernel.

The modules do not use this file. They use the layer in `Conntrack.table`, with entries as flat mappings and operations
on many entries at once. It is also suitable for programs that process large tables.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
from typing import Any, AsyncIterator, Callable, Dict, Iterable, Iterator, Mapping

from . import timeout_policy
from .entry.document import from_document, to_document
from .entry.entry import describe as describe_entry
from .entry.labels import LabelMap
from .errors import ConntrackError, InvalidValue, KernelError, NotFound, PartialFailure, ResultUnknown
from .events.subscription import ENTRY_GROUPS, Event, Subscription
from .expectation import expectation
from .match.match import EVERYTHING, Match, parse_match
from .netlink.socket import Closing
from .table import Table

#: A resource in the format of the modules: nested dictionaries with strings, numbers, booleans and lists.
Document = Dict[str, Any]
#: The type of a `match`.
MatchLike = Any


class Conntrack(Closing):
    """The connection tracking of the network namespace in which the object is created. Close it after use.

    Creating the object raises `NotPermitted` without CAP_NET_ADMIN in the namespace, and `Unavailable` if the kernel
    lacks ctnetlink.

    :param labels: names of labels, as `LabelMap.load` reads them from a `connlabel.conf`. Without it, labels are
        numbers.
    """

    def __init__(self, labels: LabelMap | None = None) -> None:
        #: The names of labels in documents and matches.
        self.labels = labels or LabelMap()
        #: The same table with entries as flat mappings: see `table.Table`.
        self.table = Table()
        #: Its expectations.
        self.expectations = Expectations(self.table, self.labels)
        #: Its timeout policies.
        self.timeout_policies = TimeoutPolicies(self.table)

    def close(self) -> None:
        """Close the sockets. Unfinished iterators raise an error when they are continued."""
        self.table.close()

    def dump(self, match: MatchLike = None) -> Iterator[Document]:
        """Yield the entries that match, or all. Under load, an entry can be yielded twice (see `table.Table.dump`).

        Raises `InvalidValue` for an invalid match, and for one that needs counters or timestamps if entries lack them.
        """
        for entry in self.table.dump(where=self._match(match).where):
            yield to_document(entry, self.labels)

    def get(self, entry: Mapping[str, Any]) -> Document:
        """Return the entry with this protocol, original tuple and zone. Raises `NotFound`."""
        return to_document(self.table.get(from_document(entry, self.labels)), self.labels)

    def create(self, entry: Mapping[str, Any]) -> None:
        """Create an entry with at least `protocol` and `original`; without `timeout`, it lives for 120 seconds.

        Raises `Exists` if one of its tuples is taken, `TableFull`, `Unsupported`, and `NotFound` without its `master`.
        """
        self.table.create(from_document(entry, self.labels))

    def update(self, entry: Mapping[str, Any]) -> None:
        """Change the keys given besides protocol, original tuple and zone, which identify the entry.

        Raises `NotFound`, `Busy` for a key that cannot be changed while the entry exists, and `Unsupported`.
        """
        self.table.update(from_document(entry, self.labels))

    def delete(self, entry: Mapping[str, Any]) -> None:
        """Delete an entry. With the `id` from `dump` or `get`, delete it only if it is still the same entry.

        Raises `NotFound`.
        """
        self.table.delete(from_document(entry, self.labels))

    def flush(self, match: MatchLike = None) -> int:
        """Delete the entries that match, or all, and return their number. Entries that end meanwhile are not counted.

        Every entry is deleted by tuple, zone and id, so that a new connection with the same tuple is not affected,
        unless the kernel has given it the same id.
        The entry of your own SSH connection is deleted, too, if it matches; exclude it with `except`.
        Raises `PartialFailure` if the kernel refuses a deletion, after trying all others, and if reading the table
        fails after the first deletion. Its `result` contains the numbers `deleted` and `failed`. `unknown` is the
        number of failed deletions whose answer was lost.
        """
        return _deleted(self.table.delete_all(self.table.dump(where=self._match(match).where)))

    def listen(self, *groups: str, match: MatchLike = None) -> Events:
        """Return the events of groups `new`, `update`, `destroy`, `expectation_new`, `expectation_destroy`.

        Without groups, those of entries. The subscription begins with this call. `match` applies to entries only.
        Raises `EventsOff` if the sysctl `nf_conntrack_events` is 0, and `InvalidValue` for an unknown group.
        """
        return Events(Subscription(groups or ENTRY_GROUPS, self._match(match)), self.labels)

    def count(self, match: MatchLike = None) -> int:
        """Return the number of entries, or of those that match. Without a match, the table is not read."""
        where = self._match(match).where
        return self.table.count() if where is None else sum(1 for _row in self.table.rows(where))

    def statistics(self) -> dict[int, dict[str, int]]:
        """Return the kernel's counters by CPU, as `conntrack -S` shows them: `{0: {"found": 12, "invalid": 0, …}}`."""
        return self.table.statistics_per_cpu()

    def _match(self, match: MatchLike) -> Match:
        return EVERYTHING if match is None else parse_match(match, self.labels)


class Expectations:
    """The expectations of a table: connections that helpers or users expect. See `Conntrack.expectations`."""

    def __init__(self, table: Table, labels: LabelMap) -> None:
        self._table = table
        self._labels = labels

    def dump(self, match: MatchLike = None) -> Iterator[Document]:
        """Yield the expectations that match, or all, with their zones. Raises `InvalidValue` for an invalid match."""
        for found in self._found(match):
            yield expectation.to_document(found)

    def get(self, declared: Mapping[str, Any]) -> Document:
        """Return the expectation with this zone and tuple. Raises `NotFound`."""
        return expectation.to_document(expectation.get(self._table, expectation.from_document(declared)))

    def create(self, declared: Mapping[str, Any]) -> None:
        """Create an expectation with at least `tuple` and `master`. Its timeout in seconds is that of its helper.

        Raises `NotFound` without its master, `Exists` if its tuple is taken, `Unsupported` if the master has no helper,
        and `TableFull`.
        """
        expectation.create(self._table, expectation.from_document(declared))

    def update(self, declared: Mapping[str, Any]) -> None:
        """Set the timeout of an expectation, in seconds. Raises `NotFound`."""
        expectation.update(self._table, expectation.from_document(declared))

    def delete(self, declared: Mapping[str, Any]) -> None:
        """Delete an expectation. With the `id` from `dump` or `get`, delete it only if it is still the same one.

        Raises `NotFound`.
        """
        expectation.delete(self._table, expectation.from_document(declared))

    def flush(self, match: MatchLike = None) -> int:
        """Delete the expectations that match, or all, and return their number. Raises `PartialFailure`."""
        return _each(lambda found: expectation.delete(self._table, found), list(self._found(match)))

    def _found(self, match: MatchLike) -> Iterator[Document]:
        wanted = EVERYTHING if match is None else expectation.parse_match(match, self._labels)
        return expectation.dump(self._table, wanted)


class TimeoutPolicies:
    """The timeout policies of a namespace, which rules assign to connections. See `Conntrack.timeout_policies`.

    If the kernel lacks nfnetlink_cttimeout, the methods raise `Unavailable`; only `create` and `delete` raise
    `KernelError` (EINVAL).
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def dump(self) -> Iterator[Document]:
        """Yield every policy, with the timeouts of all states in seconds. `use` is 1 if no rule uses it."""
        return timeout_policy.read_all(self._table)

    def get(self, name: str) -> Document:
        """Return a policy. Raises `NotFound`."""
        return timeout_policy.to_document(self._find(name))

    def create(self, policy: Mapping[str, Any]) -> None:
        """Create a policy. States without a timeout get the default of the protocol. Raises `Exists`."""
        timeout_policy.create(self._table, timeout_policy.from_document(policy))

    def update(self, policy: Mapping[str, Any]) -> None:
        """Change the timeouts of a policy, also while rules use it. States that are not given keep their timeouts.

        Raises `NotFound`.
        """
        name = policy.get("name")
        if not name:
            raise InvalidValue("name", "is missing; write the name of a policy")
        existing = self._find(name)
        declared = {**timeout_policy.to_document(existing), "timeouts": None, **policy}
        timeout_policy.update(self._table, {**existing, **timeout_policy.from_document(declared)})

    def delete(self, name: str) -> None:
        """Delete a policy. Raises `NotFound`, and `Busy` while a rule uses it."""
        timeout_policy.delete(self._table, {"name": name})

    def flush(self) -> int:
        """Delete every policy, and return their number. Raises `PartialFailure` if a rule uses one."""
        names = [{"name": policy["name"]} for policy in self.dump()]
        return _each(lambda name: timeout_policy.delete(self._table, name), names)

    def _find(self, name: str) -> timeout_policy.Policy:
        found = timeout_policy.find(self._table, name)
        if found is None:
            raise NotFound(f"reading timeout policy {name}", errno.ENOENT)
        return found


class Events(Closing):
    """Events for `for` and `async for`, with documents as their entries. Close it after use.

    Iterating raises `Overrun` when events were lost; iterate again to continue. `subscription` has the receive buffer,
    the number of overruns, and `fileno`.
    """

    def __init__(self, subscription: Subscription, labels: LabelMap) -> None:
        self.subscription = subscription
        self._labels = labels

    def close(self) -> None:
        """End the subscription, and with it every iteration."""
        self.subscription.close()

    def __iter__(self) -> Iterator[Event]:
        return map(self._shown, self.subscription)

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for event in self.subscription:
            yield self._shown(event)

    def _shown(self, event: Event) -> Event:
        is_entry = event.kind in ENTRY_GROUPS
        return event._replace(
            entry=to_document(event.entry, self._labels) if is_entry else expectation.to_document(event.entry)
        )


def describe(document: Mapping[str, Any]) -> str:
    """Return one line about an entry or an expectation: `tcp 10.0.0.1:4000 -> 192.0.2.1:443`."""
    if "tuple" in document:
        return expectation.describe(expectation.from_document(document))
    return describe_entry(from_document({key: value for key, value in document.items() if key != "labels"}))


def _deleted(errors: Iterable[KernelError | None]) -> int:
    """Count deletions, and continue after an error. Raises `PartialFailure` at the end, or if reading fails."""
    count = failed = unknown = 0
    first: ConntrackError | None = None
    try:
        for error in errors:
            if error is None:
                count += 1
            elif not isinstance(error, NotFound):
                failed += 1
                unknown += isinstance(error, ResultUnknown)
                first = first or error
    except ConntrackError as error:
        if not (count or failed):
            raise
        first = error
    if first is not None:
        sentence = f"{first}. {count} were deleted, {failed} were not"
        sentence += f"; the answers for {unknown} of these were lost, and they may be deleted" if unknown else ""
        raise PartialFailure(sentence, {"deleted": count, "failed": failed, "unknown": unknown}) from first
    return count


def _each(delete: Callable[[Any], None], things: Iterable[Any]) -> int:
    def errors() -> Iterator[KernelError | None]:
        for thing in things:
            try:
                delete(thing)
            except KernelError as error:
                yield error
            else:
                yield None

    return _deleted(errors())
