# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""All cases."""

from __future__ import annotations

from . import nft_changes

CASES = [*nft_changes.CASES]
