# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Return when every other process in this network namespace sleeps. The argument is the path of tests/clock.py."""

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("clock", sys.argv[1])
clock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(clock)
inside = os.stat("/proc/self/ns/net").st_ino
for folder in Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):  # it has ended
        if int(folder.name) != os.getpid() and (folder / "ns/net").stat().st_ino == inside:
            clock.wait_until_asleep(int(folder.name))
