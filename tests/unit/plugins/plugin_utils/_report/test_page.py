# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page is complete, harmless and readable, whatever the hosts send.

The tests parse the page as XML, which is stricter than HTML, so that they detect markup that a host sent.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.netops.conntrack.plugins.plugin_utils._report import junit, metrics, page, thresholds
from ansible_collections.netops.conntrack.plugins.plugin_utils._report.formatting import UNKNOWN
from ansible_collections.netops.conntrack.plugins.plugin_utils._report.model import report
from ansible_collections.netops.conntrack.tests.unit.support import fleets

Document = dict[str, Any]

ELEMENTS = set(
    """
    html head meta title style body a header h1 h2 h3 h4 p time dl div dt dd main section ol ul li table caption thead
    tbody tr th td span code svg rect path circle desc details summary footer
    """.split()
)
ATTRIBUTES = set(
    """
    lang charset http-equiv content name href class datetime id scope data-label open role
    aria-label aria-labelledby aria-hidden focusable viewBox preserveAspectRatio x y width height rx cx cy r d
    """.split()
)
LIMITS = thresholds.parse(fleets.THRESHOLDS)


def rendered(results: Any, limits: Any = None, **more: Any) -> str:
    limits = LIMITS if limits is None else limits
    return page.render(report(results, limits, gathered=fleets.GATHERED, origin="gateways", **more), "report.json")


def read(text: str) -> ET.Element:
    first, _newline, rest = text.partition("\n")
    assert first == "<!DOCTYPE html>"
    return ET.fromstring(rest)


def words_of(element: ET.Element) -> str:
    return " ".join(" ".join(element.itertext()).replace("\u202f", " ").split())


def section(tree: ET.Element, name: str) -> ET.Element | None:
    return tree.find(f".//section[@aria-labelledby='{name}']")


SIZES = (0, 1, 2, 20, 300)


@pytest.fixture(scope="module")
def pages() -> dict[int, ET.Element]:
    return {size: read(rendered(fleets.results(size))) for size in SIZES}


@pytest.fixture(params=SIZES)
def tree(request: pytest.FixtureRequest, pages: dict[int, ET.Element]) -> ET.Element:
    return pages[request.param]


# Harmless


def check_harmless(tree: ET.Element) -> None:
    for element in tree.iter():
        assert element.tag in ELEMENTS, element.tag
        assert set(element.attrib) <= ATTRIBUTES, element.attrib
        assert re.match(r"#|\./", element.attrib.get("href", "#")), element.attrib


def test_page_loads_nothing_and_runs_nothing(tree: ET.Element) -> None:
    check_harmless(tree)
    assert "url(" not in (tree.findtext(".//style") or "")
    assert "@import" not in (tree.findtext(".//style") or "")


def test_policy_allows_only_the_style_of_the_page(tree: ET.Element) -> None:
    policy = tree.find(".//meta[@http-equiv='Content-Security-Policy']")
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256((tree.findtext(".//style") or "").encode()).digest()).decode()
    assert policy.attrib["content"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = tree.find("head")
    assert head is not None
    assert list(head).index(policy) < [child.tag for child in head].index("style")


ATTACKS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>",
    "]]>--><svg/onload=alert(1)>",
    "&lt;b&gt;",
    "{{ lookup('pipe', 'id') }}",
    "{% raw %}",
    "\x00\x1b[31m\u202e\ud800\ufffe",
    "javascript:alert(1)",
    "x" * 100000,
)
NASTY = st.sampled_from(ATTACKS) | st.text(max_size=20)
NUMBERS = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from([10**400, -1, True, float("nan"), float("inf"), "17", None])
)
ANYTHING = st.recursive(
    NUMBERS | NASTY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NASTY | st.integers(), inner, max_size=4),
    max_leaves=12,
)
MAP = st.dictionaries(NASTY | st.sampled_from(["tcp", "udp", "0", "other"]), NUMBERS, max_size=5) | ANYTHING
ROW = st.dictionaries(
    st.sampled_from(["address", "protocol", "port", "source", "destination", "flows", "bytes"]), NASTY | NUMBERS
)
DECIDED = st.fixed_dictionaries(
    {"verdict": st.sampled_from(["refused", "nat_changed", "uncertain", "unchanged"]) | NASTY, "entries": NUMBERS},
    optional={
        "rule": st.dictionaries(st.sampled_from(["family", "table", "chain", "handle", "comment"]), NASTY | NUMBERS)
        | ANYTHING,
        "reason": NASTY | ANYTHING,
    },
)
STALE = st.fixed_dictionaries(
    {
        "verdicts": st.fixed_dictionaries(dict.fromkeys(metrics.VERDICTS, NUMBERS | st.integers(0, 9))) | MAP,
        "rules": st.lists(DECIDED, max_size=4) | ANYTHING,
    }
)
RANKING = st.fixed_dictionaries(
    {}, optional={"by_flows": st.lists(ROW, max_size=4), "by_bytes": st.lists(ROW, max_size=4) | ANYTHING}
)
FACTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("count", "max", "usage_percent", "matched"), NUMBERS | st.integers(0, 300000)),
        **dict.fromkeys(("by_family", "by_protocol", "by_zone", "by_mark", "nat", "status"), MAP),
        "by_state": st.dictionaries(NASTY, MAP, max_size=4) | ANYTHING,
        "top": st.dictionaries(st.sampled_from(["sources", "destinations", "services", "pairs"]), RANKING) | ANYTHING,
        "statistics": st.fixed_dictionaries({"total": st.dictionaries(st.sampled_from(["drop", "error"]), NUMBERS)})
        | ANYTHING,
        "settings": st.fixed_dictionaries({"max": NUMBERS, "accounting": NUMBERS, "timeouts": MAP}) | ANYTHING,
        "expectations": MAP,
        "stale": STALE | ANYTHING,
    },
)
RESULT = (
    FACTS.map(lambda facts: {"ansible_facts": {"conntrack": facts}})
    | st.fixed_dictionaries({"failed": st.just(True), "msg": ANYTHING})
    | ANYTHING
)


