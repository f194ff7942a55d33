# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks show the verdicts with one line for each rule, whatever a host returns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

FORGED = "9 unchanged, no rule decides"


def decided(verdict: str, comment: str | None, **more: Any) -> dict[str, Any]:
    rule = {"family": "inet", "table": "filter", "chain": "forward", "handle": 3, "comment": comment}
    return {"verdict": verdict, "rule": rule, "reason": None, "entries": 5, **more}


def test_line_breaks_in_a_comment_are_replaced(tmp_path: Path) -> None:
    breaks = ("\n", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
    rules = [
        decided("refused", "".join(f"{ends}{FORGED}" for ends in breaks)),
        decided("uncertain", None, rule=None, reason=f"limit\n{FORGED}"),
        decided("refused", "blocked <b>hosts</b>"),
    ]
    judged = {"ansible_facts": {"conntrack": {"stale": {"verdicts": {"refused": 10}, "rules": rules}}}}
    play = {
        "hosts": "gateway",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.import_tasks": str(CHECKOUT / "playbooks/tasks/verdicts.yml")}],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    (tmp_path / "judged.json").write_text(json.dumps({"_conntrack_judged": judged}))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "gateway,", "play.yml", "-e", "@judged.json"],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
    )
    found = re.search(r"^ok: \[gateway\] => (\{\n.*?^\})", done.stdout, re.DOTALL | re.MULTILINE)
    assert found, done.stdout + done.stderr
    assert json.loads(found[1])["msg"]["rules"] == [
        f"5 refused, inet filter forward, handle 3, {' '.join([FORGED] * len(breaks))}",
        f"5 uncertain (limit {FORGED}), no rule decides",
        "5 refused, inet filter forward, handle 3, blocked <b>hosts</b>",
    ]
