# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare the cases whose names contain a word, and print the results.

`python -m tests.stale_flows [WORD] [NUMBER OF FLOWS IN EACH CASE] [SEED]`
"""

from __future__ import annotations

import sys
import time
from collections import Counter

from tests import collection_tree

collection_tree.use()

from .cases import CASES  # noqa: E402
from .comparison import compare_all  # noqa: E402


def main(word: str = "", number: str = "100", seed: str = "") -> None:
    total: Counter[str] = Counter()
    differing = 0
    begin = time.monotonic()
    for result in compare_all((case for case in CASES if word in case.name), int(number), seed):
        total += result.verdicts
        differing += len(result.disagreements)
        print(f"{result.case.name}: {dict(result.verdicts)} {dict(result.reasons)}")
        for line in result.disagreements:
            print("   ", line)
    seconds = time.monotonic() - begin
    print(f"{total.total()} flows in {seconds:.1f} s: {dict(total)}; {differing} differ")


main(*sys.argv[1:])
