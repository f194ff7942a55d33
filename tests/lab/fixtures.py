# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab as pytest fixtures, for a conftest.py to import."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from . import isolation
from .lab import Gateway, Lab
from .namespace import SYSTEM_PATH, Namespace


@pytest.fixture(scope="session")
def root() -> None:
    """Root, or root over namespaces of one's own; skipped where the machine forbids them."""
    try:
        isolation.become_root()
    except isolation.Forbidden as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def ip() -> str:
    """The path of ip(8); skipped where it is absent."""
    program = shutil.which("ip", path=SYSTEM_PATH)
    if program is None:
        pytest.skip("the ip program is absent (apt-get install iproute2)")
    return program


@pytest.fixture
def namespace(root: None) -> Iterator[Namespace]:
    """An empty network namespace with its loopback up."""
    with Namespace() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def module_namespace(root: None) -> Iterator[Namespace]:
    """One namespace for all tests of a file, in which connections can have labels: on a slow machine it takes long."""
    with Namespace() as namespace:
        namespace.firewall.use_labels()
        yield namespace


@pytest.fixture
def emptied_namespace(module_namespace: Namespace) -> Namespace:
    """The namespace of the file with an empty table, for tests that change nothing of it but the table."""
    module_namespace.empty()
    assert module_namespace.count() == 0
    return module_namespace


@pytest.fixture
def lab(root: None) -> Iterator[Lab]:
    """A lab without hosts yet."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def gateway_lab(lab: Lab) -> Gateway:
    """Two clients, a gateway that translates, and a server."""
    return lab.gateway_topology()
