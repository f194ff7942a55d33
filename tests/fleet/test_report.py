# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the playbook report on real hosts, and open its page in a real browser."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from ansible_collections.netops.conntrack.plugins.plugin_utils._report import page, thresholds
from ansible_collections.netops.conntrack.plugins.plugin_utils._report.model import report
from ansible_collections.netops.conntrack.tests.unit.support import fleets
from tests import browser
from tests.lab import Namespace
from tests.plays import Controller

Document = dict[str, Any]

# The playbook


@pytest.fixture(scope="module")
def hosts(root: None) -> Iterator[dict[str, Namespace]]:
    """Create two gateways: one with five NATed lookups and a connection with byte counters, one with an empty table."""
    with Namespace("gateway-b") as busy, Namespace("gateway-c") as idle:
        busy.sysctl("nf_conntrack_acct", 1)
        for port in range(1000, 1005):
            flow = f"-p udp -s 10.1.0.2 -d 192.0.2.53 --sport {port} --dport 53 -t 600 --src-nat 198.51.100.1"
            busy.conntrack("-I", *flow.split())
        flow = "-p tcp -s 10.1.0.3 -d 192.0.2.80 --sport 1 --dport 443 -t 600 --state ESTABLISHED"
        busy.conntrack("-I", *flow.split())
        yield {"gateway-b": busy, "gateway-c": idle}


class Outcome:
    """The result of a run of the playbook, and its files."""

    def __init__(self, folder: Path, status: int, printed: str) -> None:
        self.status = status
        self.printed = printed
        self.page = (folder / "report.html").read_text() if (folder / "report.html").exists() else ""
        self.document: Document = json.loads((folder / "report.json").read_text()) if self.page else {}
        self.junit = ET.parse(folder / "report.xml").getroot()[0] if (folder / "report.xml").exists() else None

    def cases(self, outcome: str) -> list[tuple[str, str]]:
        assert self.junit is not None
        return [
            (case.attrib["classname"], case.attrib["name"]) for case in self.junit if case.find(outcome) is not None
        ]


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Controller:
    return Controller(tmp_path_factory.mktemp("controller"))


def play(controller: Controller, hosts: dict[str, Namespace], folder: Path, *options: str, **more: Any) -> Outcome:
    """Run the playbook. The first host does not exist, so that Ansible must continue with the others."""
    inventory = {
        "gateway-a": {"ansible_netns_name": "/proc/1/ns/nonesuch"},
        **{name: {"ansible_netns_name": host.path} for name, host in hosts.items()},
        "gateway-d": {"ansible_netns_name": hosts["gateway-c"].path, "ansible_netns_nsenter": UNPRIVILEGED},
    }
    files = {
        "conntrack_report_path": str(folder / "report.html"),
        "conntrack_report_junit_path": str(folder / "report.xml"),
    }
    return Outcome(folder, *controller.play("report", inventory, *options, **files, **more))


UNPRIVILEGED = "setpriv --bounding-set=-net_admin nsenter"


