# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random valid declarations for a gateway, and ways to make them wrong."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.config import CONFIG, WORDS
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.document import from_document
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.entry import identity
from ansible_collections.netops.conntrack.tests.unit.support.declarations import declarations, some_of

Document = dict[str, Any]
Path = tuple[Any, ...]

FTP = {"source": "10.1.0.2", "destination": "192.0.2.21", "source_port": 1400, "destination_port": 21}
DATA = {"protocol": "tcp", "source": "192.0.2.21", "destination": "10.1.0.2", "destination_port": 4000}
#: Matches with every kind of value. None of them matches the entries of `declarations`.
MATCHES = [
    {"source": "192.0.2.0/24", "destination": ["192.0.2.1-192.0.2.9", "2001:db8:77::/48"]},
    {"protocol": ["tcp", 17], "port": ["https", "8000-8010", 22], "zone": 99, "state": "established"},
    {"mark": "0x70/0xf0", "except": [{"zone": [7, 8]}, {"icmp_type": 8}]},
    {"zone": 77, "status": ["assured"], "labels_not": 5, "nat": ["any", "none"], "expected": True},
    {"zone": 78, "bytes_above": 5, "age_below": "0x10", "helper": "ftp", "family": "ipv4"},
    [{"zone": 79}, {"address": "2001:db8:77::1", "labels": ["voice", 7]}],
]

matches = st.sampled_from(MATCHES)
truths = st.sampled_from([True, False, 1, 0, *WORDS])
timeouts = st.dictionaries(st.sampled_from(["established", "close"]), st.integers(1, 999), min_size=1)
policies = st.one_of(
    st.fixed_dictionaries(
        {"name": st.just("web"), "family": st.just("ipv4"), "protocol": st.just("tcp"), "timeouts": timeouts}
    ),
    st.fixed_dictionaries({"name": st.just("web"), "state": st.just("absent")}, optional={"use": st.just(1)}),
    st.fixed_dictionaries({"default": st.sampled_from([True, "yes"]), "protocol": st.just(6), "timeouts": timeouts}),
)
expectations = st.fixed_dictionaries(
    {"tuple": st.just(DATA), "master": st.just(FTP)},
    optional={
        "mask": st.just({"source_port": 0}),
        "flags": st.sampled_from([[], ["permanent"], "permanent"]),
        "nat": st.just({"direction": "reply", "tuple": {"source_port": 7}}),
        "state": st.sampled_from(["present", "absent"]),
        "replace": truths,
        "class": st.integers(0, 9),
        "zone": st.just(5),
    },
)


@st.composite
def entries(draw: Any) -> Document:
    """Return the section, with and without a purge."""
    found = {"declared": draw(st.lists(declarations(), max_size=3, unique_by=lambda one: identity(from_document(one))))}
    found.update(draw(some_of(on_existing=st.sampled_from(["update", "keep", "fail"]), replace=truths)))
    if draw(st.booleans()):
        found.update(purge=draw(st.sampled_from([True, "yes", 1])), scope=draw(matches))
    return found


@st.composite
def configs(draw: Any) -> Document:
    """Return a valid declaration, written in one of the accepted ways."""
    config = draw(
        some_of(
            settings=st.fixed_dictionaries(
                {"max": st.integers(0, 9)},
                optional={"accounting": truths, "persist": truths, "timeouts": st.just({"udp": 5, "icmp": "7"})},
            ),
            timeout_policies=st.lists(policies, max_size=1),
            absent=st.lists(matches, max_size=3),
            entries=entries(),
            expectations=st.lists(expectations, max_size=1),
        ).filter(bool)
    )
    config = copy.deepcopy(config)
    for path, value, option in draw(st.permutations(list(leaves(config))))[:4]:
        put(config, path, draw(st.sampled_from(likewise(value, option))))
    if draw(st.booleans()):
        section = draw(st.sampled_from(sorted(config)))
        config.setdefault("expectations" if section != "expectations" else "settings", None)
        if isinstance(config[section], dict):
            config[section].setdefault("timeouts" if section == "settings" else "timeout_min", None)
    return config


def likewise(value: Any, option: Mapping[str, Any]) -> list[Any]:
    """Return the ways to write a value of an option."""
    ways = [value]
    if option["type"] == "int" and isinstance(value, int):
        ways += [str(value), f" {value} "] + ([hex(value)] if value >= 0 else [])
    if option["type"] == "list" and option["elements"] == "str" and isinstance(value, list):
        ways += value if len(value) == 1 else []
    return ways


def leaves(config: Document) -> Iterator[tuple[Path, Any, Mapping[str, Any]]]:
    """Yield the path of each value of an option, the value, and the option."""

    def below(value: Any, options: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any, Mapping[str, Any]]]:
        for name, item in value.items():
            option, here = options[name], (*path, name)
            if "options" not in option or item is None:
                yield here, item, option
            elif option["type"] == "list":
                for place, one in enumerate(item):
                    yield from below(one, option["options"], (*here, place))
            else:
                yield from below(item, option["options"], here)

    yield from below(config, CONFIG, ())


def at(config: Any, path: Path) -> Any:
    for step in path:
        config = config[step]
    return config


def put(config: Any, path: Path, value: Any) -> None:
    at(config, path[:-1])[path[-1]] = value


def named(path: Path) -> str:
    """Format a path as error messages do."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


#: Dictionaries whose keys are not those of options, or are the kernel's.
FREE = ("counters", "timestamps", "extra", "timeouts")


@st.composite
def wrong_configs(draw: Any) -> tuple[Document, str]:
    """Return a declaration with one fault, and the path of the fault."""
    config = draw(configs())
    values = [(path, value, option) for path, value, option in leaves(config) if value is not None]
    groups = [(), *{path[:cut] for path, _value, _option in values for cut in range(1, len(path))}]
    groups = [path for path in groups if isinstance(at(config, path), dict)]
    kind = draw(st.sampled_from(["key", "type", "range"]))
    numbers = [path for path, _value, option in values if option["type"] == "int"]
    if kind == "range" and numbers:
        path = draw(st.sampled_from(numbers))
        put(config, path, draw(st.sampled_from([-(1 << 40), 1 << 70, str(1 << 70), "-0x1", "1.5", 0.5])))
        return config, named(path)
    if kind == "type" and values:
        path, value, _option = draw(st.sampled_from(values))
        wrong: list[Any] = [[[]], {"x": 1}, [{"x": 1}], 1 << 70]
        if isinstance(value, (dict, list)):
            # A single label is a list with one name, which may be in the target's label map
            wrong = [3.7] if path[-1] == "labels" else ["x y", 3.7]
        put(config, path, draw(st.sampled_from(wrong)))
        return config, named(path)
    path = draw(st.sampled_from(sorted(groups, key=repr)))
    put(config, (*path, "nonesuch"), draw(st.sampled_from([1, "x", {}, []])))
    return config, named((*path, "nonesuch"))
