# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run functions in other network namespaces without moving this process."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(work: Callable[[], T]) -> T:
    """Call `work` in a new thread, which may enter other namespaces. Returns its result or raises its exception."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(work).result()
