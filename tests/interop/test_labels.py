# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A label name stands for the same bit as in libnetfilter_conntrack."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.module_utils.client.entry.labels import LabelMap
from tests.profiles import examples

BLANKS = st.sampled_from(["", " ", "\t", "  ", "\r", "\v"])
NUMBERS = st.sampled_from(
    "0 1 2 3 7 8 9 10 010 007 089 0x1 0x1F 0xg +3 -1 -0 127 128 200 1023 1024 99999999999999999999 x".split()
)
NAMES = st.sampled_from(["a", "b", "a b", "a-b", "5", "a_b", "caf\xe9", "# a", "a # b", ""])
LINES = st.one_of(
    st.tuples(BLANKS, NUMBERS, BLANKS, NAMES, BLANKS).map("".join), st.sampled_from(["", "# 1 a", "a", "1", " # 2 b"])
)


@pytest.fixture(scope="module")
def library() -> Any:
    try:
        library = ctypes.CDLL("libnetfilter_conntrack.so.3")
    except OSError:
        pytest.skip("needs libnetfilter_conntrack")
    library.nfct_labelmap_new.restype = ctypes.c_void_p
    library.nfct_labelmap_get_name.restype = ctypes.c_char_p
    library.nfct_labelmap_get_name.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nfct_labelmap_get_bit.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nfct_labelmap_destroy.argtypes = [ctypes.c_void_p]
    return library


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels") / "connlabel.conf"


@examples(300)
@given(lines=st.lists(LINES, max_size=8))
def test_names_agree_with_the_library(library: Any, path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="latin-1", newline="\n")
    ours = LabelMap.read(str(path))
    bits = {**ours.bits, **ours.beyond}
    theirs = library.nfct_labelmap_new(str(path).encode())
    names = [name for name in ("a", "b", "a b", "a-b", "5", "89 a", "xg a", "g a") if theirs]
    try:
        for name in names:
            bit = library.nfct_labelmap_get_bit(theirs, name.encode())
            if bit >= 0:
                assert bits[name] == bit
        for bit in range(128 if theirs else 0):
            shown = library.nfct_labelmap_get_name(theirs, bit)
            if shown:
                assert ours.to_names([bit]) == [shown.decode()]
    finally:
        if theirs:
            library.nfct_labelmap_destroy(theirs)