@pytest.fixture(scope="module")
def reported(controller: Controller, hosts: dict[str, Namespace], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    limits = {"count_above": 5, "drop_above": 0, "hosts_without_facts_above": 2}
    return play(
        controller,
        hosts,
        tmp_path_factory.mktemp("reported"),
        conntrack_report_title="Gateways",
        conntrack_fail_when=limits,
    )


def test_page_shows_the_facts_of_real_hosts(reported: Outcome) -> None:
    busy = next(host for host in reported.document["hosts"] if host["name"] == "gateway-b")
    assert busy["figures"]["by_protocol"] == {"udp": 5, "tcp": 1}
    assert busy["figures"]["nat"] == {"source": 5, "none": 1, "destination": 0}
    assert busy["figures"]["top"]["services"]["by_flows"][0] == {
        "protocol": "udp",
        "port": "53",
        "flows": 5,
        "bytes": 0,
    }
    assert busy["figures"]["statistics"]["drop"] == 0
    assert busy["figures"]["max"] >= 6
    shown_text = " ".join(re.sub(r"<[^>]*>", " ", reported.page).split())
    for words in ("Gateways", "udp 53", "10.1.0.2", "source NAT", "tcp established", "6 entries on 2 hosts"):
        assert words in shown_text, words
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", reported.document["gathered"])


def test_unreachable_and_failed_hosts_are_reported(reported: Outcome) -> None:
    missing = {host["name"]: host["reasons"][0] for host in reported.document["hosts"] if host["figures"] is None}
    assert sorted(missing) == ["gateway-a", "gateway-d"]
    assert "There is no network namespace" in missing["gateway-a"]["text"]
    assert missing["gateway-a"]["about"] == "unreachable"
    assert "CAP_NET_ADMIN" in missing["gateway-d"]["text"]
    assert html.escape(missing["gateway-d"]["text"], quote=True) in reported.page


def test_exceeded_threshold_fails_the_run_and_names_the_host(reported: Outcome) -> None:
    assert reported.status != 0
    assert "Threshold exceeded: count_above (limit 5), 6 on gateway-b." in reported.printed
    assert reported.cases("failure") == [("gateway-b", "count_above")]
    assert reported.cases("error") == []
    assert sorted(reported.cases("skipped")) == [("gateway-a", "facts"), ("gateway-d", "facts")]


def test_check_mode_writes_no_file_and_succeeds_without_thresholds(
    controller: Controller, hosts: dict[str, Namespace], tmp_path: Path
) -> None:
    outcome = play(controller, hosts, tmp_path, "--check", "--diff")
    assert outcome.status == 0
    assert list(tmp_path.iterdir()) == []
    for name in ("report.html", "report.json", "report.xml"):
        assert f"+++ after: {tmp_path / name}" in outcome.printed
    assert re.search(r"changed=1 ", outcome.printed)


def test_relative_path_starts_at_the_working_directory(
    controller: Controller, hosts: dict[str, Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inventory = {name: {"ansible_netns_name": host.path} for name, host in hosts.items()}
    status, printed = controller.play(
        "report", inventory, conntrack_report_path="here/page.html", conntrack_match={"source": "10.1.0.3"}
    )
    assert status == 0
    shown = printed.partition("TASK [Show the files of the report]")[2]
    assert re.findall(r'"(/.+)"', shown.partition("PLAY RECAP")[0]) == [
        f"{tmp_path}/here/page.{kind}" for kind in ("html", "json")
    ]
    document = json.loads((tmp_path / "here/page.json").read_text())
    assert document["fleet"]["by_protocol"] == {"tcp": 1}


# The page, in a browser

DARK = "--blink-settings=preferredColorScheme=0"


def browse(folder: Path, file: Path, *options: str) -> tuple[bytes, str]:
    """Return the output of the browser and of the page's console."""
    try:
        return browser.browse(folder, file, *options)
    except browser.NoBrowser as absent:
        pytest.skip(str(absent))


def of_size(size: int, judged: bool = False) -> str:
    """Return the page for this number of hosts, with or without judged flows.

    The last host has the longest possible name.
    """
    results = fleets.results(size, judged=judged)
    last, result = results.popitem()
    results[f"{last}.{'x' * 200}"] = result
    document = report(results, thresholds.parse(fleets.THRESHOLDS), gathered=fleets.GATHERED, origin="gateways")
    return page.render(document, "report.json")


#: Examines the page and writes its findings where --dump-dom prints them. The page is in a frame, because a window of
#: the browser is at least 500 pixels wide.
EXAMINE = """
const found = {};
function luminance(colour) {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3)
    .map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(one, other) {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}
function split(page, element) {
  const texts = page.createTreeWalker(element, NodeFilter.SHOW_TEXT), range = page.createRange();
  while (texts.nextNode()) {
    for (const word of texts.currentNode.data.matchAll(/\\S+/g)) {
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(line => line.top)).size > 1) return true;
    }
  }
  return false;
}
function examine(view) {
  const page = view.document, width = page.documentElement.clientWidth;
  const paper = view.getComputedStyle(page.documentElement).backgroundColor;
  const shown = [...page.body.querySelectorAll('*')].filter(one => one.checkVisibility && one.checkVisibility());
  const texts = shown.filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const hidden = one => one.closest('.hidden, .skip, .unnamed > caption, .stacks > thead');
  const faint = texts.filter(one => !hidden(one) && contrast(view.getComputedStyle(one).color, paper) < 4.5);
  const beyond = shown.filter(one => !hidden(one) && one.getBoundingClientRect().right > width + 1);
  const small = texts.filter(one => !hidden(one) && parseFloat(view.getComputedStyle(one).fontSize) < 10);
  const headings = shown.filter(one => one.matches('thead th') && !hidden(one) && split(page, one));
  const name = one => one.tagName + '.' + (one.getAttribute('class') || '') + ' ' + one.textContent.slice(0, 40);
  return {
    width, paper,
    overflow: page.documentElement.scrollWidth - width,
    beyond: beyond.slice(0, 5).map(name), faint: faint.slice(0, 5).map(name), small: small.slice(0, 5).map(name),
    split: headings.slice(0, 5).map(name),
    texts: texts.length,
    bars: shown.filter(one => one.matches('svg.bar, svg.gauge') && one.getBoundingClientRect().width < 20).length,
    styled: view.getComputedStyle(page.querySelector('.tiles') || page.body).display,
    requests: view.performance.getEntriesByType('resource').map(entry => entry.name),
  };
}
async function main() {
  for (const width of [1200, 320]) {
    const frame = document.createElement('iframe');
    frame.width = width; frame.height = 900;
    frame.srcdoc = PAGE;
    const loaded = new Promise(done => frame.addEventListener('load', done));
    document.body.append(frame);
    await loaded;
    found[width] = examine(frame.contentWindow);
    const folded = frame.contentDocument.querySelectorAll('details');
    if (folded.length < 100) {
      for (const details of folded) details.open = true;
      found[width + ' unfolded'] = examine(frame.contentWindow);
    }
    frame.remove();
  }
  const examination = document.createElement('pre');
  examination.id = 'found';
  examination.textContent = JSON.stringify(found);
  document.body.append(examination);
}
main();
"""


def examined(folder: Path, text: str, *options: str) -> dict[str, Document]:
    """Return the findings of the script, for the page wide and narrow, folded and unfolded."""
    script = EXAMINE.replace("PAGE", json.dumps(text).replace("<", "\\u003c"))
    file = folder / "examined.html"
    scheme = '<meta name="color-scheme" content="light dark">'
    file.write_text(f'<!DOCTYPE html><meta charset="utf-8">{scheme}<body><script>{script}</script></body>')
    printed, console = browse(folder, file, "--dump-dom", *options)
    assert console == ""
    match = re.search(r'<pre id="found">(.*?)</pre>', printed.decode(), re.DOTALL)
    assert match, printed[-2000:]
    found: dict[str, Document] = json.loads(html.unescape(match[1]))
    return found


@pytest.mark.parametrize(
    ("size", "theme", "judged"), [(1, DARK, False), (20, "", True), (20, DARK, True), (300, "", False)]
)
def test_page_is_readable_in_each_width_and_theme(tmp_path: Path, size: int, theme: str, judged: bool) -> None:
    found = examined(tmp_path, of_size(size, judged), *filter(None, [theme]))
    assert set(found) == {"1200", "320"} | ({"1200 unfolded", "320 unfolded"} if size < 100 else set())
    for name, examination in found.items():
        assert examination["width"] == int(name.split()[0])
        assert examination["styled"] == "grid", "the policy must allow the style of the page"
        assert (examination["paper"] == "rgb(20, 25, 29)") == (theme == DARK)
        assert examination["texts"] > 50
        assert (examination["overflow"], examination["beyond"]) == (0, []), name
        assert examination["faint"] == [], name
        assert examination["small"] == [], name
        assert examination["split"] == [], f"{name}: a word of a heading is on two lines"
        assert examination["bars"] == 0, name
        assert examination["requests"] == [], name


def test_page_opens_without_errors_and_without_a_network(tmp_path: Path) -> None:
    """The browser opens the original page, whose console would show each violation of its policy."""
    file = tmp_path / "report.html"
    file.write_text(of_size(20))
    printed, console = browse(tmp_path, file, "--dump-dom", f"--screenshot={tmp_path / 'page.png'}")
    assert console == ""
    assert "core-003.waw.example.net" in printed.decode()
    assert "<script" not in printed.decode()


def test_policy_blocks_injected_markup(tmp_path: Path) -> None:
    """If markup of a host did reach the page, the policy would prevent its execution."""
    file = tmp_path / "report.html"
    attack = (
        "<script>document.title = 'taken'</script><img src=http://192.0.2.1/x onerror=\"document.title = 'taken'\">"
    )
    file.write_text(of_size(1).replace("<main>", f"<main>{attack}"))
    printed, console = browse(tmp_path, file, "--dump-dom")
    assert "<title>taken" not in printed.decode()
    assert "Content Security Policy" in console


@pytest.mark.thorough
@pytest.mark.parametrize(("size", "least", "most"), [(20, 3, 8), (300, 4, 12)])
def test_page_prints_on_few_sheets(tmp_path: Path, size: int, least: int, most: int) -> None:
    """Three hundred hosts must not fill a thousand sheets."""
    file, target = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(of_size(size))
    browse(tmp_path, file, f"--print-to-pdf={target}", "--no-pdf-header-footer")
    assert least <= len(re.findall(rb"/Type\s*/Page\b", target.read_bytes())) <= most
