# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Linux connection tracking in pure Python. `Conntrack` is the entry point."""

from .conntrack import Conntrack

__all__ = ["Conntrack"]
