# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test that unreadable rules do not prevent the facts about SNAT ports."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils._operations import snat_ports
from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import Unavailable
from ansible_collections.netops.conntrack.plugins.module_utils.client.netlink.socket import DumpInterrupted
from ansible_collections.netops.conntrack.tests.unit.support.fake_kernel import Kernel


@pytest.mark.parametrize("error", [Unavailable("reading rules", errno.EINVAL), DumpInterrupted("changed")])
def test_rules_that_cannot_be_read_have_no_ranges(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(_netlink: Any) -> Any:
        raise error

    monkeypatch.setattr(snat_ports, "NetlinkSocket", Kernel().connect)
    monkeypatch.setattr(snat_ports, "read_snat_ranges", fail)
    assert snat_ports._ranges() == []
