# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Import the fixtures of the lab: namespaces and networks."""

from __future__ import annotations

from tests.lab.fixtures import gateway_lab, lab, namespace, root, tun

__all__ = ["gateway_lab", "lab", "namespace", "root", "tun"]
