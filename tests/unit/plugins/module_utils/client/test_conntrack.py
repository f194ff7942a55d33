# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.netops.conntrack.plugins.module_utils.client.conntrack import describe


def test_an_entry_with_names_of_labels_is_described() -> None:
    ends = {"source": "10.0.0.1", "destination": "192.0.2.1", "source_port": 4000, "destination_port": 443}
    entry = {"protocol": "tcp", "original": ends, "labels": ["voice"]}
    assert describe(entry) == "tcp 10.0.0.1:4000 -> 192.0.2.1:443"
