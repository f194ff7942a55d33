# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules have in common: the namespace, results, errors.

A module imports at its top what its options need and no more, and what its task needs in the task, which `run`
calls: what is imported from then on is compiled once (see `importing`).
"""

from __future__ import annotations

from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from .importing import compile_once

NETNS: dict[str, Any] = {"netns": {"type": "str"}}
REPORT_LIMIT: dict[str, Any] = {"report_limit": {"type": "int", "default": 100}}

PRESENT: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "on_existing": {"type": "str", "choices": ["update", "keep", "fail"], "default": "update"},
    "replace": {"type": "bool", "default": False},
    "timeout_min": {"type": "int", "default": 0},
}


def run(module: AnsibleModule, task: Callable[[AnsibleModule], dict[str, Any]], nothing_done: dict[str, Any]) -> None:
    """Run a task in the namespace asked for and exit with its result, or fail with one sentence.

    `nothing_done` has every key of the result; a failure returns it, with what a `Failed` says was done
    in its place.
    """
    compile_once()
    from .client.errors import ConntrackError, InvalidValue
    from .failure import Failed

    try:
        _enter_namespace(module)
        result = task(module)
    except InvalidValue as fault:
        module.fail_json(msg=f"{fault}. Nothing was changed.", **{"changed": False, **nothing_done})
    except ConntrackError as error:
        done = error.result if isinstance(error, Failed) else {}
        module.fail_json(msg=str(error), **{**nothing_done, **done})
    else:
        module.exit_json(**result)


def _enter_namespace(module: AnsibleModule) -> None:
    """Enter the network namespace of the option `netns` for good: the process ends soon."""
    name = module.params.get("netns")
    if name is None:
        return
    from .client.namespace import enter_asked

    enter_asked(name, "run as root (become: true)")


def check_not_negative(module: AnsibleModule, *options: str) -> None:
    """`InvalidValue` for a limit below zero."""
    for option in options:
        if module.params[option] < 0:
            from .client.errors import InvalidValue

            raise InvalidValue(option, f"{module.params[option]} is negative; write 0 or more")
