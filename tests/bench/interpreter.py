# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The baselines of the bench: the bare interpreter, and the import of the client.

This file imports only socket and struct. The import of typing alone would use up a part of the limit.
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
#: Modules of the client that read, match and declare entries.
CLIENT = tuple(PACKAGE + name for name in ("client.table", "client.entry.document", "client.match.match"))


def nothing() -> Callable[[], int]:
    """Do nothing, to measure the memory of the interpreter."""
    return lambda: 0


def import_client() -> Callable[[], int]:
    """Import the client. Python uses compiled files if they exist."""

    def work() -> int:
        for name in CLIENT:
            __import__(name)
        return len(_files())

    return work


def compile_client() -> Callable[[], int]:
    """Compile the files that the client imports, as each task does for modules that arrive in a zip file."""
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
