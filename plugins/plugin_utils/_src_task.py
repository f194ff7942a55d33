# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file of the controller declares, which may be encrypted by Ansible Vault."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils._source.file import check, read


def read_with(loader: Any, path: str) -> list[Any]:
    """The documents in a file, through Ansible's loader, which decrypts it if need be. Raises `SourceFault`."""
    check(path)
    real = loader.get_real_file(path)
    try:
        return read(real, path)
    finally:
        loader.cleanup_tmp_file(real)


def as_lines(documents: list[Any]) -> str:
    """Entries as JSON lines; a list of none, which has no lines, as JSON."""
    return "".join(f"{json.dumps(document)}\n" for document in documents) or "[]\n"
