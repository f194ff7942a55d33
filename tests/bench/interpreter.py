# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Works before any work: the bare interpreter that others are compared with, and the import of the client.

Imports socket and struct and nothing else; typing alone would take a part of what is allowed.
"""

from __future__ import annotations

import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

#: Modules that every netlink program imports.
GIVEN = (socket, struct)
PACKAGE = "ansible_collections.netops.conntrack.plugins.module_utils."
#: Modules of the client to read, match and declare entries.
CLIENT = tuple(PACKAGE + name for name in ("client.table", "client.entry.document", "client.match.match"))


def nothing() -> Callable[[], int]:
    """Do nothing, for the memory that it takes."""
    return lambda: 0


def import_client() -> Callable[[], int]:
    """Import the client, compiled before if that was done before."""

    def work() -> int:
        for name in CLIENT:
            __import__(name)
        return len(_files())

    return work


def compile_client() -> Callable[[], int]:
    """Compile what importing the client reads, as each task does that has come as a zip."""
    import_client()()
    sources = []
    for name in _files():
        with open(name, encoding="utf-8") as file:
            sources.append(file.read())

    def work() -> int:
        for source in sources:
            compile(source, "client", "exec")
        return len(sources)

    return work


def _files() -> list[str]:
    files = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith(PACKAGE)]
    return [name for name in files if name]
