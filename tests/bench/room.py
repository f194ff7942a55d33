# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make room for large tables: nf_conntrack_max is one setting for all namespaces of a machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.lab import Namespace

SETTING = Path("/proc/sys/net/netfilter/nf_conntrack_max")
NAME = "net.netfilter.nf_conntrack_max"
#: Reserve beyond the entries themselves. The limit is per namespace, but other programs add and remove entries too.
SPARE = 1.05
#: Upper estimate of the memory for an entry, in the kernel and in the process that reads it.
BYTES = 1024


class NoRoom(RuntimeError):
    """The largest table does not fit. The message names the remedy."""


@contextlib.contextmanager
def room_for(entries: int) -> Iterator[None]:
    """Make room for tables of this number of entries, and restore the setting after the block.

    :raises NoRoom: if this user may not raise the setting, or if there is not enough memory.
    """
    _check_memory(entries)
    wanted = int(entries * SPARE)
    with Namespace() as any_namespace:  # the namespace has the setting, even if conntrack was not in use before
        before = int(any_namespace.sysctl("nf_conntrack_max"))
        if before >= wanted:
            yield
            return
        try:
            SETTING.write_text(str(wanted))
            raised = int(any_namespace.sysctl("nf_conntrack_max")) >= wanted
        except OSError:
            raised = False
        if not raised:
            raise NoRoom(
                f"the largest table of this run has {entries:,} entries and {NAME} is {before:,} on this machine, "
                f"which only root may change: run 'sysctl {NAME}={wanted}' there, be root, or add --quick"
            )
    try:
        yield
    finally:
        if int(SETTING.read_text()) == wanted:  # otherwise another process has changed it since
            SETTING.write_text(str(before))


def _check_memory(entries: int) -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        kib = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    if kib * 1024 < entries * BYTES:
        raise NoRoom(
            f"a table of {entries:,} entries takes about {entries * BYTES >> 20:,} MB and {kib >> 10:,} MB are "
            "available: add --quick"
        )
