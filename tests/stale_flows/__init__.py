# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verdicts about stale flows, compared with what the kernel makes of the same flows after a change."""
