# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests about entries, encoded one by one or packed in batches with templates.

Entries with the same keys, family and protocols encode to messages that differ only in their values. A template is one
`struct` for the whole message, whose constant bytes are arguments, too. It is needed for the speed of the benchmarks
"create" and "one create".

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import struct
from itertools import repeat
from typing import Any, Callable, Collection, Iterable, Iterator, Mapping, Sequence

from .. import uapi
from ..bulk.columns import FALLBACK, Columns, ColumnTransform, NotVectorizable, batches
from ..codec import attributes
from ..codec.attributes import ENTRY, Attribute
from ..codec.codec import ENTRIES
from ..codec.types import Address, LabelBitmap
from ..entry.creation import STATE_NAMES, check_states
from ..errors import InvalidValue
from ..netlink.message import Message, RequestBatch, frame, request_batch
from ..netlink.socket import BATCH_SIZE
from .messages import nfgenmsg

#: Keys whose values are part of the template.
_DECISIVE = (
    "family",
    *(row.key for row in ENTRY if row.key.endswith(".protocol") or (row.use and not row.kind.format)),
)

#: The maximum number of templates. Few exist at a time, but any name of a helper makes another one.
_MOST_TEMPLATES = 512

# A request about one entry always contains its tuple and its zone. Without the tuple, the kernel treats a deletion as a
# flush of the whole table. Without the zone, it looks in zone 0.
_KEYLESS = "the original tuple is missing: such a message would be about the whole table"

# The zone of the reply direction is not included. The original tuple of such an entry is in zone 0, and a reply tuple
# that contains only a zone would make an update invalid.
_KEYS = frozenset(row.key for row in ENTRY if row.use & attributes.KEY)
_CREATED = frozenset(row.key for row in ENTRY if row.use & attributes.CREATE)
_UPDATED = _KEYS | {row.key for row in ENTRY if row.use & attributes.UPDATE}


class Template:
    """The common part of requests of one kind about entries of one layout."""

    def __init__(self, kind: int, flags: int, family: int, parts: Iterable[bytes | Attribute]) -> None:
        # After the sequence number come the port id and the netfilter header
        code, constant = ">8sI", bytes(4) + nfgenmsg(family)
        #: Constant bytes, or the key of a value, its size if it is an address, and its encoder if it is a label bitmap.
        self._parts: list[bytes | tuple[str, int, Callable[[Any], bytes] | None]] = []
        for part in parts:
            if isinstance(part, bytes):
                constant += part
                continue
            value = part.kind
            varies = value.format.rstrip("x")
            code += f"{len(constant)}s{varies}"
            size = struct.calcsize(">" + varies)
            encode = value.encode if isinstance(value, LabelBitmap) else None
            self._parts += [constant, (part.key, size if isinstance(value, Address) else 0, encode)]
            # Some values are followed by a constant mask
            constant = value.encode(0)[size:] if varies != value.format else b""
        self._parts.append(constant)
        self._struct = struct.Struct(f"{code}{len(constant)}s")
        self._head = struct.pack("=IHH", self._struct.size, kind, flags | uapi.NLM_F_REQUEST)
        #: The arguments of the struct for one message, and the places and parts of those that are values.
        self._arguments: list[Any] = [self._head, 0, *self._parts]
        self._values = [(place, *part) for place, part in enumerate(self._parts, 2) if not isinstance(part, bytes)]

    def pack(self, numbers: Iterable[int], columns: Mapping[str, Sequence[Any]]) -> list[bytes]:
        """Return complete messages. `numbers` are the sequence numbers, byte-swapped for `struct` in big-endian order.

        Raises one of `FALLBACK`.
        """
        arguments: list[Iterable[Any]] = [repeat(self._head), numbers]
        for part in self._parts:
            if isinstance(part, bytes):
                arguments.append(repeat(part))
                continue
            key, size, encode = part
            column = columns[key]
            if size and set(map(len, column)) != {size}:
                raise NotVectorizable(key)
            if encode:
                if set(map(type, column)) != {int}:
                    raise NotVectorizable(key)
                column = list(map({value: encode(value) for value in set(column)}.__getitem__, column))
            arguments.append(column)
        return list(map(self._struct.pack, *arguments))

    def pack_one(self, entry: Mapping[str, Any]) -> bytes:
        """Return one complete message with the sequence number 0. Raises one of `FALLBACK`."""
        arguments = [*self._arguments]
        for place, key, size, encode in self._values:
            value = entry[key]
            if size and len(value) != size:
                raise NotVectorizable(key)
            arguments[place] = encode(value) if encode else value
        return self._struct.pack(*arguments)


