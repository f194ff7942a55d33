# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Render the rulebooks with and without their variables as ansible-rulebook does, without ansible-rulebook."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from jinja2 import StrictUndefined
from jinja2.nativetypes import NativeEnvironment

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.match import stale_of
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.options import (
    Changes,
    Options,
    parse_options,
)

RULEBOOKS = Path(__file__).parents[4] / "extensions/eda/rulebooks"
#: Variables that a rulebook requires.
REQUIRED = {"flush_forbidden": {"forbidden": {"protocol": "udp"}}}
#: Ansible replaces this in the task: the option is then absent.
OMIT = "{{ omit }}"


def rendered(value: Any, variables: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: rendered(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [rendered(item, variables) for item in value]
    if isinstance(value, str) and "{{" in value:
        return NativeEnvironment(undefined=StrictUndefined).from_string(value).render(variables)
    return value


def ruleset_of(name: str) -> Any:
    (ruleset,) = yaml.safe_load((RULEBOOKS / f"{name}.yml").read_text())
    return ruleset


def options_of(name: str, **variables: Any) -> Options:
    (source,) = ruleset_of(name)["sources"]
    return parse_options(rendered(source["netops.conntrack.conntrack"], variables))


def task_of(name: str, **variables: Any) -> Any:
    (rule,) = ruleset_of(name)["rules"]
    return rendered(rule["action"]["run_module"]["module_args"], variables)


@pytest.mark.parametrize("name", sorted(path.stem for path in RULEBOOKS.glob("*.yml")))
def test_required_variables_are_enough(name: str) -> None:
    options_of(name, **REQUIRED.get(name, {}))


def test_flush_stale_without_variables() -> None:
    options = options_of("flush_stale")
    assert (options.groups, options.changes, options.netns) == ((), Changes(), None)
    assert task_of("flush_stale") == {
        "stale": ["nat_changed", "refused", "untracked"],
        "match": OMIT,
        "except": OMIT,
        "limit": OMIT,
        "netns": None,
    }


def test_flush_stale_with_variables() -> None:
    variables = {
        "verdicts": ["refused"],
        "match": [{"protocol": "udp"}, {"zone": 5}],
        "except": {"mark": "0x80"},
        "limit": 5000,
        "netns": "gateway",
        "window": 0.5,
    }
    options = options_of("flush_stale", **variables)
    assert (options.changes, options.netns) == (Changes(window=0.5), "gateway")
    task = task_of("flush_stale", **variables)
    assert task.pop("stale") == variables["verdicts"]
    assert task == {name: variables[name] for name in ("match", "except", "limit", "netns")}


def verdicts_of(value: Any) -> tuple[str, ...]:
    """Return the verdicts that the module reads from the task of flush_stale.

    The list is empty if the task would flush all matching flows.
    """
    task = task_of("flush_stale", verdicts=value, match={"protocol": "udp"})
    module: Any = SimpleNamespace(params={"stale": task["stale"], "table": "conntrack"})
    return stale_of(module)


@pytest.mark.parametrize(
    ("value", "verdicts"),
    [
        (True, ("nat_changed", "refused", "untracked")),
        (["refused", "untracked"], ("refused", "untracked")),
        ("refused", ("refused",)),
    ],
)
def test_verdicts_of_flush_stale(value: Any, verdicts: tuple[str, ...]) -> None:
    assert verdicts_of(value) == verdicts


@pytest.mark.parametrize(
    "value", [False, None, 0, 1, "", "no", "False", "true", "{{ omit }}", [], [False], {}, {"refused": True}], ids=repr
)
def test_flush_stale_refuses_verdicts_that_select_other_flows(value: Any) -> None:
    """With `stale: false`, the module would flush each matching flow."""
    with pytest.raises(InvalidValue, match=r"^stale: .*write "):
        verdicts_of(value)
