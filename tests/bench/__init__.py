# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time this collection, conntrack(8), pyroute2 and vishvananda/netlink on the same tables: python -m tests.bench"""
