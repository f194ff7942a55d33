# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that a file has the same content in each format, and that an error message contains the line number."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils._source.file import (
    SourceFault,
    config_in,
    entries_in,
    parse,
    read,
    shown,
)
from ansible_collections.netops.conntrack.plugins.plugin_utils._src_task import as_lines

ENTRY = {"protocol": "udp", "original": {"source": "10.0.0.1"}, "labels": [], "mark": 16, "status": None}
OTHER = {"protocol": "tcp", "counters": {"packets": 1.5}, "helper": "ftp: x", "ä": "\n", "zone": True}

texts = st.text(alphabet="aß:\"'#-é 1.0~!&*\n\t{}[]", max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
documents = st.lists(st.dictionaries(texts, values, min_size=1), min_size=1, max_size=3)


@given(documents)
def test_each_format_has_the_same_content(declared: list[Any]) -> None:
    for data, name in (
        (json.dumps(declared), "a.json"),
        (json.dumps(declared), "a"),
        (json.dumps(declared, indent=2), "a"),
        (json.dumps(declared), "a.yml"),
        (as_lines(declared), "a.jsonl"),
        (as_lines(declared), "a"),
        (yaml.safe_dump(declared, allow_unicode=True), "a.yaml"),
        (yaml.safe_dump_all(declared), "a"),
        (json.dumps({"entries": declared}), "a"),
    ):
        assert entries_in(parse(data.encode(), name), name) == declared, (name, data)


def test_a_byte_order_mark_and_the_flow_style_of_yaml() -> None:
    assert parse(b"\xef\xbb\xbf{protocol: udp, zone: 5,}\n", "a.yml") == [{"protocol": "udp", "zone": 5}]


def test_empty_list_declares_no_entries() -> None:
    for data in (b"[]", b"--- []\n", b"entries: []\n", as_lines([]).encode()):
        assert entries_in(parse(data, "a"), "a") == []


def test_yaml_scalars_are_not_converted_to_other_types() -> None:
    """An address of digits must not become a number of base 60, and a time must keep its nanoseconds."""
    text = b"source: 1:2:3:4:5:6:7:8\nstart: 2030-01-31T12:00:00.123456789Z\nday: 2030-01-31\nmark: 0x10\nlow: -5\n"
    assert parse(text, "a.yml") == [
        {
            "source": "1:2:3:4:5:6:7:8",
            "start": "2030-01-31T12:00:00.123456789Z",
            "day": "2030-01-31",
            "mark": 16,
            "low": -5,
        }
    ]


def test_anchors_and_merges() -> None:
    text = b"- &a {protocol: udp, zone: 1}\n- {<<: *a, zone: 2}\n- *a\n"
    udp = {"protocol": "udp", "zone": 1}
    assert parse(text, "a.yml") == [[udp, {**udp, "zone": 2}, udp]]


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b'[{"a": 1},\n {"b": }]', "a.json", "a.json line 2: is not valid JSON, column 8: Expecting value"),
        (b'{"a": 1}\n\n{"b": 1\n', "a.jsonl", "a.jsonl line 3: is not valid JSON"),
        (b'{"a": 1}\n{"b": 1}\n{"c"\n', "a", "a line 3: "),
        (b'{"a": 1} {"b": 1}\n', "a.json", "a.json line 1: is not valid JSON, column 10: Extra data"),
        (b'{\n"a": 1}\n{"b": 1}\n', "a.json", "a.json line 3: is not valid JSON, column 1: Extra data"),
        (b"a: 1\nb: [1\nc: 2\n", "a.yml", "a.yml line 3: "),
        (b"a: 1\n\tb: 2\n", "a.yml", "a.yml line 2: "),
        (b"a: 1\nb: \x00\n", "a.yml", "a.yml line 2: is not valid YAML"),
        (b"a: 1\nb: \xff\n", "a.yml", "a.yml line 2: is not UTF-8; save it as UTF-8"),
        (b"a: 1\nb:\n  c: 2\n  c: 3\n", "a.yml", "a.yml line 4: the key 'c' occurs twice; write it once"),
        (b'{"a": {"b": 1,\n "b": 2}}', "a.json", "a.json line 2: the key 'b' occurs twice; write it once"),
        (b'{"a": 1}\n{"b": 1, "b": 2}\n', "a.jsonl", "a.jsonl line 2: the key 'b' occurs twice; write it once"),
        (b'{"a": 1}\n{"b": 1, "b": 2}\n', "a", "a line 2: the key 'b' occurs twice; write it once"),
        (b'{"a":\n NaN}', "a.json", "a.json: NaN is not a number"),
        (b"a: 1\non: 2\n", "a.yml", "a.yml line 2: a key that is not text, 'on'; write it in quotes"),
        (b"a: 1\n? [b]\n: 2\n", "a.yml", "a.yml line 2: a key that is not text"),
        (
            b"a: 1\nb: !vault |\n  $ANSIBLE_VAULT\n",
            "a.yml",
            "a.yml line 2: !vault cannot be part .* must be a whole file",
        ),
        (b"a: !!binary aGk=\n", "a.yml", "a.yml line 1: .*binary cannot be part of a declaration"),
        (b"a: !!set {b}\n", "a.yml", "a.yml line 1: .*set cannot be part of a declaration"),
        (b"a: 1\nb: &b [*b]\n", "a.yml", "a.yml line 2: found unconstructable recursive node"),
        (b"a: *b\n", "a.yml", "a.yml line 1: found undefined alias"),
        (b"[" * 100_000, "a.json", "a.json: is nested too deeply to declare anything"),
    ],
)
def test_syntax_error_is_reported_with_its_line(data: bytes, name: str, message: str) -> None:
    with pytest.raises(SourceFault, match=message) as fault:
        parse(data, name)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("number", ["0x" + "f" * 4000, "0" + "7" * 6000, "0b" + "1" * 20000, "-0x" + "f_" * 3000 + "f"])
