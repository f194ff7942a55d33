# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller refuses exactly the wrong declarations, and reports the path of every fault."""

from __future__ import annotations

import builtins
import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from ansible_collections.netops.conntrack.plugins.module_utils._argspec import config as options
from ansible_collections.netops.conntrack.plugins.module_utils._source.file import SourceFault
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.plugin_utils import _json_schema
from ansible_collections.netops.conntrack.plugins.plugin_utils._config_validation import faults_of
from ansible_collections.netops.conntrack.tests.profiles import examples
from ansible_collections.netops.conntrack.tests.unit.support.configs import Document, configs, wrong_configs

LABELS = LabelMap({"voice": 5})
VALIDATOR = Draft202012Validator(_json_schema.of_config())

FLOW = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": 1000, "destination_port": 80}
ENTRY: Document = {"protocol": "tcp", "original": FLOW}
POLICY: Document = {"name": "web", "family": "ipv4", "protocol": "tcp", "timeouts": {"established": 60}}
#: An integer of thousands of digits.
HUGE = 1 << 20_000
EXPECTATION: Document = {"tuple": {"protocol": "tcp", "destination": "10.0.0.2", "destination_port": 5}}


def paths(document: Any) -> list[str]:
    return [fault.key for fault in faults_of(document).found]


@examples(200)
@given(configs())
def test_valid_declaration_is_accepted(config: Document) -> None:
    given = copy.deepcopy(config)
    assert [str(error) for error in VALIDATOR.iter_errors(config)] == []
    assert str(options.read_declaration(config, LABELS)[1].found) == "[]"
    assert not faults_of(config)
    assert config == given


@examples(400)
@given(wrong_configs())
def test_fault_is_reported_with_its_path(wrong: tuple[Document, str]) -> None:
    config, path = wrong
    found = paths(config)
    assert any(path == one or path.startswith((f"{one}.", f"{one}[")) or one.startswith(path) for one in found), found


@examples(400)
@given(wrong_configs())
def test_schema_accepts_everything_that_the_parsers_accept(wrong: tuple[Document, str]) -> None:
    """Otherwise an editor with the schema would mark valid declarations."""
    config, _path = wrong
    if not options.read_declaration(config, LABELS)[1]:
        assert [error.message for error in VALIDATOR.iter_errors(config)] == []


def test_all_faults_are_reported_at_once() -> None:
    config: Document = {
        "settings": {"max": -1, "accounting": "maybe", "timeouts": {"udp": -1, "tcp": "x"}, "nonesuch": 1},
        "timeout_policies": [{"name": "web"}, 3, {**POLICY, "state": "gone", "timeouts": {"nonesuch": 1}}],
        "absent": [
            {},
            {"source": "10.0.0.0/33", "state": "nope", "mark": 1, "except": {"port": [1, "99999"]}},
            {"zone": None},
        ],
        "entries": {
            "declared": [
                ENTRY,
                {**ENTRY, "mark": "0x10/0x0f", "original": {**FLOW, "source_port": 70000, "destination": "10.0.0"}},
                {"original": FLOW, "nonesuch": 5, "labels": [300], "tcp": {"state": {}}},
                "tcp",
            ],
            "purge": True,
            "on_existing": "replace",
        },
        "expectations": [{**EXPECTATION, "timeout_min": -5, "class": "x"}, {"tuple": {"protocol": "tcp"}}],
        "nonesuch": {},
    }
    assert sorted(set(paths(config))) == [
        "absent[0]",
        "absent[1].except.port",
        "absent[1].source",
        "absent[1].state",
        "absent[2].zone",
        "entries.declared[1].mark",
        "entries.declared[1].original.destination",
        "entries.declared[1].original.source_port",
        "entries.declared[2].labels",
        "entries.declared[2].nonesuch",
        "entries.declared[2].protocol",
        "entries.declared[2].tcp.state",
        "entries.declared[3]",
        "entries.on_existing",
        "entries.scope",
        "expectations[0].class",
        "expectations[0].timeout_min",
        "expectations[1].tuple.destination",
        "nonesuch",
        "settings.accounting",
        "settings.max",
        "settings.nonesuch",
        "settings.timeouts.tcp",
        "settings.timeouts.udp",
        "timeout_policies[0].family",
        "timeout_policies[0].protocol",
        "timeout_policies[1]",
        "timeout_policies[2].state",
        "timeout_policies[2].timeouts.nonesuch",
    ]
    message = str(faults_of(config))
    assert message.startswith("29 errors:\n- nonesuch: no such key; write one of absent, entries, expectations, ")
    assert "\n- and " in message
    assert all(path in message for path in paths(config))
    assert all(line.startswith("- ") for line in message.splitlines()[1:])


