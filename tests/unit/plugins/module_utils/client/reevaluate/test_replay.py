# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test the trace of replayed packets without a kernel."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from ansible_collections.netops.conntrack.plugins.module_utils.client.errors import KernelError
from ansible_collections.netops.conntrack.plugins.module_utils.client.reevaluate.replay import Replay


class Traces:
    """The socket for traces, with these results of `pending`, one for each call."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)

    def pending(self) -> bytes:
        result = self.results.pop(0)
        if isinstance(result, OSError):
            raise result
        return bytes(result)


def replay(*results: Any) -> Replay:
    made = Replay.__new__(Replay)
    made._traces = Traces(*results)  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("results", "is_traced"),
    [
        ([b""], False),
        ([b"message"], True),
        ([OSError(errno.ENOBUFS, "lost"), b""], True),
        ([OSError(errno.ENOBUFS, "lost"), OSError(errno.ENOBUFS, "lost"), b"message"], True),
    ],
)
def test_lost_messages_of_a_trace_count_as_a_trace(results: list[Any], is_traced: bool) -> None:
    tested = replay(*results)
    assert tested.is_traced() is is_traced
    assert tested._traces.results == []  # type: ignore[attr-defined]


def test_other_errors_are_reported() -> None:
    with pytest.raises(KernelError, match="reading the trace of the scratch namespace"):
        replay(OSError(errno.ENOMEM, "memory")).is_traced()
