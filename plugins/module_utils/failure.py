# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A failure that says what was done all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .client.errors import ConntrackError

if TYPE_CHECKING:
    from .client.document import Document


class Failed(ConntrackError):
    """Not all was done; `result` says what was, in the form of a module's result."""

    def __init__(self, sentence: str, result: Document | None = None) -> None:
        super().__init__(sentence)
        self.result: Document = result or {}
