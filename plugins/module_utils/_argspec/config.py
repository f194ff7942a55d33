# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declaration for a whole gateway: its options, and the parser.

`CONFIG` is the single definition. Its upper levels are the options of the module. The JSON Schema is generated from it,
and `read_declaration` uses it on the controller and on the target.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Mapping

from ansible.module_utils.basic import AnsibleModule

from .._module import PRESENT
from .entry import ENTRY
from .expectation import EXPECTATION, declared_expectation
from .match import recorded
from .purge import SCOPE, has_scope, is_given
from .settings import PERSISTENCE, SETTINGS
from .timeout_policy import TIMEOUT_POLICY
from .tuple import group

if TYPE_CHECKING:
    from .._reconcile.desired_config import Declaration, DeclaredExpectation, DeclaredPolicy
    from .._reconcile.reconciler import Policy
    from .._source.faults import ValidationErrors
    from ..client.entry.entry import Entry
    from ..client.entry.labels import LabelMap
    from ..client.match.match import Match


def several(options: dict[str, Any]) -> dict[str, Any]:
    """Return an option that is a list of dictionaries with these options."""
    return {"type": "list", "elements": "dict", "options": options}


#: Options for existing entries, and for the purge of entries that are not declared.
_POLICY = {name: option for name, option in {**PRESENT, **SCOPE}.items() if name not in ("state", "keep_ssh")}

#: The sections of a declaration, in the order in which they are applied. Each has the options of a separate module.
#: Options of type `raw` are matches.
CONFIG: dict[str, Any] = {
    "settings": group({**SETTINGS, **PERSISTENCE}),
    "timeout_policies": several(TIMEOUT_POLICY),
    "absent": {"type": "list", "elements": "raw"},
    # Without `required`, a missing list would be empty, and a purge would delete all entries in scope
    "entries": group({"declared": {**several(ENTRY), "required": True}, **_POLICY}),
    "expectations": several({**EXPECTATION, **PRESENT}),
}


def outline() -> dict[str, Any]:
    """Return the options of a declaration, without the suboptions that other modules document."""
    sections = {name: _closed(option) for name, option in CONFIG.items()}
    entries = CONFIG["entries"]["options"]
    return {**sections, "entries": group({name: _closed(option) for name, option in entries.items()})}


def _closed(option: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in option.items() if key != "options"}


#: The words for a boolean, as Ansible accepts them.
WORDS: dict[str, bool] = {
    spelled: truth
    for truth, words in ((True, "yes on true y t 1"), (False, "no off false n f 0"))
    for word in words.split()
    for spelled in (word, word.title(), word.upper())
}


def read_declaration(raw: Any, labels: LabelMap) -> tuple[Declaration, ValidationErrors]:
    """Parse a document. Return the valid parts of the declaration, and all errors."""
    from .._reconcile.desired_config import Declaration, contradictions
    from .._reconcile.reconciler import Policy
    from .._source.faults import ValidationErrors

    faults = ValidationErrors()
    given = _given(raw, CONFIG, "", faults)
    there = {name for name in CONFIG if given[name] is not None}
    if not there and not faults:
        faults.add("", f"Nothing is declared; write at least one of {', '.join(CONFIG)}")
    entries = _given(given["entries"] or {}, CONFIG["entries"]["options"], "entries", faults)
    reported = any(fault.key in ("entries", "entries.declared") for fault in faults.found)
    if "entries" in there and entries["declared"] is None and not reported:
        faults.add("entries.declared", "is missing; write the entries that must exist, [] for none")
    settings = _given(given["settings"] or {}, CONFIG["settings"]["options"], "settings", faults)
    policy = Policy.of({"state": "present", **entries})
    declaration = Declaration(
        settings=_settings(settings, faults) if "settings" in there else None,
        persist_in=os.path.expanduser(os.path.expandvars(str(settings["persist_in"]))) if settings["persist"] else None,
        policies=_policies(given["timeout_policies"], faults) if "timeout_policies" in there else None,
        absent=_absent(given["absent"], labels, faults) if "absent" in there else None,
        entries=_entries(entries["declared"], policy, labels, faults) if "entries" in there else None,
        policy=policy,
        scope=_scope(entries["purge"], entries["scope"], labels, faults),
        expectations=_expectations(given["expectations"], faults) if "expectations" in there else None,
    )
    if not faults:
        faults.found += contradictions(declaration)
    return declaration, faults


