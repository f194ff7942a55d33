# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters that compare the results of modules."""

from __future__ import annotations

import re

#: Keys whose values change over time, or that the kernel sets; they differ between any two entries.
VARYING = ("timeout", "id", "use")
#: Keys that Ansible adds to a result.
OF_ANSIBLE = (
    "invocation",
    "ansible_loop_var",
    "item",
    "failed_when_result",
    "warnings",
    "deprecations",
    "ansible_facts",
)
#: Maximum decrease of a timeout between two tasks on a busy machine, in seconds; the tests use longer timeouts.
SECONDS = 60


def steady(entries):
    """Return the entries without the varying keys, in a defined order."""
    return sorted(
        ({key: value for key, value in entry.items() if key not in VARYING} for entry in entries),
        key=repr,
    )


def surprises(done, predicted):
    """Return a sentence for each difference between the result of a run and that of check mode.

    Results of loops are compared item by item. A predicted entry lacks the values that only the kernel sets.
    """
    if "results" in done:
        pairs = enumerate(zip(done["results"], predicted["results"], strict=True))
        return [f"[{index}] {sentence}" for index, pair in pairs for sentence in surprises(*pair)]
    found = []
    for key in sorted((set(done) | set(predicted)) - set(OF_ANSIBLE)):
        compare = _additions if key in ("entry", "expectation") else _differences
        found += compare(key, done.get(key, "no such key"), predicted.get(key, "no such key"))
    return found


def _differences(path, actual, expected):
    """Yield the differences, except small ones of timeouts."""
    if isinstance(actual, dict) and isinstance(expected, dict) and set(actual) == set(expected):
        if actual.get("key") == "timeout":  # a change
            path += ".timeout"
        for key, value in actual.items():
            yield from _differences(f"{path}.{key}", value, expected[key])
    elif isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for index, value in enumerate(actual):
            yield from _differences(f"{path}[{index}]", value, expected[index])
    elif ".timeout" in path and isinstance(actual, int) and isinstance(expected, int):
        if abs(actual - expected) > SECONDS:
            yield f"{path} is {actual!r}, not {expected!r}"
    elif actual != expected:
        yield f"{path} is {actual!r}, not {expected!r}"


def _additions(path, actual, expected):
    """Yield the differences, except values that were not predicted."""
    if path.endswith((".id", ".use")):
        return  # those of the previous entry
    if isinstance(actual, dict) and isinstance(expected, dict):
        for key, value in expected.items():
            yield from _additions(f"{path}.{key}", actual.get(key), value)
    elif isinstance(actual, list) and isinstance(expected, list):
        if not set(expected) <= set(actual):
            yield f"{path} is {actual!r}, not {expected!r} and more"
    elif not (path.startswith("entry.nat.") and "-" in str(expected)):  # a range is the kernel's choice
        yield from _differences(path, actual, expected)


def kinds(events):
    """Return the number of events of conntrack(8) by kind: {"NEW": 2, "DESTROY": 1}."""
    counts = {}
    for event in events:
        kind = event.partition("]")[0].lstrip("[")
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def numbers(entries):
    """Return the value that identifies each entry in a test: its source port, ICMP id or GRE key."""
    originals = (entry["original"] for entry in entries)
    return [o.get("source_port", o.get("icmp_id", o.get("source_key"))) for o in originals]


def wrong_messages(results):
    """Return the messages of a loop that do not begin with the pattern `says` of their item.

    This includes messages that are neither one sentence nor a list of errors.
    """
    wrong = []
    for result in results:
        message = result.get("msg", "")
        if (
            not re.match(f"(?:{result['item']['says']})", message)
            or re.search(r"\n(?!- |Nothing was changed[.]$)", message)
            or "Traceback" in str(result)
        ):
            wrong.append({"item": result["item"], "msg": message})
    return wrong


class FilterModule:
    def filters(self):
        return {
            "steady": steady,
            "surprises": surprises,
            "kinds": kinds,
            "numbers": numbers,
            "wrong_messages": wrong_messages,
        }
