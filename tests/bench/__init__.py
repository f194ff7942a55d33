# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""This collection, Debian's conntrack and pyroute2 on the same tables, timed: python -m tests.bench"""
