# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option `label_map`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ..client.entry.labels import LabelMap

LABEL_MAP: dict[str, Any] = {"label_map": {"type": "path"}}


def labels_of(module: AnsibleModule) -> LabelMap:
    """Return the label map in the file that the option `label_map` names, or that of the host."""
    from ..client.entry.labels import LabelMap

    return LabelMap.read(module.params.get("label_map"))
