# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option `stale`, which selects entries by what the current rules would do with them."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

STALE: dict[str, Any] = {"stale": {"type": "raw"}}
_VERDICTS = ("nat_changed", "refused", "untracked")


def stale_of(module: AnsibleModule) -> tuple[str, ...]:
    """Return the verdicts that the option `stale` selects. Empty if it is absent or false. Raises `InvalidValue`."""
    from ..client.errors import InvalidValue, quoted

    value = module.params["stale"]
    if isinstance(value, str) and value.lower() in ("true", "yes", "false", "no"):  # of a template or a command line
        value = value.lower() in ("true", "yes")
    if value is None or value is False:
        return ()
    if module.params["table"] != "conntrack":
        raise InvalidValue("stale", f"is for the table conntrack; leave it out with table: {module.params['table']}")
    if value is True:
        return _VERDICTS
    named = value.split(",") if isinstance(value, str) else value
    if not isinstance(named, list) or not named:
        raise InvalidValue("stale", f"{quoted(value)} is no list; write true, or a list of {', '.join(_VERDICTS)}")
    for verdict in named:
        if verdict not in _VERDICTS:
            raise InvalidValue("stale", f"{quoted(verdict)} is no verdict; write one or more of {', '.join(_VERDICTS)}")
    return tuple(dict.fromkeys(named))
