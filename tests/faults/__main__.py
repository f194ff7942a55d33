# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write docs/docsite/rst/guide_faults.rst from the table of faults."""

from __future__ import annotations

from .page import PUBLISHED, text

PUBLISHED.write_text(text(), encoding="utf-8")
