# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each message on the page about troubleshooting is one that the collection contains."""

from __future__ import annotations

import ast
import re

import pytest

from ansible_collections.netops.conntrack.tests.collection_tree import CHECKOUT

PAGE = (CHECKOUT / "docs/docsite/rst/troubleshooting.rst").read_text(encoding="utf-8")
MESSAGES = re.findall(r"^``(.+)``$", PAGE, re.MULTILINE)
#: Stands for a value in a text of the source.
VALUE = "\0"


def texts() -> set[str]:
    """Return all texts in the source of the plugins, with `VALUE` in the place of each value."""
    found = set()
    for path in (CHECKOUT / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(str(part.value) if isinstance(part, ast.Constant) else VALUE for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


TEXTS = "\n".join(texts())


def pattern(message: str) -> str:
    """Return the expression for a message, in which each `...` stands for at least one value."""
    return f"[^\n]*{VALUE}[^\n]*".join(map(re.escape, message.split("...")))


@pytest.mark.parametrize("message", MESSAGES)
def test_message_exists(message: str) -> None:
    assert re.search(pattern(message), TEXTS)


def test_page_lists_messages() -> None:
    assert len(MESSAGES) > 40
    assert len(set(MESSAGES)) == len(MESSAGES)


@pytest.mark.parametrize("message", ["netns: no entry for ...", "netns: cannot ... enter", "CAP_NET_ADMIN ..."])
def test_other_messages_are_not_found(message: str) -> None:
    assert not re.search(pattern(message), TEXTS)
