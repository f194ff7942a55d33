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
from .comparison import compare  # noqa: E402


def main(word: str = "", number: str = "100", seed: str = "") -> None:
    total: Counter[str] = Counter()
    differing = 0
    for case in CASES:
        if word not in case.name:
            continue
        begin = time.monotonic()
        try:
            result = compare(case, int(number), seed)
        except Exception as error:
            print(f"{case.name}: {error!r} {getattr(error, '__notes__', '')}")
            continue
        total += result.verdicts
        differing += len(result.disagreements)
        print(f"{case.name}: {time.monotonic() - begin:.2f} s {dict(result.verdicts)} {dict(result.reasons)}")
        for line in result.disagreements:
            print("   ", line)
    print(f"{sum(total.values())} flows: {dict(total)}; {differing} differ")


main(*sys.argv[1:])
