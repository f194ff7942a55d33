# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file of the controller declares, in JSON, JSON lines or YAML, and maybe encrypted by Ansible Vault.

A declaration is data: it is never taken for a template. What two readers could understand in two ways is refused,
such as a key that is there twice, of which most readers take the last and say nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import yaml

_LINE_BY_LINE = (".jsonl", ".ndjson")
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
#: How much of a value to show.
_SHOWN = 60


class SourceFault(Exception):
    """A file that declares nothing; the sentence names the file, the line where there is one, and the cure."""


def read(loader: Any, path: str) -> list[Any]:
    """The documents in a file, through Ansible's loader, which decrypts it if need be.

    JSON is one document, YAML as many as it has, and of JSON lines each line is one.
    """
    real = loader.get_real_file(path)
    try:
        with open(real, "rb") as file:
            data = file.read()
    except OSError as error:
        raise SourceFault(f"{path}: cannot be read: {error.strerror}") from error
    finally:
        loader.cleanup_tmp_file(real)
    return parse(data, path)


def entries_in(documents: list[Any], name: str) -> list[Any]:
    """The entries among documents: a list of them, such a list under `entries`, or each document one."""
    found = documents
    if len(documents) == 1:
        (found,) = documents
        if isinstance(found, Mapping):
            found = found.get("entries", documents)
    if not isinstance(found, list) or documents in ([], [None]):
        raise SourceFault(f"{name}: declares no list of entries; write one, [] for none")
    for place, entry in enumerate(found):
        if not isinstance(entry, Mapping):
            raise SourceFault(f"{name}: [{place}] is {shown(entry)} and no entry; write a dictionary of its keys")
    return found


def config_in(documents: list[Any], name: str) -> dict[str, Any]:
    """The only document, which has to be a dictionary."""
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise SourceFault(f"{name}: is not one dictionary; write the sections and what each declares")
    return documents[0]


def as_lines(documents: list[Any]) -> str:
    """Entries as JSON lines; a list of none, which has no lines, as JSON."""
    return "".join(f"{json.dumps(document)}\n" for document in documents) or "[]\n"


def shown(value: Any) -> str:
    """A value for a sentence, and not all of it if it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def parse(data: bytes, name: str) -> list[Any]:
    """The documents in the text of a file called `name`. Raises `SourceFault`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceFault(f"{name} line {line}: is no text in UTF-8; save it as that") from None
    ending = os.path.splitext(name)[1].lower()
    try:
        if ending in _LINE_BY_LINE or _has_json_in_its_first_line(text):
            return _json_lines(text, name)
        if ending == ".json":
            return _json(text, name)
        if text.lstrip()[:1] in ("{", "["):
            try:
                return _json(text, name)
            except SourceFault:
                return _yaml(text, name)  # in its flow style
        return _yaml(text, name)
    except RecursionError:
        raise SourceFault(f"{name}: is nested too deeply to declare anything") from None


# JSON


class _Twice(ValueError):
    """A key that is there twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _value in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)


def _json(text: str, name: str) -> list[Any]:
    try:
        return [_DECODER.decode(text)]
    except json.JSONDecodeError as error:
        raise _no_json(name, error.lineno, error) from None
    except _Twice as twice:
        _yaml(text, name)  # which knows the line
        raise SourceFault(f"{name}: {_twice(str(twice))}") from None
    except ValueError as error:
        raise SourceFault(f"{name}: {error}") from None


def _has_json_in_its_first_line(text: str) -> bool:
    first, _end, _rest = text.lstrip().partition("\n")
    if not first.startswith("{"):
        return False
    try:
        json.loads(first)
    except ValueError:
        return False
    return True


def _json_lines(text: str, name: str) -> list[Any]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(_DECODER.decode(line))
        except json.JSONDecodeError as error:
            raise _no_json(name, number, error) from None
        except _Twice as twice:
            raise SourceFault(f"{name} line {number}: {_twice(str(twice))}") from None
        except ValueError as error:
            raise SourceFault(f"{name} line {number}: {error}") from None
    return found


def _no_json(name: str, line: int, error: json.JSONDecodeError) -> SourceFault:
    return SourceFault(f"{name} line {line}: is no JSON, column {error.colno}: {error.msg}")


def _twice(key: str) -> str:
    return f"the key {key!r} is there twice; write it once"


# YAML


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as far as it says what JSON can say, with libyaml where it is there: it is ten times as fast."""

    def construct_document(self, node: yaml.Node) -> Any:
        # With all that is below it at once, so that what contains itself is refused
        return self.construct_object(node, deep=True)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
        keys = set()
        for key, _value in node.value:
            if key.tag == _MERGE:
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                raise _refusal(f"a key that is no text, {getattr(key, 'value', '')!r}; write it in quotes", key)
            if key.value in keys:
                raise _refusal(_twice(key.value), key)
            keys.add(key.value)
        return super().construct_mapping(node, deep=deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """1:30 is no number of base 60 here, but maybe a part of an address."""
        if ":" in node.value:
            return node.value
        return self.construct_yaml_float(node) if node.tag.endswith("float") else self.construct_yaml_int(node)

    def construct_no_json(self, node: yaml.Node) -> Any:
        raise _refusal(
            f"{node.tag} is nothing that a declaration holds; write text, numbers, lists and dictionaries. Of what "
            "Ansible Vault has encrypted, whole files are read",
            node,
        )


def _refusal(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_number)
# As it was written, for a time has nanoseconds here
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)
for _kind in ("binary", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_no_json)
_Loader.add_constructor(None, _Loader.construct_no_json)


def _yaml(text: str, name: str) -> list[Any]:
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name} line {mark.line + 1}" if mark is not None else name
        raise SourceFault(f"{where}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise SourceFault(f"{name} line {line}: is no YAML: {getattr(error, 'reason', error)}") from None
    except ValueError as error:
        raise SourceFault(f"{name}: is no YAML: {error}") from None
