# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One work in a process of its own: python tests/bench/child.py MODULE WORK [ARGUMENT ...]

Prints how many things were done, the seconds, the seconds of the processors, and the most memory in KiB that the
process has had. Preparation and imports are not timed. Imports next to nothing, for its memory is the yardstick.
"""

import sys
import time


def main() -> None:
    sys.path.pop(0)  # the folder of this file, whose modules are found as tests.bench
    name, work, *arguments = sys.argv[1:]
    module = __import__(f"tests.bench.{name}", fromlist=[work])
    run = getattr(module, work)(*arguments)
    start, cpu = time.perf_counter(), time.process_time()
    done = run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    if isinstance(done, tuple):  # it has kept the time itself, over what it had to prepare in between
        done, seconds = done
    with open("/proc/self/status", encoding="ascii") as status:
        most = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    print(done, seconds, cpu, most)


if __name__ == "__main__":
    main()
