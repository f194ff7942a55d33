# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Build the program go_client.go, which does the same works with the Go library vishvananda/netlink."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".go")
PACKAGE = "golang-github-vishvananda-netlink-dev"
#: The folder of libraries that are packages of Debian
LIBRARIES = Path("/usr/share/gocode")
MISSING = f"anything by vishvananda/netlink, which is absent (on Debian: apt-get install golang-go {PACKAGE})"


def build(folder: Path) -> str | None:
    """Compile the program into a folder and return its path, None without Go or the library.

    :raises subprocess.CalledProcessError: if the compiler fails.
    """
    if not shutil.which("go") or not (LIBRARIES / "src/github.com/vishvananda/netlink").is_dir():
        return None
    program = str(folder / SOURCE.stem)
    more = {"GO111MODULE": "off", "GOPATH": str(LIBRARIES), "GOCACHE": str(folder / "go"), "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", program, str(SOURCE)], check=True, env={**os.environ, **more})
    return program


def version() -> str | None:
    """Return the version of Debian's package, None if it is not installed."""
    try:
        words = ["dpkg-query", "--show", "--showformat", "${Version}", PACKAGE]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout or None
    except (OSError, subprocess.CalledProcessError):
        return None
