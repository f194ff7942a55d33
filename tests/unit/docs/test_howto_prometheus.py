# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The how-to lists every metric and every alert, and the alert rules and the dashboard use only existing metrics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.netops.conntrack.plugins.plugin_utils._openmetrics import METRICS, PREFIX

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "docsite/rst/howto_prometheus.rst").read_text(encoding="utf-8")
RULES = yaml.safe_load((DOCS / "prometheus/conntrack_alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
PANELS = json.loads((DOCS / "prometheus/conntrack_dashboard.json").read_text(encoding="utf-8"))["panels"]
NAMES = {PREFIX + name for name in METRICS}


def test_the_page_lists_every_metric() -> None:
    table = PAGE.partition("\nThe metrics\n")[2].partition("\nProblems\n")[0]
    listed = re.findall(r"``(conntrack_\w+…?)``", table.replace("``conntrack_group_by``", ""))
    shortened = {name.rstrip("…") for name in listed if name.endswith("…")}
    assert len(set(listed)) == len(listed)
    assert {name for name in listed if not name.endswith("…")} == {
        name for name in NAMES if not name.startswith(tuple(shortened))
    }
    assert all(any(name.startswith(prefix) for name in NAMES) for prefix in shortened)


def test_the_page_lists_every_alert() -> None:
    listed = re.findall(r"``(Conntrack\w+)``", PAGE.partition("* - Alert\n")[2].partition("\n\n")[0])
    assert listed == [rule["alert"] for rule in RULES]


@pytest.mark.parametrize(
    "query",
    [*(rule["expr"] for rule in RULES), *(target["expr"] for panel in PANELS for target in panel["targets"])],
)
def test_rules_and_dashboard_use_existing_metrics(query: str) -> None:
    used = set(re.findall(r"\bconntrack_\w+", query))
    assert used
    assert used - NAMES == set()
