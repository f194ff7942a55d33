# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run one work in a process of its own: python tests/bench/child.py MODULE WORK [ARGUMENT ...]

The process prints the number of things done, the elapsed seconds, the processor seconds, and the peak memory in KiB.
Preparation and imports are not timed. This file imports almost nothing, because the bench compares its memory with
that of other programs.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Measured = tuple[int, float, float]


def main() -> None:
    sys.path.pop(0)  # the folder of this file, whose modules are imported as tests.bench
    name, work, *arguments = sys.argv[1:]
    module = __import__(f"tests.bench.{name}", fromlist=[work])
    run = getattr(module, work)(*arguments)
    done, seconds, processor = measure(run)
    with open("/proc/self/status", encoding="ascii") as status:
        most = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    print(done, seconds, processor, most)


def measure(run: Callable[[], int | Measured]) -> Measured:
    """Return the result of the work, its elapsed seconds and its processor seconds."""
    start, before = time.perf_counter(), processor_time()
    done = run()
    seconds, processor = time.perf_counter() - start, processor_time() - before
    # A work with a preparation between its timed parts measures the time itself
    return done if isinstance(done, tuple) else (done, seconds, processor)


def processor_time() -> float:
    """Return user and system time of all threads of this process and of the child processes that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


if __name__ == "__main__":
    main()
