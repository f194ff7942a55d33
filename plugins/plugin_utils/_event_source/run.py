# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Between the table, which is watched in a thread of its own, and the queue of ansible-rulebook."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .loop import watch
from .options import parse_options


async def run(queue: asyncio.Queue[Any], args: Mapping[str, Any]) -> None:
    """Put into the queue what the options ask for, until cancelled. Raises `ConntrackError`.

    One thread does all that has to do with the kernel, one batch after the other, because it may be in another network
    namespace, where the rest of ansible-rulebook must not be. While the queue has no room, it rests.
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
