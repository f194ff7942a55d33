# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as a single HTML page without scripts, fonts or network access.

`html` escapes all values. In addition, the Content-Security-Policy of the page forbids the browser to load anything,
and allows only the style sheet of the page.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .components import empty, section
from .formatting import plural
from .html import Markup, element, joined
from .sections import hosts, kernel, overview, snat_ports, stale, top, traffic, usage


def render(document: Mapping[str, Any], data: str | None = None) -> str:
    """The page. `data` is the name of a JSON file in the same directory with the same document."""
    style = _style()
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="robots", content="noindex"),
        element("title", document["title"]),
        element("style", style),
    )
    body = element(
        "body",
        element("a", "Skip to what needs attention", href="#attention", class_="skip"),
        _header(document),
        element("main", [part for part in _sections(document) if part is not None]),
        _footer(document, data),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _sections(document: Mapping[str, Any]) -> list[Markup | None]:
    if not document["hosts"]:
        return [section("attention", "Needs attention", empty("No host, as there is none."))]
    return [
        overview.attention(document),
        overview.thresholds(document),
        stale.stale(document),
        usage.fill(document),
        snat_ports.snat_ports(document),
        traffic.traffic(document),
        top.rankings(document),
        kernel.counters(document),
        kernel.settings(document),
        hosts.hosts(document),
    ]


def _header(document: Mapping[str, Any]) -> Markup:
    every = document["hosts"]
    only = every[0]["name"] if len(every) == 1 else None
    said = [only or plural(len(every), "host")]
    if document["origin"] and document["origin"] != only:
        said.append(document["origin"])
    return element(
        "header",
        element("h1", document["title"]),
        element("p", " · ".join(said), _moment(document, " · "), class_="about"),
        overview.verdict(document),
        overview.overview(document) if every else None,
    )


def _moment(document: Mapping[str, Any], before: str = "") -> Markup | None:
    moment = document["gathered"]
    if not moment:
        return None
    return joined(before, element("time", f"{moment[:10]} {moment[11:16]} UTC", datetime=moment))


def _footer(document: Mapping[str, Any], data: str | None) -> Markup:
    return element(
        "footer",
        element(
            "p",
            "Created by netops.conntrack from the facts of its module conntrack_facts",
            _moment(document, ", "),
            ". ",
            joined("The same figures are in ", element("a", data, href=f"./{quote(data)}"), ".") if data else None,
        ),
    )


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _style() -> Markup:
    """The style sheet, which contains no values of a report."""
    text = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return Markup(text[text.index("*/") + 2 :].strip())
