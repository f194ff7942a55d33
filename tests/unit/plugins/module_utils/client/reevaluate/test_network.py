# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test without a kernel that the network configuration is read again after a change during a dump."""

from __future__ import annotations

import errno
from typing import Iterable

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import KernelError
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.message import attribute
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import NetlinkSocket
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate import network
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate import numbers as n
from ansible_collections.netops.conntrack.tests.unit.support import wire
from ansible_collections.netops.conntrack.tests.unit.support.fake_socket import MULTI, FakeDatagrams, Reply, done

INTERRUPTED = 0x10


class Changing:
    """A kernel with one rule and one link. A change interrupts the first `times` dumps of one type."""

    def __init__(self, interrupted: int, times: int) -> None:
        self.type, self.times = interrupted, times

    def answer(self, request: wire.Framed) -> Iterable[Reply]:
        flags = MULTI
        if request.type == self.type and self.times:
            self.times -= 1
            flags |= INTERRUPTED
        if request.type == n.RTM_GETLINK:
            payload = bytes(4) + b"\7\0\0\0" + bytes(8) + attribute(n.IFLA_IFNAME, b"wan\0")
            yield wire.framed(n.RTM_NEWLINK, flags, request.sequence, payload)
        elif request.type == n.RTM_GETRULE:
            yield wire.framed(n.RTM_NEWRULE, flags, request.sequence, bytes(12))
        yield done(request)


@pytest.mark.parametrize("interrupted", [n.RTM_GETLINK, n.RTM_GETRULE], ids=["links", "rules"])
def test_interrupted_dump_is_repeated(interrupted: int) -> None:
    kernel = Changing(interrupted, network.ATTEMPTS - 1)
    with NetlinkSocket(FakeDatagrams(kernel.answer)) as netlink:
        found = network.read_network(netlink)
    assert kernel.times == 0
    assert ([link.name for link in found.links], len(found.rules)) == (["wan"], 2)


def test_repeatedly_interrupted_dump_is_an_error() -> None:
    kernel = Changing(n.RTM_GETRULE, 1000)
    with NetlinkSocket(FakeDatagrams(kernel.answer)) as netlink, pytest.raises(KernelError) as caught:
        network.read_network(netlink)
    assert caught.value.errno == errno.EAGAIN
    assert str(caught.value).startswith("reading links, addresses and routes, which change all the time: ")