@given(st.dictionaries(NASTY, RESULT, max_size=4), NASTY)
@example({attack: {"failed": True, "msg": attack} for attack in ATTACKS}, ATTACKS[0])
def test_page_is_harmless_for_any_data_of_hosts(results: Any, title: str) -> None:
    before = copy.deepcopy(results)
    document = report(results, LIMITS, title=title, origin=title)
    text = page.render(document, "report.json")
    tree = read(text)
    check_harmless(tree)
    assert "\u202e" not in text
    assert tree.findtext(".//h1") == document["title"]
    json.loads(json.dumps(document, allow_nan=False))
    ET.fromstring(junit.render(document))
    text.encode()
    assert repr(results) == repr(before)


def test_html_and_xml_parsers_find_the_same_elements() -> None:
    text = rendered({attack: {"failed": True, "msg": attack} for attack in ATTACKS})
    found: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            found.append(tag)

    Reader(convert_charrefs=True).feed(text)
    assert found == [element.tag for element in read(text).iter()]


def test_page_is_small_for_large_data_of_a_host() -> None:
    long = "a.b" * 10**6
    many = {f"{long[:50]}{place}": 1 for place in range(20000)}
    rows = [{"address": long, "protocol": long, "port": long, "source": long, "destination": long, "flows": 9}] * 10**5
    facts = {
        **fleets.facts(random.Random(1)),
        **dict.fromkeys(("by_family", "by_protocol", "by_zone", "by_mark", "nat", "status"), many),
        "by_state": {f"p{place}": many for place in range(50)},
        "top": {
            name: {"by_flows": rows, "by_bytes": rows} for name in ("sources", "destinations", "services", "pairs")
        },
        "settings": {"timeouts": many},
        "snat_ports": [
            {
                **dict.fromkeys(metrics.PORT_USE, long),
                "used": place,
                "limit": 64512,
                "sources": [{"address": long, "ports": 1}] * 1000,
            }
            for place in range(20000)
        ],
        "stale": {
            "verdicts": dict.fromkeys(metrics.VERDICTS, 10**6),
            "rules": [
                {
                    "verdict": "refused",
                    "rule": {**dict.fromkeys(("family", "table", "chain"), long), "handle": place},
                    "reason": long,
                    "entries": 9,
                }
                for place in range(20000)
            ],
        },
    }
    results = {
        **fleets.results(3),
        "hostile": {"ansible_facts": {"conntrack": facts}},
        long: {"failed": True, "msg": long},
    }
    assert len(rendered(results)) < 215_000


# Complete


@pytest.mark.parametrize(
    ("size", "most"), [(0, 20_000), (1, 60_000), (20, 300_000), (300, 3_500_000), (2000, 7_000_000)]
)
def test_size_of_the_page(size: int, most: int) -> None:
    assert 5000 < len(rendered(fleets.results(size))) < most


