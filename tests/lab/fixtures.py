# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as pytest fixtures, for a conftest.py to import."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import isolation
from .lab import Gateway, Lab
from .namespace import Namespace


@pytest.fixture(scope="session")
def root() -> None:
    """Root, or root over namespaces of one's own; skipped where the machine forbids them."""
    try:
        isolation.become_root()
    except isolation.Forbidden as reason:
        pytest.skip(str(reason))


@pytest.fixture
def namespace(root: None) -> Iterator[Namespace]:
    """An empty network namespace with its loopback up."""
    with Namespace() as namespace:
        yield namespace


@pytest.fixture
def lab(root: None) -> Iterator[Lab]:
    """A lab without hosts yet."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def gateway_lab(lab: Lab) -> Gateway:
    """Two clients, a gateway that translates, and a server."""
    return lab.gateway_topology()
