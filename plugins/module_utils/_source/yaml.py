# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parse YAML that contains only what JSON can represent. Requires PyYAML."""

from __future__ import annotations

import functools
from typing import Any

#: The maximum number of characters of an integer, in any base and with underscores.
_MOST_DIGITS = 300
#: The limit for a document with aliases: a number of characters, plus a multiple of the length of its text.
_ROOM, _TIMES = 1_000_000, 100

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class Unreadable(ValueError):
    """A text that is not YAML, or that JSON cannot represent. `line` is None if it is unknown."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


def documents(text: str) -> list[Any]:
    """Return all documents in a text. Raises `Unreadable`, and ImportError without PyYAML."""
    import yaml

    try:
        return list(yaml.load_all(text, Loader=_loader()))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(
            error.problem or error.context or "is not valid YAML", mark.line + 1 if mark else None
        ) from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise Unreadable(f"is not valid YAML: {getattr(error, 'reason', error)}", line) from None
    except ValueError as error:
        raise Unreadable(f"is not valid YAML: {error}") from None


def _size(root: Any) -> int:
    """Return the number of characters in a document after its aliases are expanded.

    A few lines of nested aliases can expand to more than fits into memory.
    """
    sizes: dict[int, int] = {}
    todo = [(root, False)]
    while todo:
        node, seen = todo.pop()
        if isinstance(node.value, str):
            sizes[id(node)] = len(node.value) + 1
            continue
        below = [one for item in node.value for one in (item if isinstance(item, tuple) else (item,))]
        if seen:
            sizes[id(node)] = 1 + sum(sizes[id(one)] for one in below)
        elif id(node) not in sizes:
            sizes[id(node)] = 0  # a node that contains itself is refused when it is constructed
            todo.append((node, True))
            todo += [(one, False) for one in below]
    return sizes[id(root)]


@functools.lru_cache(maxsize=None)
def _loader() -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """A loader that uses libyaml if it is installed, because it is ten times as fast."""

        def __init__(self, text: str) -> None:
            super().__init__(text)
            # Without aliases, no document is larger than its text
            self._most = _ROOM + _TIMES * len(text) if "*" in text else None

        def construct_document(self, node: Any) -> Any:
            if self._most is not None and _size(node) > self._most:
                raise refusal(f"aliases that stand for more than {self._most:,} characters; write fewer", node)
            # Construct all nested nodes at once, so that a node that contains itself is refused
            return self.construct_object(node, deep=True)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = set()
            for key, _value in node.value:
                if key.tag == _MERGE:
                    continue
                if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                    raise refusal(f"a key that is not text, {getattr(key, 'value', '')!r}; write it in quotes", key)
                if key.value in keys:
                    raise refusal(f"the key {key.value!r} occurs twice; write it once", key)
                keys.add(key.value)
            return super().construct_mapping(node, deep=deep)

        def construct_number(self, node: Any) -> Any:
            """Construct a number. A value such as 1:30 stays text: it can be a part of an address, not base 60."""
            if ":" in node.value:
                return node.value
            if node.tag.endswith("float"):
                return self.construct_yaml_float(node)
            if len(node.value) > _MOST_DIGITS:
                raise refusal(f"an integer of {len(node.value)} characters; no value is longer than 128 bits", node)
            return self.construct_yaml_int(node)

        def construct_no_json(self, node: Any) -> Any:
            raise refusal(
                f"{node.tag} cannot be part of a declaration; write text, numbers, lists and dictionaries. Data "
                "encrypted with Ansible Vault must be a whole file on the controller",
                node,
            )

    def refusal(problem: str, node: Any) -> Exception:
        error: Exception = yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return error

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_number)
    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_number)
    # Keep a timestamp as text, because times have nanoseconds here
    Loader.add_constructor("tag:yaml.org,2002:timestamp", Loader.construct_yaml_str)
    for kind in ("binary", "omap", "pairs", "set"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", Loader.construct_no_json)
    Loader.add_constructor(None, Loader.construct_no_json)
    return Loader
