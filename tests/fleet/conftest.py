# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Provide namespaces and networks from the lab."""

from __future__ import annotations

from tests.lab.fixtures import gateway_lab, ip, lab, namespace, root, tun

__all__ = ["gateway_lab", "ip", "lab", "namespace", "root", "tun"]
