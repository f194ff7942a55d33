# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read declarations from files on the controller, which may be encrypted by Ansible Vault."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils._source.file import check, read


def read_with(loader: Any, path: str) -> list[Any]:
    """The documents in a file. Ansible's loader decrypts it if necessary. Raises `SourceFault`."""
    check(path)
    real = loader.get_real_file(path)
    try:
        return read(real, path)
    finally:
        loader.cleanup_tmp_file(real)


def as_lines(documents: list[Any]) -> str:
    """Entries as JSON lines. An empty list is JSON, because it has no lines."""
    return "".join(f"{json.dumps(document)}\n" for document in documents) or "[]\n"
