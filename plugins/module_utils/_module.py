# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Common functions of the modules: the network namespace, results and errors.

At its top, a module imports only what its options need. Its task, which `run` calls, imports the rest: from then on,
imports are compiled only once (see `_fast_import`).
"""

from __future__ import annotations

from typing import Any, Callable, Dict

from ansible.module_utils.basic import AnsibleModule

from ._fast_import import compile_once

#: The work of a module in one namespace, and the function that does it in each of several.
Task = Callable[[AnsibleModule], Dict[str, Any]]
InEach = Callable[[AnsibleModule, Task], Dict[str, Any]]

NETNS: dict[str, Any] = {"netns": {"type": "str"}}
#: The same option of modules that can also do their work in several namespaces.
NAMESPACES: dict[str, Any] = {"netns": {"type": "raw"}}
#: The value for all namespaces of the host.
_ALL = "all"
#: The options of modules that show entries, and of those that also limit their number.
TABLE: dict[str, Any] = {"label_map": {"type": "path"}, **NETNS}
REPORT: dict[str, Any] = {"report_limit": {"type": "int", "default": 100}, **TABLE}
#: The largest value of an option that is a number of entries.
LARGEST_COUNT = 0xFFFFFFFF
#: The maximum size in bits of an integer that is shown in full.
_LONGEST_INTEGER = 1024

PRESENT: dict[str, Any] = {
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "on_existing": {"type": "str", "choices": ["update", "keep", "fail"], "default": "update"},
    "replace": {"type": "bool", "default": False},
    "timeout_min": {"type": "int", "default": 0},
}


def run(
    module: AnsibleModule,
    task: Task,
    nothing_done: dict[str, Any],
    reads_only: bool = False,
    in_each: InEach | None = None,
) -> None:
    """Run a task in the requested network namespace. Exit with its result, or fail with a message.

    `nothing_done` contains every key of the result. A failure returns it, updated with the result of a
    `PartialFailure`. If options are invalid, the message of a module that can change something ends with the sentence
    that nothing was changed.

    `in_each` runs the task in several namespaces. Without it, the option `netns` is the name of one.
    """
    compile_once()
    from .client.errors import ConntrackError, InvalidValue, PartialFailure, nothing_changed

    try:
        if in_each is not None and _names_several(module):
            result = in_each(module, task)
        else:
            _enter_namespace(module)
            result = task(module)
    except InvalidValue as fault:
        sentence = f"{fault}." if reads_only else nothing_changed(str(fault))
        module.fail_json(msg=sentence, **{"changed": False, **nothing_done})
    except ConntrackError as error:
        done = dict(error.result) if isinstance(error, PartialFailure) else {}
        if "namespaces" in done:  # only the sums are outside this list
            nothing_done = {key: value for key, value in nothing_done.items() if isinstance(value, int)}
        _warn(module, done)
        module.fail_json(msg=str(error), **{"changed": False, **nothing_done, **done})
    else:
        _warn(module, result)
        module.exit_json(**result)


def _warn(module: AnsibleModule, result: dict[str, Any]) -> None:
    """Remove the warnings from a result, and show them. Since ansible-core 2.19 a result may not contain warnings."""
    from .client.errors import readable

    for sentence in result.pop("warnings", ()):
        module.warn(readable(sentence))


def _names_several(module: AnsibleModule) -> bool:
    """Return whether the option `netns` is `all` or a list. Raises `InvalidValue` if it is not a name either."""
    value = module.params.get("netns")
    if value is None or isinstance(value, str):
        return bool(value == _ALL)
    if isinstance(value, int) and not isinstance(value, bool):
        module.params["netns"] = str(value)
        return False
    if isinstance(value, list) and value and all(isinstance(name, str) and name not in ("", _ALL) for name in value):
        return True
    from .client.errors import InvalidValue, quoted

    raise InvalidValue(
        "netns", f"{quoted(value)} names no namespaces; write a name, a path, a list of names and paths, or all"
    )


def _enter_namespace(module: AnsibleModule) -> None:
    """Enter the network namespace of the option `netns`, without return: the process ends soon."""
    name = module.params.get("netns")
    if name is None:
        return
    from .client.host.namespace import enter_named

    enter_named(name, "run as root (become: true)")


def check_numbers(module: AnsibleModule, *options: str) -> None:
    """Raise `InvalidValue` for an option that is null, negative, or larger than any table."""
    for option in options:
        value = module.params[option]
        if value is None or not 0 <= value <= LARGEST_COUNT:
            from .client.errors import InvalidValue

            if value is None:
                raise InvalidValue(option, "is null; leave it out or give it a value")
            cure = (
                "negative; write 0 or more" if value < 0 else f"out of range; write a number from 0 to {LARGEST_COUNT}"
            )
            raise InvalidValue(option, f"{_shown(module, option)} is {cure}")


def _shown(module: AnsibleModule, option: str) -> str:
    """Return the value of an option for a message, and replace it in the result if it is a huge integer.

    Python does not convert integers with thousands of digits to text.
    """
    value = module.params[option]
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER:
        module.params[option] = f"an integer of {value.bit_length()} bits"
    return str(module.params[option])
