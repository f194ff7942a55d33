# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generate HTML and SVG. All content that is not `Markup` is escaped.

The output is well-formed XML as well, so that tests can parse it.
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
    """Markup that `element` or `joined` created, which is not escaped again."""

    __slots__ = ()


#: Content of an element: markup, text, None, or an iterable of such content.
Content = Any


def element(tag: str, /, *content: Content, **attributes: Any) -> Markup:
    """An element. In attribute names, _ becomes -, and a trailing _ is removed. Attributes with None are omitted."""
    inner = joined(*content)
    start = f"<{tag}{''.join(_attribute(key, value) for key, value in attributes.items() if value is not None)}"
    if tag in _VOID:
        return Markup(f"{start}/>")
    return Markup(f"{start}>{inner}</{tag}>")


def joined(*content: Content) -> Markup:
    """Concatenated contents."""
    return Markup("".join(_pieces(content)))


def escaped(value: Any) -> str:
    """Text that is escaped for elements and attributes."""
    return html.escape(xml_text(value), quote=True)


def xml_text(value: Any) -> str:
    """Text without characters that are invalid in XML even if escaped."""
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
