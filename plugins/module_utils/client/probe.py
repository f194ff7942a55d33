# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Probe which features the running kernel has, in a network namespace of its own.

A kernel ignores a filter that it does not know, and version numbers do not show fixes that were ported back. A child
process therefore creates a network namespace, puts two entries into its table, and tries each feature. The tables of
other namespaces are not touched.

Source: ctnetlink_alloc_filter and ctnetlink_flush_conntrack in net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import errno
import json
import os
from functools import partial
from typing import Any, Callable

from . import uapi
from .codec.types import AF_INET
from .ctnetlink import messages
from .entry.creation import creation
from .entry.document import from_document
from .entry.entry import Entry
from .errors import ConntrackError, KernelError
from .host import namespace, sockets, sysctl
from .match.expression import InRanges, MaskEquals, Term, points
from .match.kernel_filter import narrow
from .netlink.message import Message
from .table import Table

_EMPTY_ZONE = 9


def probe() -> dict[str, Any]:
    """Return the features of the kernel by name: True, False, or None if a feature could not be tried.

    The names are `dump_by_*` and `flush_by_*` (`mark`, `status`, `zone`, `tuple`: filters that the kernel applies),
    `events_on_demand` (nf_conntrack_events=2), `helper_removal` (by an update), `socket_destroy` (of TCP and UDP), and
    `tracks_*` (`sctp`, `dccp`, `udplite`, `gre`). `probed` is False, without other names, if no namespace could be
    created, for example without root.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.write(writer, json.dumps(_in_a_new_namespace()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    found: dict[str, Any] = json.loads(said) if said else {}
    return {"probed": bool(found), **found}


def _in_a_new_namespace() -> dict[str, bool | None]:
    try:
        namespace.leave_for_a_new_one()
    except (OSError, ConntrackError):
        return {}
    found: dict[str, bool | None] = {}
    with Table() as table:
        for name, attempt in _ATTEMPTS.items():
            try:
                found[name] = attempt(table)
            except KernelError:
                found[name] = False
            except ConntrackError:
                found[name] = None
            _clear(table)
    return found


def _entry(source: str, **keys: Any) -> Entry:
    tuple_ = {"source": source, "destination": "192.0.2.1", "source_port": 1, "destination_port": 2}
    return creation(from_document({"protocol": "udp", "original": tuple_, **keys}))


_ONE = _entry("192.0.2.2", mark=1, status=["assured"])
_OTHER = _entry("192.0.2.3", zone=5)


def _clear(table: Table) -> None:
    for error in table.delete_all(list(table.dump())):
        if error is not None:
            raise error


def _filtered(kind: int, term: Term) -> Message:
    """Return a request with the kernel filter of a term, also for a flush with a filter that may fail open."""
    return Message(kind, 0, messages.nfgenmsg(AF_INET) + narrow(term).attributes)


def _dump_honours(term: Term, table: Table) -> bool:
    table.create(_ONE)
    table.create(_OTHER)
    request = _filtered(uapi.IPCTNL_MSG_CT_GET, term)
    return len(list(table.read(request, messages.parse_entry))) == 1


def _flush_honours(term: Term, left: int, table: Table) -> bool:
    table.create(_ONE)
    table.create(_OTHER)
    request = _filtered(uapi.IPCTNL_MSG_CT_DELETE, term)
    for error in table.send_all("flushing", [request]):
        if error is not None:
            return False
    return table.count() == left


def _tracks(protocol: str, table: Table) -> bool:
    """Whether the kernel tracks a protocol. It stores entries of others without ports."""
    tuple_ = {"source": "192.0.2.2", "destination": "192.0.2.1"}
    names = ("source_key", "destination_key") if protocol == "gre" else ("source_port", "destination_port")
    wanted = creation(from_document({"protocol": protocol, "original": {**tuple_, names[0]: 1, names[1]: 2}}))
    table.create(wanted)
    return f"original.{names[0]}" in table.find_by_tuple(wanted)


def _removes_helpers(table: Table) -> bool | None:
    """Whether an update can remove a helper, which Linux 7.2 refuses. None if there is no helper to try it with."""
    tuple_ = {"source": "192.0.2.2", "destination": "192.0.2.1", "source_port": 1, "destination_port": 21}
    wanted = creation(from_document({"protocol": "tcp", "original": tuple_, "helper": "ftp"}))
    try:
        table.create(wanted)
    except KernelError:
        return None
    table.update({**wanted, "helper": ""})
    return "helper" not in table.find_by_tuple(wanted)


def _sends_events_on_demand(table: Table) -> bool:
    """Whether nf_conntrack_events=2 exists: events only while there is a subscriber, since Linux 5.19."""
    try:
        sysctl.write("events", 2)
    except sysctl.CannotSet as refusal:
        if getattr(refusal.__cause__, "errno", None) == errno.EINVAL:
            return False
        raise  # no information about the kernel
    return True


def _destroys_sockets(_table: Table) -> bool:
    """Whether the kernel can destroy sockets (CONFIG_INET_DIAG_DESTROY)."""
    with sockets.open_socket() as netlink:
        sockets.check_destroy(netlink)
    return True


_BY_MARK = MaskEquals("mark", ((1, 0xFFFFFFFF),))
_BY_STATUS = MaskEquals("status", ((uapi.IPS_ASSURED, uapi.IPS_ASSURED),))
_BY_SOURCE = InRanges(("original.source",), points([_ONE["original.source"]]))


def _by_zone(number: int) -> Term:
    return InRanges(("zone",), points([number]), 0)


_ATTEMPTS: dict[str, Callable[[Table], bool | None]] = {
    "dump_by_mark": partial(_dump_honours, _BY_MARK),
    "dump_by_status": partial(_dump_honours, _BY_STATUS),
    "dump_by_zone": partial(_dump_honours, _by_zone(5)),
    "dump_by_tuple": partial(_dump_honours, _BY_SOURCE),
    "flush_by_mark": partial(_flush_honours, _BY_MARK, 1),
    "flush_by_status": partial(_flush_honours, _BY_STATUS, 1),
    "flush_by_zone": partial(_flush_honours, _by_zone(_EMPTY_ZONE), 2),
    "flush_by_tuple": partial(_flush_honours, _BY_SOURCE, 1),
    "events_on_demand": _sends_events_on_demand,
    "helper_removal": _removes_helpers,
    "socket_destroy": _destroys_sockets,
    **{f"tracks_{protocol}": partial(_tracks, protocol) for protocol in ("sctp", "dccp", "udplite", "gre")},
}
