# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test what a task over several namespaces returns and does, with tasks whose results are known."""

from __future__ import annotations

import errno
from typing import Any, Callable, Dict, Iterator

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations import namespaces
from ansible_collections.netops.conntrack.plugins.module_utils._operations.namespaces import (
    SomeFailed,
    flush_in_each,
    run_in_each,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import (
    ConntrackError,
    InvalidValue,
    PartialFailure,
)
from ansible_collections.netops.conntrack.plugins.module_utils.client.host.namespaces import HostNamespace, Unreadable
from ansible_collections.netops.conntrack.plugins.module_utils.client.table_reader import UNLIMITED

Document = Dict[str, Any]

NAMES = ("own", "blue", "red")
FOUND = [HostNamespace(name, (4, number), (f"/run/netns/{name}",)) for number, name in enumerate(NAMES)]


class Module:
    """The part of AnsibleModule that the code under test uses, and the namespace that it is in."""

    def __init__(self, check_mode: bool = False, **params: Any) -> None:
        self.check_mode = check_mode
        self.params: Document = {"netns": "all", "table": "conntrack", **params}
        self.inside = ""


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> Document:
    """Replace the namespaces of this host. `ended` and `refused` have names of those that cannot be entered."""
    host: Document = {"unreadable": None, "ended": set(), "refused": set(), "module": None}

    def visit(wanted: list[HostNamespace]) -> Iterator[tuple[HostNamespace, OSError | None]]:
        for one in wanted:
            if one.netns not in host["ended"]:
                host["module"].inside = one.netns
                yield one, OSError(errno.EPERM, "Refused") if one.netns in host["refused"] else None

    monkeypatch.setattr(namespaces, "find_all", lambda: (FOUND, host["unreadable"]))
    monkeypatch.setattr(namespaces, "visit", visit)
    return host


def result_of(host: Document, work: Any, module: Module, task: Callable[[Module], Document]) -> Document:
    host["module"] = module
    result: Document = work(module, task)
    return result


def failure_of(host: Document, work: Any, module: Module, task: Callable[[Module], Document]) -> SomeFailed:
    with pytest.raises(SomeFailed) as failed:
        result_of(host, work, module, task)
    return failed.value


# reading


def test_result_has_sums_at_the_top_and_details_per_namespace(host: Document) -> None:
    def read(module: Module) -> Document:
        long = module.inside == "red"
        return {
            "entries": [module.inside],
            "matched": len(module.inside),
            "truncated": long,
            "verdicts": {"refused": 1},
        }

    assert result_of(host, run_in_each, Module(), read) == {
        "matched": 10,
        "truncated": True,
        "verdicts": {"refused": 3},
        "namespaces": [
            {
                "netns": name,
                "processes": [],
                "entries": [name],
                "matched": len(name),
                "truncated": name == "red",
                "verdicts": {"refused": 1},
            }
            for name in NAMES
        ],
    }


def test_facts_keep_their_key_and_kernel_wide_facts_appear_once(host: Document) -> None:
    def gather(module: Module) -> Document:
        facts = {"count": 2, "capabilities": {"probed": True}, "settings": {}}
        return {"ansible_facts": {"conntrack": facts}, "warnings": ["settings are empty"]}

    result = result_of(host, run_in_each, Module(), gather)
    assert result == {
        "ansible_facts": {
            "conntrack": {
                "count": 6,
                "capabilities": {"probed": True},
                "namespaces": [{"netns": name, "processes": [], "count": 2, "settings": {}} for name in NAMES],
            }
        },
        "warnings": [f"{name}: settings are empty" for name in NAMES],
    }


def test_option_that_fails_in_all_namespaces_is_reported_once(host: Document) -> None:
    def refuse(module: Module) -> Document:
        raise InvalidValue("limit", "is null")

    with pytest.raises(InvalidValue, match="^limit: is null$"):
        result_of(host, run_in_each, Module(), refuse)


def test_failed_namespace_has_an_error_and_the_others_have_results(host: Document) -> None:
    def read(module: Module) -> Document:
        if module.inside == "blue":
            raise PartialFailure("blue is partly broken", {"matched": 1})
        if module.inside == "own":
            raise InvalidValue("match", "requires accounting")
        return {"matched": 3}

    host["unreadable"] = Unreadable("/proc/7/ns/net", PermissionError(errno.EACCES, "Permission denied"), 2)
    failed = failure_of(host, run_in_each, Module(), read)
    assert str(failed) == (
        "netns: the task failed in 3 of 4 namespaces, first in /proc/7/ns/net: cannot identify the network namespaces "
        "of 2 processes, such as /proc/7/ns/net: Permission denied; run as root on the host itself (become: true). See "
        "the key namespaces for the result of each"
    )
    assert failed.result["matched"] == 4
    assert [(each["netns"], each.get("matched"), each.get("msg", "")[:16]) for each in failed.result["namespaces"]] == [
        ("own", None, "match: requires "),
        ("blue", 1, "blue is partly b"),
        ("red", 3, ""),
        ("/proc/7/ns/net", None, "cannot identify "),
    ]


def test_inaccessible_namespace_fails_and_ended_namespace_does_not(host: Document) -> None:
    host["refused"], host["ended"] = {"blue"}, {"red"}
    failed = failure_of(host, run_in_each, Module(), lambda module: {"matched": 1})
    assert [each["netns"] for each in failed.result["namespaces"]] == ["own", "blue"]
    assert failed.result["namespaces"][1]["msg"].startswith("cannot enter /run/netns/blue: Refused; name a namespace")


def test_ruleset_is_refused_for_several_namespaces(host: Document) -> None:
    with pytest.raises(InvalidValue, match="^ruleset: .* netns names several; write one namespace in netns"):
        result_of(host, run_in_each, Module(ruleset="/etc/nftables.conf"), lambda module: pytest.fail("ran"))


# flushes


class Tables:
    """A flush of the tables of all namespaces, by name, as `conntrack_flush` does it in one of them."""

    def __init__(self, **entries: int) -> None:
        self.entries = dict(entries)
        self.calls: list[tuple[str, bool, int]] = []

    def remove(self, module: Module) -> Document:
        limit, count = module.params["limit"], self.entries[module.inside]
        self.calls.append((module.inside, module.check_mode, limit))
        if count > limit:
            raise PartialFailure(f"{count} match. Nothing was removed", {"changed": False, "flushed": 0, "entries": []})
        if not module.check_mode:
            self.entries[module.inside] = 0
        shown = list(range(count))[: module.params["report_limit"]]
        text = "".join(f"{number}\n" for number in shown)
        return {
            "changed": count > 0,
            "flushed": count,
            "will_return": count,
            "kept": 0,
            "entries": shown,
            "diff": {"before": text, "after": ""},
        }


def flushing(limit: Any = UNLIMITED, report_limit: int = 100, **more: Any) -> Module:
    return Module(limit=limit, report_limit=report_limit, **more)


def test_without_a_limit_each_table_is_read_once(host: Document) -> None:
    tables = Tables(own=1, blue=0, red=2)
    result = result_of(host, flush_in_each, flushing(), tables.remove)
    assert tables.calls == [(name, False, UNLIMITED) for name in NAMES]
    assert (result["changed"], result["flushed"], result["kept"]) == (True, 3, 0)
    assert result["diff"] == [
        {"before_header": name, "after_header": name, "before": before, "after": ""}
        for name, before in zip(NAMES, ("0\n", "", "0\n1\n"))
    ]


def test_the_limit_is_compared_with_the_sum_before_anything_is_removed(host: Document) -> None:
    tables = Tables(own=4, blue=0, red=5)
    failed = failure_of(host, flush_in_each, flushing(8), tables.remove)
    assert str(failed) == (
        "9 entries match in 2 namespaces, more than the limit of 8: 5 in red, 4 in own. Nothing was removed: narrow "
        "the match or raise the limit"
    )
    assert tables.entries == {"own": 4, "blue": 0, "red": 5}
    assert (failed.result["changed"], failed.result["flushed"]) == (False, 0)
    assert "diff" not in failed.result
    assert (failed.result["will_return"], [each["will_return"] for each in failed.result["namespaces"]]) == (
        0,
        [0, 0, 0],
    )
    assert [(each["changed"], each["flushed"], len(each["entries"])) for each in failed.result["namespaces"]] == [
        (False, 0, 3),
        (False, 0, 0),
        (False, 0, 3),
    ]


def test_within_the_limit_tables_with_matching_entries_are_read_again(host: Document) -> None:
    tables = Tables(own=4, blue=0, red=5)
    result = result_of(host, flush_in_each, flushing(9, report_limit=6), tables.remove)
    assert tables.calls == [
        ("own", True, UNLIMITED),
        ("blue", True, UNLIMITED),
        ("red", True, UNLIMITED),
        ("own", False, 9),
        ("red", False, 5),
    ]
    assert tables.entries == {"own": 0, "blue": 0, "red": 0}
    assert [(each["netns"], each["flushed"]) for each in result["namespaces"]] == [("own", 4), ("blue", 0), ("red", 5)]
    assert [len(each["entries"]) for each in result["namespaces"]] == [4, 0, 2], "the sum is the report limit"


def test_check_mode_with_a_limit_removes_nothing(host: Document) -> None:
    tables = Tables(own=4, blue=0, red=5)
    result = result_of(host, flush_in_each, flushing(9, check_mode=True), tables.remove)
    assert (result["changed"], result["flushed"]) == (True, 9)
    assert tables.entries == {"own": 4, "blue": 0, "red": 5}


def test_entries_that_begin_after_the_count_do_not_exceed_the_limit(host: Document) -> None:
    tables = Tables(own=4, blue=0, red=5)

    def remove(module: Module) -> Document:
        if not module.check_mode:
            tables.entries["red"] = 7
        return tables.remove(module)

    failed = failure_of(host, flush_in_each, flushing(10), remove)
    assert tables.entries == {"own": 0, "blue": 0, "red": 7}
    assert (failed.result["changed"], failed.result["flushed"]) == (True, 4)
    assert str(failed).startswith("netns: the task failed in 1 of 3 namespaces, first in red: 7 match. Nothing was")


@pytest.mark.parametrize("limit", [UNLIMITED, 9])
def test_a_listed_namespace_that_has_ended_is_reported(
    host: Document, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(namespaces, "find", lambda wanted: [one for one in FOUND if one.netns in wanted])
    host["ended"] = {"red"}
    tables = Tables(own=1, blue=2, red=5)
    failed = failure_of(host, flush_in_each, flushing(limit, netns=["blue", "red"]), tables.remove)
    assert "1 of 2 namespaces, first in red: netns: red ended during the task; leave it out of the list" in str(failed)
    assert (failed.result["flushed"], failed.result["changed"]) == (2, True)
    assert tables.entries == {"own": 1, "blue": 0, "red": 5}


def test_namespace_that_ends_after_the_count_is_omitted(host: Document) -> None:
    tables = Tables(own=4, blue=0, red=5)

    def remove(module: Module) -> Document:
        host["ended"] = {"own"} if module.inside == "red" else set()
        return tables.remove(module)

    result = result_of(host, flush_in_each, flushing(9), remove)
    assert [each["netns"] for each in result["namespaces"]] == ["blue", "red"]
    assert (result["flushed"], len(result["diff"])) == (5, 2)


@pytest.mark.parametrize("limit", [None, -1])
def test_invalid_limit_is_refused_by_the_task(host: Document, limit: Any) -> None:
    def remove(module: Module) -> Document:
        raise InvalidValue("limit", f"{module.params['limit']} is wrong")

    with pytest.raises(InvalidValue, match=f"^limit: {limit} is wrong"):
        result_of(host, flush_in_each, flushing(limit), remove)


def test_an_error_in_one_namespace_does_not_stop_the_flush_of_the_others(host: Document) -> None:
    tables = Tables(own=4, blue=1, red=5)

    def remove(module: Module) -> Document:
        if module.inside == "blue":
            raise ConntrackError("load the module")
        return tables.remove(module)

    failed = failure_of(host, flush_in_each, flushing(9), remove)
    assert tables.entries == {"own": 0, "blue": 1, "red": 0}
    assert (failed.result["flushed"], failed.result["namespaces"][1]["msg"]) == (9, "load the module")