def test_an_integer_of_thousands_of_digits_in_yaml(number: str) -> None:
    """Python parses such an integer but refuses to convert it to text."""
    message = f"^a.yml line 2: an integer of {len(number)} characters; no value is longer than 128 bits$"
    with pytest.raises(SourceFault, match=message):
        parse(f"- mark: 0x{'f' * 32}\n- mark: {number}\n".encode(), "a.yml")


@pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="this Python reads such integers")
def test_an_integer_of_thousands_of_digits_in_json() -> None:
    number = b"9" * 5000
    for data, name, where in (
        (b"[%b]" % number, "a.json", "a.json"),
        (b"{}\n[%b]\n" % number, "a.jsonl", "a.jsonl line 2"),
    ):
        with pytest.raises(SourceFault, match=f"^{where}: has an integer of thousands of digits; no value is longer"):
            parse(data, name)
    with pytest.raises(SourceFault, match="^a.yml line 1: an integer of 5000 characters"):
        parse(b"[%b]" % number, "a.yml")


@pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="this Python shows such integers")
def test_an_integer_of_thousands_of_digits_is_shown_in_words() -> None:
    assert shown({"mark": 1 << 20_000}) == "an integer of thousands of digits"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "a: declares no list of entries; write one, \\[\\] for none"),
        ([None], "a: declares no list of entries"),
        (["protocol"], "a: declares no list of entries"),
        ([{"entries": {"protocol": "udp"}}], "a: declares no list of entries"),
        ([[ENTRY, "udp"]], r"a: \[1\] is 'udp', not an entry"),
        ([[ENTRY, "x" * 999]], r"a: \[1\] is 'x{59}\.\.\., not an entry"),
    ],
)
def test_other_content_than_a_list_of_entries_is_refused(found: list[Any], message: str) -> None:
    """An empty file is a truncated file and not a declaration, which a purge could apply."""
    with pytest.raises(SourceFault, match=message):
        entries_in(found, "a")


@pytest.mark.parametrize("found", [[], [None], [[]], [ENTRY, OTHER]])
def test_other_content_than_one_dictionary_is_refused(found: list[Any]) -> None:
    with pytest.raises(SourceFault, match="a: is not a dictionary"):
        config_in(found, "a")
    assert config_in([ENTRY], "a") == ENTRY


def test_without_pyyaml_only_json_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert parse(b'[{"a": 1}]', "a.yml") == [[{"a": 1}]]
    with pytest.raises(
        SourceFault, match="^a.yml: is not valid JSON, and YAML requires PyYAML, which is not installed; write JSON$"
    ):
        parse(b"a: 1\n", "a.yml")
    with pytest.raises(SourceFault, match="^a.json: the key 'a' occurs twice; write it once$"):
        parse(b'{"a": 1,\n "a": 2}', "a.json")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SourceFault, match="^src: .*/flows.yml cannot be read: No such file or directory"):
        read(str(tmp_path / "flows.yml"))


def test_aliases_that_expand_beyond_the_limit_are_refused() -> None:
    """A few lines of nested aliases, ten levels of nine each, expand to three thousand million values."""
    lines = ["- &a0 {zone: 1}", *(f"- &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10))]
    with pytest.raises(SourceFault, match=r"^a.yml line 2: aliases that stand for more than 1,0\d\d,\d\d\d characters"):
        parse(("---\n" + "\n".join(lines)).encode(), "a.yml")
    with pytest.raises(SourceFault, match="found unconstructable recursive node"):
        parse(b"- &a [*a]\n", "a.yml")


def test_one_alias_in_many_entries_is_accepted() -> None:
    base = "".join(f"  key{number}: {'x' * 40}\n" for number in range(100))
    text = f"- &base\n{base}" + "- {<<: *base, zone: 2}\n" * 500
    assert len(parse(text.encode(), "a.yml")[0]) == 501
