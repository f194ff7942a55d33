# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the match options: a missing or empty value must never select every entry."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.netops.conntrack.plugins.doc_fragments._match import ModuleDocFragment
from ansible_collections.netops.conntrack.plugins.module_utils._argspec import match as options
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.host import sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.judgement import STALE
from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

Document = Dict[str, Any]
#: How the modules that change entries document that they require a match.
REQUIRED = "Required unless O(all=true), or C(stale) is set in a module with this option."


def match_of(**params: Any) -> Any:
    module: Any = SimpleNamespace(params={"match": "everything", "except": "nothing", **params})
    return options.match_of(module, LabelMap())


TCP: Document = {"family": 2, "original.protocol": 6}
UDP: Document = {"family": 2, "original.protocol": 17}


def test_reading_without_a_match_selects_every_entry() -> None:
    assert match_of()(TCP)
    but_tcp = match_of(**{"except": {"protocol": "tcp"}})
    assert (but_tcp(TCP), but_tcp(UDP)) == (False, True)


def test_match_and_except_are_joined() -> None:
    match = match_of(match={"family": "ipv4"}, **{"except": [{"protocol": "tcp"}]})
    assert (match(TCP), match(UDP)) == (False, True)


def test_a_match_may_be_json_text() -> None:
    match = match_of(match='{"family": "ipv4"}', **{"except": '[{"protocol": "tcp"}]'})
    assert (match(TCP), match(UDP)) == (False, True)
    with pytest.raises(InvalidValue, match="match: 'all' is not a match; write a dictionary"):
        match_of(match="all")


@pytest.mark.parametrize("params", [{}, {"except": {"protocol": "tcp"}}])
def test_module_that_removes_entries_requires_a_match_or_all(params: Document) -> None:
    with pytest.raises(InvalidValue, match="or all: true for every one"):
        match_of(all=False, **params)
    assert match_of(all=True, **params)(UDP)


def test_all_and_match_are_mutually_exclusive() -> None:
    with pytest.raises(InvalidValue, match="all: match is set, too"):
        match_of(all=True, match={"protocol": "tcp"})
    assert match_of(all=False, match={"protocol": "tcp"})(TCP)


@pytest.mark.parametrize("empty", [[], {}, "", None])
def test_empty_match_does_not_select_every_entry(empty: Any) -> None:
    with pytest.raises(InvalidValue):
        match_of(all=False, match=empty)
    if empty is not None:
        with pytest.raises(InvalidValue, match="except"):
            match_of(all=True, **{"except": empty})


@pytest.mark.parametrize(("key", "need"), [("bytes_above", "accounting"), ("age_below", "timestamps")])
def test_match_on_unrecorded_data_reports_the_setting_that_is_off(monkeypatch: Any, key: str, need: str) -> None:
    settings_read = []
    off = iter([0, 0, 1, None])

    def read(name: str) -> int | None:
        settings_read.append(name)
        return next(off)

    monkeypatch.setattr(sysctl, "read", read)
    for params in ({"match": {key: 1}}, {"except": {"protocol": "tcp", key: 1}}):
        with pytest.raises(InvalidValue, match=f"requires {need}, which is off; set net.netfilter.nf_conntrack_"):
            match_of(**params)
    for _recorded in ("yes", "unknown"):
        match_of(match={key: 1})
    assert set(settings_read) == {need}


def test_null_is_not_treated_as_an_omitted_option() -> None:
    """A template with an undefined variable can produce a null. A flush would then remove the excluded entries."""
    with pytest.raises(InvalidValue, match="except: is null"):
        match_of(all=True, **{"except": None})
    with pytest.raises(InvalidValue, match="match: is null"):
        match_of(match=None)


@pytest.mark.parametrize("given", [{}, {"match": None, "except": None, "limit": None}])
def test_omitted_options_are_distinguished_from_null(given: Document) -> None:
    """A template with an undefined variable can produce a null, which must not lift a limit or select every entry."""
    spec = {**options.REQUIRED_MATCH, **options.LIMIT}
    validated = ArgumentSpecValidator(spec).validate(given)
    assert not validated.error_messages
    absent = {"match": "everything", "except": "nothing", "limit": 0xFFFFFFFF}
    assert validated.validated_parameters == (given or absent)


def test_only_reading_modules_document_every_entry_as_the_default() -> None:
    reading, changing = (
        yaml.safe_load(text)["options"] for text in (ModuleDocFragment.DOCUMENTATION, ModuleDocFragment.CHANGING)
    )
    assert reading["match"]["default"] == options.MATCH["match"]["default"]
    assert "By default, every entry is selected." in reading["match"]["description"]
    assert REQUIRED in changing["match"]["description"]
    assert not any("default" in option for option in (*changing.values(), reading["except"]))


def test_only_conntrack_counters_changes_entries_without_a_match() -> None:
    """The guarantees name this module. A restore without a match is limited to the entries of the snapshot."""
    modules = {path.stem: path.read_text(encoding="utf-8") for path in (CHECKOUT / "plugins/modules").glob("*.py")}
    optional = {name for name, text in modules.items() if "**MATCH" in text}
    reading = {"conntrack_info", "conntrack_facts", "conntrack_snapshot"}
    assert optional - reading == {"conntrack_counters"}
    guarantees = CHECKOUT / "docs/docsite/rst/guide_guarantees.rst"
    assert "The only other exception is ``conntrack_counters``" in guarantees.read_text(encoding="utf-8")


def test_both_documentation_fragments_describe_the_same_keys() -> None:
    """ansible-test accepts only literal text in a fragment, so neither fragment can be derived from the other."""
    reading, changing = (
        yaml.safe_load(text)["options"] for text in (ModuleDocFragment.DOCUMENTATION, ModuleDocFragment.CHANGING)
    )
    assert reading["match"].pop("default") == "everything"
    for match in (reading["match"], changing["match"]):
        match["description"].remove("By default, every entry is selected." if match is reading["match"] else REQUIRED)
    assert reading == changing


def test_stale_selects_every_kind_of_stale_flow() -> None:
    """The option has its own list because a task without the option does not import the original list."""
    module: Any = SimpleNamespace(params={"stale": True, "table": "conntrack"})
    assert options.stale_of(module) == STALE
