# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a declaration is refused before any change if it needs data that the kernel does not record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.config import config_of
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl

Document = Dict[str, Any]


@pytest.mark.parametrize(
    ("config_with", "key"),
    [
        (lambda match: {"absent": [{"zone": 5}, match]}, r"absent\[1\]"),
        (lambda match: {"entries": {"declared": [], "purge": True, "scope": match}}, "entries.scope"),
    ],
    ids=["absent", "scope"],
)
@pytest.mark.parametrize(("match", "need"), [({"bytes_below": 5}, "accounting"), ({"age_above": 5}, "timestamps")])
def test_match_on_unrecorded_data_is_refused(
    config_with: Any, key: str, match: Document, need: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a match would match nothing, and the entries that must not exist would remain in the table."""
    module: Any = SimpleNamespace(params={"config": config_with(match), "src": None})
    monkeypatch.setattr(sysctl, "read", lambda name: 0 if name == need else 1)
    with pytest.raises(InvalidValue, match=f"^{key}: requires {need}, which is off"):
        config_of(module, LabelMap())
    monkeypatch.setattr(sysctl, "read", lambda _name: 1)
    config_of(module, LabelMap())
