# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as pytest fixtures, to import in a conftest.py."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests import programs

from . import isolation
from .lab import Gateway, Lab
from .namespace import Namespace
from .tun import open_device


@pytest.fixture(scope="session")
def root() -> None:
    """Become root, if necessary in a user namespace. Skip the test if the machine forbids it."""
    try:
        isolation.become_root()
    except isolation.Forbidden as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def tun(root: None) -> None:
    """Require /dev/net/tun, which judging flows needs. Skip the test if this user may not open it."""
    os.close(open_device())


@pytest.fixture(scope="session")
def ip() -> str:
    """Return the path of ip(8). Skip the test without the program."""
    return programs.require("ip")


@pytest.fixture
def namespace(root: None) -> Iterator[Namespace]:
    """Return an empty network namespace with its loopback interface up."""
    with Namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def module_namespace(root: None) -> Iterator[Namespace]:
    """Return one namespace for all tests of a file, to save time. Its connections can have labels."""
    with Namespace() as namespace:
        namespace.firewall.use_labels()
        yield namespace


@pytest.fixture
def emptied_namespace(module_namespace: Namespace) -> Namespace:
    """Return the namespace of the file with an empty table, for tests that change only the table."""
    module_namespace.empty()
    assert module_namespace.count() == 0
    return module_namespace


@pytest.fixture
def lab(root: None) -> Iterator[Lab]:
    """Return a lab without hosts."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def gateway_lab(lab: Lab) -> Gateway:
    """Return two clients, a gateway with source NAT, and a server."""
    return lab.gateway_topology()