def test_every_host_is_on_the_page_once(pages: dict[int, ET.Element]) -> None:
    tree = pages[300]
    names = set(fleets.results(300))
    fill, by_host = section(tree, "fill"), section(tree, "hosts")
    assert fill is not None
    assert by_host is not None
    rows = fill.findall(".//table[@class='hosts stacks']/tbody/tr")
    assert sorted(words_of(row[0]).partition(" ")[0] for row in rows) == sorted(names)
    assert sorted(words_of(heading) for heading in by_host.iter("h3")) == sorted(names)


def test_links_have_targets_and_ids_are_unique(tree: ET.Element) -> None:
    identifiers = [element.attrib["id"] for element in tree.iter() if "id" in element.attrib]
    assert len(identifiers) == len(set(identifiers))
    targets = {element.attrib["href"][1:] for element in tree.iter("a") if element.attrib["href"].startswith("#")}
    assert targets <= set(identifiers)
    labels = {element.attrib["aria-labelledby"] for element in tree.iter() if "aria-labelledby" in element.attrib}
    assert labels <= set(identifiers)


def test_most_urgent_host_is_first_with_its_reason(pages: dict[int, ET.Element]) -> None:
    tree = pages[20]
    attention = section(tree, "attention")
    assert attention is not None
    first = attention.find(".//ol/li")
    assert first is not None
    assert words_of(first).startswith("Critical core-003.waw.example.net The table is 90.7 % full")
    main = tree.find(".//main")
    assert main is not None
    assert main[0] is attention
    header = tree.find(".//header")
    assert header is not None
    assert "4 of 20 hosts need attention now." in words_of(header)


def test_page_of_one_host_contains_all_facts(pages: dict[int, ET.Element]) -> None:
    shown_text = words_of(pages[1])
    for words in (
        *("Nothing needs attention", "10.6 % full: 6,919 of 65,536 entries", "tcp established", "source NAT"),
        *("Sources by flows", "Sources by bytes", "Services by flows", "tcp 443 https", "insert_failed", "early_drop"),
        *("2026-03-14 09:26 UTC", "gateways", "report.json", "tcp_established 5 d", "accounting yes"),
    ):
        assert words in shown_text, words


def test_a_table_with_few_entries_is_not_shown_as_empty() -> None:
    results = fleets.results(2)
    for result, count in zip(results.values(), (0, 7), strict=True):
        result["ansible_facts"]["conntrack"].update(count=count, max=2_200_000)
    fill = section(read(rendered(results)), "fill")
    assert fill is not None
    few, none = (words_of(row) for row in fill.findall(".//tbody/tr"))
    assert re.search(r"net < 0\.1 % 7 2,200,000 ", few)
    assert re.search(r"net 0 % 0 2,200,000 ", none)


# SNAT ports


def test_highest_use_of_snat_ports_is_first_with_its_host() -> None:
    results = fleets.results(3)
    for place, result in enumerate(results.values(), start=1):
        result["ansible_facts"]["conntrack"]["snat_ports"] = [
            {
                "address": "198.51.100.1",
                "destination": "203.0.113.9",
                "destination_port": 443,
                "protocol": "tcp",
                "used": 10 * place,
                "limit": 100,
                "sources": [{"address": f"10.0.0.{place}", "ports": 5 * place}] if place > 1 else [],
            }
        ]
    assert section(read(rendered(fleets.results(3))), "snat_ports") is None
    tree = read(rendered(results))
    check_harmless(tree)
    names = [element.attrib.get("aria-labelledby") for element in tree.iter("section")]
    assert names.index("snat_ports") == names.index("fill") + 1
    ports = section(tree, "snat_ports")
    assert ports is not None
    hosts = list(results)
    assert [words_of(row).replace("\u202f", " ") for row in ports.findall(".//tbody/tr")] == [
        f"198.51.100.1 203.0.113.9 tcp 443 30.0 % 30 100 10.0.0.3 15 {hosts[2]}",
        f"198.51.100.1 203.0.113.9 tcp 443 20.0 % 20 100 10.0.0.2 10 {hosts[1]}",
        f"198.51.100.1 203.0.113.9 tcp 443 10.0 % 10 100 {hosts[0]}",
    ]


# Stale flows


def of_judged(*names: str, **results: Any) -> ET.Element:
    """Return the page for hosts that have judged their flows, with only these facts."""
    for result in results.values():
        facts = result.get("ansible_facts", {}).get("conntrack", {})
        for name in set(facts) - {"stale", *names}:
            del facts[name]
    return read(rendered(results, {}))


def rows_of(tree: ET.Element, caption: str) -> list[str]:
    stale = section(tree, "stale")
    assert stale is not None
    (table,) = [table for table in stale.iter("table") if words_of(table[0]) == caption]
    return [words_of(row) for row in table.findall("tbody/tr")]


