# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test the client and the modules on other kernels than the running one, and print a table of the results.

The arguments are the kernels to test. Without arguments, all kernels are tested.
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

from tests import programs

from . import debian, machine, report, trees

CACHE = trees.CHECKOUT / ".cache/kernels"
PROGRAMS = ("apt-get", "cpio", "depmod", "dpkg-deb")

#: The Debian suite of each kernel. The version in a rolling suite may be newer than the one named here
KERNELS = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "bookworm-backports", "7.2": "sid"}
PACKAGE = "linux-image-cloud-amd64"

#: The kernels that also run the tests marked `oldest_and_newest_kernel`
ENDS = (next(iter(KERNELS)), next(reversed(KERNELS)))
#: The test that runs again on the oldest and the newest kernel, with the table that the other one saved
EXCHANGE = "tests/kernel/test_exchange.py"
OPTIONS = ("--color=no", "--durations=10", "--quiet", "--tb=short")


def tests_for(kernel: str, brief: bool) -> tuple[str, ...]:
    """Return the arguments of pytest that select the tests for a kernel."""
    marks = ["every_kernel", *["oldest_and_newest_kernel"] * (kernel in ENDS and not brief)]
    # By name, because the other files import packages that are missing in the machines
    files = [
        str(file.relative_to(trees.CHECKOUT))
        for file in sorted((trees.CHECKOUT / "tests/kernel").glob("test_*.py"))
        if any(f"mark.{mark}" in file.read_text() for mark in marks)
    ]
    return *files, f"-m=({' or '.join(marks)}) and not running_kernel_only", *OPTIONS


def check_programs() -> None:
    """Raise `Missing` if required programs are not installed."""
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        raise debian.Missing(f"needs {', '.join(missing)}")


def write(junit: ET.Element, file: Path) -> None:
    ET.ElementTree(junit).write(file, encoding="utf-8", xml_declaration=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__)
    parser.add_argument("kernels", nargs="*", default=list(KERNELS), metavar="KERNEL", help=", ".join(KERNELS))
    parser.add_argument(
        "--brief", action="store_true", help="without oldest_and_newest_kernel, and without the exchange of tables"
    )
    parser.add_argument("--results", type=Path, default=CACHE / "results", help="folder for JUnit files and table.txt")
    arguments = parser.parse_args()
    if unknown := set(arguments.kernels) - KERNELS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    arguments.results.mkdir(parents=True, exist_ok=True)
    programs.extend_path()
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
    checkout = trees.checkout_archive(CACHE / "run", CACHE / "root/tree")

    def test(kernel: trees.Kernel, name: str, tests: Path) -> report.Outcome:
        began = time.monotonic()
        print(f"{name} boots", flush=True)
        try:
            junit = machine.test(qemu, kernel.image, (root, kernel.modules, checkout, tests), kernel.image.parent)
            outcome = report.judge(name, time.monotonic() - began, junit)
        except machine.NoAnswer as problem:
            print(f"{name} {problem}", flush=True)
            outcome, junit = report.dead(name, time.monotonic() - began, str(problem))
        write(junit, arguments.results / f"{name}.xml")
        print(f"{name} is done", flush=True)
        return outcome

    def exchange(kernel: trees.Kernel, other: Path) -> report.Outcome:
        """Restore the table of another kernel.

        The result goes to a file of its own, beside that of the kernel's own run.
        """
        archive = trees.archive_of_tests(kernel.image.parent, (EXCHANGE, *OPTIONS), other)
        return test(kernel, f"{kernel.release} from {other.stem}", archive)

    def test_all(name: str, kernel: trees.Kernel) -> report.Outcome:
        return test(
            kernel, kernel.release, trees.archive_of_tests(kernel.image.parent, tests_for(name, arguments.brief))
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # Those with the most tests first, so that both cores are busy to the end
        first = sorted(zip(arguments.kernels, kernels, strict=True), key=lambda pair: pair[0] not in ENDS)
        running = {name: pool.submit(test_all, name, kernel) for name, kernel in first}
        outcomes = [running[name].result() for name in arguments.kernels]
        if len(kernels) > 1 and not arguments.brief and not any(outcome.failures for outcome in outcomes):
            pair = kernels[0], kernels[-1]
            tables = [kernel.image.with_name(f"{kernel.release}.json") for kernel in pair]
            for kernel, table in zip(pair, tables, strict=True):
                kernel.image.with_name(machine.SAVED).replace(table)
            outcomes += pool.map(exchange, pair, reversed(tables))
    for outcome in outcomes:
        for failure in outcome.failures:
            print(f"{outcome.release} FAILED {failure}")
    table = report.table(outcomes)
    (arguments.results / "table.txt").write_text(table + "\n")
    print(table)
    return int(any(outcome.failures for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
