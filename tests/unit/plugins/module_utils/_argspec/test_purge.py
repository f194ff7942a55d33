# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that the option `scope` has no documented default and that a null is an error; a null could widen a purge."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.netops.conntrack.plugins.doc_fragments._scope import ModuleDocFragment
from ansible_collections.netops.conntrack.plugins.inventory import flows
from ansible_collections.netops.conntrack.plugins.module_utils._argspec import purge as options
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.modules import conntrack_config, conntrack_snapshot


def scope_of(**given: Any) -> Any:
    validated = ArgumentSpecValidator(options.SCOPE).validate(given)
    assert not validated.error_messages
    module: Any = SimpleNamespace(params=validated.validated_parameters)
    return options.scope_of(module, LabelMap())


def test_scope_is_accepted_with_purge() -> None:
    assert scope_of() is None
    scope = scope_of(purge=True, scope={"zone": 5})
    assert (scope({"zone": 5}), scope({"zone": 6})) == (True, False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scope": None}, "scope: is null"),
        ({"purge": True, "scope": None}, "scope: is null"),
        ({"purge": True}, "scope: is missing"),
        ({"scope": {"zone": 5}}, "scope: has an effect only with purge"),
    ],
)
def test_scope_without_purge_and_purge_without_scope_are_refused(given: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{message}"):
        scope_of(**given)


def test_scope_has_no_documented_default() -> None:
    fragment, snapshot, config, inventory = (
        yaml.safe_load(text)["options"]
        for text in (
            ModuleDocFragment.DOCUMENTATION,
            conntrack_snapshot.DOCUMENTATION,
            conntrack_config.DOCUMENTATION,
            flows.DOCUMENTATION,
        )
    )
    entries = config["config"]["suboptions"]["entries"]["suboptions"]
    for option in (fragment["scope"], snapshot["scope"], entries["scope"], inventory["except"]):
        assert "default" not in option
