# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers have the same format everywhere in a report, because people base decisions on the numbers."""

from __future__ import annotations

import pytest

from ansible_collections.netops.conntrack.plugins.plugin_utils._report import formatting

THIN = formatting.THIN


@pytest.mark.parametrize(
    ("value", "whole", "short", "volume"),
    [
        (None, "\u2013", "\u2013", "\u2013"),
        (0, "0", "0", f"0{THIN}B"),
        (999, "999", "999", f"999{THIN}B"),
        (18233, "18,233", "18,233", f"18.2{THIN}kB"),
        (1048576, "1,048,576", f"1.05{THIN}M", f"1.05{THIN}MB"),
        (999999, "999,999", "999,999", f"1.00{THIN}MB"),
        (12345678901, f"12.3{THIN}G", f"12.3{THIN}G", f"12.3{THIN}GB"),
        (2**64 - 1, f"18.4{THIN}E", f"18.4{THIN}E", f"18.4{THIN}EB"),
        (300 * 2**64, f"5.53{THIN}Z", f"5.53{THIN}Z", f"5.53{THIN}ZB"),
    ],
)
def test_counts_and_bytes(value: int | None, whole: str, short: str, volume: str) -> None:
    assert (formatting.whole(value), formatting.short(value), formatting.volume(value)) == (whole, short, volume)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "\u2013"),
        (0, f"0{THIN}%"),
        (0.004, f"<{THIN}0.1{THIN}%"),
        (6.96, f"7.0{THIN}%"),
        (99.96, f">{THIN}99.9{THIN}%"),
        (100, f"100{THIN}%"),
        (101.5, f"101.5{THIN}%"),
        (1.8e19, f"18.0{THIN}E{THIN}%"),
    ],
)
def test_share_is_never_rounded_to_0_or_100_percent(value: float | None, shown: str) -> None:
    assert formatting.percent(value) == shown


def test_timeouts_have_the_largest_exact_unit() -> None:
    assert [formatting.seconds(value).replace(THIN, " ") for value in (1, 30, 90, 119, 120, 7200, 432000)] == [
        *("1 s", "30 s", "90 s", "119 s", "2 min", "2 h", "5 d"),
    ]


def test_times_are_in_utc() -> None:
    assert formatting.utc("2026-03-14T10:26:53.7+01:00") == "2026-03-14T09:26:53Z"
    for wrong in ("yesterday", "2026-03-14T10:26:53", ""):
        with pytest.raises(ValueError, match="time zone|isoformat"):
            formatting.utc(wrong)
