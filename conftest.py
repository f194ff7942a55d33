# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the collection importable for every test, also for `pytest FILE` without nox."""

from __future__ import annotations

from tests import collection_tree

collection_tree.use()

from ansible_collections.netops.conntrack.tests import profiles  # noqa: E402

profiles.register()