@pytest.mark.parametrize(
    ("config", "expected_message"),
    [
        (5, "5 is not a dictionary; write keys and values"),
        ({}, "Nothing is declared; write at least one of settings, timeout_policies, absent, entries, expectations"),
        ({"entries": None}, "Nothing is declared"),
        ({"settings": {}}, "settings: No setting is declared"),
        ({"settings": {"persist": True}}, "settings: No setting is declared"),
        ({"settings": []}, r"settings: \[\] is not a dictionary"),
        ({"absent": {"zone": 5}}, r"absent: \{'zone': 5\} is not a list; write one"),
        (
            {"timeout_policies": [{"name": True, "protocol": "tcp", "timeouts": {"close": 5}}]},
            r"timeout_policies\[0\].name: True is not text; write it in quotes",
        ),
        (
            {"timeout_policies": [{"name": ["a"], "protocol": "tcp", "timeouts": {"close": 5}}]},
            r"timeout_policies\[0\].name: \['a'\] is not text; write one text",
        ),
        (
            {"absent": [{"port": ["nonesuch service", 1]}]},
            r"absent\[0\].port: 'nonesuch service' is not the name of a service",
        ),
        (
            {"entries": {"declared": [], "purge": True}},
            "entries.scope: is missing; write which entries purge may remove",
        ),
        *(
            (
                {"entries": {"purge": True, "scope": {"zone": 5}, **declared}},
                r"entries.declared: is missing; write the entries that must exist, \[\] for none",
            )
            for declared in ({}, {"declared": None})
        ),
        ({"entries": {"declared": [], "scope": {"zone": 5}}}, "entries.scope: has an effect only with purge"),
        ({"entries": {"declared": [], "purge": True, "scope": None}}, "entries.scope: is null; leave it out"),
        (
            {"entries": {"declared": [ENTRY, ENTRY]}},
            r"entries.declared\[1\]: declares the same entry as entries.declared\[0\]",
        ),
        (
            {"entries": {"declared": [ENTRY, {**ENTRY, "zone": 5, "timeout": 4}], "timeout_min": 5}},
            "entries.timeout_min: ",
        ),
        (
            {"entries": {"declared": [ENTRY]}, "absent": [{"zone": 0}]},
            r"entries.declared\[0\]: must exist, but when",
        ),
        ({"timeout_policies": [{**POLICY, "name": None}]}, r"timeout_policies\[0\].name: is missing"),
        ({"timeout_policies": [POLICY, POLICY]}, r"timeout_policies\[1\].name: timeout_policies\[0\] has the same"),
        ({"expectations": [{}]}, r"expectations\[0\].tuple.protocol: is missing"),
        ({"expectations": [{**EXPECTATION, "timeout_min": 5}]}, r"expectations\[0\].timeout_min: there is no timeout"),
    ],
)
def test_one_fault_is_one_sentence(config: Any, expected_message: str) -> None:
    with pytest.raises(AssertionError, match=rf"^{expected_message}"):
        raise AssertionError(str(faults_of(config)))


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"settings": {"max": HUGE}}, "settings.max"),
        ({"settings": {"persist": HUGE}}, "settings.persist"),
        ({"settings": {"timeouts": {"udp": HUGE}}}, "settings.timeouts.udp"),
        ({"timeout_policies": [HUGE]}, r"timeout_policies\[0\]"),
        ({"entries": HUGE}, "entries"),
        ({"entries": {"declared": [HUGE]}}, r"entries.declared\[0\]"),
        ({"absent": [{"port": HUGE}]}, r"absent\[0\].port"),
        ({"expectations": HUGE}, "expectations"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_integer_of_thousands_of_digits_is_a_fault(config: Any, path: str) -> None:
    """Python refuses to print it, but the module must not end with a traceback."""
    assert re.match(rf"{path}: an integer of thousands of digits ", str(faults_of(config)))


@pytest.mark.parametrize(
    ("policy", "wrong"),
    [
        ({"protocol": "tpc", "timeouts": {"established": -1}}, ["name", "protocol", "timeouts.established"]),
        (
            {"timeouts": {"established": -1, "close": "x"}},
            ["name", "protocol", "timeouts.close", "timeouts.established"],
        ),
        ({"name": "x" * 50, "family": "ipv5", "protocol": "tcp", "timeouts": 5}, ["family", "name", "timeouts"]),
        (
            {"name": "x", "default": True, "family": "ipv4", "protocol": "icmpv6", "timeouts": {"a": 1, "timeout": -1}},
            ["default", "family", "timeouts.a", "timeouts.timeout"],
        ),
        ({"state": "absent", "default": True, "protocol": "tpc"}, ["protocol", "state"]),
        ({"state": "absent", "name": "x", "use": 1}, []),
    ],
)
def test_all_errors_of_a_timeout_policy(policy: Document, wrong: list[str]) -> None:
    assert sorted(paths({"timeout_policies": [policy]})) == [f"timeout_policies[0].{key}" for key in wrong]


@pytest.mark.parametrize(
    "match",
    [
        {"port": "no-such-service"},
        {"labels": ["no-such-label", "no such label", "no/such"]},
        {"master": {"destination_port": "no-such-service"}},
    ],
)
def test_names_of_the_target_are_checked_only_there(match: Document) -> None:
    """A controller without /etc/services or the label map would otherwise refuse valid declarations."""
    config = {
        "absent": [match],
        "entries": {"declared": [], "purge": True, "scope": [match, {"zone": 5, "except": match}]},
    }
    text = json.dumps(match)
    in_text = {
        "absent": [text],
        "entries": {"declared": [], "purge": True, "scope": json.dumps([match, {"zone": 5, "except": text}])},
    }
    for document in (config, in_text):
        assert not faults_of(document)
        assert options.read_declaration(document, LABELS)[1]


@pytest.mark.parametrize("section", ["absent", "scope"])
def test_a_document_of_too_many_levels_is_refused(section: str) -> None:
    match: Document = {"mark": 1}
    for _level in range(2000):
        match = {"mark": 1, "except": match}
    document = {"absent": [match]} if section == "absent" else {"entries": {"declared": [], "scope": match}}
    with pytest.raises(SourceFault, match="nested too deeply"):
        faults_of(document)


def test_missing_jsonschema_is_reported_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *more: Any) -> Any:
        if name.startswith("jsonschema"):
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(SourceFault, match="^This module requires the Python package jsonschema .* pip install"):
        faults_of({"absent": []})
