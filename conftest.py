# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the collection importable for every test, also for `pytest FILE` without nox."""

from __future__ import annotations

from tests import clock, collection_tree, programs

collection_tree.use()
programs.extend_path()

from ansible_collections.netops.conntrack.tests import profiles  # noqa: E402

profiles.register()


def pytest_runtest_logstart() -> None:
    """Start the clock by which tests compare remaining timeouts."""
    clock.begin_test()
