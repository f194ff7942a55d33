# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""TUN interfaces: the test reads the packets that the kernel sends there, and writes those that it receives."""

from __future__ import annotations

import fcntl
import os
import struct
import unittest

#: linux/if_tun.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
DEVICE = "/dev/net/tun"
LARGEST = 65536


def open_device() -> int:
    """Return a file descriptor that does not block and is not yet an interface.

    :raises unittest.SkipTest: if the kernel lacks CONFIG_TUN, or this user may not open the device.
    """
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise unittest.SkipTest(f"{DEVICE} cannot be opened: {error.strerror}") from None


def create(name: str) -> int:
    """Create an interface in the namespace of the calling thread, and return the file descriptor for its packets."""
    end = open_device()
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return end
