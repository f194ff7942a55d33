# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the collection on a gateway in namespaces: python -m tests.demo"""
