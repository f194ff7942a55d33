# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Throw-away networks of namespaces with real traffic. README.md shows how to use them."""

from .isolation import Forbidden, become_root
from .lab import Gateway, Host, Lab, Switch, has_ipv6
from .machine import Machine
from .namespace import Namespace
from .traffic import Endpoint, Flow, Mirror

__all__ = [
    "Endpoint",
    "Flow",
    "Forbidden",
    "Gateway",
    "Host",
    "Lab",
    "Machine",
    "Mirror",
    "Namespace",
    "Switch",
    "become_root",
    "has_ipv6",
]
