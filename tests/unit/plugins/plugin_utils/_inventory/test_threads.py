# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whoever works in another namespace leaves the rest of the process where it is."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.netops.conntrack.plugins.plugin_utils._inventory.threads import run_in_thread


def test_work_is_done_in_a_thread_that_is_gone_afterwards() -> None:
    """A namespace is a thread's: one that stayed would be in the wrong one for whatever came next."""
    before = threading.enumerate()
    thread = run_in_thread(threading.current_thread)
    assert thread is not threading.current_thread()
    assert threading.enumerate() == before


def test_what_went_wrong_there_is_told_here() -> None:
    def fail() -> None:
        raise ValueError("no such namespace")

    with pytest.raises(ValueError, match="no such namespace"):
        run_in_thread(fail)
