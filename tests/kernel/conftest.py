# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Namespaces and networks from the lab."""

from __future__ import annotations

from tests.lab.fixtures import emptied_namespace, gateway_lab, ip, lab, module_namespace, namespace, root

__all__ = ["emptied_namespace", "gateway_lab", "ip", "lab", "module_namespace", "namespace", "root"]
