# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks check their variables, and read no others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import Environment, nodes

from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.judgement import STALE
from ansible_collections.netops.conntrack.plugins.plugin_utils._playbooks import (
    PLAYBOOKS,
    BadVariables,
    check_hosts,
    check_inventory,
    check_names,
    check_values,
)
from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

GROUPS = {"all": ["a", "b"], "gateways": ["a"]}
#: Variables and functions of Ansible.
MAGIC = {"ansible_check_mode", "ansible_facts", "ansible_play_hosts_all", "dict", "hostvars", "lookup", "now", "omit"}


@pytest.mark.parametrize(
    ("given", "old", "expected_message"),
    [
        ({"conntrack_mtach"}, set(), "conntrack_mtach: the playbook flush has no such variable; use conntrack_match."),
        ({"conntrack_remove_limit"}, set(), "conntrack_remove_limit: .* use conntrack_limit."),
        ({"conntrack_zone"}, set(), "conntrack_zone: .* use one of conntrack_all, conntrack_batches, "),
        ({"match"}, set(), "match: is accepted only as an extra variable; use conntrack_match."),
        ({"conntrack_a", "conntrack_b"}, set(), r"conntrack_a: .*\. conntrack_b: .*\. Nothing was changed\.$"),
    ],
)
def test_unknown_name_is_refused_with_a_suggestion(given: set[str], old: set[str], expected_message: str) -> None:
    with pytest.raises(BadVariables, match=expected_message):
        check_names("flush", given, old)


@pytest.mark.parametrize("name", ["conntrack_\x1b[2J", "conntrack_\ud800", "conntrack_" + "x" * 100_000])
def test_error_of_an_unknown_name_is_printable(name: str) -> None:
    with pytest.raises(BadVariables, match=r"^conntrack_.*Nothing was changed\.$") as refused:
        check_names("flush", {name}, set())
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 2000


def test_names_of_other_software_are_accepted() -> None:
    check_names("flush", {"conntrack_match", "match", "ansible_become", "zone", "target_hosts"}, {"match"})
    check_inventory("flush", {"conntrack_src", "conntrack_exporter_port", "conntrack_max", "match"})
    # Variables that the inventory plugin `flows` sets
    names = ("address", "family", "gateways", "flows", "bytes", "as_source", "zones", "marks", "labels", "cut")
    for playbook in PLAYBOOKS:
        check_inventory(playbook, {f"conntrack_{name}" for name in names})
    with pytest.raises(BadVariables, match=r"conntrack_excpet: .* use conntrack_except\."):
        check_inventory("flush", {"conntrack_excpet"})


@pytest.mark.parametrize(
    ("name", "given", "expected_message"),
    [
        ("flush", {"all": True, "limit": "many"}, "conntrack_limit: 'many' is not valid; use an integer."),
        ("flush", {"all": True, "limit": None}, "conntrack_limit: is null; leave it out or give it a value."),
        ("flush", {"all": True, "keep_ssh": "maybe"}, "conntrack_keep_ssh: 'maybe' is not valid; use true or false."),
        ("flush", {"all": True, "max_share": "x"}, "conntrack_max_share: 'x' is not valid; use a number."),
        ("flush", {"all": True, "batches": [1, "half"]}, r"conntrack_batches: \[1, 'half'\] is not valid; use numbers"),
        ("flush", {"all": True, "match": {}}, "conntrack_match and conntrack_all: only one of them can be set"),
        ("flush", {"all": False}, "conntrack_match or conntrack_all: is required"),
        ("drain", {}, "conntrack_match: is required. Nothing was changed."),
        ("refresh", {"verdicts": ["refused", "uncertain"]}, "conntrack_verdicts: .* use one or more of nat_changed, "),
        ("refresh", {"verdicts": []}, r"conntrack_verdicts: \[\] is not valid"),
        ("refresh", {"remove_stale": "maybe"}, "conntrack_remove_stale: 'maybe' is not valid; use true or false."),
        ("apply", {"src": ""}, "conntrack_src: '' is not valid; use the path of a file."),
        ("apply", {"src": 5}, "conntrack_src: 5 is not valid"),
        ("preview", {}, "conntrack_ruleset: is required. Nothing was changed."),
        ("preview", {"ruleset": ""}, "conntrack_ruleset: '' is not valid; use the path of a file."),
        (
            "preview",
            {"ruleset": "gw.nft", "ruleset_remote_src": "yes"},
            "conntrack_ruleset: 'gw.nft' is not valid; use the absolute path of a file on the hosts.",
        ),
        (
            "metrics",
            {"metrics_path": "/var/lib/conntrack.txt"},
            "conntrack_metrics_path: .* use the absolute path of a file on the hosts that ends with .prom.",
        ),
        ("metrics", {"metrics_labels": "fra"}, "conntrack_metrics_labels: 'fra' is not valid; use a dictionary."),
        ("report", {"fail_when": "x"}, "conntrack_fail_when: 'x' is not valid; use a dictionary."),
        (
            "preview",
            {"ruleset": "gw.nft", "fail_when": {"drop_above": 0}},
            (
                "conntrack_fail_when.drop_above: the playbook preview does not gather its figure; use one of "
                "usage_percent_above, count_above, stale_percent_above, .*, hosts_without_facts_above. Nothing"
            ),
        ),
        (
            "preview",
            {"ruleset": "gw.nft", "fail_when": {"refused_percent": 0}},
            r"conntrack_fail_when.refused_percent: no such key \(did you mean refused_percent_above\?\)",
        ),
        (
            "report",
            {"fail_when": {"stale_above": 0}},
            (
                "conntrack_fail_when.stale_above: the playbook report does not gather its figure; use one of "
                "usage_percent_above, count_above, drop_above, .*, snat_ports_percent_above, "
                "hosts_without_facts_above. Nothing"
            ),
        ),
        (
            "report",
            {"gather_subset": ["stale", "!min"], "fail_when": {"count_above": 0}},
            "conntrack_fail_when.count_above: the playbook report does not gather its figure; use one of stale_perc",
        ),
    ],
)
def test_a_wrong_value_is_refused(name: str, given: dict[str, Any], expected_message: str) -> None:
    with pytest.raises(BadVariables, match=expected_message):
        check_values(name, given)


