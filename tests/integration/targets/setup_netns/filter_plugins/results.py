# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What results of modules are compared by."""

from __future__ import annotations

import re

#: Keys of a moment, or of the kernel's own; no two entries are alike in them.
OF_THE_MOMENT = ("timeout", "id", "use")
#: What Ansible itself adds to a result.
OF_ANSIBLE = (
    "invocation",
    "ansible_loop_var",
    "item",
    "failed_when_result",
    "warnings",
    "deprecations",
    "ansible_facts",
)
#: Seconds that a countdown may have gone on between two tasks of a busy machine; the tests use longer timeouts.
SECONDS = 60


def steady(entries):
    """The entries without what is of the moment, in an order of their own."""
    return sorted(
        ({key: value for key, value in entry.items() if key not in OF_THE_MOMENT} for entry in entries),
        key=repr,
    )


def surprises(done, foreseen):
    """Where the result of a run is not what check mode said it would be: a list of sentences.

    Results of loops are compared item by item. An entry that is yet to be lacks what only the kernel knows.
    """
    if "results" in done:
        pairs = enumerate(zip(done["results"], foreseen["results"], strict=True))
        return [f"[{index}] {sentence}" for index, pair in pairs for sentence in surprises(*pair)]
    found = []
    for key in sorted((set(done) | set(foreseen)) - set(OF_ANSIBLE)):
        compare = _additions if key in ("entry", "expectation") else _differences
        found += compare(key, done.get(key, "no such key"), foreseen.get(key, "no such key"))
    return found


def _differences(path, is_so, was_said):
    """What is not the same, apart from countdowns by a little."""
    if isinstance(is_so, dict) and isinstance(was_said, dict) and set(is_so) == set(was_said):
        if is_so.get("key") == "timeout":  # a change
            path += ".timeout"
        for key, value in is_so.items():
            yield from _differences(f"{path}.{key}", value, was_said[key])
    elif isinstance(is_so, list) and isinstance(was_said, list) and len(is_so) == len(was_said):
        for index, value in enumerate(is_so):
            yield from _differences(f"{path}[{index}]", value, was_said[index])
    elif ".timeout" in path and isinstance(is_so, int) and isinstance(was_said, int):
        if abs(is_so - was_said) > SECONDS:
            yield f"{path} is {is_so!r}, not {was_said!r}"
    elif is_so != was_said:
        yield f"{path} is {is_so!r}, not {was_said!r}"


def _additions(path, is_so, was_said):
    """What is not so, and not just more than was said."""
    if path.endswith((".id", ".use")):
        return  # of the entry that was there before
    if isinstance(is_so, dict) and isinstance(was_said, dict):
        for key, value in was_said.items():
            yield from _additions(f"{path}.{key}", is_so.get(key), value)
    elif isinstance(is_so, list) and isinstance(was_said, list):
        if not set(was_said) <= set(is_so):
            yield f"{path} is {is_so!r}, not {was_said!r} and more"
    elif not (path.startswith("entry.nat.") and "-" in str(was_said)):  # a range is the kernel's choice
        yield from _differences(path, is_so, was_said)


def kinds(events):
    """Of events as conntrack(8) tells them, how many there are of each kind: {"NEW": 2, "DESTROY": 1}."""
    counts = {}
    for event in events:
        kind = event.partition("]")[0].lstrip("[")
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def numbers(entries):
    """Of each entry what tells it from the others of a test: its source port, ICMP id or GRE key."""
    originals = (entry["original"] for entry in entries)
    return [o.get("source_port", o.get("icmp_id", o.get("source_key"))) for o in originals]


def wrong_messages(results):
    """Of results of a loop over items with a pattern `says`, the messages that do not begin so.

    Also those that are more than a sentence or a list of errors.
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
