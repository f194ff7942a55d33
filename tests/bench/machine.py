# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The machine that was measured on, as far as it tells something: no names, no paths."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from typing import Any


def describe(conntrack: str | None) -> dict[str, Any]:
    """Kernel, processors, memory, versions, and how busy the machine was when this began."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "kernel": platform.release().split("-")[0],
        "architecture": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "processor": _first("/proc/cpuinfo", "model name"),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "ansible_core": _version("ansible-core"),
        "pyroute2": _version("pyroute2"),
        "conntrack": _program_version(conntrack),
    }


def _first(path: str, key: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith(key)), None)
    except OSError:
        return None


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
