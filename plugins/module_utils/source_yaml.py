# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as far as it says what JSON can say, where PyYAML is at hand."""

from __future__ import annotations

import functools
from typing import Any

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class Unreadable(ValueError):
    """A text that is no YAML, or says what JSON cannot; `line` is None where that is not known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line


def documents(text: str) -> list[Any]:
    """All documents of a text. Raises `Unreadable`, and ImportError without PyYAML."""
    import yaml  # type: ignore[import-untyped]

    try:
        return list(yaml.load_all(text, Loader=_loader()))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(error.problem or error.context, mark and mark.line + 1) from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        raise Unreadable(f"is no YAML: {getattr(error, 'reason', error)}", line) from None
    except ValueError as error:
        raise Unreadable(f"is no YAML: {error}") from None


@functools.lru_cache(maxsize=None)
def _loader() -> Any:
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """With libyaml where it is there: it is ten times as fast."""

        def construct_document(self, node: Any) -> Any:
            # With all that is below it at once, so that what contains itself is refused
            return self.construct_object(node, deep=True)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = set()
            for key, _value in node.value:
                if key.tag == _MERGE:
                    continue
                if not isinstance(key, yaml.ScalarNode) or key.tag != _TEXT:
                    raise refusal(f"a key that is no text, {getattr(key, 'value', '')!r}; write it in quotes", key)
                if key.value in keys:
                    raise refusal(f"the key {key.value!r} is there twice; write it once", key)
                keys.add(key.value)
            return super().construct_mapping(node, deep=deep)

        def construct_number(self, node: Any) -> Any:
            """1:30 is no number of base 60 here, but maybe a part of an address."""
            if ":" in node.value:
                return node.value
            return self.construct_yaml_float(node) if node.tag.endswith("float") else self.construct_yaml_int(node)

        def construct_no_json(self, node: Any) -> Any:
            raise refusal(
                f"{node.tag} is nothing that a declaration holds; write text, numbers, lists and dictionaries. Of "
                "what Ansible Vault has encrypted, whole files are read on the controller",
                node,
            )

    def refusal(problem: str, node: Any) -> Exception:
        error: Exception = yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return error

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_number)
    Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_number)
    # As it was written, for a time has nanoseconds here
    Loader.add_constructor("tag:yaml.org,2002:timestamp", Loader.construct_yaml_str)
    for kind in ("binary", "omap", "pairs", "set"):
        Loader.add_constructor(f"tag:yaml.org,2002:{kind}", Loader.construct_no_json)
    Loader.add_constructor(None, Loader.construct_no_json)
    return Loader
