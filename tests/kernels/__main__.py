# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test the client and the modules on other kernels than the running one, and close with a table of them.

Arguments are the kernels to test, all of them if there are none.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import debian, machine, report, trees

CACHE = trees.CHECKOUT / ".cache/kernels"
PROGRAMS = ("apt-get", "cpio", "depmod", "dpkg-deb")

#: The suite of Debian that each kernel comes from; of a suite that moves on, whatever it has
KERNELS = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "bookworm-backports", "7.2": "sid"}
PACKAGE = "linux-image-cloud-amd64"

#: Not about the kernel, or only with what a real machine has: users, servers, Ansible itself
ELSEWHERE = ("bench", "connection_netns", "demo", "examples", "ftp")
#: About speed or chance, and too slow without hardware acceleration; they are run on the running kernel
TOO_SLOW = (
    "test_entries.py::test_ten_thousand_are_there_once_and_changed_where_they_differ",
    "test_events.py::TestAsyncio::test_follower_through_a_flood",
    "test_events.py::TestFilter::test_every_program_is_taken",
    "test_events.py::TestFilter::test_the_kernel_runs_it_as_it_is_meant",
    "test_events.py::TestFlood",
    "test_netlink.py::TestOverrun::test_a_dump_has_room",
    "test_shape.py::test_any_entry_comes_back",
    "test_snapshot.py::test_many_come_back",
    "test_table.py::TestDump::test_of_many",
    "test_table.py::TestMany::test_deletion_while_the_table_is_read",
    "test_wait.py::TestHowSoon",
    "test_wait.py::TestWhatIsWaitedFor::test_some_may_stay",
)
TESTS = (
    "tests/kernel",
    *(f"--ignore=tests/kernel/test_{name}.py" for name in ELSEWHERE),
    *(f"--deselect=tests/kernel/{name}" for name in TOO_SLOW),
    "--color=no",
    "--durations=10",
    "--quiet",
    "--tb=short",
)


def check_programs() -> None:
    """`Missing` where there is something to be installed first."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        raise debian.Missing(f"needs {', '.join(missing)}")


def write(junit: ET.Element, file: Path) -> None:
    ET.ElementTree(junit).write(file, encoding="utf-8", xml_declaration=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__)
    parser.add_argument("kernels", nargs="*", default=list(KERNELS), metavar="KERNEL", help=", ".join(KERNELS))
    parser.add_argument("--results", type=Path, default=CACHE / "results", help="folder for JUnit files and table.txt")
    arguments = parser.parse_args()
    if unknown := set(arguments.kernels) - KERNELS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    arguments.results.mkdir(parents=True, exist_ok=True)
    try:
        check_programs()
        mirror = debian.find_mirror()
    except debian.Missing as reason:
        write(report.skipped(str(reason)), arguments.results / "skipped.xml")
        print(f"skipped: {reason}")
        return 0
    qemu = trees.emulator(CACHE, mirror)
    root = trees.root_archive(CACHE, mirror)
    kernels = [trees.kernel_archive(CACHE, mirror, KERNELS[name], PACKAGE) for name in arguments.kernels]
    checkout = trees.checkout_archive(CACHE / "run", CACHE / "root/tree", TESTS)

    def test(kernel: trees.Kernel) -> report.Outcome:
        began = time.monotonic()
        print(f"{kernel.release} boots", flush=True)
        try:
            junit = machine.test(qemu, kernel.image, (root, kernel.modules, checkout), kernel.image.parent)
            outcome = report.judge(kernel.release, time.monotonic() - began, junit)
        except machine.NoAnswer as problem:
            print(f"{kernel.release} {problem}", flush=True)
            outcome, junit = report.dead(kernel.release, time.monotonic() - began, str(problem))
        write(junit, arguments.results / f"{kernel.release}.xml")
        print(f"{kernel.release} is done", flush=True)
        return outcome

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = list(pool.map(test, kernels))
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"{outcome.release} FAILED {failure}")
    table = report.table(outcomes)
    (arguments.results / "table.txt").write_text(table + "\n")
    print(table)
    return int(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
