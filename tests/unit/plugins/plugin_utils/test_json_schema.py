# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The published schema is the one that the controller uses, and contains exactly the modules' options."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ansible_collections.netops.conntrack.plugins.module_utils._argspec.config import CONFIG, outline
from ansible_collections.netops.conntrack.plugins.plugin_utils import _json_schema
from ansible_collections.netops.conntrack.plugins.plugin_utils._json_schema import plain_text
from tests.schema import PUBLISHED, text


def test_published_schema_is_current() -> None:
    """Run `make schema` if this fails."""
    assert PUBLISHED.read_text(encoding="utf-8") == text()


def test_published_schema_is_valid_and_equals_that_of_the_controller() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(published)
    assert _undescribed(published) == _undescribed(_json_schema.of_config())
    assert published["$id"].endswith(f"/docs/{PUBLISHED.name}")


def _undescribed(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _undescribed(item)
            for key, item in value.items()
            if not (key == "description" and isinstance(item, str))
        }
    return [_undescribed(item) for item in value] if isinstance(value, list) else value


def objects(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Return every schema of a dictionary that has keys of its own, with its path."""
    if isinstance(value, dict):
        if isinstance(value.get("properties"), dict) and "additionalProperties" in value:
            yield path, value
        for key, item in value.items():
            yield from objects(item, f"{path}/{key}")


def test_no_dictionary_accepts_other_keys() -> None:
    found = dict(objects(json.loads(PUBLISHED.read_text(encoding="utf-8"))))
    assert len(found) > 20
    assert [path for path, value in found.items() if value["additionalProperties"] is not False] == []


def test_schema_describes_all_options() -> None:
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))

    def check(options: dict[str, Any], where: Any) -> int:
        assert set(options) == set(where["properties"])
        count = len(options)
        for name, option in options.items():
            below = where["properties"][name]
            assert below.get("description"), name
            if "options" in option:
                count += check(option["options"], below["items"] if option["type"] == "list" else below)
        return count

    assert check(CONFIG, published) > 150


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("V(tcp), V(a-b) and C(-j CT)", "tcp, a-b and -j CT"),
        ("as M(netops.conntrack.conntrack_entry) does", "as netops.conntrack.conntrack_entry does"),
        ("at O(netops.conntrack.conntrack_info#module:table=expect).", "at table=expect."),
        ("see RV(netops.conntrack.conntrack_info#module:entries)", "see entries"),
        ("O(replace) of L(the guide, https://x.org) E(HOME)", "replace of the guide HOME"),
        ("O(ignore:match) and TCP(7)", "match and TCP(7)"),
        (["One.", "V(two)."], "One.\ntwo."),
    ],
)
def test_descriptions_have_no_markup(marked: Any, plain: str) -> None:
    assert plain_text(marked) == plain


def test_options_of_the_module_are_the_first_levels() -> None:
    sections = outline()
    assert list(sections) == list(CONFIG)
    assert set(sections["entries"]["options"]) == set(CONFIG["entries"]["options"])
    assert "options" not in sections["settings"]
