# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time this collection, Debian's conntrack and pyroute2 on the same tables: python -m tests.bench"""
