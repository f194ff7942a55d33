# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTML and SVG that cannot be broken out of: whatever is not markup already is escaped where it is put in.

What is made here is well-formed XML as well, so that a test can read all of it back.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Elements that have no end tag in HTML.
_VOID = ("meta", "br")


class Markup(str):
    """Text that is markup, made by `element`."""

    __slots__ = ()


#: What an element may hold: markup, text, nothing, or any of them in turn.
Content = Any


def element(tag: str, /, *content: Content, **attributes: Any) -> Markup:
    """An element. In names of attributes _ is -, and at the end nothing (`class_`); those of None are left out."""
    inner = joined(*content)
    start = f"<{tag}{''.join(_attribute(key, value) for key, value in attributes.items() if value is not None)}"
    if tag in _VOID:
        return Markup(f"{start}/>")
    return Markup(f"{start}>{inner}</{tag}>")


def joined(*content: Content) -> Markup:
    """Contents one after the other."""
    return Markup("".join(_pieces(content)))


def escaped(value: Any) -> str:
    """Text as it may stand in an element and in an attribute."""
    return html.escape(xml_text(value), quote=True)


def xml_text(value: Any) -> str:
    """Text without what may not be in XML, however it is written there."""
    return _NOT_IN_XML.sub("\ufffd", str(value))


def _pieces(content: Iterable[Content]) -> Iterable[str]:
    for piece in content:
        if isinstance(piece, Markup):
            yield piece
        elif isinstance(piece, str):
            yield escaped(piece)
        elif isinstance(piece, (int, float)):
            yield escaped(str(piece))
        elif piece is not None:
            yield from _pieces(piece)


def _attribute(key: str, value: Any) -> str:
    return f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
