# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A link with a delay, for kernels without netem: two TUN interfaces, and a thread between them."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections import deque

from . import tun
from .namespace import Namespace

#: Packets that can wait in an interface. A burst as large as a TCP window must not be lost.
QUEUE = 10_000


class Delay:
    """Forward packets between the interfaces of two namespaces, each packet after `seconds`."""

    def __init__(self, left: Namespace, right: Namespace, seconds: float) -> None:
        self._seconds = seconds
        self._ends = (_interface(left, right.name), _interface(right, left.name))
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._carry, name=f"delay {left.name} {right.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Remove the link."""
        self._stop.send(b"stop")
        self._thread.join()
        for each in self._ends:
            os.close(each)
        self._stop.close()
        self._stopped.close()

    def _carry(self) -> None:
        under_way: deque[tuple[float, int, bytes]] = deque()
        with selectors.DefaultSelector() as selector:
            selector.register(self._stopped, selectors.EVENT_READ, None)
            for end, other in (self._ends, self._ends[::-1]):
                selector.register(end, selectors.EVENT_READ, other)
            while True:
                wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
                for key, _events in selector.select(wait):
                    if key.data is None:
                        return
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            packet = os.read(key.fd, tun.LARGEST)
                            under_way.append((time.monotonic() + self._seconds, key.data, packet))
                while under_way and under_way[0][0] <= time.monotonic():
                    _due, end, packet = under_way.popleft()
                    with contextlib.suppress(OSError):  # an interface that is full or down loses packets
                        os.write(end, packet)


def _interface(namespace: Namespace, name: str) -> int:
    """Create a TUN interface in the namespace, and return the file descriptor for its packets."""
    with namespace.entered():
        end = tun.create(name)
    with namespace.rtnetlink() as rtnetlink:
        index = rtnetlink.link_lookup(ifname=name)[0]
        rtnetlink.link("set", index=index, txqlen=QUEUE, state="up")
    return end
