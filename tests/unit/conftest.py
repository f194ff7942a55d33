# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from hypothesis import settings

# Two parts of the suite run at a time: how long one example takes says nothing.
settings.register_profile("suite", deadline=None, print_blob=True)
settings.load_profile("suite")
