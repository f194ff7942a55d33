# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prepare a release: `make release VERSION=1.0.0`. Nothing is committed, tagged or published."""
