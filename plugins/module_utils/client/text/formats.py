# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write and read entries and expectations in the output formats of conntrack(8), and in JSON.

An output has the name that the option `-o` of the program takes: `text` (or nothing), `extended`, `save` or `xml`, each
with optional parts (`extended,id,labels`). `json` is a list of documents.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, Callable, Iterable, Mapping, NamedTuple

from ..entry import document as entry_document
from ..entry.entry import Entry
from ..entry.labels import NO_LABELS, LabelMap
from ..errors import TOO_DEEP, InvalidValue
from ..expectation import expectation
from . import expectations, save, xml
from .common import LONGEST_LINE, REMARK, UNKNOWN, Names, Show, Unknown, Unreadable, gaps, read_labels
from .list import read as read_list
from .list import write as write_list

__all__ = [
    "FORMS",
    "UNKNOWN",
    "Names",
    "Reading",
    "Unreadable",
    "examine",
    "from_document",
    "parse_output",
    "read",
    "recognised",
    "to_document",
    "write",
]


class Reading(NamedTuple):
    """The entries of a text, or expectations if `table` is `expect`.

    `skipped` has the number of words and lines that are not conntrack's, by name. `gaps` is the number of places where
    conntrack reports lost entries.
    """

    table: str
    entries: list[Entry]
    skipped: dict[str, int]
    gaps: int


def is_expectation(thing: Any) -> bool:
    """Whether a document or a flat mapping is an expectation."""
    return isinstance(thing, Mapping) and ("tuple" in thing or "tuple.protocol" in thing)


def to_document(thing: Mapping[str, Any], labels: LabelMap = NO_LABELS) -> dict[str, Any]:
    """Convert an entry or an expectation to its document."""
    return expectation.to_document(thing) if is_expectation(thing) else entry_document.to_document(thing, labels)


def from_document(raw: Any, labels: LabelMap = NO_LABELS) -> Entry:
    """Convert a document to an entry or an expectation, with labels of which only the names are known.

    Raises `InvalidValue` with the path of the first fault.
    """
    if is_expectation(raw):
        return expectation.from_document(raw)
    if not isinstance(raw, Mapping) or raw.get("labels") is None:
        return entry_document.from_document(raw)
    entry = entry_document.from_document({key: value for key, value in raw.items() if key != "labels"})
    return {**entry, "labels": 0, **read_labels(raw["labels"], "labels", labels)}


