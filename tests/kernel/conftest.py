# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Import the fixtures of several files: namespaces and networks."""

from __future__ import annotations

from tests.kernel.stale_gateway import gateway
from tests.lab.fixtures import emptied_namespace, gateway_lab, ip, lab, module_namespace, namespace, root, tun

__all__ = ["emptied_namespace", "gateway", "gateway_lab", "ip", "lab", "module_namespace", "namespace", "root", "tun"]