def config_of(module: AnsibleModule, labels: LabelMap) -> Declaration:
    """Return the declaration in the options `config` and `src`. Raises `InvalidValue` with all errors in it."""
    from ..client.errors import InvalidDocument, InvalidValue

    raw, path = module.params["config"], module.params["src"]
    if path is not None:
        from .._source.file import config_in, read

        raw = config_in(read(path), path)
    elif raw is None:
        raise InvalidValue("config", "is null, and so is src; write the sections, or name a file of them in src")
    declaration, faults = read_declaration(raw, labels)
    if faults:
        raise InvalidDocument(str(faults))
    for place, match in enumerate(declaration.absent or ()):
        recorded(match, f"absent[{place}]")
    if declaration.scope is not None:
        recorded(declaration.scope, "entries.scope")
    return declaration


def _given(raw: Any, options: Mapping[str, Any], key: str, faults: ValidationErrors) -> dict[str, Any]:
    """Return each option with its value, or with its default if it is absent or invalid. Record the errors."""
    from ..client.entry.nested import no_such_key
    from ..client.errors import quoted

    found = {name: option.get("default") for name, option in options.items()}
    if not isinstance(raw, Mapping):
        faults.add(key, f"{quoted(raw)} is not a dictionary; write keys and values")
        return found
    for name, value in raw.items():
        if name not in options:
            faults.found.append(no_such_key(key, name, options))
        elif value is not None or options[name]["type"] == "raw":
            with faults.collect(key):
                found[name] = _value(value, options[name], name)
    return found


def _value(raw: Any, option: Mapping[str, Any], key: str) -> Any:
    """Return the value of an option if it has the right type. Other parsers check the value itself.

    Raises `InvalidValue`.
    """
    from ..client.codec.types import parse_integer
    from ..client.errors import InvalidValue, quoted

    kind = option["type"]
    if raw is None:
        raise InvalidValue(key, "is null; leave it out or give it a value")
    if kind == "bool":
        if isinstance(raw, (bool, int)) and raw in (0, 1):
            return bool(raw)
        if isinstance(raw, str) and raw in WORDS:
            return WORDS[raw]
        raise InvalidValue(key, f"{quoted(raw)} is neither; write true or false")
    if "choices" in option and raw not in option["choices"]:
        raise InvalidValue(key, f"{quoted(raw)} is not a valid value; write one of {', '.join(option['choices'])}")
    if kind == "int":
        number = parse_integer(raw, key, *_BOUNDS.get(key, _ANY))
        return number if key in _BOUNDS else raw
    if kind in ("str", "path") and (isinstance(raw, bool) or not isinstance(raw, (str, int))):
        cure = "write it in quotes" if isinstance(raw, (bool, float)) else "write one text"
        raise InvalidValue(key, f"{quoted(raw)} is not text; {cure}")
    if kind == "list" and option["elements"] != "str" and not isinstance(raw, (list, tuple)):
        raise InvalidValue(key, f"{quoted(raw)} is not a list; write one")
    if kind == "dict" and not isinstance(raw, Mapping):
        raise InvalidValue(key, f"{quoted(raw)} is not a dictionary; write keys and values")
    return raw


#: The bounds of numbers that no other parser checks.
_BOUNDS = {"timeout_min": (0, 0xFFFFFFFF), "use": (0, 0xFFFFFFFF)}
_ANY = (-(1 << 63), (1 << 64) - 1)


