# SPDX-FileCopyrightText: netops.conntrack contributors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files of the collection's package: those that git tracks, without those that galaxy.yml ignores."""

from __future__ import annotations

import subprocess
import tarfile
from fnmatch import fnmatch
from pathlib import Path

import yaml

#: Files that ansible-galaxy adds to the package.
ADDED = {"MANIFEST.json", "FILES.json"}


def tracked(root: Path) -> list[str]:
    """Return the files that git tracks and that exist."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    return [name for name in listing.split("\0") if name and (root / name).is_file()]


def expected(root: Path) -> set[str]:
    """Return the files that the package must contain."""
    ignored = yaml.safe_load((root / "galaxy.yml").read_text(encoding="utf-8"))["build_ignore"]
    kept = {name for name in tracked(root) if not any(_is_below(name, pattern) for pattern in ignored)}
    return (kept - {"galaxy.yml"}) | ADDED


def packed(tarball: Path) -> set[str]:
    """Return the files in a package."""
    with tarfile.open(tarball) as archive:
        return {member.name for member in archive if not member.isdir()}


def _is_below(name: str, pattern: str) -> bool:
    path = Path(name)
    return any(fnmatch(str(each), pattern) for each in (path, *path.parents))
