# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines of conntrack(8), taken apart as getopt_long(3) does.

Source: the option tables of conntrack(8) 1.4.9, and what it makes of lines in `conntrack -R`.
"""

from __future__ import annotations

import re
import shlex
from typing import Container, Dict, Mapping, Tuple

from ..entry.entry import Entry
from ..errors import InvalidValue
from .common import NoEntry, Unknown, printable

#: (option as it is written, value) by the meaning of the option.
Given = Dict[str, Tuple[str, str]]

#: The meanings of options that are not keys of an entry.
COMMAND, PASSED_OVER, REFUSED = "command", "nothing in an entry", "nothing that creates an entry"
LABEL_MAP = "names of labels"
FORM = "conntrack -o save"
CREATE_OPTIONS = ("-A", "--add", "-I", "--create")
UPDATE_OPTIONS = ("-U", "--update")
DELETE_OPTIONS = ("-D", "--delete")
#: Options that are not about one entry, and options of other commands of the program.
COMMON: dict[str, str] = {
    **dict.fromkeys((*CREATE_OPTIONS, *UPDATE_OPTIONS, *DELETE_OPTIONS), COMMAND),
    **dict.fromkeys(("-f", "--family", "-c", "--secmark", "-i", "--id"), PASSED_OVER),
    **dict.fromkeys(("-M", "--labelmap"), LABEL_MAP),
    **dict.fromkeys(
        (
            *("-L", "--dump", "-G", "--get", "-F", "--flush", "-E", "--event", "-C", "--counter", "--count"),
            *("-S", "--stats", "-R", "--load-file", "-V", "--version", "-h", "--help"),
            *("-z", "--zero", "-e", "--event-mask", "-o", "--output", "-b", "--buffer-size", "-a", "--nat-range"),
            *("-j", "--any-nat", "--label-del", "--mask-src", "--mask-dst", "--tuple-src", "--tuple-dst"),
        ),
        REFUSED,
    ),
}
_TABLES = ("conntrack", "expect", "dying", "unconfirmed")


def read_command(
    line: str, targets: Mapping[str, str], optional: Container[str], entry: Entry, unknown: Unknown
) -> Given:
    """Parse a line to its options by their meanings in `targets`. Those in `optional` may have no value.

    Words of other programs go to `unknown`. Raises `InvalidValue`.
    """
    words = _split(line.partition(" [USERSPACE] ")[0])  # the name of a program follows
    number = next((number for number, text in enumerate(words) if text.startswith("-")), None)
    if number is None:
        raise NoEntry("", f"is not a line of {FORM}; it has no -A, -I or -U")
    _read_head(words[:number], entry, unknown)
    given: Given = {}
    while number < len(words):
        name, value, target = _option(words[number], targets)
        follows = words[number + 1] if number + 1 < len(words) else None
        number += 1
        if value is not None and target in optional and target != COMMAND:
            # The program reads such a value from a word of its own, and ignores this one
            raise InvalidValue(name, f"conntrack ignores an address in the same word; write {name} {printable(value)}")
        if value is None and follows is not None and _takes(name, target, follows, optional):
            value = follows
            number += 1
        if target is None:
            unknown.word(entry, name, value or "", FORM)
            continue
        if target == REFUSED:
            raise InvalidValue(name, "is not valid with -A, -I and -U; leave it out")
        if target == LABEL_MAP:
            raise InvalidValue(name, "names a file of label names, which is not read; leave it out and set label_map")
        if value is None and target not in optional:
            raise InvalidValue(name, "has no value; write one after it")
        if target == "labels" and target in given:
            value = f"{given[target][1]},{value}"
        elif target in given and target != PASSED_OVER:
            raise InvalidValue(name, "is given twice; write it once")
        given[target] = name, value or ""
    return given


def table_of(given: Given) -> str:
    """Return the table of a command that creates or updates. Raises `NoEntry` for other lines."""
    if COMMAND not in given:
        raise NoEntry("", f"is not a line of {FORM}; it has no -A, -I or -U")
    command, table = given[COMMAND]
    if command in DELETE_OPTIONS:
        raise NoEntry(command, "deletes entries, and only entries to create are read; remove the line")
    for name in _TABLES:
        if name.startswith(table):
            return name
    raise NoEntry(command, f"{printable(table)!r} is not a table; write one of {', '.join(_TABLES)}")


def from_octal(raw: str, option: str) -> str:
    """Convert a number, or a number and a mask, from octal with a leading 0, as in C, to decimal."""
    numbers = raw.split("/", 1)
    for place, text in enumerate(numbers):
        if len(text) > 1 and text[0] == "0" and text.isdigit():
            if not re.fullmatch("[0-7]{1,12}", text):
                raise InvalidValue(option, f"{printable(text)!r} is not an octal number; leave out the leading 0")
            numbers[place] = str(int(text, 8))
    return "/".join(numbers)


def in_quotes(text: str, key: str) -> str:
    """Return a value as one word, in double quotation marks if needed. The program supports no others."""
    if not text.isprintable() or any(character in text for character in "\"'\\"):
        raise InvalidValue(key, f"{printable(text)!r} cannot be written in a command; write the entries as json")
    return f'"{text}"' if " " in text else text


def _split(line: str) -> list[str]:
    if not any(character in line for character in "\"'\\"):
        return line.split()
    try:
        return shlex.split(line)
    except ValueError as fault:
        if not any(text.startswith("-") for text in line.split()):
            return []  # a sentence with an apostrophe
        raise InvalidValue("", f"{fault}; close the quotation mark") from None


def _read_head(words: list[str], entry: Entry, unknown: Unknown) -> None:
    """Read the words before the first option: the program's name, or words of other programs."""
    if words and words[-1].rpartition("/")[2] == "conntrack":
        words = words[1:-1] if words[0] == "sudo" else words[:-1]
    if words:
        unknown.head(entry, " ".join(words), FORM)


def _takes(name: str, target: str | None, follows: str, optional: Container[str]) -> bool:
    """Whether the next word is the value of an option without a value in its own word."""
    if target == COMMAND:
        return any(table.startswith(follows) for table in _TABLES)
    if target is None or target in optional:
        return name.startswith("-") and not follows.startswith("-")
    return True


def _option(text: str, targets: Mapping[str, str]) -> tuple[str, str | None, str | None]:
    """Return the name of an option, its value in the same word, and its meaning."""
    target = targets.get(text)
    if target is not None or not text.startswith("-"):
        return text, None, target
    if not text.startswith("--"):
        target = targets.get(text[:2])
        return (text, None, None) if target is None else (text[:2], text[2:], target)
    name, equals, value = text.partition("=")
    if name not in targets:
        name = _whole_name(name, targets)
    return name, value if equals else None, targets.get(name)


def _whole_name(name: str, targets: Mapping[str, str]) -> str:
    """Return the long option that begins with `name`, if it is the only one."""
    found = [option for option in targets if len(name) > len("--") and option.startswith(name)]
    if len({targets[option] for option in found}) > 1:
        raise InvalidValue(printable(name), f"is ambiguous; write one of {', '.join(found)}")
    return found[0] if found else name