def test_thresholds_of_gathered_figures_are_accepted() -> None:
    limits = {"refused_percent_above": 1, "usage_percent_above": "80", "hosts_without_facts_above": 1}
    assert check_values("preview", {"ruleset": "gw.nft", "fail_when": limits})["fail_when"] == limits
    check_values("preview", {"ruleset": "gw.nft", "fail_when": {"drop_above": None}})
    check_values("report", {"fail_when": {"usage_percent_above": 80, "drop_above": 0}})
    check_values("report", {"gather_subset": ["all", "stale"], "fail_when": {"stale_above": 0, "drop_above": 0}})
    # The module conntrack_facts refuses the subset
    check_values("report", {"gather_subset": ["nonesuch"], "fail_when": {"stale_above": 0}})


def test_the_playbook_preview_gathers_the_subsets_of_its_thresholds() -> None:
    (play,) = yaml.safe_load((CHECKOUT / "playbooks/preview.yml").read_text(encoding="utf-8"))
    module = "netops.conntrack.conntrack_facts"
    (gathered,) = [task[module]["gather_subset"] for task in play["tasks"] if module in task]
    assert tuple(gathered) == PLAYBOOKS["preview"].gather_subset


def test_values_are_converted() -> None:
    given = {"match": "x", "limit": "5", "keep_ssh": "no", "max_share": "12.5"}
    assert check_values("flush", given) == {
        **given,
        "limit": 5,
        "keep_ssh": False,
        "max_share": 12.5,
        "max_share_floor": 100,
        "batches": [1, "25%", "100%"],
    }


def test_refresh_selects_all_stale_verdicts_and_requires_confirmation() -> None:
    values = check_values("refresh", {"verdicts": "refused,untracked"})
    assert (values["verdicts"], values["remove_stale"]) == (["refused", "untracked"], False)
    assert tuple(check_values("refresh", {})["verdicts"]) == STALE


def test_relative_path_starts_here_and_path_on_the_hosts_is_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_values("preview", {"ruleset": "gw.nft"})["ruleset"] == str(tmp_path / "gw.nft")
    remote = check_values("preview", {"ruleset": "/etc/../gw.nft", "ruleset_remote_src": True})
    assert (remote["ruleset"], remote["ruleset_remote_src"]) == ("/etc/../gw.nft", True)


