# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""An inventory reads only its own files, refuses a misspelt option, and uses the cache only for the same options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import ConntrackError
from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.base import FoundInventory, Hosts

OPTIONS: dict[str, Any] = {
    "side": "source",
    "match": "everything",
    "cache": False,
    "strict": False,
    "compose": {},
    "groups": {},
    "keyed_groups": [],
    "use_extra_vars": False,
    "leading_separator": True,
}


class Found(FoundInventory):
    """An inventory of hosts that are named after their options."""

    ENDING = "flows"
    DECISIVE = ("side", "match")
    ansible_name = "netops.conntrack.flows"

    def __init__(self, cache: dict[str, Any] | None = None) -> None:
        super().__init__()
        self._cache = {} if cache is None else cache  # type: ignore[assignment]
        self.asked: list[dict[str, Any]] = []

    def find(self, options: dict[str, Any], folder: str) -> Hosts:
        self.asked.append(options)
        if options["side"] == "neither":
            raise ConntrackError("side: 'neither' is none")
        return {f"host-{options['side']}": {"conntrack_flows": 5, "said": "{{ 7 * 7 }}"}}

    def _read_config_data(self, path: str) -> Any:
        config = self.loader.load_from_file(path, cache="none", trusted_as_template=True)
        self._options = {**OPTIONS, **config}
        self._options = {name: self._options[name] for name in OPTIONS}
        return config

    def get_option(self, option: str, hostvars: Any = None) -> Any:
        return self._options[option]


def parsed(path: Path, text: str, plugin: Found | None = None, cache: bool = True) -> InventoryData:
    path.write_text(f"plugin: netops.conntrack.flows\n{text}")
    inventory = InventoryData()
    (plugin or Found()).parse(inventory, DataLoader(), str(path), cache)
    return inventory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "flows.yml"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *((name, True) for name in ("flows.yml", "flows.yaml", "a.flows.yml", "conntrack_flows.yml", "a-flows.yaml")),
        *((name, False) for name in ("overflows.yml", "flows.json", "flows", "flows.yml.bak", "flows_hosts.yml")),
    ],
)
def test_file_is_recognized_by_its_name(tmp_path: Path, name: str, ours: bool) -> None:
    """Other plugins read a playbook or a list of hosts in the same folder of inventories."""
    assert not Found().verify_file(str(tmp_path / name)), "the file does not exist"
    (tmp_path / name).touch()
    assert Found().verify_file(str(tmp_path / name)) is ours


def test_hosts_have_variables_and_composed_values(file: Path) -> None:
    inventory = parsed(
        file,
        "compose: {twice: conntrack_flows * 2, ansible_user: \"'admin'\"}\n"
        "groups: {busy: conntrack_flows > 4 and twice == 10, idle: conntrack_flows == 0}\n"
        "keyed_groups: [{prefix: flows, key: conntrack_flows | string}, {prefix: named, key: inventory_hostname}]\n",
    )
    variables = inventory.hosts["host-source"].get_vars()
    assert (variables["conntrack_flows"], variables["twice"], variables["ansible_user"]) == (5, 10, "admin")
    assert set(inventory.groups) == {"all", "ungrouped", "busy", "flows_5", "named_host_source"}


def test_found_values_are_no_templates_in_composed_values(file: Path) -> None:
    """This covers the ansible-core of these tests; the tests with Ansible's programs cover the whole path."""
    inventory = parsed(file, "strict: true\ncompose: {again: said, more: \"'<' ~ said ~ '>'\"}\n")
    variables = inventory.hosts["host-source"].get_vars()
    assert (variables["again"], variables["more"]) == ("{{ 7 * 7 }}", "<{{ 7 * 7 }}>")


def test_strict_reports_more_errors(file: Path) -> None:
    broken = "groups: {some: nonsuch > 1}\n"
    assert set(parsed(file, broken).groups) == {"all", "ungrouped"}
    with pytest.raises(AnsibleParserError, match="nonsuch"):
        parsed(file, f"{broken}strict: true\n")
    with pytest.raises(AnsibleParserError, match="^side: 'neither' is none"):
        parsed(file, "side: neither\n")


def test_misspelt_option_is_an_error(file: Path) -> None:
    """Without its match, an inventory would contain all hosts with a flow through the gateway."""
    with pytest.raises(AnsibleParserError, match="^mach: no such option; write one of .*match"):
        parsed(file, "mach: {port: 5432}\n")


def test_options_may_contain_templates(file: Path) -> None:
    plugin = Found()
    parsed(file, 'match: {port: "{{ 5000 + 432 }}", source: [\'{{ "10.0.0.5" }}\']}\n', plugin)
    assert plugin.asked[0]["match"] == {"port": 5432, "source": ["10.0.0.5"]}
    assert plugin.asked[0]["match"]["source"][0].__class__ is str, "the value must have a plain type"
    with pytest.raises(AnsibleParserError, match="^match: .*backend.* is undefined"):
        parsed(file, "match: {source: '{{ backend }}'}\n")


def test_cache_is_used_for_equal_options(file: Path) -> None:
    """The table no longer exists, or the user may not read it."""
    cache: dict[str, Any] = {}
    first, second, third, fourth = (Found(cache) for _turn in range(4))
    parsed(file, "cache: true\n", first)
    assert "host-source" in parsed(file, "cache: true\ncompose: {a: '1'}\n", second).hosts
    assert (len(first.asked), len(second.asked)) == (1, 0)

    parsed(file, "cache: true\n", third, cache=False)
    assert len(third.asked) == 1, "as with --flush-cache"

    assert "host-both" in parsed(file, "cache: true\nside: both\n", fourth).hosts, "other options"
    assert len(cache) == 2


def test_hosts_are_found_again_without_the_cache(file: Path) -> None:
    cache: dict[str, Any] = {}
    for _time in range(2):
        plugin = Found(cache)
        parsed(file, "", plugin)
        assert len(plugin.asked) == 1
    assert cache == {}
