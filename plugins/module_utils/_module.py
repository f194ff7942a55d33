# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules have in common: the namespace, results, errors.

A module imports at its top what its options need and no more, and what its task needs in the task, which `run`
calls: what is imported from then on is compiled once (see `importing`).
"""

from __future__ import annotations

from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule

from ._fast_import import compile_once

NETNS: dict[str, Any] = {"netns": {"type": "str"}}
#: The largest number of entries that an option can name.
LARGEST_COUNT = 0xFFFFFFFF
#: Bits of an integer that is shown in full.
_LONGEST_INTEGER = 1024
REPORT_LIMIT: dict[str, Any] = {"report_limit": {"type": "int", "default": 100}}

PRESENT: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "on_existing": {"type": "str", "choices": ["update", "keep", "fail"], "default": "update"},
    "replace": {"type": "bool", "default": False},
    "timeout_min": {"type": "int", "default": 0},
}


def run(
    module: AnsibleModule,
    task: Callable[[AnsibleModule], dict[str, Any]],
    nothing_done: dict[str, Any],
    reads_only: bool = False,
) -> None:
    """Run a task in the namespace asked for and exit with its result, or fail with one sentence.

    `nothing_done` has every key of the result; a failure returns it, with what a `PartialFailure` says was done
    in its place. If a module that can change something refuses its options, the message says that nothing was changed.
    """
    compile_once()
    from .client.errors import ConntrackError, InvalidValue, PartialFailure, nothing_changed

    try:
        _enter_namespace(module)
        result = task(module)
    except InvalidValue as fault:
        sentence = f"{fault}." if reads_only else nothing_changed(str(fault))
        module.fail_json(msg=sentence, **{"changed": False, **nothing_done})
    except ConntrackError as error:
        done = dict(error.result) if isinstance(error, PartialFailure) else {}
        _warn(module, done)
        module.fail_json(msg=str(error), **{"changed": False, **nothing_done, **done})
    else:
        _warn(module, result)
        module.exit_json(**result)


def _warn(module: AnsibleModule, result: dict[str, Any]) -> None:
    """Take the warnings out of a result, and show them; since ansible-core 2.19 a result may not have any."""
    from .client.errors import readable

    for sentence in result.pop("warnings", ()):
        module.warn(readable(sentence))


def _enter_namespace(module: AnsibleModule) -> None:
    """Enter the network namespace of the option `netns` for good: the process ends soon."""
    name = module.params.get("netns")
    if name is None:
        return
    from .client.host.namespace import enter_asked

    enter_asked(name, "run as root (become: true)")


def check_not_negative(module: AnsibleModule, *options: str) -> None:
    """Raise `InvalidValue` for a count that is null, below zero, or larger than any table."""
    for option in options:
        value = module.params[option]
        if value is None or not 0 <= value <= LARGEST_COUNT:
            from .client.errors import InvalidValue

            if value is None:
                raise InvalidValue(option, "is null; leave it out or give it a value")
            if value < 0:
                raise InvalidValue(option, f"{_shown(module, option)} is negative; write 0 or more")
            raise InvalidValue(
                option, f"{_shown(module, option)} is out of range; write a number from 0 to {LARGEST_COUNT}"
            )


def _shown(module: AnsibleModule, option: str) -> str:
    """The value of an option for a message, and for the result: Python writes no integer of thousands of digits."""
    value = module.params[option]
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER:
        module.params[option] = f"an integer of {value.bit_length()} bits"
    return str(module.params[option])
