# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault of a document, where parsers stop at the first: who writes one wants to know them all."""

from __future__ import annotations

import contextlib
import copy
import re
from typing import Any, Callable, Iterator, TypeVar

from ..client.errors import LONGEST_MESSAGE, TOO_DEEP, InvalidValue, readable

_Thing = TypeVar("_Thing")

#: More are not looked for in one thing, nor told of a whole document.
_MOST = 50
#: Characters of one of several faults, and of all of them; the name of a file has room in front of them.
_LONGEST = 400
_ROOM = LONGEST_MESSAGE - 200


class ValidationErrors:
    """What is wrong with a document, in the order in which it was found; each fault has its path from the top."""

    def __init__(self) -> None:
        self.found: list[InvalidValue] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, key: str, problem: str) -> None:
        """Note a fault."""
        self.found.append(InvalidValue(key, problem))

    @contextlib.contextmanager
    def collect(self, key: str = "") -> Iterator[None]:
        """Note the fault that what is done inside, about what is under `key`, comes upon."""
        try:
            yield
        except InvalidValue as fault:
            self._note(fault, key)

    def _note(self, fault: InvalidValue, key: str) -> None:
        self.found.append(fault.under(key) if key else fault)

    def parse_collecting(self, parse: Callable[[Any], _Thing], document: Any, key: str = "") -> _Thing | None:
        """What a parser makes of a document; None, and all its faults noted, where it refuses that.

        The next fault is found by leaving out what the last was about. What follows from that alone is no fault.
        """
        try:
            return parse(document)
        except InvalidValue as fault:
            self._note(fault, key)
            seen = [fault.key]
        except RecursionError:
            self._note(InvalidValue("", TOO_DEEP), key)
            return None
        try:
            rest = copy.deepcopy(document)
        except RecursionError:
            return None
        while len(seen) < _MOST and _remove(rest, seen[-1]):
            try:
                parse(rest)
                break
            except InvalidValue as fault:
                if any(is_within(path, fault.key) for path in seen):
                    break
                self._note(fault, key)
                seen.append(fault.key)
        return None

    def __str__(self) -> str:
        """All of them, a line for each; of several about one path the first.

        The lines that have no room become one, with their number and as many of their paths as have room.
        """
        first = {fault.key: fault for fault in reversed(self.found)}
        several = [fault for fault in self.found if first[fault.key] is fault]
        if len(several) == 1:
            return str(several[0])
        lines = [f"- {readable(str(fault), _LONGEST)}" for fault in several]
        paths = [readable(fault.key, _LONGEST) or "the document" for fault in several]
        head = f"{len(lines)} errors:"
        for number in range(min(len(lines), _MOST), -1, -1):
            rest = f"- and {len(lines) - number} more: {', '.join(paths[number:])}"
            message = "\n".join([head, *lines[:number], *([rest] if number < len(lines) else [])])
            if len(message) <= _ROOM:
                return message
        return f"{head}\n{readable(rest, _ROOM - len(head) - 1)}"


def is_within(path: str, other: str) -> bool:
    """Whether a path leads to something in what is at the other, or to the same."""
    return not other or path == other or path.startswith((f"{other}.", f"{other}["))


def _remove(document: Any, path: str) -> bool:
    """Take out what is under a path; False where that is not one key of a dictionary."""
    *steps, last = re.findall(r"[^.\[\]]+", path) or [""]
    try:
        for step in steps:
            document = document[int(step) if isinstance(document, list) else step]
        if not isinstance(document, dict):
            return False
        del document[last]
    except (KeyError, IndexError, TypeError, ValueError):
        return False
    return True
