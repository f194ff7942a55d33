# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The forms in which conntrack(8) writes entries, and JSON: written and read.

An output is named as its option `-o` names it: `text` (or nothing) for the plain list, `extended`,
`save`, `xml`, each with what is to be shown besides (`extended,id,labels`); and `json`.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, Callable, Iterable, Mapping, NamedTuple

from . import shape
from .entry import Entry
from .errors import InvalidValue
from .forms import save, text, xml
from .forms.common import Names, Show, Unreadable, read_labels
from .labels import LabelMap

_NO_LABELS = LabelMap()

__all__ = ["FORMS", "Names", "Unreadable", "parse", "parse_output", "read", "recognised", "write"]


def parse(document: Any, labels: LabelMap = _NO_LABELS) -> Entry:
    """The entry of a document as `shape.parse` has it, with labels of which only the name is known."""
    if not isinstance(document, Mapping) or document.get("labels") is None:
        return shape.parse(document)
    entry = shape.parse({key: value for key, value in document.items() if key != "labels"})
    return {**entry, "labels": 0, **read_labels(document["labels"], "labels", labels)}


def _write_json(entries: Iterable[Mapping[str, Any]], show: Show, labels: LabelMap, now: float) -> str:
    lines = (json.dumps(shape.present(entry, labels)) for entry in entries)
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _read_json(raw: str, labels: LabelMap) -> list[Entry]:
    entries = []
    for number, document in enumerate(_documents(raw), 1):
        try:
            entries.append(parse(document, labels))
        except InvalidValue as fault:
            raise Unreadable(f"entry {number}", str(fault)) from None
    return entries


def _documents(raw: str) -> list[Any]:
    """The documents of a list, or one to a line."""
    try:
        found = json.loads(raw)
    except ValueError as fault:
        try:
            return [json.loads(line) for line in raw.splitlines() if line.strip()]
        except ValueError:
            raise Unreadable("document", f"is no JSON: {fault}") from None
    return found if isinstance(found, list) else [found]


class Form(NamedTuple):
    """How a form is written and read, and what it can show besides."""

    write: Callable[[Iterable[Mapping[str, Any]], Show, LabelMap, float], str]
    read: Callable[[str, LabelMap], list[Entry]]
    shows: tuple[str, ...]


_TEXT = Form(text.write, text.read, ("id", "timestamp", "ktimestamp", "labels"))

#: The forms by name. `timestamp` is of events and shows nothing in a list, here as there.
FORMS: dict[str, Form] = {
    "text": _TEXT,
    "extended": _TEXT,
    "save": Form(save.write, save.read, ("labels",)),
    "xml": Form(xml.write, xml.read, ("extended", *_TEXT.shows)),
    "json": Form(_write_json, _read_json, ()),
}


def parse_output(output: str) -> tuple[str, Show]:
    """(form, what it shows besides) of an output such as `extended,id`; `InvalidValue` for what is none."""
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
    labels: LabelMap = _NO_LABELS,
    now: float | None = None,
) -> str:
    """The entries in the form that `output` names. Ages are taken at `now` (seconds since the epoch).

    Raises `InvalidValue` for an output that is none and for an entry that the form cannot hold.
    """
    form, show = parse_output(output)
    return FORMS[form].write(entries, show, labels, time.time() if now is None else now)


def read(raw: str, form: str | None = None, labels: LabelMap = _NO_LABELS) -> list[Entry]:
    """The entries in `raw`, which is in `form`, or in the one that it looks like.

    Raises `Unreadable` for the first line, flow or entry that cannot be read.
    """
    if form is None:
        form = recognised(raw)
    elif form not in FORMS:
        raise InvalidValue("form", f"{form!r} is no form; write one of {', '.join(FORMS)}")
    return FORMS[form].read(raw, labels) if raw.strip() else []


_BEGINNINGS = (
    ("xml", re.compile(r"\s*<")),
    ("json", re.compile(r"\s*(\{|\[\s*[{\]])")),
    ("save", re.compile(r"(\s|#.*\n|conntrack v.*\n)*(conntrack\s+)?-")),
)


def recognised(raw: str) -> str:
    """The form that `raw` is in, by how it begins."""
    return next((name for name, beginning in _BEGINNINGS if beginning.match(raw)), "text")
