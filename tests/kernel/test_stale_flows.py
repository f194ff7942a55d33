# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare verdicts about stale flows with the kernel: delete the entries, and send the first packets again.

The cases, and the gateway on which they run, are in `tests/stale_flows`. `python -m tests.stale_flows WORD` shows
the results of those whose names contain a word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from tests import programs
from tests.stale_flows.cases import CASES
from tests.stale_flows.comparison import STALE, UNCERTAIN, VERDICTS, Case, Result, compare_all

PROGRAMS = ("conntrack", "ip", "nft", "iptables-nft-restore", "ip6tables-nft-restore")
#: Flows that start in each case. The rules accept most flows.
FEW, MANY = 100, 120
#: Cases of every kind, for the test that always runs.
SOME = CASES[::11]


@pytest.fixture(autouse=True)
def required(tun: None) -> None:
    """Require the programs that configure the gateway. Skip the test without them."""
    programs.require(*PROGRAMS)


def compared(cases: Iterable[Case], flows: int) -> list[Result]:
    """Run the cases. The verdicts must agree with the kernel, and few flows may be uncertain without a reason."""
    results = list(compare_all(cases, flows))
    disagreements = [line for result in results for line in result.disagreements]
    assert not disagreements, "\n".join([f"{len(disagreements)} verdicts are wrong:", *disagreements])
    decidable = sum((result.verdicts for result in results if not result.case.undecidable), Counter[str]())
    reasons = sum((result.reasons for result in results if not result.case.undecidable), Counter[str]())
    assert decidable[UNCERTAIN] < 0.02 * decidable.total(), f"of {decidable.total()} flows are uncertain: {reasons}"
    return results


def test_some_changes() -> None:
    results = compared(SOME, FEW)
    assert sum(result.verdicts.total() for result in results) > 50 * len(SOME)


@pytest.mark.thorough
def test_all_changes() -> None:
    results = compared(CASES, MANY)
    total = sum((result.verdicts for result in results), Counter[str]())
    assert len({result.case.name for result in results}) >= 60
    assert total.total() >= 5000
    assert sum(total[verdict] for verdict in STALE) >= 1000
    assert set(total) == set(VERDICTS)
