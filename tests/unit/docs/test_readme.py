# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The links in the pages in the root of the repository and the table of contents in the README are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def links(name: str) -> list[str]:
    return LINK.findall((CHECKOUT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["README.md", "SECURITY.md", "roles/gateway/README.md"])
def test_links_lead_to_files(name: str) -> None:
    found = links(name)
    assert found
    assert [link for link in found if not (CHECKOUT / name).parent.joinpath(link).exists()] == []


def test_readme_has_at_most_150_lines() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 150


def test_readme_lists_all_plugins_roles_playbooks_and_rulebooks() -> None:
    """The README lists all modules, plugins, roles, playbooks and rulebooks."""
    folders = ["plugins/modules", "plugins/filter", "plugins/test", "plugins/inventory", "plugins/connection"]
    folders += ["extensions/eda/plugins/event_source", "extensions/eda/rulebooks"]
    called = {
        str(path.relative_to(CHECKOUT))
        for folder in folders
        for path in (CHECKOUT / folder).iterdir()
        if path.suffix in (".py", ".yml") and path.name != "__init__.py"
    }
    called |= {f"roles/{path.name}/README.md" for path in (CHECKOUT / "roles").iterdir()}
    # Playbooks have pages, except the demo
    called |= {f"docs/docsite/rst/playbook_{path.stem}.rst" for path in (CHECKOUT / "playbooks").glob("*.yml")}
    assert called - set(links("README.md")) == {"docs/docsite/rst/playbook_demo.rst"}


def test_every_page_is_in_the_table_of_contents_of_the_site() -> None:
    listed = re.findall(r"^ +- (\w+)$", (CHECKOUT / "docs/docsite/extra-docs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (CHECKOUT / "docs/docsite/rst").glob("*.rst"))
