# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Flows: the tuples and zones of entries, read from messages without decoding the rest."""

from __future__ import annotations

from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ..codec.codec import Values
from ..codec.layout import MessageLayout, Read
from ..dump.scan import Action, Visitor
from ..entry.entry import Entry
from ..entry.tuple import ENDPOINT_KEYS, protocol_keys
from .packets import FirstPackets

#: The keys of the addresses that decide about the way of a flow.
ADDRESSES = ("original.source", "reply.source", "original.destination")
_DIRECTIONS = ("original", "reply")
_NAMES = ("source", "destination", "zone", *ENDPOINT_KEYS)
_FLOW_KEYS = frozenset({"zone", *(f"{each}.{name}" for each in _DIRECTIONS for name in _NAMES)})


class FlowLayout:
    """Flows of one family and protocol whose values have the same keys, in the same order."""

    def __init__(self, family: int, protocol: int, keys: tuple[str, ...]) -> None:
        places = {key: place for place, key in enumerate(keys)}
        #: Returns what decides about the way of a flow: source, reply source and destination.
        self.addresses = itemgetter(*(places[key] for key in ADDRESSES))
        self._build = FirstPackets(family, protocol).build
        ends = [places[key] for key in (f"original.{name}" for name in protocol_keys(protocol)) if key in places]
        self._ends: Callable[[Sequence[Any]], Any] = itemgetter(*ends) if len(ends) > 1 else lambda _values: ()

    def packet(self, values: Sequence[Any], control: int) -> bytes:
        """Return the first packet of a flow with a control word."""
        source, _answering, destination = self.addresses(values)
        return self._build(source, destination, self._ends(values), control)


@lru_cache(maxsize=None)
def flow_layout(family: int, protocol: int, keys: tuple[str, ...]) -> FlowLayout:
    """Return the layout of flows. There is one object for each."""
    return FlowLayout(family, protocol, keys)


class Flow(NamedTuple):
    """A flow. Two flows are the same if their first two fields are equal: tuples and zones.

    `whole` returns the whole entry of the message.
    """

    layout: FlowLayout
    values: tuple[Any, ...]
    whole: Callable[[bytes], Entry]
    message: bytes
    has_master: bool

    def entry(self) -> Entry:
        """Return the whole entry."""
        return self.whole(self.message)


def flow_of(entry: Mapping[str, Any]) -> Flow:
    """Return the flow of an entry that is decoded already."""
    keys = tuple(key for key in entry if key in _FLOW_KEYS)
    layout = flow_layout(entry["family"], entry["original.protocol"], keys)
    values = tuple(entry[key] for key in keys)
    return Flow(layout, values, lambda _message: dict(entry), b"", "master.source" in entry)


class Flows(Visitor):
    """Collects the flows of a dump in `found`."""

    def __init__(self) -> None:
        self.found: list[Flow] = []

    def on(self, layout: MessageLayout) -> Action:
        flows, read = _reader_of(layout)
        has_master = any(key.startswith("master.") for key in layout.keys)
        keep, messages = self.found.extend, layout.messages
        constant = repeat(flows), repeat(layout.entry), repeat(has_master)

        def act(data: bytes) -> None:
            fields = zip(constant[0], read(data), constant[1], messages(data), constant[2])
            keep(map(tuple.__new__, repeat(Flow), fields))

        return act

    def add(self, entry: Values) -> None:
        self.found.append(flow_of(entry))


class FlowKeys(Visitor):
    """Collects the first two fields of flows in `found`."""

    def __init__(self) -> None:
        self.found: set[tuple[Any, ...]] = set()

    def on(self, layout: MessageLayout) -> Action:
        flows, read = _reader_of(layout)
        keep = self.found.update
        return lambda data: keep(zip(repeat(flows), read(data)))

    def add(self, entry: Values) -> None:
        self.found.add(flow_of(entry)[:2])


def _reader_of(layout: MessageLayout) -> tuple[FlowLayout, Read]:
    """Return the layout of the flows in messages of a layout, and the function that reads their values."""
    keys, read = layout.part(_FLOW_KEYS)
    return flow_layout(layout.constants["family"], layout.constants["original.protocol"], keys), read
