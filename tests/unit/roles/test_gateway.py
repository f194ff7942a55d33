# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role gateway has the options of the module conntrack_config as variables, and its documentation is complete."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import yaml

from ansible_collections.netops.conntrack.tests import schema
from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

ROLE = CHECKOUT / "roles/gateway"
PREFIX = "gateway_conntrack_"


def test_ansible_doc_shows_the_options_of_the_module() -> None:
    documented = json.loads(
        subprocess.run(
            [sys.executable, "-m", "ansible", "doc", "--type", "role", "--json", "netops.conntrack.gateway"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    options = documented["netops.conntrack.gateway"]["entry_points"]["main"]["options"]
    details = ("type", "default")
    module = {name: [option.get(key) for key in details] for name, option in schema.module("conntrack_config").items()}
    assert {name: [option.get(key) for key in details] for name, option in options.items()} == {
        f"{PREFIX}{name}": about for name, about in module.items()
    }
    with_default = {name: option["default"] for name, option in options.items() if "default" in option}
    assert yaml.safe_load((ROLE / "defaults/main.yml").read_text()) == with_default
    listed = re.findall(rf"^\| `({PREFIX}\w+)`", (ROLE / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(options)


def test_each_variable_reaches_the_module() -> None:
    applied = yaml.safe_load((ROLE / "tasks/main.yml").read_text())[-1]["netops.conntrack.conntrack_config"]
    assert applied.keys() == schema.module("conntrack_config").keys()
    for name, value in applied.items():
        assert re.fullmatch(rf"\{{\{{ {PREFIX}{name}( \| default\(omit\))? \}}\}}", value)
