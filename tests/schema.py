# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write docs/conntrack_config.schema.json from the options of the modules and their documentation."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[1]
PUBLISHED = CHECKOUT / "docs/conntrack_config.schema.json"
PLUGINS = "ansible_collections.netops.conntrack.plugins"


def text() -> str:
    """Return the contents of the file."""
    schema = importlib.import_module(f"{PLUGINS}.plugin_utils._json_schema")
    return json.dumps(schema.of_config(documentation()), indent=2) + "\n"


def documentation() -> dict[str, Any]:
    """Return the documentation of a declaration's options, including those that other modules document."""
    sections = module("conntrack_config")["config"]["suboptions"]
    for section, name in (
        (sections["settings"], "conntrack_settings"),
        (sections["timeout_policies"], "conntrack_timeout_policy"),
        (sections["entries"]["suboptions"]["declared"], "conntrack_entry"),
        (sections["expectations"], "conntrack_expectation"),
    ):
        section["suboptions"] = module(name)
    return sections


def module(name: str) -> dict[str, Any]:
    """Return the options in a module's documentation and in its fragments."""
    own = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{name}").DOCUMENTATION)
    options: dict[str, Any] = {}
    for fragment in own["extends_documentation_fragment"]:
        file, _dot, part = fragment.removeprefix("netops.conntrack.").partition(".")
        fragments = importlib.import_module(f"{PLUGINS}.doc_fragments.{file}").ModuleDocFragment
        options.update(yaml.safe_load(getattr(fragments, part.upper() or "DOCUMENTATION")).get("options", {}))
    return {**options, **own["options"]}


if __name__ == "__main__":
    PUBLISHED.write_text(text(), encoding="utf-8")
