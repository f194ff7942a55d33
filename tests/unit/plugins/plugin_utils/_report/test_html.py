# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Text never becomes markup, wherever the page contains it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from ansible_collections.netops.conntrack.plugins.plugin_utils._report.html import Markup, element, joined

NASTY = "\"'><b>&amp;\x00\x1b\ud800\ufffe"
SAFE = "\"'><b>&amp;\ufffd\ufffd\ufffd\ufffd"


def test_text_is_escaped_in_elements_and_attributes() -> None:
    found = ET.fromstring(element("p", NASTY, ["x", None, (5, 0.5)], title=NASTY, aria_label=NASTY, class_=NASTY))
    assert found.text == f"{SAFE}x50.5"
    assert found.attrib == {"title": SAFE, "aria-label": SAFE, "class": SAFE}
    assert len(found) == 0


def test_markup_is_not_escaped() -> None:
    assert element("p", element("b", "x"), hidden=None) == "<p><b>x</b></p>"
    assert element("br") == "<br/>"
    assert isinstance(joined("a", element("b")), Markup)


def test_slice_of_markup_is_text() -> None:
    """A slice of an element is text, and no longer an element."""
    assert element("p", element("b", "x")[:3]) == "<p>&lt;b&gt;</p>"
