# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A UDP flow that never rests, as a voice call or a tunnel does."""

from __future__ import annotations

import threading

from tests.lab import Endpoint, Flow

PERIOD = 0.05
AT_MOST = 12_000  # 10 minutes
SOME = 5
#: Seconds after which a message counts as lost, more than a machine stands still.
PATIENCE = 30.0


class Steady:
    """Sends over a flow again and again in a thread, and keeps what the far end saw as its sender, in order."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.seen: list[Endpoint | None] = []  # None: no answer
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the flow."""
        self._over.set()
        self._thread.join()
        self.flow.close()

    def go_on(self) -> None:
        """Wait until some more messages have gone."""
        until = len(self.seen) + SOME
        while len(self.seen) < until and self._thread.is_alive():
            self._thread.join(PERIOD)

    @property
    def lost(self) -> int:
        """How many messages were not answered."""
        return self.seen.count(None)

    def addresses(self) -> list[str]:
        """The source addresses in the order in which they were used, each run of the same one once."""
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
