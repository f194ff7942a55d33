# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which entries a task means: nothing that is left out or empty ever stands for all of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client import settings
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.options import match as options

Document = Dict[str, Any]


def match_of(**params: Any) -> Any:
    module: Any = SimpleNamespace(params={"match": "everything", "except": "nothing", **params})
    return options.match_of(module, LabelMap())


TCP: Document = {"family": 2, "original.protocol": 6}
UDP: Document = {"family": 2, "original.protocol": 17}


def test_reading_without_a_match_reads_everything() -> None:
    assert match_of()(TCP)
    but_tcp = match_of(**{"except": {"protocol": "tcp"}})
    assert (but_tcp(TCP), but_tcp(UDP)) == (False, True)


def test_match_and_except_are_joined() -> None:
    match = match_of(match={"family": "ipv4"}, **{"except": [{"protocol": "tcp"}]})
    assert (match(TCP), match(UDP)) == (False, True)


@pytest.mark.parametrize("params", [{}, {"except": {"protocol": "tcp"}}])
def test_a_module_that_removes_wants_everything_by_its_name(params: Document) -> None:
    with pytest.raises(InvalidValue, match="or all: true for every one"):
        match_of(all=False, **params)
    assert match_of(all=True, **params)(UDP)


def test_everything_and_a_match_contradict_each_other() -> None:
    with pytest.raises(InvalidValue, match="all: match is given too"):
        match_of(all=True, match={"protocol": "tcp"})
    assert match_of(all=False, match={"protocol": "tcp"})(TCP)


@pytest.mark.parametrize("empty", [[], {}, "", None])
def test_nothing_is_never_taken_for_everything(empty: Any) -> None:
    with pytest.raises(InvalidValue):
        match_of(all=False, match=empty)
    if empty is not None:
        with pytest.raises(InvalidValue, match="except"):
            match_of(all=True, **{"except": empty})


@pytest.mark.parametrize(("key", "need"), [("bytes_above", "accounting"), ("age_below", "timestamps")])
def test_what_the_kernel_does_not_record_is_said_before_it_is_looked_for(monkeypatch: Any, key: str, need: str) -> None:
    asked = []
    off = iter([0, 0, 1, None])

    def read(name: str) -> int | None:
        asked.append(name)
        return next(off)

    monkeypatch.setattr(settings, "read", read)
    for params in ({"match": {key: 1}}, {"except": {"protocol": "tcp", key: 1}}):
        with pytest.raises(InvalidValue, match=f"needs {need}, which is off; set net.netfilter.nf_conntrack_"):
            match_of(**params)
    for _recorded in ("yes", "who knows"):
        match_of(match={key: 1})
    assert set(asked) == {need}


def test_a_null_is_not_taken_for_an_option_left_out() -> None:
    """It is what a template with an undefined variable becomes, and would flush what was to be spared."""
    with pytest.raises(InvalidValue, match="except: is null"):
        match_of(all=True, **{"except": None})
    with pytest.raises(InvalidValue, match="match: is null"):
        match_of(match=None)