def _settings(options: dict[str, Any], faults: ValidationErrors) -> dict[str, int]:
    from ..client.host import sysctl

    declared: dict[str, int] = {}
    parts = [{name: options[name]} for name in SETTINGS if name != "timeouts"]
    parts += [{"timeouts": {state: seconds}} for state, seconds in (options["timeouts"] or {}).items()]
    for part in parts:
        with faults.collect("settings"):
            declared.update(sysctl.parse(part))
    if not declared and not any(fault.key.startswith("settings") for fault in faults.found):
        faults.add("settings", "No setting is declared; write at least one, such as max or accounting")
    return declared


def _policies(items: Any, faults: ValidationErrors) -> list[DeclaredPolicy]:
    from .._reconcile.desired_config import DeclaredPolicy
    from .._reconcile.timeout_policy import examined

    found = []
    for place, raw in enumerate(items):
        key = f"timeout_policies[{place}]"
        options = _given(raw, TIMEOUT_POLICY, key, faults)
        if isinstance(raw, Mapping):
            declared, problems = examined(options)
            known = {fault.key for fault in faults.found}
            found_here = (problem.under(key) for problem in problems)
            faults.found += [fault for fault in found_here if fault.key not in known]
            if not problems:
                found.append(DeclaredPolicy(declared, options["state"], options["replace"]))
    return found


def _absent(items: Any, labels: LabelMap, faults: ValidationErrors) -> list[Match]:
    found = (_match({"absent": items}, ("absent", place), labels, faults) for place in range(len(items)))
    return [match for match in found if match is not None]


def _scope(purge: bool, raw: Any, labels: LabelMap, faults: ValidationErrors) -> Match | None:
    given = is_given(raw)
    with faults.collect("entries"):
        has_scope(purge, raw)
    return _match({"entries": {"scope": raw}}, ("entries", "scope"), labels, faults) if given else None


def _match(document: Any, steps: tuple[Any, ...], labels: LabelMap, faults: ValidationErrors) -> Match | None:
    """Parse the match at a section and a position in a document. Return None if it has errors, which are recorded."""
    from ..client.match.match import parse_match

    section, place = steps
    key = f"{section}.{place}" if isinstance(place, str) else f"{section}[{place}]"

    def from_document(whole: Any) -> Match:
        there = whole[section]
        return parse_match(there.get(place) if isinstance(there, dict) else there[place], labels, key)

    return faults.parse_collecting(from_document, document)


def _entries(items: Any, policy: Policy, labels: LabelMap, faults: ValidationErrors) -> list[Entry]:
    from .._reconcile.entries import parse_entries
    from .._reconcile.plan import check
    from ..client.entry.document import from_document
    from ..client.errors import InvalidValue, quoted

    key = "entries.declared"
    before = len(faults.found)
    try:
        for place, raw in enumerate(items or ()):
            if not isinstance(raw, Mapping):
                raise InvalidValue(f"{key}[{place}]", f"{quoted(raw)} is not an entry; write a dictionary of its keys")
        declared = parse_entries(items or (), labels, key)
    except InvalidValue as first:
        for place, raw in enumerate(items):
            faults.parse_collecting(lambda document: from_document(document, labels), raw, f"{key}[{place}]")
        if len(faults.found) == before:
            faults.found.append(first)
        return []
    for place, entry in enumerate(declared):
        try:
            check(entry, policy)
        except InvalidValue as fault:
            faults.found.append(fault.under("entries" if fault.key == "timeout_min" else f"{key}[{place}]"))
    return declared


def _expectations(items: Any, faults: ValidationErrors) -> list[DeclaredExpectation]:
    from .._reconcile.desired_config import DeclaredExpectation
    from .._reconcile.reconciler import Policy
    from ..client.entry.diff import check_timeout_min
    from ..client.expectation.expectation import from_document

    found = []
    for place, raw in enumerate(items):
        key = f"expectations[{place}]"
        options = _given(raw, CONFIG["expectations"]["options"], key, faults)
        if isinstance(raw, Mapping):
            declared = faults.parse_collecting(from_document, declared_expectation(options), key)
            if declared is not None:
                found.append(DeclaredExpectation(declared, Policy.of(options)))
                with faults.collect(key):
                    check_timeout_min(options["timeout_min"], declared)
    return found
