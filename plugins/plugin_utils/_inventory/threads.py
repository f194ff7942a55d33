# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Work inside network namespaces, without leaving the one that this process is in."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(work: Callable[[], T]) -> T:
    """What `work` returns, or raises, in a thread of its own, which may go to other namespaces and ends there."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(work).result()
