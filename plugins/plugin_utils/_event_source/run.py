# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read events in a thread, and put them into the queue of ansible-rulebook."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .loop import watch
from .options import parse_options


async def run(queue: asyncio.Queue[Any], args: Mapping[str, Any]) -> None:
    """Put the events that the options select into the queue until cancelled. Raises `ConntrackError`.

    A single thread does all system calls, because it may enter another network namespace while the rest of
    ansible-rulebook must not. It pauses while the queue is full.
    """
    options = parse_options(args)
    wake, wakes = os.pipe()
    batches = watch(options, wake)
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, "conntrack")
    try:
        while True:
            for document in await loop.run_in_executor(thread, next, batches):
                await queue.put(document)
    finally:
        os.close(wakes)
        thread.submit(batches.close)
        thread.shutdown()
        os.close(wake)
