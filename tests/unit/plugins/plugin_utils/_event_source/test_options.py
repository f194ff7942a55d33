# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The event source reports a mistake in a rulebook at its start, in one sentence, and never runs without events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jinja2 import StrictUndefined
from jinja2.nativetypes import NativeEnvironment

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.plugin_utils._event_source.options import (
    Aggregate,
    Changes,
    Options,
    Threshold,
    parse_options,
)

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"mach": {}}, "mach: no such key (did you mean match?)"),
    ({"groups": ["new", "old"]}, "groups: 'old' is not a group; write some of new, update, destroy, expectation_new"),
    ({"groups": [{}]}, "groups: {} is not a group"),
    ({"groups": []}, "groups: is empty, and there is nothing else to report; set groups, threshold, snat_ports"),
    ({"match": None}, "match: is null; leave it out or give it a value"),
    ({"except": None}, "except: is null"),
    ({"match": {}}, "match"),
    ({"match": {"souce": "10.0.0.1"}}, "match.souce: "),
    ({"except": {"port": "99999"}}, "except.port: "),
    ({"netns": ""}, "netns: '' is not a name or path"),
    ({"netns": 5}, "netns: 5 is not a name or path"),
    ({"netns": []}, "netns: [] names no namespaces; write a name, a path, a list of names and paths, or all"),
    ({"netns": ["blue", "all"]}, "netns: ['blue', 'all'] names no namespaces"),
    (
        {"netns": "all", "threshold": {"percent": 80}},
        "threshold: applies to one namespace, and netns names several; write one in netns, or leave threshold out",
    ),
    ({"netns": ["blue"], "changes": {}}, "changes: applies to one namespace, and netns names several"),
    ({"label_map": "/nowhere/connlabel.conf"}, "label_map: /nowhere/connlabel.conf: No such file"),
    ({"aggregate": 10}, "aggregate: 10 is not a dictionary; write some of window, by, limit"),
    ({"aggregate": {"windows": 1}}, "aggregate.windows: no such key (did you mean window?)"),
    ({"aggregate": {"window": 0}}, "aggregate.window: 0 is out of range; write a number from 0.1 to 86400"),
    ({"aggregate": {"window": "nan"}}, "aggregate.window: 'nan' is out of range"),
    ({"aggregate": {"by": "port"}}, "aggregate.by: 'port' cannot be counted by; write some of family, zone"),
    ({"aggregate": {"limit": 0}}, "aggregate.limit: 0 is out of range"),
    (
        {"aggregate": {}, "groups": ["expectation_new"]},
        "aggregate: counts new, update and destroy, and groups has none",
    ),
    ({"threshold": {}}, "threshold.percent: is missing"),
    ({"snat_ports": {"below": 3}}, "snat_ports.percent: is missing"),
    ({"snat_ports": {"percent": 80, "below": 90}}, "snat_ports.below: 90 is not between 0 and percent, 80"),
    ({"threshold": {"percent": 101}}, "threshold.percent: 101 is out of range; write a number from 0.001 to 100"),
    ({"threshold": {"percent": True}}, "threshold.percent: True is out of range"),
    ({"threshold": {"percent": 1 << 20_000}}, "threshold.percent: an integer of thousands of digits is out of range"),
    ({"aggregate": 1 << 20_000}, "aggregate: an integer of thousands of digits is not a dictionary"),
    ({"threshold": {"percent": 50, "below": 60}}, "threshold.below: 60 is not between 0 and percent, 50"),
    (
        {"threshold": {"percent": 50, "below": 0}},
        "threshold.below: 0 is not between 0 and percent, 50; write a number above 0 and up to 50",
    ),
    ({"threshold": {"percent": 50, "interval": 0}}, "threshold.interval: 0 is out of range"),
    ({"threshold": {"percent": 50, "interval": 10**400}}, "threshold.interval: 1"),
    ({"changes": True}, "changes: True is not a dictionary; write some of kinds, window"),
    ({"changes": {"kind": "route"}}, "changes.kind: no such key"),
    (
        {"changes": {"kinds": ["routes"]}},
        "changes.kinds: 'routes' is not a kind of change; write some of ruleset, address, route, rule, link",
    ),
    ({"changes": {"kinds": []}}, "changes.kinds: is empty; write some of ruleset, address"),
    ({"changes": {"window": 0}}, "changes.window: 0 is out of range; write a number from 0.1 to 86400"),
    ({"resync": "maybe"}, "resync: 'maybe' is neither; write true or false"),
    ({"existing": 1}, "existing: 1 is neither"),
    ({"existing": True, "resync": False}, "existing: needs the table to be read"),
    ({"receive_buffer": "much"}, "receive_buffer: 'much' is not a number"),
    (
        {"match": {"bytes_above": 5}, "resync": False},
        "match: uses counters or ages, which only destroy events have",
    ),
]


