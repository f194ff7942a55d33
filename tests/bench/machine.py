# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine of a measurement: its hardware and versions, without names or paths, and reasons to doubt the figures."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from . import go_client

Machine = dict[str, Any]

CPUINFO, STAT = Path("/proc/cpuinfo"), Path("/proc/stat")
SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
#: Keys of the processor's name in /proc/cpuinfo: x86 and s390, LoongArch, MIPS, POWER, RISC-V
MODEL = ("model name", "Model Name", "cpu model", "cpu", "uarch")
#: The columns of /proc/stat that add up to the total time; "user" includes the guest time in the later columns
COLUMNS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
#: Limits for the average number of running processes per processor, and for the percentage of steal time
LOAD, STEAL = 0.25, 2.0


def describe(conntrack: str | None) -> Machine:
    """Describe kernel, processors, memory, versions and the current load."""
    processors = os.sched_getaffinity(0)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "kernel": platform.release().split("-")[0],
        "architecture": platform.machine(),
        "processors": len(processors),
        "processor": processor_name(),
        "threads_per_core": threads_per_core(min(processors)),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "load_at_start": round(os.getloadavg()[0], 2),
        "steal_percent": None,
        "python": platform.python_version(),
        "ansible_core": _version("ansible-core"),
        "pyroute2": _version("pyroute2"),
        "conntrack": _program_version(conntrack),
        "vishvananda_netlink": go_client.version(),
    }


def key(machine: Machine) -> tuple[str, int, str]:
    """Identify a machine among others: results with the same key replace each other."""
    return machine["processor"], machine["processors"], machine["architecture"]


def label(machine: Machine) -> str:
    """Return a label with the processor's name and the number of processors."""
    name = machine["processor"].replace("(R)", "").replace("(TM)", "")
    threads, processors = machine["threads_per_core"], _processors(machine)
    if threads:
        processors += f" ({threads} thread{'s' * (threads > 1)} per core)"
    return f"{name}, {processors}, {machine['architecture']}"


def _processors(machine: Machine) -> str:
    number = machine["processors"]
    return f"{number} processor{'s' * (number > 1)}"


def doubts(machine: Machine) -> list[str]:
    """Return the reasons why figures of this run may be wrong."""
    found = []
    load, steal = machine["load_at_start"], machine["steal_percent"]
    if load > LOAD * machine["processors"]:
        found.append(f"the load was {load:g} on {_processors(machine)} before the run")
    if steal is not None and steal > STEAL:
        found.append(f"the hypervisor took {steal:g} % of the processor time during the run (steal)")
    return found


# processors


def processor_name() -> str:
    """Return the processor's name, the numbers of its implementer and part on Arm, or "unknown"."""
    try:
        lines = [line.partition(":") for line in CPUINFO.read_text(encoding="utf-8").splitlines()]
    except OSError:
        lines = []
    fields = {name.strip(): value.strip() for name, _colon, value in reversed(lines)}
    named = next((fields[name] for name in MODEL if fields.get(name)), None)
    if named is None and "CPU part" in fields:
        named = f"CPU implementer {fields.get('CPU implementer')}, part {fields['CPU part']}"
    return named or "unknown"


def threads_per_core(processor: int) -> int | None:
    """Return the number of processors that share the core of this one; None if the kernel does not report it."""
    try:
        listed = Path(SIBLINGS.format(processor)).read_text(encoding="ascii")
        spans = [span.partition("-") for span in listed.strip().split(",")]
        return sum(int(last or first) - int(first) + 1 for first, _dash, last in spans)
    except (OSError, ValueError):
        return None


# steal time


def processor_times() -> dict[str, int] | None:
    """Return the time of all processors since boot by kind of use, in ticks; None if the kernel does not report it."""
    try:
        words = STAT.read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    numbers = [int(word) for word in words[1:]]
    return dict(zip(COLUMNS, numbers, strict=False)) if len(numbers) >= len(COLUMNS) else None


def steal_percent(before: dict[str, int] | None, after: dict[str, int] | None) -> float | None:
    """Return the percentage of steal time between two calls of `processor_times`."""
    if before is None or after is None:
        return None
    passed = {name: after[name] - before[name] for name in COLUMNS}
    total = sum(passed.values())
    return round(100 * passed["steal"] / total, 2) if total > 0 else None


# versions


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _program_version(program: str | None) -> str | None:
    if program is None:
        return None
    words = subprocess.run([program, "--version"], check=False, capture_output=True, text=True).stdout.split()
    return words[1].removeprefix("v") if len(words) > 1 else None
