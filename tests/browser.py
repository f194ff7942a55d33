# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open a page in a real browser that has no window and no network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.plays import TIMEOUT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --disable-extensions --hide-scrollbars
    --enable-logging=stderr --virtual-time-budget=3000
""".split()


class NoBrowser(Exception):
    """The machine has no Chromium."""

    def __str__(self) -> str:
        return "chromium is absent (apt-get install chromium)"


def browse(folder: Path, file: Path, *options: str) -> tuple[bytes, str]:
    """Return the output of the browser and of the page's console.

    :param folder: Directory for the profile of the browser.
    :raises NoBrowser: if the machine has no Chromium.
    """
    if CHROMIUM is None:
        raise NoBrowser
    done = subprocess.run(
        [
            "unshare",
            *([] if os.geteuid() == 0 else ["--map-root-user"]),
            "--net",
            CHROMIUM,
            *OPTIONS,
            f"--user-data-dir={folder / 'profile'}",
            *options,
            file.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=TIMEOUT,
        env={**os.environ, "HOME": str(folder)},
    )
    lines = done.stderr.decode(errors="replace").splitlines()
    # The browser's own pages also write to the console
    return done.stdout, "\n".join(line for line in lines if "CONSOLE" in line and "source: chrome://" not in line)