@pytest.mark.parametrize(("args", "sentence"), FAULTS, ids=[sentence for _args, sentence in FAULTS])
def test_error_names_the_option_and_the_remedy(args: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_options(args)
    assert str(caught.value).startswith(sentence)


def test_defaults_select_all_events() -> None:
    assert parse_options({})._replace(labels=None, match=None) == Options(labels=None, match=None)


def test_empty_values_of_templates_are_ignored() -> None:
    options = parse_options({"netns": None, "threshold": {"percent": 80, "below": None}, "label_map": None})
    assert options.netns is None
    assert options.threshold == Threshold(80, 72, 10)


def test_numbers_and_booleans_may_be_text() -> None:
    """Values from environment variables are text."""
    options = parse_options(
        {
            "resync": "False",
            "receive_buffer": "4096",
            "aggregate": {"window": "2.5", "by": "source", "limit": "7"},
        }
    )
    assert (options.resync, options.receive_buffer) == (False, 4096)
    assert options.aggregate == Aggregate(2.5, ("source",), 7)


@pytest.mark.parametrize(
    ("changes", "parsed"),
    [
        ({}, Changes()),
        ({"kinds": None, "window": None}, Changes()),
        ({"kinds": "route", "window": "0.5"}, Changes(("route",), 0.5)),
        ({"kinds": ["link", "ruleset", "link"]}, Changes(("link", "ruleset"), 5)),
        (None, None),
    ],
)
def test_changes_may_be_the_only_events(changes: dict[str, Any] | None, parsed: Changes | None) -> None:
    options = parse_options({"groups": [], "changes": changes, "threshold": {"percent": 80}})
    assert options.changes == parsed
    assert changes is None or parse_options({"groups": [], "changes": changes}).groups == ()


def test_except_excludes_entries_from_the_match() -> None:
    options = parse_options({"match": {"protocol": "udp"}, "except": {"zone": 5}})
    entry = {"family": 2, "original.protocol": 17}
    assert options.match(entry)
    assert not options.match({**entry, "zone": 5})
    assert not options.match({**entry, "original.protocol": 6})


def test_match_accepts_label_names(tmp_path: Path) -> None:
    path = tmp_path / "connlabel.conf"
    path.write_text("3 forbidden\n")
    options = parse_options({"label_map": str(path), "match": {"labels": ["forbidden"]}})
    assert options.match({"labels": 1 << 3})
    assert not options.match({"labels": 1 << 4})


def test_groups_of_entries_and_expectations_are_separated() -> None:
    options = parse_options({"groups": ["expectation_new", "new", "new"]})
    assert (options.entry_groups, options.expectation_groups) == (("new",), ("expectation_new",))


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"match": "{{ forbidden }}"}, "match"),
        ({"match": [{"source": ["10.0.0.1", "{{ forbidden }}"]}]}, "match[0].source[1]"),
        ({"aggregate": {"window": "{{ forbidden }}"}}, "aggregate.window"),
    ],
)
def test_error_names_an_unset_variable(options: dict[str, Any], path: str) -> None:
    """ansible-rulebook passes a Jinja object in its place."""
    with pytest.raises(InvalidValue) as refused:
        parse_options(rendered(options))
    assert str(refused.value) == f"{path}: the variable forbidden is not set; set forbidden in the file of --vars"


def rendered(value: Any) -> Any:
    """Return the options without any variable, as ansible-rulebook renders them."""
    if isinstance(value, dict):
        return {key: rendered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rendered(item) for item in value]
    return NativeEnvironment(undefined=StrictUndefined).from_string(value).render()


def test_all_and_a_list_are_several_namespaces() -> None:
    several = {"blue": False, "/run/netns/all": False, "all": True}
    assert {name: parse_options({"netns": name}).several for name in several} == several
    assert parse_options({"netns": ["blue"]}).several
    assert not parse_options({}).several
