# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check that texts and names use plain English and the terms of the glossary.

Checked are pages, module documentation, docstrings, comments, messages, names of tasks, and identifiers. A text that is
right although a pattern finds it is in `EXCEPTIONS`, with the reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]


class Rule(NamedTuple):
    """A pattern in lower-case text, and what to write instead."""

    pattern: str
    instead: str


PROGRAMS = "kernel|module|table|host|event|file|match|entry|playbook|task|program|process|library|option|key"
VERBS = "tells?|told|says|said|knows?|hears?|heard|asks|asked|wants?"
CLAUSE = r"(what|who|whoever|whose) [a-z' ]+ (is|are|was|were|can|cannot|must|does|has|have|goes|stays|comes)"
RULES = [
    Rule(r"\b(whoever|nobody|somebody)\b", "the process, the caller, no listener"),
    Rule(r"\b(befell|befallen|befalls)\b|\bbec[ao]me of\b", "the result, the error"),
    Rule(r"\bcountdowns?\b", "timeout, remaining timeout"),
    Rule(r"\bprolong(s|ed|ing)?\b", "extend the timeout"),
    Rule(r"\banew\b", "again, or leave it out"),
    Rule(r"\bshall\b", "must"),
    Rule(r"\bfore(see|sees|seen|sight)\b", "predict, plan"),
    Rule(r"\b(bring|brings|brought) about\b", "apply, cause"),
    Rule(r"\bbe it\b|\bat home\b|\bso many\b|\bhow much it is\b", "the number of, or leave it out"),
    Rule(r"\ball the same\b", "nevertheless"),
    Rule(r"\bseconds left\b", "remaining timeout"),
    Rule(r"\bmake-up\b", "layout"),
    Rule(r"\bgone meanwhile\b|\bvanish(es|ed)?\b", "already gone"),
    Rule(rf"\b({PROGRAMS})s? ({VERBS})\b", "reports, returns, requests"),
    Rule(r"\b(is|are|was|were|be|been) told\b", "is reported, receives"),
    Rule(rf"(^|[.!?] ){CLAUSE}\b[^?]*$", "a noun as the subject"),
    Rule(r"\b(is|are|was|were) to (be|have|go|live|come|stay|find|say)\b", "must, or the plain verb"),
    Rule(r"\b(that|what|which) (is|are|was|were) there\b", "existing, that exists"),
    Rule(r"\b(?<!there )(is|are) no (?!more\b|longer\b|limit\b|such\b|need\b|effect\b)[a-z]+", "is not a, there is no"),
]
#: Parts of identifiers, between underscores.
PARTS = {
    *("whoever", "nobody", "somebody", "befell", "countdown", "countdowns", "anew", "shall", "foresee", "foreseen"),
    *("foresight", "told", "heard", "condemn", "condemned", "doomed", "surely", "vanished"),
}
PHRASES = re.compile(
    r"(^|_)(test_(what|who|whose)|go_on|goes_on|comes_back|left_alone|by_itself|so_many|asked_for|is_there)(_|$)"
)

#: Texts that a pattern finds although they are right: a part of the path, a part of the text, and the reason.
EXCEPTIONS: list[tuple[str, str, str]] = []


class Text(NamedTuple):
    """A sentence or a paragraph, its file and its line."""

    path: str
    line: int
    text: str


@cache
def files() -> list[str]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def page_texts(path: str, content: str) -> Iterator[Text]:
    """Yield the paragraphs and list items of a page, without code."""
    content = re.sub(r"^```.*?^```$", lambda code: "\n" * code[0].count("\n"), content, flags=re.DOTALL | re.MULTILINE)
    content = re.sub(r"``?[^`]+``?", "CODE", content)
    indent: int | None = None
    paragraph, start = "", 0
    for number, line in enumerate([*content.splitlines(), ""], 1):
        depth = len(line) - len(line.lstrip())
        if indent is not None and (not line.strip() or depth > indent):
            continue
        indent = depth if re.match(r"\s*\.\. (code-block|literalinclude|image|figure|_|not run)", line) else None
        if indent is not None or not line.strip() or re.match(r"\s*(\* -|- |\d\. |\| )", line):
            if paragraph:
                yield Text(path, start, paragraph)
            paragraph, start = "", number
        if indent is None:
            paragraph = f"{paragraph} {line.strip()}".strip()


CODE = re.compile(r"`+[^`]+`+|[A-Z]\([^)]*\)")
PARAGRAPH = re.compile(r"\n\s*\n|\n\s*- |\n\s*\w+: ")


def python_texts(path: str, content: str) -> Iterator[Text]:
    """Yield docstrings, documentation, messages and comments of a Python file."""
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for paragraph in PARAGRAPH.split(CODE.sub("CODE", node.value)):
                yield Text(path, node.lineno, paragraph)
    for number, line in enumerate(content.splitlines(), 1):
        if found := re.search(r"(?:^|\s)#:? (.+)", line):
            yield Text(path, number, CODE.sub("CODE", found[1]))


def task_names(path: str, content: str) -> Iterator[Text]:
    for number, line in enumerate(content.splitlines(), 1):
        if found := re.match(r"\s*-? ?name: (.+)", line):
            yield Text(path, number, found[1].strip("\"'"))
        elif found := re.match(r"\s*# (.+)", line):
            yield Text(path, number, found[1])


def texts() -> Iterator[Text]:
    for path in files():
        if not (ROOT / path).is_file() or path.startswith("LICENSES") or path == "tests/unit/test_prose.py":
            continue
        if path.endswith((".rst", ".md")):
            yield from page_texts(path, (ROOT / path).read_text())
        elif path.endswith(".py"):
            yield from python_texts(path, (ROOT / path).read_text())
        elif path.endswith((".yml", ".yaml")):
            yield from task_names(path, (ROOT / path).read_text())


@cache
def plain_texts() -> list[Text]:
    return [each._replace(text=re.sub(r"\s+", " ", each.text).strip().lower()) for each in texts()]


def is_excepted(each: Text) -> bool:
    return any(path in each.path and part in each.text for path, part, _reason in EXCEPTIONS)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.instead)
def test_texts_are_plain_english(rule: Rule) -> None:
    pattern = re.compile(rule.pattern)
    found = [each for each in plain_texts() if pattern.search(each.text) and not is_excepted(each)]
    assert not found, "\n" + "\n".join(f"{each.path}:{each.line}: {each.text[:160]}" for each in found)


def test_identifiers_are_plain_english() -> None:
    found = set()
    for path in files():
        if path.endswith(".py") and (ROOT / path).is_file():
            for node in ast.walk(ast.parse((ROOT / path).read_text())):
                name = getattr(node, "name", None) or getattr(node, "arg", None) or getattr(node, "id", None)
                if isinstance(name, str) and (PARTS & set(name.lower().split("_")) or PHRASES.search(name.lower())):
                    found.add(f"{path}: {name}")
    assert not found, "\n" + "\n".join(sorted(found))


def test_every_exception_is_needed() -> None:
    patterns = [re.compile(rule.pattern) for rule in RULES]
    marked = [each for each in plain_texts() if any(pattern.search(each.text) for pattern in patterns)]
    for path, part, _reason in EXCEPTIONS:
        assert any(path in each.path and part in each.text for each in marked), f"{path}: {part}"


def test_a_sentence_of_each_kind_is_found() -> None:
    """Without this test, a reader that finds nothing would pass."""
    by_suffix = {Path(each.path).suffix for each in plain_texts()}
    assert {".rst", ".md", ".py", ".yml"} <= by_suffix
    assert len(plain_texts()) > 10_000
