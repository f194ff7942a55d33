# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The soak test: flush, update, wait, save and restore for minutes on a gateway with thousands of new connections."""
