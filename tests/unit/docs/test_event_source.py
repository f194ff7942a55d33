# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page of the event source is current, and Galaxy finds the event source."""

from __future__ import annotations

import runpy
from typing import Any

import yaml

from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT
from ansible_collections.netops.conntrack.tests.event_source import PUBLISHED, SOURCE, text


def test_the_page_is_current() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == text(), "run 'make pages'"


def test_the_page_has_every_option_without_markup() -> None:
    page = text()
    options: dict[str, Any] = yaml.safe_load(runpy.run_path(str(SOURCE))["DOCUMENTATION"])["options"]
    names = list(options)
    names += [f"{name}.{below}" for name, option in options.items() for below in option.get("suboptions", {})]
    assert [name for name in names if f"\n    * - ``{name}``\n" not in page] == []
    assert [markup for markup in "BCEILMOPRUV" if f"{markup}(" in page] == []


def test_all_folders_with_plugins_are_listed_as_extensions() -> None:
    """Galaxy shows the plugins of Event-Driven Ansible only if this file names their folders."""
    listed = yaml.safe_load((CHECKOUT / "meta/extensions.yml").read_text(encoding="utf-8"))["extensions"]
    folders = {str(path.parent.relative_to(CHECKOUT / "extensions")) for path in CHECKOUT.glob("extensions/**/*.py")}
    assert [extension["args"]["ext_dir"] for extension in listed] == sorted(folders)
