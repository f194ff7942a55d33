# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Call the filter with values as a template passes them. `tests/fleet/test_metrics.py` calls it in a play."""

from __future__ import annotations

import importlib

import pytest
from ansible.errors import AnsibleFilterError
from ansible.template import trust_as_template

to_openmetrics = importlib.import_module(
    "ansible_collections.netops.conntrack.plugins.filter.to_openmetrics"
).to_openmetrics


def test_tagged_values_are_accepted() -> None:
    tagged = {trust_as_template(key): value for key, value in {"count": 3, "max": 9}.items()}
    labels = {trust_as_template("site"): trust_as_template("fra")}
    written = to_openmetrics(tagged, labels, trust_as_template("2026-03-14T09:26:53Z"), form="openmetrics")
    assert [line for line in written.splitlines() if not line.startswith("# ")] == [
        'conntrack_gathered_timestamp_seconds{site="fra"} 1773480413',
        'conntrack_entries{site="fra"} 3',
        'conntrack_entries_limit{site="fra"} 9',
    ]


def test_errors_name_the_filter() -> None:
    with pytest.raises(AnsibleFilterError, match=r"^to_openmetrics: labels\.cpu: the metrics have a label"):
        to_openmetrics({"count": 3}, {"cpu": "x"})
