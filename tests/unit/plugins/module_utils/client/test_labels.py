# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A label by the wrong name marks the wrong connections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client import labels as labels_module
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import InvalidValue
from ansible_collections.netops.conntrack.plugins.module_utils.client.labels import LabelMap

CONF = """\
# services
0   eth0-in
1\teth0-out   # a comment
127 last

5 5th
7 12
"""


def test_the_format_of_connlabel_conf() -> None:
    labels = LabelMap.parse(CONF.splitlines(), "connlabel.conf")
    assert labels.bits == {"eth0-in": 0, "eth0-out": 1, "last": 127, "5th": 5, "12": 7}
    assert labels.to_bits(["last", 3, "eth0-in", "0x2"], "labels") == [127, 3, 0, 2]
    assert labels.to_bits("eth0-in", "labels") == [0]
    assert labels.to_names([0, 2, 127]) == ["eth0-in", 2, "last"]
    assert labels.to_bits("12", "labels") == [7], "a name that looks like a number is a name"
    assert labels.to_bits(12, "labels") == [12]


def test_the_first_of_two_names_of_a_bit_is_shown_and_both_are_understood() -> None:
    labels = LabelMap.parse(["3 voice", "3 telephone"], "x")
    assert labels.to_bits(["voice", "telephone"], "labels") == [3, 3]
    assert labels.to_names([3]) == ["voice"]


@settings(max_examples=40)
@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True), st.integers(0, 127)))
def test_names_stand_for_the_same_bits_both_ways(bits: Any) -> None:
    labels = LabelMap.parse([f"{bit} {name}" for name, bit in bits.items()], "x")
    every = list(range(128))
    assert labels.to_bits(labels.to_names(every), "labels") == every


@pytest.mark.parametrize(
    "line", ["128 high", "-1 low", "x y", "1", "1 two three", "1.5 half", "\u0661 digit", "True name"]
)
def test_a_line_that_is_none_is_named(line: str) -> None:
    with pytest.raises(InvalidValue, match=r"^label_map: connlabel\.conf line 2: .*write") as caught:
        LabelMap.parse(["0 fine", line], "connlabel.conf")
    assert caught.value.key == "label_map"


@pytest.mark.parametrize("item", ["nobody", "", " ", 128, -1, None, True, 1.0, [], {}, "1_0"])
def test_an_unknown_label_is_named_with_those_known(item: Any) -> None:
    labels = LabelMap({"voice": 3}, "connlabel.conf")
    with pytest.raises(InvalidValue, match=r"is no label; write .*\(known: voice\)") as caught:
        labels.to_bits([item], "labels")
    assert caught.value.key == "labels"
    with pytest.raises(InvalidValue, match="there is no connlabel.conf"):
        LabelMap().to_bits([item], "labels")


def test_reading_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "connlabel.conf"
    conf.write_bytes(CONF.encode() + b"9 caf\xe9\n")
    labels = LabelMap.read(str(conf))
    assert labels.bits["last"] == 127
    assert labels.to_names([9]) == [b"caf\xe9".decode("utf-8", "surrogateescape")]
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(InvalidValue, match=str(missing)) as caught:
            LabelMap.read(str(missing))
        assert caught.value.key == "label_map"

    monkeypatch.setattr(labels_module, "DEFAULT_PATHS", (str(tmp_path / "none"), str(conf)))
    assert LabelMap.read().source == str(conf)
    monkeypatch.setattr(labels_module, "DEFAULT_PATHS", (str(tmp_path / "none"),))
    assert LabelMap.read().bits == {}, "no file is no fault: labels are numbers then"
