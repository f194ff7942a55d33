# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A UDP flow that never pauses, as a voice call or a tunnel does."""

from __future__ import annotations

import threading

from tests.lab import Endpoint, Flow

PERIOD = 0.05
AT_MOST = 12_000  # 10 minutes
SOME = 5
#: Seconds after which a message counts as lost, more than a machine stands still.
PATIENCE = 30.0


class Steady:
    """Send on a flow repeatedly in a thread, and record in order the source addresses that the far end received."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.seen: list[Endpoint | None] = []  # None: no reply
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the flow."""
        self._over.set()
        self._thread.join()
        self.flow.close()

    def wait_for_messages(self) -> None:
        """Wait until some more messages have been sent."""
        until = len(self.seen) + SOME
        while len(self.seen) < until and self._thread.is_alive():
            self._thread.join(PERIOD)

    @property
    def lost(self) -> int:
        """Return the number of messages without a reply."""
        return self.seen.count(None)

    def addresses(self) -> list[str]:
        """Return the source addresses in the order of use, without consecutive duplicates."""
        runs: list[str] = []
        for endpoint in self.seen:
            if endpoint and runs[-1:] != [endpoint.address]:
                runs.append(endpoint.address)
        return runs

    def _run(self) -> None:
        while len(self.seen) < AT_MOST and not self._over.wait(PERIOD):
            try:
                self.seen.append(self.flow.seen_as(timeout=PATIENCE))
            except OSError:
                self.seen.append(None)
