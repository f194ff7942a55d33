# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the label names, because a wrong bit marks the wrong connections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry import labels as labels_module
from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.tests.profiles import examples

pytestmark = pytest.mark.portability

CONF = """\
# services
0   eth0-in
1\teth0-out   # a comment
127 last

5 5th
7 12
9 test label 1
"""


def test_the_format_of_connlabel_conf() -> None:
    labels = LabelMap.parse(CONF.splitlines(), "connlabel.conf")
    expected = {"eth0-in": 0, "eth0-out": 1, "last": 127, "5th": 5, "12": 7, "test label 1": 9}
    assert labels.bits == expected
    assert labels.to_bits(["last", 3, "eth0-in", "0x2"], "labels") == [127, 3, 0, 2]
    assert labels.to_bits("eth0-in", "labels") == [0]
    assert labels.to_names([0, 2, 127]) == ["eth0-in", 2, "last"]
    assert labels.to_bits("12", "labels") == [7], "a name that looks like a number is a name"
    assert labels.to_bits(12, "labels") == [12]


@pytest.mark.parametrize(
    ("lines", "bits"),
    [
        (["3 voice", "4 voice"], {"voice": 3}),
        (["3 voice", "3 telephone"], {"voice": 3}),
        (["3 voice", "3 video", "4 video"], {"voice": 3, "video": 4}),
        (["3 voice", "4 voice", "4 video"], {"voice": 3, "video": 4}),
        (["010 ten", "0x1f thirty-one", "+2 two", "00 none"], {"ten": 8, "thirty-one": 31, "two": 2, "none": 0}),
        (["  6\t a  b \t\r\n"], {"a  b": 6}),
        (["5th"], {"th": 5}),
        (["089 rest"], {"89 rest": 0}),
        # Only nftables uses these; they follow the names that both programs use
        (["3 voice_in", "3 voice", "4 eth0.5"], {"voice": 3, "eth0.5": 4}),
        (["3 voice # of the first floor", "4 voice"], {"voice": 4}),
    ],
)
def test_first_definition_applies_as_in_the_c_library(lines: Any, bits: Any) -> None:
    assert LabelMap.parse(lines, "x").bits == bits


@examples(40)
@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True), st.integers(0, 127)))
def test_bits_are_converted_to_names_and_back(bits: Any) -> None:
    labels = LabelMap.parse([f"{bit} {name}" for name, bit in bits.items()], "x")
    every = list(range(128))
    assert labels.to_bits(labels.to_names(every), "labels") == every


@pytest.mark.parametrize(
    "line",
    ["1024 high", "-1 low", "x y", "1", "1 ", "1.5 half", "\u0661 digit", "True name", " # x", "1 \x1b[2J", "9" * 99],
)
def test_an_unusable_line_is_skipped(line: str) -> None:
    assert LabelMap.parse(["0 fine", line, "2 good"], "connlabel.conf").bits == {"fine": 0, "good": 2}


def test_bit_out_of_range_is_an_error_only_if_its_name_is_used() -> None:
    labels = LabelMap.parse(["3 voice", "128 high", "1023 highest", "4 high"], "connlabel.conf")
    assert labels.bits == {"voice": 3}, "the C library takes bit 128 for high, so bit 4 is not meant"
    with pytest.raises(InvalidValue, match=r"'high' is bit 128 in connlabel\.conf, but the kernel has bits 0 to 127"):
        labels.to_bits(["voice", "high"], "labels")


@pytest.mark.parametrize("item", ["unknown", "", " ", 128, -1, None, True, 1.0, [], {}, "1_0"])
def test_unknown_label_is_reported_with_the_known_labels(item: Any) -> None:
    labels = LabelMap({"voice": 3}, "connlabel.conf")
    with pytest.raises(InvalidValue, match=r"is not a label; write .*\(known: voice\)") as caught:
        labels.to_bits([item], "labels")
    assert caught.value.key == "labels"
    with pytest.raises(InvalidValue, match="there is no connlabel.conf"):
        LabelMap().to_bits([item], "labels")


def test_reading_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "connlabel.conf"
    conf.write_bytes(CONF.encode() + b"9 no\xe9l\n10 caf\xe9\n")
    labels = LabelMap.read(str(conf))
    assert labels.bits["last"] == 127
    (name,) = labels.to_names([10])
    assert name == "caf\\xe9"
    assert name.encode(), "Ansible returns nothing that is not UTF-8"
    assert labels.to_bits(name, "labels") == [10]
    assert labels.to_names([9]) == ["test label 1"], "the first name of the bit"
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(InvalidValue, match=str(missing)) as caught:
            LabelMap.read(str(missing))
        assert caught.value.key == "label_map"

    monkeypatch.setattr(labels_module, "DEFAULT_PATHS", (str(tmp_path / "none"), str(conf)))
    assert LabelMap.read().source == str(conf)
    monkeypatch.setattr(labels_module, "DEFAULT_PATHS", (str(tmp_path / "none"),))
    assert LabelMap.read().bits == {}, "without a file, labels are numbers"


def test_unreadable_default_file_is_an_error_only_if_a_name_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_module, "DEFAULT_PATHS", (str(tmp_path),))
    labels = LabelMap.read()
    assert labels.to_bits([3], "labels") == [3]
    assert labels.to_names([3]) == [3]
    with pytest.raises(InvalidValue, match=r"'voice' is not known, because .*Is a directory.*; write a bit number"):
        labels.to_bits("voice", "labels")