class Request:
    """A kind of request about one entry: message type, flags, and the keys of the entry that it contains.

    With `state_is_set`, the states of the entry must have names (see `entry.check_states`).
    """

    def __init__(self, kind: int, flags: int, keys: Collection[str], state_is_set: bool = False) -> None:
        self.type = kind
        self.flags = flags
        self.keys = frozenset(keys)
        self._state_is_set = state_is_set
        self._templates: dict[tuple[Any, ...], Template] = {}

    def message(self, entry: Mapping[str, Any]) -> Message:
        """Encode the request about an entry. Raises `InvalidValue`, also if the original tuple is missing."""
        try:
            if self._state_is_set:
                check_states(entry)
            template = self._templates.get((tuple(entry), *[entry[key] for key in _DECISIVE if key in entry]))
            if template is None:
                template = self.template({key: (value,) for key, value in entry.items()})
            packed = template.pack_one(entry)
        except FALLBACK:
            return self.encoded(entry)
        return Message(self.type, self.flags, packed[uapi.NLMSG_HDRLEN :])

    def encoded(self, entry: Mapping[str, Any]) -> Message:
        """Encode the request without a template. Raises `InvalidValue` for an invalid value or a missing tuple."""
        if self._state_is_set:
            check_states(entry)
        if "original.source" not in entry or "original.protocol" not in entry:
            raise InvalidValue("original", _KEYLESS)
        return Message(self.type, self.flags, nfgenmsg(entry["family"]) + ENTRIES.encode(entry, self.keys))

    def template(self, columns: Mapping[str, Sequence[Any]]) -> Template:
        """Return the template for entries with these keys and the first decisive values. Raises one of `FALLBACK`."""
        if self._state_is_set:
            check_states({key: max(columns[key]) for key in STATE_NAMES if key in columns})
        layout = (tuple(columns), *[columns[key][0] for key in _DECISIVE if key in columns])
        template = self._templates.get(layout)
        if template is None:
            if not {"original.source", "original.protocol"} <= set(columns):
                raise NotVectorizable(_KEYLESS)
            if len(self._templates) >= _MOST_TEMPLATES:
                self._templates.clear()
            first = {key: column[0] for key, column in columns.items()}
            parts = ENTRIES.template_parts(first, self.keys)
            template = self._templates[layout] = Template(self.type, self.flags, first["family"], parts)
        return template


#: Create an entry (see `entry.creation`). The kernel refuses with EEXIST if it exists.
CREATE = Request(uapi.IPCTNL_MSG_CT_NEW, uapi.NLM_F_CREATE | uapi.NLM_F_EXCL, _CREATED)
#: Create an entry or update the existing one. Masks apply to updates only.
PUT = Request(uapi.IPCTNL_MSG_CT_NEW, uapi.NLM_F_CREATE, _CREATED | _UPDATED)
#: Change an entry. Its original tuple and zone identify it; reply tuple, `nat` and `master` are set at creation only.
UPDATE = Request(uapi.IPCTNL_MSG_CT_NEW, 0, _UPDATED, state_is_set=True)
#: Read the entry that has this tuple in either direction.
GET = Request(uapi.IPCTNL_MSG_CT_GET, 0, _KEYS)
#: Read an entry and reset its counters.
ZERO = Request(uapi.IPCTNL_MSG_CT_GET_CTRZERO, 0, _KEYS)
#: Delete an entry. With `id`, only if it is still the same entry.
DELETE = Request(uapi.IPCTNL_MSG_CT_DELETE, 0, _KEYS | {"id"})


def _decisive(columns: Columns) -> list[Sequence[Any]]:
    return [columns[key] for key in _DECISIVE if key in columns]


#: Entries that are sent as they are.
PREPARED = ColumnTransform(dict, dict, _decisive)


def request_batches(
    things: Iterable[Any],
    request: Request,
    numbers: Callable[[int], int],
    size: int = BATCH_SIZE,
    bulk: ColumnTransform = PREPARED,
) -> Iterator[RequestBatch]:
    """Yield batches of up to `size` requests about entries, in their order.

    `things` are entries, or items that `bulk` converts to entries. `numbers` reserves the given number of sequence
    numbers and returns the first. Some thousand items are read ahead. An error of an item is raised after the batches
    before its own.
    """
    for batch in batches(things):
        first = numbers(len(batch))
        packed = _packed(batch, request, first, bulk)
        for start in range(0, len(batch), size):
            frames = packed[start : start + size]
            if not all(frames):
                frames = [
                    part or frame(request.message(bulk.scalar(batch[place])), first + place)
                    for place, part in enumerate(frames, start)
                ]
            yield request_batch(frames, first + start)


def _packed(things: list[Any], request: Request, first: int, bulk: ColumnTransform) -> list[bytes]:
    """Return the messages about things, numbered from `first` on. One that has no template is empty."""
    count = len(things)
    packed = [b""] * count
    numbers = struct.unpack(f">{count}I", struct.pack(f"={count}I", *range(first, first + count)))
    for places, columns in bulk.groups(things):
        try:
            messages = request.template(columns).pack(map(numbers.__getitem__, places), columns)
        except FALLBACK:
            continue
        if len(messages) == count:
            packed[:] = messages
        else:
            for place, message in zip(places, messages):
                packed[place] = message
    return packed
