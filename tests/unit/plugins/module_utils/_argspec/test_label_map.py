# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of labels are those of the map that the task names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.label_map import labels_of


def test_labels_come_from_the_map_that_is_named(tmp_path: Any) -> None:
    file = tmp_path / "connlabel.conf"
    file.write_text("5 voip\n", encoding="utf-8")
    module: Any = SimpleNamespace(params={"label_map": str(file)})
    assert labels_of(module).bits == {"voip": 5}