@pytest.mark.parametrize(
    ("hosts", "expected_message"),
    [
        ({"target_hosts": None}, "target_hosts: is required; name hosts or groups of the inventory."),
        ({"target_hosts": "c"}, "target_hosts: 'c' matches no host of the inventory, or none within --limit."),
        ({"from_host": None, "to_host": "b"}, "from_host: is required; name a host of the inventory."),
        ({"from_host": "c", "to_host": "b"}, "from_host: 'c' is not a host of the inventory."),
        ({"from_host": "a", "to_host": "gateways"}, "to_host: 'gateways' is not a host of the inventory."),
        ({"from_host": "a", "to_host": "a"}, "from_host and to_host: are the same host; name two hosts."),
    ],
)
def test_wrong_hosts_are_refused(hosts: dict[str, Any], expected_message: str) -> None:
    with pytest.raises(BadVariables, match=expected_message):
        check_hosts(hosts, GROUPS, lambda pattern: GROUPS.get(pattern, [pattern] if pattern in "ab" else []))


def test_only_playbooks_that_read_have_default_hosts() -> None:
    found = {name for name, playbook in PLAYBOOKS.items() if any(playbook.hosts.values())}
    assert found == {"report", "preview", "demo"}


@pytest.mark.parametrize("path", sorted((CHECKOUT / "playbooks").rglob("*.yml")), ids=lambda path: path.stem)
def test_playbooks_read_no_variable_without_prefix(path: Any) -> None:
    """A common name such as `limit` may be a variable of the inventory, or an extra variable of other software."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    parsed = [Environment().parse(text) for text in _templates(content)]
    own = {node.name for tree in parsed for node in tree.find_all(nodes.Name)} - MAGIC
    assert own
    assert {name for name in own if not name.startswith("_conntrack")} == set()
    assert {name for name in _defined(content) if not name.startswith("_conntrack")} == set()


def test_every_playbook_checks_its_variables_first() -> None:
    assert PLAYBOOKS.keys() == {path.stem for path in (CHECKOUT / "playbooks").glob("*.yml")}
    for name in PLAYBOOKS:
        plays = yaml.safe_load((CHECKOUT / f"playbooks/{name}.yml").read_text(encoding="utf-8"))
        lookup = f"{{{{ lookup('netops.conntrack.playbook_variables', '{name}') }}}}"
        assert {play["vars"]["_conntrack"] for play in plays} == {lookup}
        assert {play["hosts"] for play in plays} <= {f"{{{{ _conntrack.{key} }}}}" for key in PLAYBOOKS[name].hosts}
        assert plays[0]["tasks"][0]["ansible.builtin.assert"]["that"] == "_conntrack is mapping"
        # Without it, the other hosts of a play continue if the variables of one host have errors
        assert plays[0].get("any_errors_fatal") or plays[0]["tasks"][0].get("any_errors_fatal"), name


def test_every_variable_is_read() -> None:
    text = {name: (CHECKOUT / f"playbooks/{name}.yml").read_text(encoding="utf-8") for name in PLAYBOOKS}
    text["migrate"] += (CHECKOUT / "playbooks/tasks/move.yml").read_text(encoding="utf-8")
    for name, playbook in PLAYBOOKS.items():
        unread = [each for each in [*playbook.variables, *playbook.hosts] if f"_conntrack.{each}" not in text[name]]
        assert unread == [], name


@pytest.mark.parametrize("name", sorted(PLAYBOOKS.keys() - {"demo"}))
def test_every_variable_is_documented(name: str) -> None:
    """The demo has no page."""
    page = (CHECKOUT / f"docs/docsite/rst/playbook_{name}.rst").read_text(encoding="utf-8")
    rows = re.findall(r"^ {4}\* - (``.*)\n {6}- ?(.*)$", page, re.MULTILINE)
    defaults = {variable: default for names, default in rows for variable in re.findall(r"``(\w+)``", names)}
    playbook = PLAYBOOKS[name]
    assert defaults.keys() == {f"conntrack_{one}" for one in playbook.variables} | playbook.hosts.keys()
    for variable, option in playbook.variables.items():
        if type(option.default) in (int, float):
            assert int(re.sub(r"\D", "", defaults[f"conntrack_{variable}"])) == option.default, variable


CONDITIONS = {"when", "that", "failed_when", "changed_when", "until"}


def _templates(content: Any, condition: bool = False) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _templates(value, condition=key in CONDITIONS)
    elif isinstance(content, list):
        for value in content:
            yield from _templates(value, condition)
    elif isinstance(content, str) and (condition or "{{" in content):
        yield f"{{{{ {content} }}}}" if condition else content


def _defined(content: Any) -> Iterator[str]:
    """Return the names that the playbook itself gives to results and variables."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "register":
                yield value
            elif key in ("vars", "ansible.builtin.set_fact"):
                yield from value
            yield from _defined(value)
    elif isinstance(content, list):
        for value in content:
            yield from _defined(value)