def test_stale_flows_are_shown_if_flows_were_judged(pages: dict[int, ET.Element]) -> None:
    assert all(section(tree, "stale") is None for tree in pages.values())
    tree = read(rendered(fleets.results(20, judged=True)))
    check_harmless(tree)
    names = [element.attrib.get("aria-labelledby") for element in tree.iter("section")]
    assert names == ["attention", "thresholds", "stale", "fill", "traffic", "rankings", "counters", "settings", "hosts"]


def test_page_about_stale_flows_omits_missing_facts() -> None:
    tree = of_judged("count", "max", **fleets.results(3, judged=True))
    names = [element.attrib.get("aria-labelledby") for element in tree.iter("section")]
    assert names == ["attention", "stale", "fill", "hosts"]
    header = words_of(tree.findall(".//header")[0])
    assert "Stale flows" in header
    assert "Dropped" not in header
    alone = words_of(of_judged("count", "max", **fleets.results(1, judged=True)))
    assert "in the table" in alone


def test_hosts_and_rules_with_the_most_stale_flows_are_first() -> None:
    def judged(refused: int, *rules: Document) -> Document:
        verdicts = {**dict.fromkeys(metrics.VERDICTS, 0), "unchanged": 100 - refused, "refused": refused}
        return {"ansible_facts": {"conntrack": {"stale": {"verdicts": verdicts, "rules": list(rules)}}}}

    def decided(entries: int, verdict: str = "refused", reason: str | None = None, **rule: Any) -> Document:
        whole = {"family": "inet", "table": "filter", "chain": "forward", "handle": 3, "comment": None, **rule}
        return {"verdict": verdict, "rule": whole if rule else None, "reason": reason, "entries": entries}

    few = judged(1, decided(1, handle=0))
    many = judged(9, decided(8, comment=ATTACKS[0]), decided(1, "uncertain", "limit", handle=9), decided(2))
    tree = of_judged(few=few, many=many, none={"failed": True, "msg": "no TUN device"})
    check_harmless(tree)
    assert rows_of(tree, "Hosts, those with the most stale flows first") == [
        "many (warning) 9.0 % 9 0 0 0 100",
        "few (warning) 1.0 % 1 0 0 0 100",
        "none (critical) not judged" + f" {UNKNOWN}" * 5,
    ]
    assert rows_of(tree, "Rules that decide") == [
        f"inet filter forward, handle 3 {ATTACKS[0]} refused 8 1",
        "no rule decides refused 2 1",
        "inet filter forward, policy refused 1 1",
        "inet filter forward, handle 9 uncertain limit 1 1",
    ]
    assert rows_of(tree, "Verdicts")[:2] == ["refused 10 5.0 %", "NAT changed 0 0 %"]


def of_verdicts(**verdicts: int) -> Document:
    every = {**dict.fromkeys(metrics.VERDICTS, 0), **verdicts}
    return {"ansible_facts": {"conntrack": {"count": 9, "stale": {"verdicts": every, "rules": []}}}}


def test_host_without_judged_flows_is_shown_as_such() -> None:
    tree = of_judged("count", busy=of_verdicts(unchanged=9), idle=of_verdicts())
    assert rows_of(tree, "Hosts, those with the most stale flows first") == [
        "busy 0 % 0 0 0 0 9",
        "idle no flow judged 0 0 0 0 0",
    ]
    assert "No flow was judged, because none matches." in words_of(tree)
    alone = words_of(of_judged("count", idle=of_verdicts()))
    assert "Stale flows 0 no flow was judged" in alone
    assert "No flows were judged, because none match." in alone


# Thresholds


def outcomes_of(results: Any, **limits: float) -> list[str]:
    found = section(read(rendered(results, thresholds.parse(limits))), "thresholds")
    assert found is not None
    return [words_of(row) for row in found.findall(".//tbody/tr")]


