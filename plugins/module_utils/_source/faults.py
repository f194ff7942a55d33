# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect all errors in a document, although a parser stops at the first."""

from __future__ import annotations

import contextlib
import copy
import re
from typing import Any, Callable, Iterator, TypeVar

from ..client.errors import LONGEST_MESSAGE, TOO_DEEP, InvalidValue, readable

_Thing = TypeVar("_Thing")

#: The maximum number of errors that one parser call collects, and of lines in the message.
_MOST = 50
#: The maximum length of one of several errors, and of the whole message. It leaves room for the name of a file.
_LONGEST = 400
_ROOM = LONGEST_MESSAGE - 200


class ValidationErrors:
    """The errors in a document, in the order in which they were found. Each has its full path."""

    def __init__(self) -> None:
        self.found: list[InvalidValue] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, key: str, problem: str) -> None:
        """Record an error."""
        self.found.append(InvalidValue(key, problem))

    @contextlib.contextmanager
    def collect(self, key: str = "") -> Iterator[None]:
        """Record the `InvalidValue` that the block raises, with `key` in front of its path."""
        try:
            yield
        except InvalidValue as fault:
            self._note(fault, key)

    def _note(self, fault: InvalidValue, key: str) -> None:
        self.found.append(fault.under(key) if key else fault)

    def parse_collecting(self, parse: Callable[[Any], _Thing], document: Any, key: str = "") -> _Thing | None:
        """Return the result of a parser. If the document is invalid, record all errors and return None.

        To find the next error, the value with the last error is removed. Errors that follow only from the removal are
        not recorded.
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
        """Return all errors, one per line. If several errors have the same path, only the first is included.

        Lines that do not fit are replaced by one line with their number and as many of their paths as fit.
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
    """Return whether a path is equal to the other, or below it."""
    return not other or path == other or path.startswith((f"{other}.", f"{other}["))


def _remove(document: Any, path: str) -> bool:
    """Remove the value at a path. Return False if the path is not a key of a dictionary."""
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
