# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module does alike: options that take what is gathered, one sentence for every failure."""

from __future__ import annotations

from typing import Any, Dict

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.netops.conntrack.plugins.module_utils import module as common
from ansible_collections.netops.conntrack.plugins.module_utils.client import settings as sysctl
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError, InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.shape import parse
from ansible_collections.netops.conntrack.plugins.module_utils.reconcile import CannotReconcile
from ansible_collections.netops.conntrack.tests.unit.plugins.module_utils.client.corpus import ANSWERS

Document = Dict[str, Any]

NOTHING = {"operation": "unchanged", "before": {}, "changes": []}


class Ended(Exception):
    """What a module ends with."""


class FakeModule:
    """As much of AnsibleModule as is used."""

    def __init__(self, **params: Any) -> None:
        self.params: Document = {"match": "everything", "except": "nothing", **params}
        self.check_mode = False

    def exit_json(self, **result: Any) -> None:
        raise Ended({"failed": False, **result})

    def fail_json(self, **result: Any) -> None:
        raise Ended({"failed": True, **result})


def run(task: Any, **params: Any) -> Document:
    """What a module ends with that has this task."""
    with pytest.raises(Ended) as ended:
        common.run(FakeModule(**params), task, NOTHING)  # type: ignore[arg-type]
    result: Document = ended.value.args[0]
    return result


def raising(error: Exception) -> Any:
    def task(module: Any) -> None:
        raise error

    return task


# results


def test_a_result_is_returned_as_it_is() -> None:
    assert run(lambda module: {"changed": True}) == {"failed": False, "changed": True}


def test_a_bad_value_changed_nothing_and_the_keys_are_there() -> None:
    result = run(raising(InvalidValue("mark", "is too wide; write 32 bits")))
    assert result == {
        "failed": True,
        "changed": False,
        "msg": "mark: is too wide; write 32 bits. Nothing was changed.",
        **NOTHING,
    }


def test_a_failure_halfway_says_what_was_done() -> None:
    error = CannotReconcile("refused", "updated", [], {"changed": True, "operation": "updated"})
    result = run(raising(error))
    assert result == {"failed": True, "msg": "refused", **NOTHING, "changed": True, "operation": "updated"}


def test_other_errors_of_ours_are_one_sentence_and_foreign_ones_are_not_hidden() -> None:
    assert run(raising(ConntrackError("load the module"))) == {"failed": True, "msg": "load the module", **NOTHING}
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))


# options


@pytest.mark.parametrize("sample", ANSWERS, ids=lambda sample: sample.name)
def test_what_is_gathered_passes_through_the_options_and_means_the_same(sample: Any) -> None:
    result = ArgumentSpecValidator(common.ENTRY).validate(sample.document)
    assert not result.error_messages
    declared = common.declared_entry(result.validated_parameters)
    assert parse(declared) == parse(sample.document)


def test_every_key_of_an_entry_is_an_option_and_no_other() -> None:
    with pytest.raises(InvalidValue) as fault:
        parse({"protocol": "tcp", "colour": 1})
    known = fault.value.problem.rpartition("write one of ")[2].split(", ")
    assert sorted(common.ENTRY) == known


def test_numbers_may_be_written_as_yaml_has_them() -> None:
    flow = {"source": "10.0.0.1", "destination": "10.0.0.2", "source_port": "1", "destination_port": 2}
    document = {"protocol": 17, "original": flow, "mark": 16, "labels": [1, "2"], "nat": {"source": {"port": 5}}}
    result = ArgumentSpecValidator(common.ENTRY).validate(document)
    assert not result.error_messages
    entry = parse(common.declared_entry(result.validated_parameters))
    assert (entry["mark"], entry["labels"], entry["original.source_port"], entry["nat.source.port_min"]) == (
        16,
        6,
        1,
        5,
    )


def test_options_of_the_policy_default_to_what_is_safe() -> None:
    defaults = {name: option["default"] for name, option in common.PRESENT.items()}
    assert defaults == {"state": "present", "on_existing": "update", "replace": False, "timeout_min": 0}


def test_limits_are_not_negative() -> None:
    common.check_not_negative(FakeModule(limit=1, top=0), "limit", "top")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="top: -1 is negative"):
        common.check_not_negative(FakeModule(top=-1), "top")  # type: ignore[arg-type]


def test_zone_0_is_what_an_entry_without_a_zone_is_in() -> None:
    """Its default is a number and not null, so that Ansible itself refuses a null."""
    assert common.ENTRY["zone"]["default"] == 0
    params = {**dict.fromkeys(common.ENTRY), "zone": 0}
    assert common.declared_entry({**params, "mark": "1"}) == {"mark": "1"}
    assert common.declared_entry({**params, "zone": 5}) == {"zone": 5}


# matches


def match_of(**params: Any) -> Any:
    return common.match_of(FakeModule(**params), LabelMap())  # type: ignore[arg-type]


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

    monkeypatch.setattr(sysctl, "read", read)
    for params in ({"match": {key: 1}}, {"except": {"protocol": "tcp", key: 1}}):
        with pytest.raises(InvalidValue, match=f"needs {need}, which is off; set net.netfilter.nf_conntrack_"):
            match_of(**params)
    for _recorded in ("yes", "who knows"):
        match_of(match={key: 1})
    assert set(asked) == {need}


def test_labels_come_from_the_map_that_is_named(tmp_path: Any) -> None:
    file = tmp_path / "connlabel.conf"
    file.write_text("5 voip\n", encoding="utf-8")
    assert common.labels_of(FakeModule(label_map=str(file))).bits == {"voip": 5}  # type: ignore[arg-type]


# the namespace


@pytest.mark.parametrize(
    ("name", "path"),
    [("blue", "/run/netns/blue"), ("/proc/7/ns/net", "/proc/7/ns/net"), ("./ns", "./ns")],
)
def test_a_namespace_has_a_name_or_a_path_and_is_entered_first(monkeypatch: Any, name: str, path: str) -> None:
    entered: list[str] = []
    monkeypatch.setattr(common.namespace, "enter", entered.append)
    assert run(lambda module: {"seen": list(entered)}, netns=name)["seen"] == [path]


def test_without_one_nothing_is_entered(monkeypatch: Any) -> None:
    monkeypatch.setattr(common.namespace, "enter", lambda path: pytest.fail("entered"))
    assert run(lambda module: {}, netns=None) == {"failed": False}


def test_an_empty_name_is_not_the_hosts_own_namespace() -> None:
    """A flush of a tenant's table would be one of the gateway's."""
    result = run(lambda module: pytest.fail("ran in the wrong namespace"), netns="")
    assert result["failed"]
    assert result["msg"].startswith("netns: is empty")


def test_a_namespace_that_is_not_there_is_one_sentence() -> None:
    result = run(lambda module: pytest.fail("ran outside"), netns="/nowhere/net")
    assert result["failed"]
    assert "netns: cannot enter /nowhere/net: No such file or directory; name a namespace" in result["msg"]


def test_a_null_is_not_taken_for_an_option_left_out() -> None:
    """It is what a template with an undefined variable becomes, and would flush what was to be spared."""
    with pytest.raises(InvalidValue, match="except: is null"):
        match_of(all=True, **{"except": None})
    with pytest.raises(InvalidValue, match="match: is null"):
        match_of(match=None)
