# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read files on the controller, which may be encrypted by Ansible Vault."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from ansible.errors import AnsibleError

from ansible_collections.netops.conntrack.plugins.module_utils._source.file import SourceFault, check, read


@contextlib.contextmanager
def decrypted(loader: Any, path: str, option: str) -> Iterator[str]:
    """The path of a file with the content of another. Ansible's loader decrypts the content if necessary.

    Raises `SourceFault`, which names the option.
    """
    check(path, option)
    try:
        real = loader.get_real_file(path)
    except AnsibleError as error:  # such as a wrong vault password
        raise SourceFault(f"{option}: {path}: {in_a_line(error)}") from error
    try:
        yield real
    finally:
        loader.cleanup_tmp_file(real)


def read_with(loader: Any, path: str) -> list[Any]:
    """The documents in a file. Raises `SourceFault`."""
    with decrypted(loader, path, "src") as real:
        return read(real, path)


def in_a_line(error: Exception) -> str:
    """The message of an error of Ansible, which may have several lines, without its full stop."""
    return " ".join(str(error).split()).rstrip(".")


def as_lines(documents: list[Any]) -> str:
    """Entries as JSON lines. An empty list is JSON, because it has no lines."""
    return "".join(f"{json.dumps(document)}\n" for document in documents) or "[]\n"