def test_a_threshold_is_kept_only_if_its_figure_is_known_on_all_hosts() -> None:
    hosts = {name: of_verdicts(unchanged=9897, refused=103) for name in "abc"}
    without = "hosts_without_facts_above 0 kept " + UNKNOWN
    assert outcomes_of(hosts, refused_percent_above=2, drop_above=0) == [
        "drop_above 0 unknown not known on a and 2 other hosts",
        f"refused_percent_above 2.0 % kept {UNKNOWN}",
        without,
    ]
    hosts["b"] = of_verdicts()
    assert outcomes_of(hosts, refused_percent_above=2, refused_above=103) == [
        "refused_percent_above 2.0 % unknown not known on b",
        f"refused_above 103 kept {UNKNOWN}",
        without,
    ]
    assert outcomes_of(hosts, refused_percent_above=1) == [
        "refused_percent_above 1.00 % exceeded 2 hosts, most on a with 1.03 %",
        without,
    ]
    unreachable_host = {"a": {"unreachable": True}}
    assert outcomes_of(unreachable_host, drop_above=0, hosts_without_facts_above=1) == [
        "drop_above 0 unknown not known on a",
        f"hosts_without_facts_above 1 kept {UNKNOWN}",
    ]


# Empty states


def facts_without(*names: str, **others: Any) -> Document:
    facts = {**fleets.facts(random.Random(1)), **others}
    return {"gw": {"ansible_facts": {"conntrack": {key: value for key, value in facts.items() if key not in names}}}}


@pytest.mark.parametrize(
    ("results", "expected_text"),
    [
        ({}, "There are no hosts to report on."),
        ({"gw": {"unreachable": True, "msg": "timed out"}}, "It could not be reached: timed out"),
        (facts_without("statistics"), "No counters of the kernel were gathered."),
        (facts_without("max", "usage_percent"), "Its maximum is unknown"),
        (facts_without(matched=0), "No entries were found."),
        (facts_without("top"), "Rankings were not gathered."),
        (facts_without(settings={"accounting": 0}), "Bytes are not counted here: accounting is off."),
    ],
)
def test_missing_facts_are_mentioned(results: Document, expected_text: str) -> None:
    assert expected_text in words_of(read(rendered(results, {})))


def test_page_of_a_host_with_few_facts() -> None:
    tree = read(rendered({"gw": {"ansible_facts": {"conntrack": {"count": 5}}}}, {}))
    assert "5" in words_of(tree)


# Readable


def test_headings_are_in_order(tree: ET.Element) -> None:
    levels = [int(element.tag[1]) for element in tree.iter() if re.fullmatch(r"h[1-6]", element.tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_page_is_accessible_to_screen_readers(tree: ET.Element) -> None:
    for landmark in ("header", "main", "footer"):
        assert len(tree.findall(f"body/{landmark}")) == 1
    assert tree.attrib["lang"] == "en"
    for table in tree.iter("table"):
        caption = table.find("caption")
        assert caption is not None
        assert words_of(caption)
        assert all(heading.attrib.get("scope") in ("row", "col") for heading in table.iter("th"))
        assert all(row[0].tag == "th" for row in table.iter("tr"))
    for drawing in tree.iter("svg"):
        if drawing.attrib.get("aria-hidden") == "true":
            continue
        assert drawing.attrib["role"] == "img"
        assert drawing.attrib["aria-label"]
        assert drawing.findtext("title")


def test_colour_is_never_the_only_indication(tree: ET.Element) -> None:
    """Each level with a colour also has a shape of its own and a word beside it."""
    for item in tree.iter("li"):
        if item.attrib.get("class") in ("critical", "warning"):
            assert words_of(item).startswith(item.attrib["class"].capitalize())
    for cell in (
        cell for table in tree.findall(".//table[@class='hosts stacks']") for cell in table.findall("tbody/tr/th")
    ):
        for drawing in cell.iter("svg"):
            assert f"({drawing.attrib['class'].split()[1]})" in words_of(cell)


def luminance(colour: str) -> float:
    """Return the relative luminance as defined by WCAG 2.2."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def themes() -> dict[str, dict[str, str]]:
    style = read(rendered({})).findtext(".//style") or ""
    blocks = [
        dict(re.findall(r"(--[\w-]+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    light, dark, paper = blocks
    return {"light": light, "dark": {**light, **dark}, "paper": {**light, **paper}}


@pytest.mark.parametrize("name", ["light", "dark", "paper"])
def test_contrast_is_sufficient_in_every_theme(name: str) -> None:
    theme = themes()[name]
    for ink in ("--ink", "--soft", "--accent", "--warning", "--critical"):
        assert contrast(theme[ink], theme["--paper"]) >= 4.5, ink
    for shape in ("--warning-fill", "--critical-fill"):
        assert contrast(theme[shape], theme["--paper"]) >= 2.5, shape


def test_printed_page_has_a_white_background() -> None:
    assert themes()["paper"]["--paper"] == "#fff"


def test_the_same_report_makes_the_same_page() -> None:
    document = report(fleets.results(20), LIMITS)
    assert page.render(document) == page.render(json.loads(json.dumps(document)))