def _write_json(entries: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    lines = (json.dumps(to_document(entry, labels)) for entry in entries)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _read_json(raw: str, labels: LabelMap, unknown: Unknown) -> list[Entry]:
    entries = []
    for number, document in enumerate(_documents(raw), 1):
        try:
            entries.append(from_document(document, labels))
        except RecursionError:
            raise Unreadable(f"entry {number}", TOO_DEEP) from None
        except InvalidValue as fault:
            raise Unreadable.at(f"entry {number}", fault) from None
    return entries


def _documents(raw: str) -> list[Any]:
    """Parse a JSON list of documents, or one document on each line."""
    try:
        found = json.loads(raw)
    except ValueError as fault:
        try:
            return [json.loads(line) for line in raw.splitlines() if line.strip()]
        except ValueError:
            raise Unreadable("document", f"is not valid JSON: {fault}") from None
        except RecursionError:
            raise Unreadable("document", TOO_DEEP) from None
    except RecursionError:
        raise Unreadable("document", TOO_DEEP) from None
    return found if isinstance(found, list) else [found]


_Write = Callable[[Iterable[Mapping[str, Any]], Show, LabelMap, float], str]
_Read = Callable[[str, LabelMap, Unknown], "list[Entry]"]


class Form(NamedTuple):
    """The functions that write and read a format, for entries and expectations, and its optional parts."""

    write: _Write
    read: _Read
    write_expectations: _Write
    read_expectations: _Read
    shows: tuple[str, ...]


_SHOWS = ("id", "timestamp", "ktimestamp", "labels")
_TEXT = Form(write_list, read_list, expectations.write_text, expectations.read_text, _SHOWS)

#: The formats by name. `timestamp` belongs to events and shows nothing in a list, as in the program.
FORMS: dict[str, Form] = {
    "text": _TEXT,
    "extended": _TEXT,
    "save": Form(save.write, save.read, expectations.write_commands, expectations.read_commands, ("labels",)),
    "xml": Form(xml.write, xml.read, expectations.write_xml, expectations.read_xml, ("extended", *_SHOWS)),
    "json": Form(_write_json, _read_json, _write_json, _read_json, ()),
}


def parse_output(output: str) -> tuple[str, Show]:
    """Parse an output such as `extended,id` to the format and its optional parts. Raises `InvalidValue`."""
    words = [word.strip() for word in output.split(",")]
    forms = [name for name in ("json", "xml", "save", "extended", "text") if name in words]
    form = forms[0] if forms else "text"
    for word in words:
        if word != form and word not in FORMS[form].shows:
            raise InvalidValue("output", f"{word!r} does not go with {form}; {_choice(form)}")
    show = {name: name in words for name in Show._fields}
    return form, Show(**show)


def _choice(form: str) -> str:
    shows = ", ".join(FORMS[form].shows) or "nothing else"
    return f"write one of {', '.join(FORMS)}; besides itself, {form} shows {shows}"


def write(
    entries: Iterable[Mapping[str, Any]],
    output: str = "text",
    labels: LabelMap = NO_LABELS,
    now: float | None = None,
) -> str:
    """Return entries or expectations (flat mappings) in the format that `output` names.

    `now` is the UNIX time for ages. Raises `InvalidValue` for an unknown output, and for an entry that the format
    cannot express.
    """
    form, show = parse_output(output)
    things = list(entries)
    kinds = {is_expectation(thing) for thing in things}
    if len(kinds) > 1:
        raise InvalidValue("", "the list has both entries and expectations; write two lists")
    writes = FORMS[form].write_expectations if True in kinds else FORMS[form].write
    return writes(things, show, labels, time.time() if now is None else now)


def read(raw: str, form: str | None = None, labels: LabelMap = NO_LABELS) -> list[Entry]:
    """Parse a text to entries or expectations (flat mappings). Without `form`, the format is detected.

    Raises `Unreadable` for the first line, flow or entry that cannot be parsed.
    """
    return examine(raw, form, labels).entries


def examine(
    raw: str,
    form: str | None = None,
    labels: LabelMap = NO_LABELS,
    unknown: str = "fail",
    ignore_gaps: bool = False,
) -> Reading:
    """Parse a text as `read` does, and report also what was skipped.

    `unknown` is one of `UNKNOWN`: `fail` for words and lines that are not conntrack's, `keep` such words in `extra` of
    their entry, or `skip` them. With `ignore_gaps`, entries that conntrack lost are not an error.
    """
    skipping = Unknown(unknown)
    if form is None:
        form = recognised(raw)
    elif form not in FORMS:
        raise InvalidValue("form", f"{form!r} is not an output format; write one of {', '.join(FORMS)}")
    lost = list(gaps(raw))
    if lost and not ignore_gaps:
        line, what = lost[0]
        raise Unreadable(f"line {line}", f"{what}, so entries are missing; use ignore_gaps=true to read the rest")
    of_expectations = _of_expectations(raw, form)
    reads = FORMS[form].read_expectations if of_expectations else FORMS[form].read
    entries = reads(raw, labels, skipping) if raw.strip() else []
    if form == "json":
        kinds = {is_expectation(entry) for entry in entries}
        if len(kinds) > 1:
            raise Unreadable("document", "has both entries and expectations; write two documents")
        of_expectations = True in kinds
    return Reading("expect" if of_expectations else "conntrack", entries, skipping.skipped, len(lost))


_BEGINNINGS = (
    ("xml", re.compile(r"<")),
    ("json", re.compile(r"\{|\[\s*[{\]]")),
    ("save", re.compile(r"((sudo\s+)?\S*conntrack\s+)?--?[A-Za-z]")),
)
_EXPECT_DOCUMENT = re.compile(r"(?:<\?xml[^>]*\?>)?\s*(?:<expect\b|<flow[^>]*>\s*<layer3\b)")
_EXPECT_COMMAND = re.compile(r"(?<!\S)(?:-[AIUD]\s*|--[a-z]+(?:\s+|=))(e[a-z]*)(?!\S)")


def recognised(raw: str) -> str:
    """Return the name of the format of a text, by its beginning."""
    start = _start(raw)
    return next((name for name, beginning in _BEGINNINGS if beginning.match(raw, start)), "text")


def _start(raw: str) -> int:
    """Return the start of a text after empty lines, comments and messages of conntrack."""
    start = 0
    while start < len(raw):
        end = raw.find("\n", start) + 1 or len(raw)
        line = raw[start:end]
        if line.strip() and not REMARK.match(line):
            return start + len(line) - len(line.lstrip())
        start = end
    return start


def _of_expectations(raw: str, form: str) -> bool:
    """Whether a text of this format (not JSON) has expectations, by its beginning."""
    start = _start(raw)
    if form == "xml":
        return _EXPECT_DOCUMENT.match(raw, start) is not None
    if form == "save":
        command = _EXPECT_COMMAND.search(raw[start : start + LONGEST_LINE].partition("\n")[0])
        return command is not None and "expect".startswith(command[1])
    ends = raw.find("src=", start)
    return "proto=" in raw[raw.rfind("\n", 0, max(ends, 0)) + 1 : max(ends, 0)]
