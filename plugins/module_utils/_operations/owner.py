# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Show the owners of entries: process, user, systemd unit and container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Sequence

from ..client.entry.labels import LabelMap
from ..client.errors import InvalidValue
from ..client.host.owners import find_owners
from .resource import Resource

if TYPE_CHECKING:
    from ..client.entry.nested import Document


def with_owners(resource: Resource) -> Resource:
    """Return the resource with `owner` in each document: the owner, or None if it is unknown.

    Raises `InvalidValue` if the resource is not entries.
    """
    if resource.prefix != "original":
        raise InvalidValue("owner", "expectations have no owner; leave it out or write another table")

    def to_documents(entries: Sequence[Mapping[str, Any]], labels: LabelMap) -> list[Document]:
        documents = resource.to_documents(entries, labels)
        if documents:
            for document, owner in zip(documents, find_owners(entries)):
                document["owner"] = None if owner is None else owner._asdict()
        return documents

    return resource._replace(to_documents=to_documents)
