# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare verdicts about stale flows with the kernel's treatment of the same flows after a change."""
