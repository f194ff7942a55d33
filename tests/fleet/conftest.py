# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provide namespaces and networks from the lab, in which flows last longer than plays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import Namespace
from tests.lab.fixtures import gateway_lab, ip, lab, namespace, root

__all__ = ["gateway_lab", "ip", "lab", "namespace", "root"]


@pytest.fixture(autouse=True, scope="session")
def lasting_flows() -> Iterator[None]:
    """Set the timeouts of UDP and ICMP to ten minutes instead of 30 seconds: on a busy machine, plays take longer."""
    initialize = Namespace.__init__

    def initialize_and_set(self: Namespace, *arguments: Any, **options: Any) -> None:
        initialize(self, *arguments, **options)
        for name in ("udp_timeout", "udp_timeout_stream", "icmp_timeout", "icmpv6_timeout"):
            self.sysctl(f"nf_conntrack_{name}", 600)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Namespace, "__init__", initialize_and_set)
        yield
