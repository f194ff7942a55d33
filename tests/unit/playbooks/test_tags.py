# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tags of playbooks select the tasks that change hosts, and no selection skips the checks before them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

PLAYBOOKS = sorted(path.stem for path in (CHECKOUT / "playbooks").glob("*.yml"))
#: The tags, and the names of the tasks that they select.
TAGS = {
    "apply": ("conntrack_apply", ["Check that no host has failed", "Apply the declaration"]),
    "flush": ("conntrack_remove", ["Check that no host has failed", "Remove the entries"]),
    "refresh": ("conntrack_remove", ["Check that no host has failed", "Remove the stale flows"]),
}


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, list[str]]]]:
    """The names and tags of the tasks of each playbook, as Ansible lists them."""
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "--inventory", "gateway,", "--list-tasks"]
        + [f"netops.conntrack.{name}" for name in PLAYBOOKS],
        check=True,
        cwd=tmp_path_factory.mktemp("empty"),
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
    ).stdout
    _before, *sections = re.split(r"^playbook: (.+)$", done, flags=re.MULTILINE)
    return {
        Path(name).stem: [
            (task, re.findall(r"\w+", tags)) for task, tags in re.findall(r"^ {6}(.+?)\tTAGS: \[(.*)\]$", tasks, re.M)
        ]
        for name, tasks in zip(sections[::2], sections[1::2], strict=True)
    }


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_only_changes_can_be_skipped(listed: dict[str, list[tuple[str, list[str]]]], name: str) -> None:
    assert listed[name]
    tag, tasks = TAGS.get(name, ("", []))
    assert [task for task, tags in listed[name] if tags == [tag]] == tasks
    others = [tags for _task, tags in listed[name] if tags != [tag]]
    assert others == [["always"] if tag else []] * len(others)


@pytest.mark.parametrize("name", [name for name in PLAYBOOKS if name != "demo"])
def test_the_page_of_a_playbook_names_its_tag(name: str) -> None:
    page = (CHECKOUT / f"docs/docsite/rst/playbook_{name}.rst").read_text()
    expected_text = f"``--skip-tags {TAGS[name][0]}``" if name in TAGS else "The playbook has no tags, because"
    assert expected_text in page
