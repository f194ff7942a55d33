# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Two parts of the suite run at a time: how long an example takes, or the making of one, says nothing.
settings.register_profile("suite", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
# What may land is not left to chance: the examples are the same in each strict run, and others in all others.
settings.register_profile("strict", settings.get_profile("suite"), derandomize=True)
settings.load_profile("strict" if os.environ.get("STRICT", "") not in ("", "0") else "suite")
