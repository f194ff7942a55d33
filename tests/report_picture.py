# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write docs/report.png: the top of the report about the sample hosts of tests/unit/support/fleets.py, in Chromium."""

from __future__ import annotations

import hashlib
import importlib
import re
import struct
import sys
import tempfile
import zlib
from pathlib import Path

from tests import browser

FILE = Path(__file__).parents[1] / "docs/report.png"
WIDTH, HEIGHT = 1100, 836
#: The chunk of the picture that contains the digest of the page, and the length of all that precedes it in the file.
CHUNK, START = b"tEXt", 33
KEYWORD = "Page"
COLLECTION = "ansible_collections.netops.conntrack"
REPORT = f"{COLLECTION}.plugins.plugin_utils._report"


def page() -> str:
    """Return the page about the sample hosts."""
    fleets = importlib.import_module(f"{COLLECTION}.tests.unit.support.fleets")
    limits = importlib.import_module(f"{REPORT}.thresholds").parse(fleets.THRESHOLDS)
    results = fleets.results(20, judged=True)
    report = importlib.import_module(f"{REPORT}.model").report
    document = report(results, limits, gathered=fleets.GATHERED, origin="gateways")
    text: str = importlib.import_module(f"{REPORT}.page").render(document, "report.json")
    return text


def digest(text: str) -> str:
    """Return a digest of the parts of the page that the picture shows, with the style sheet."""
    shown, found, _rest = text.partition('<section aria-labelledby="thresholds">')
    if not found:
        raise ValueError("the page has no section 'thresholds'")
    return hashlib.sha256(shown.encode()).hexdigest()


def recorded(picture: bytes) -> str | None:
    """Return the digest of the page that a picture shows. None if the picture does not contain it."""
    found = re.match(rb".{4}tEXtPage\0([0-9a-f]{64})", picture[START:], re.DOTALL)
    return found[1].decode() if found else None


def with_digest(picture: bytes, value: str) -> bytes:
    """Return the picture with the digest of its page."""
    content = CHUNK + f"{KEYWORD}\0{value}".encode()
    chunk = struct.pack(">I", len(content) - len(CHUNK)) + content + struct.pack(">I", zlib.crc32(content))
    return picture[:START] + chunk + picture[START:]


def main() -> None:
    text = page()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, target = folder / "report.html", folder / "report.png"
        source.write_text(text, encoding="utf-8")
        try:
            browser.browse(folder, source, f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={target}")
        except browser.NoBrowser as absent:
            sys.exit(str(absent))
        FILE.write_bytes(with_digest(target.read_bytes(), digest(text)))


if __name__ == "__main__":
    main()
